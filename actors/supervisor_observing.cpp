// The supervisor observing: what monitor, providers and volume tell, put together into one look.
#include "actors/supervisor_state.hpp"

#include <algorithm>

#include <fmt/format.h>

#include "base/log.hpp"

namespace qs::actors {
namespace {

using namespace std::chrono_literals;

/// The slow poll of control.md, 5: providers may be far away, and count what they are asked.
constexpr std::chrono::milliseconds providers_every = 30s;
constexpr std::chrono::milliseconds providers_quiet = 15min;
constexpr auto inspect_every = 1s;

} // namespace

void supervisor_state::poke() {
  if (poked || stopping) return;
  poked = true;
  caf::anon_send(supervisor_actor{self}, note_event{}); // an empty note is a pass
}

void supervisor_state::take_round(const monitor_round& r) {
  // A partial view (a link changed) updates what it names; only a full round makes the view
  // complete.
  round.nodes = r.nodes;
  round.complete = round.complete || r.complete;
  round_seen = true;
  for (auto& n : r.nodes)
    if (n.state == model::reach::answers) inspections.erase(n.id);
  tell_nodes();
  poke();
}

model::observed supervisor_state::observe() const {
  model::observed o;
  o.at = config.shared->time->wall();
  o.hosts = hosts;
  o.hosts_known = hosts_known;
  o.grid_trouble = grid_trouble;
  o.strays = strays;
  o.strays_known = strays_known;
  o.wallet = money;
  o.volume = volume.view;
  if (volume.mounted) o.mounted_at = volume.mount_path;
  o.mount_problem = mount_problem;
  o.open_intents = open_intents;
  note_failures(o, recorded);
  o.complete = round.complete || links.empty();
  std::set<model::node_id> seen;
  for (auto n : round.nodes) {
    auto found = inspections.find(n.id);
    if (found != inspections.end() && n.state == model::reach::silent) {
      if (found->second.what == grid::inspection::state::gone) {
        n.state = model::reach::data_lost;
        n.detail = found->second.reason.empty() ? found->second.detail : found->second.reason;
      } else if (found->second.what == grid::inspection::state::stopped) {
        n.stopped = true;
      }
    }
    seen.insert(n.id);
    o.nodes.push_back(n);
  }
  for (const auto& [node, l] : links)
    if (!seen.contains(node)) {
      o.complete = false; // attached since the last round
      model::observed_node unknown;
      unknown.id = node;
      o.nodes.push_back(unknown);
    }
  return o;
}

void supervisor_state::refresh_report() {
  if (report_asked) return;
  report_asked = true;
  self->request(mount_, 30s, get_report{})
      .then(
          [this](volume_report& r) {
            report_asked = false;
            volume = std::move(r);
          },
          [this](caf::error&) { report_asked = false; });
}

void supervisor_state::refresh_providers() {
  auto now = config.shared->time->boot();
  auto stale = node_changes != money_changes; // what was just reserved has its price
  auto quiet = decided && decided->state == "Ready" && decided->steps.empty() && under_way() == 0 &&
               hosts_known && strays_known;
  if (providers_asked || (!stale && now - providers_at < (quiet ? providers_quiet : providers_every)))
    return;
  look_at_providers([] {});
}

bool supervisor_state::ends(model::node_id node) const {
  return decided && decided->ending.contains(node);
}

std::size_t supervisor_state::under_way() const {
  // A node that left, that nothing needs and whose end was not settled at the first try: its machine may be dead for good, and
  // nobody shall wait for that.
  auto waited_for = std::count_if(busy_nodes.begin(), busy_nodes.end(), [this](model::node_id n) {
    return !ends(n) || !open_ends.contains(n);
  });
  return static_cast<std::size_t>(waited_for) + (volume_busy ? 1 : 0) + (mount_busy ? 1 : 0) + (state_busy ? 1 : 0) +
         (node_changes != money_changes ? 1 : 0);
}

void supervisor_state::look_at_providers(std::function<void()> then) {
  waiting_for_providers.push_back(std::move(then));
  if (providers_asked) return;
  providers_asked = true;
  auto finish = [this, seen = node_changes] {
    providers_asked = false;
    money_changes = seen; // also when they did not say: they are asked again in their time
    providers_at = config.shared->time->boot();
    auto waiting = std::move(waiting_for_providers);
    waiting_for_providers.clear();
    for (auto& w : waiting) w();
  };
  run_blocking<grid_look>(
      self, config.blocking, lane::provider, {}, 45s,
      [w = config.shared, known = recorded] {
        status broken;
        auto out = look_at_grids(w->providers.in_use(&broken), w->keys, known);
        if (broken.ok()) return out;
        out.hosts_known = out.strays_known = false;
        out.trouble = describe(broken.err());
        return out;
      },
      [this, finish](grid_look l) {
        hosts = std::move(l.hosts);
        hosts_known = l.hosts_known;
        strays_known = l.strays_known;
        money = l.money;
        strays = std::move(l.strays);
        if (l.trouble != grid_trouble && !l.trouble.empty())
          log::warning("supervisor", "{}", l.trouble);
        grid_trouble = std::move(l.trouble);
        finish();
      },
      [this, finish](const error& e) {
        auto trouble = fmt::format("the grids did not answer in time: {}", describe(e));
        if (trouble != grid_trouble) log::warning("supervisor", "{}", trouble);
        hosts_known = false; // what they listed before may still do
        grid_trouble = std::move(trouble);
        finish();
      });
}

/// A node that does not answer: its provider may know more (stopped, gone).
void supervisor_state::inspect_silent() {
  auto now = config.shared->time->boot();
  for (const auto& n : round.nodes) {
    if (n.state != model::reach::silent || busy_nodes.contains(n.id) || ends(n.id))
      continue;
    auto* r = row(n.id);
    if (r == nullptr || r->state == model::node_state::lost || r->state == model::node_state::gone)
      continue;
    if (auto& at = inspected_at[n.id]; now - at >= inspect_every)
      at = now;
    else
      continue;
    order_node(*r, node_order_message::verb::inspect);
  }
}

} // namespace qs::actors
