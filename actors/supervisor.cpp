#include "actors/supervisor_state.hpp"

#include <algorithm>

#include <unistd.h>

#include <fmt/format.h>

#include "base/log.hpp"

namespace qs::actors {
namespace {

using namespace std::chrono_literals;

constexpr auto providers_every = 30s;
constexpr auto inspect_every = 1s;
constexpr auto summary_every = 10s;

/// A connection is kept for every node that may still hold something of ours.
bool wants_link(const model::recorded_node& row) {
  using model::node_state;
  if (!row.where.valid() || row.identity.empty()) return false;
  switch (row.state) {
  case node_state::planned:
  case node_state::reserving:
  case node_state::deploying:
  case node_state::gone:
    return false;
  default:
    return true;
  }
}

} // namespace

supervisor_actor::behavior_type supervisor_state::make_behavior() {
  started = config.shared->time->wall();
  auto me = supervisor_actor{self};
  mount_config m;
  m.shared = config.shared;
  m.blocking = config.blocking;
  m.port = config.port;
  m.work = config.work;
  m.note = [me](note_event e) { caf::anon_send(me, std::move(e)); };
  m.unmounted = [me] {
    caf::anon_send(me, note_event{"warning", "Unmounted", "mount",
                                  "the mount was ended from outside; it is mounted again"});
  };
  mount_ = make_mount(self->system(), std::move(m));
  payment_ = make_payment(self->system(), {config.shared, config.blocking, [me](note_event e) {
                                             caf::anon_send(me, std::move(e));
                                           }});
  start_monitor();
  start_repair();
  self->set_down_handler([this](const caf::down_msg& down) { child_down(down); });
  self->monitor(mount_);
  self->monitor(payment_);
  self->monitor(config.dispersal);
  self->monitor(config.blocking);
  load_recorded();
  caf::delayed_anon_send(me, config.pass_interval, tick{});
  return {
      [this](tick) {
        poked = false;
        if (stopping) return;
        caf::delayed_anon_send(supervisor_actor{self}, config.pass_interval, tick{});
        pass();
      },
      [this](const monitor_round& r) { take_round(r); },
      [this](link_atom, const link_report& r) { self->send(monitor_, link_atom_v, r); },
      [this](note_event& e) { note(e.level, e.kind, e.subject, e.message); },
      [this](const control_request& r) { return command(r); },
      [this](const stop_all& order) { return stop(order.destroy); },
  };
}

void supervisor_state::start_monitor() {
  auto me = supervisor_actor{self};
  monitor_config w;
  w.shared = config.shared;
  w.report = [me](monitor_round r) { caf::anon_send(me, std::move(r)); };
  w.doubt = [mount = mount_](doubt_node d) { caf::anon_send(mount, d); };
  w.note = [me](note_event e) { caf::anon_send(me, std::move(e)); };
  monitor_ = make_monitor(self->system(), std::move(w));
  self->monitor(monitor_);
  watch_pace pace;
  if (desired) {
    pace.interval = desired->monitor.interval;
    pace.quorum = static_cast<std::uint32_t>(desired->storage.data_shards);
    self->send(monitor_, pace);
  }
  for (const auto& [node, l] : links) self->send(monitor_, attach_atom_v, node, l.actor);
}

void supervisor_state::start_repair() {
  repair_ = make_repair(self->system(), {mount_});
  self->monitor(repair_);
}

/// control.md, 7: what keeps no promise to anyone is started again alone; what does ends the
/// engine, and the watcher starts it from the log and the state.
void supervisor_state::child_down(const caf::down_msg& down) {
  if (stopping) return;
  auto is = [&](const auto& actor) { return down.source == actor.address(); };
  if (is(monitor_)) {
    log::error("supervisor", "the monitor failed and is started again");
    return start_monitor();
  }
  if (is(repair_)) {
    log::error("supervisor", "repair failed and is started again");
    return start_repair();
  }
  for (auto it = reservations.begin(); it != reservations.end(); ++it)
    if (is(it->second)) {
      // Its open request answers with an error; the next order starts a new one from the intent.
      reservations.erase(it);
      return;
    }
  for (auto it = links.begin(); it != links.end(); ++it)
    if (is(it->second.actor)) {
      self->send(config.dispersal, detach_atom_v, it->first);
      self->send(monitor_, detach_atom_v, it->first);
      links.erase(it);
      return poke(); // a pass attaches a new one
    }
  if (!is(mount_) && !is(payment_) && !is(config.dispersal) && !is(config.blocking))
    return; // one that was sent away
  log::error("supervisor", "a part that must not fail has failed: the engine starts again");
  fail_engine();
}

// -- the recorded state
// ----------------------------------------------------------------------------------------------

loaded_state look_at_state(state::store& store) {
  return {store.load(), store.open_intents(), store.sealed_references(),
          store.note(machines_note)};
}

void supervisor_state::load_recorded() {
  on_state([store = config.shared->store.get()] { return look_at_state(*store); },
           [this](loaded_state l) {
             take_state(std::move(l));
             poke();
           });
}

/// Jobs on the state lane keep their order and so do their answers: what arrives here is never
/// older than what memory holds.
void supervisor_state::take_state(loaded_state l) {
  if (!l.state.ok()) return state_failed(l.state.err());
  if (!l.intents.ok()) return state_failed(l.intents.err());
  if (!l.sealed.ok()) return state_failed(l.sealed.err());
  open_intents = std::move(*l.intents);
  if (!l.machines.ok()) return state_failed(l.machines.err());
  references = open_references(config.shared->keys, *l.sealed);
  machines = open_machines(config.shared->keys, l.machines->value_or(""));
  apply_recorded(std::move(*l.state));
}

void supervisor_state::apply_recorded(model::recorded fresh) {
  recorded = std::move(fresh);
  loaded = true;
  if (!recorded.accepted || (desired && accepted_generation == recorded.accepted->generation))
    return configure_grids();
  auto parsed = spec::load(recorded.accepted->text, spec::fixed_environment{references});
  if (!parsed.spec) {
    note("error", "SpecUnreadable", "spec",
         "the accepted storage.yaml cannot be read by this version");
    return;
  }
  accepted_generation = recorded.accepted->generation;
  desired = std::move(parsed.spec);
  configure_grids();
  providers_at = boot_time{std::chrono::hours{-1}}; // others may be asked now
  decided.reset(); // it was about the spec before, and a status must not pass it off as this one's
  watch_pace pace;
  pace.interval = desired->monitor.interval;
  pace.quorum = static_cast<std::uint32_t>(desired->storage.data_shards);
  self->send(monitor_, pace);
  self->send(mount_, change_capacity{desired->storage.capacity});
  tell_budget();
  serve_status();
}

void supervisor_state::configure_grids() {
  auto& w = *config.shared;
  w.providers.use(grids_of(desired ? &*desired : nullptr, recorded));
  if (!w.hosts) return;
  auto now = desired ? machines_of(*desired) : std::vector<grid::hosts_machine>{};
  w.hosts->configure(with_former(std::move(now), machines));
}

void supervisor_state::serve_status() {
  if (!config.listen) return;
  auto address = desired && desired->status ? desired->status->listen : std::string{};
  run_blocking<status>(
      self, config.blocking, lane::provider, "listen", 30s,
      [listen = config.listen, address] { return listen(address); },
      [this](status how) {
        listen_problem = how.ok() ? std::string{} : describe(how.err());
        if (!how.ok()) note("warning", "StatusNotServed", "status", listen_problem);
      },
      [](const error&) {});
}

/// Disk and memory may disagree now: crash-only, the watcher starts the engine again from what is
/// recorded.
void supervisor_state::state_failed(const error& e) {
  log::error("supervisor", "the recorded state failed: {}", describe(e));
  fail_engine();
}

void supervisor_state::fail_engine() {
  stopping = true;
  if (std::exchange(ended, true)) return;
  config.end(1);
}

model::recorded_node* supervisor_state::row(model::node_id node) {
  for (auto& r : recorded.nodes)
    if (r.id == node) return &r;
  return nullptr;
}

// -- observing
// -------------------------------------------------------------------------------------------------------

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
  if (providers_asked || (!stale && now - providers_at < providers_every)) return;
  look_at_providers([] {});
}

std::size_t supervisor_state::under_way() const {
  return busy_nodes.size() + (volume_busy ? 1 : 0) + (mount_busy ? 1 : 0) + (state_busy ? 1 : 0) +
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
      [finish](const error& e) {
        log::warning("supervisor", "the providers did not answer: {}", describe(e));
        finish();
      });
}

/// A node that does not answer: its provider may know more (stopped, gone).
void supervisor_state::inspect_silent() {
  auto now = config.shared->time->boot();
  for (const auto& n : round.nodes) {
    if (n.state != model::reach::silent || busy_nodes.contains(n.id)) continue;
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

// -- links
// -----------------------------------------------------------------------------------------------------------

void supervisor_state::update_connections() {
  for (const auto& r : recorded.nodes) {
    auto found = links.find(r.id);
    if (!wants_link(r)) {
      if (found == links.end()) continue;
      self->send(config.dispersal, detach_atom_v, r.id);
      self->send(monitor_, detach_atom_v, r.id);
      caf::anon_send(found->second.actor, stop_atom_v);
      links.erase(found);
      continue;
    }
    auto insecure = config.shared->may_send_plain(r);
    if (found != links.end() && found->second.insecure != insecure) { // one with the new word follows
      self->send(config.dispersal, detach_atom_v, r.id);
      self->send(monitor_, detach_atom_v, r.id);
      caf::anon_send(found->second.actor, stop_atom_v);
      links.erase(found);
      found = links.end();
    }
    if (found != links.end()) {
      if (found->second.where == r.where) continue;
      found->second.where = r.where;
      self->send(found->second.actor, move_to_atom_v, r.where);
      continue;
    }
    connection_config c;
    c.node = r.id;
    c.where = r.where;
    c.insecure = insecure;
    c.password = secret_string{
        config.shared->keys.node_password(config.shared->keys.node_name(r.id, r.incarnation))};
    c.identity_name = config.shared->keys.identity_name(r.id, r.incarnation);
    c.identity = share(r.identity);
    c.listener =
        link_listener_actor{supervisor_actor{self}}; // and on to the monitor that is there then
    c.sockets = config.sockets;
    c.time = config.shared->time;
    c.random = config.shared->random;
    auto actor = config.connect ? config.connect(self->system(), std::move(c))
                                : spawn_connection(self->system(), std::move(c));
    self->send(monitor_, attach_atom_v, r.id, actor);
    self->send(config.dispersal, attach_atom_v, r.id, actor);
    self->monitor(actor);
    links[r.id] = {actor, r.where, insecure};
  }
}

void supervisor_state::tell_budget() {
  if (!desired) return;
  budget b;
  b.max_per_month = desired->payment.max_per_month;
  b.top_up_below = desired->payment.top_up_below;
  // The steady burn: what is accepted, planned nodes included. A node that another one stands in
  // for is overlap, and exempt.
  for (const auto& r : recorded.nodes) {
    using model::node_state;
    if (r.state == node_state::gone || r.state == node_state::replaced ||
        r.state == node_state::draining || r.replaced_by)
      continue;
    b.burn += r.price.units != 0 ? r.price : r.price_limit;
  }
  self->send(payment_, b);
}

void supervisor_state::tell_nodes() {
  change_nodes change;
  for (const auto& r : recorded.nodes) {
    using model::node_state;
    if (r.state == node_state::gone || r.state == node_state::planned ||
        r.state == node_state::reserving)
      continue;
    volume::volume::node_view v;
    v.id = r.id;
    v.limit = r.size;
    v.live = r.state != node_state::lost;
    for (const auto& n : round.nodes)
      if (n.id == r.id) {
        v.reachable = n.state == model::reach::answers;
        v.used = n.used;
        if (n.limit != 0) v.limit = n.limit;
        if (n.state == model::reach::data_lost || n.state == model::reach::access_denied)
          v.live = false;
      }
    change.nodes.push_back(v);
  }
  self->send(mount_, std::move(change));
}

bool supervisor_state::all_gone() const {
  return std::all_of(
      recorded.nodes.begin(), recorded.nodes.end(),
      [](const model::recorded_node& r) { return r.state == model::node_state::gone; });
}

// -- the pass
// --------------------------------------------------------------------------------------------------------

void supervisor_state::pass() {
  if (!loaded || stopping) return;
  if (recorded.destroying && !recorded.volume.created && !volume.open && all_gone())
    return finish_destroy();
  refresh_report();
  refresh_providers();
  update_connections();
  if (!desired) return inspect_silent();
  auto world = observe();
  decided = controller::next_actions(*desired, recorded, world);
  note_conditions();
  for (const auto& step : decided->steps) start_step(step);
  inspect_silent(); // after the steps: asking must not keep a node from what is decided about it
  save_summary();
}

/// Events are for what a person may want to know: not the moments in which a new node was not
/// looked at yet, and not the conditions that merely say that work is going on.
void supervisor_state::note_conditions() {
  static const std::set<std::string> told{"Ready", "Quorum", "Redundant", "Mounted",
                                          "ApprovalNeeded"};
  if (!observe().complete) return;
  auto now = config.shared->time->wall();
  for (const auto& c : decided->conditions) {
    auto& age = condition_since[c.type];
    if (age.status == c.status) continue;
    auto first = age.status.empty();
    age = {c.status, now};
    if (c.reason == "NothingStored") continue; // nothing has happened yet
    if (told.contains(c.type) && (!first || c.status == "Unknown"))
      note(c.status == "True" ? "info" : "warning", "Condition", c.type,
           fmt::format("{} is {}: {}{}{}", c.type, c.status, c.reason,
                       c.message.empty() ? "" : ", ", c.message));
  }
}

/// The summary row is what `diff` and `status` know without an engine; written when it changed, not
/// more often than it is worth.
void supervisor_state::save_summary() {
  auto now = config.shared->time->boot();
  if (!volume.open || !recorded.volume.created || now - summary_at < summary_every) return;
  auto s = recorded.volume;
  s.used_bytes = volume.stats.used_bytes;
  s.bytes_at_risk = volume.stats.bytes_at_risk;
  s.health = volume.view.health;
  s.groups = volume.view.groups;
  auto print = fmt::format("{} {} {} {}", s.used_bytes, s.bytes_at_risk, s.groups.size(),
                           volume.stats.segments);
  summary_at = now;
  if (print == summary_last) return;
  summary_last = print;
  on_state([store = config.shared->store.get(), s] { return store->put_summary(s); },
           [this, s](status how) {
             if (!how.ok()) return state_failed(how.err());
             recorded.volume = s;
           });
}

// -- telling people
// --------------------------------------------------------------------------------------------------

void supervisor_state::note(std::string level, std::string kind, std::string subject,
                            std::string message) {
  if (kind.empty()) { // poke()
    poked = false;
    pass();
    return;
  }
  model::event e;
  e.at = config.shared->time->wall();
  e.level = std::move(level);
  e.kind = std::move(kind);
  e.subject = std::move(subject);
  e.message = std::move(message);
  if (e.level == "error")
    log::error(e.subject, "{}: {}", e.kind, e.message);
  else if (e.level == "warning")
    log::warning(e.subject, "{}: {}", e.kind, e.message);
  else
    log::info(e.subject, "{}: {}", e.kind, e.message);
  e = config.feed->push(std::move(e));
  if (stopping) return;
  on_state([store = config.shared->store.get(), e] { return store->add_event(e); },
           [](status how) {
             if (!how.ok())
               log::warning("supervisor", "an event was not recorded: {}", describe(how.err()));
           });
}

volume::volume_options supervisor_state::volume_options() const {
  volume::volume_options o;
  const auto& opt = config.shared->options;
  o.name = opt.volume;
  o.root = opt.root;
  o.state_directory = opt.state_directory;
  o.cache_directory = opt.cache_directory;
  o.data_shards = static_cast<std::uint8_t>(desired->storage.data_shards);
  o.parity_shards = static_cast<std::uint8_t>(desired->storage.parity_shards);
  o.capacity = desired->storage.capacity;
  if (desired->mount) {
    const auto& m = *desired->mount;
    o.cache_bytes = m.cache.size;
    if (m.cache.path) o.cache_directory = m.cache.path->value;
    o.staging_bytes = m.staging.size;
    if (m.staging.path) o.staging_directory = m.staging.path->value;
  }
  return o;
}

mount_settings supervisor_state::mount_wish() const {
  mount_settings s;
  s.volume_name = config.shared->options.volume;
  if (desired && desired->mount) {
    s.path = desired->mount->path.value;
    s.allow_other = desired->mount->options.allow_other;
    s.writeback = desired->mount->options.writeback;
  }
  return s;
}

status_input supervisor_state::status_of_now() const {
  status_input in;
  in.volume = config.shared->options.volume;
  in.recorded = recorded;
  in.observed = observe();
  in.report = volume;
  in.now = config.shared->time->wall();
  in.pid = static_cast<std::uint64_t>(::getpid());
  in.started = started;
  in.mount_problem = mount_problem;
  in.volume_problem = volume_problem;
  in.under_way = under_way();
  if (decided) in.redundancy_left = decided->redundancy_left;
  in.state = !loaded ? "Unknown" : !desired ? "Stopped" : decided ? decided->state : "Deploying";
  if (decided)
    for (const auto& c : decided->conditions) {
      auto age = condition_since.find(c.type);
      in.conditions.push_back({c, age == condition_since.end() ? wall_time{} : age->second.since});
    }
  if (!edit_waits.empty())
    for (auto& c : in.conditions)
      if (c.what.type == "ApprovalNeeded" && c.what.status == "False")
        c.what = {c.what.type, "True", "EditNeedsPerson", edit_waits};
  if (!listen_problem.empty())
    in.conditions.push_back({{"StatusServed", "False", "AddressInUse", listen_problem}, {}});
  return in;
}

namespace {

supervisor_actor::behavior_type
supervisor(supervisor_actor::stateful_pointer<supervisor_state> self, supervisor_config config) {
  self->state.config = std::move(config);
  return self->state.make_behavior();
}

} // namespace

supervisor_actor make_supervisor(caf::actor_system& system, supervisor_config config) {
  return system.spawn(supervisor, std::move(config));
}

} // namespace qs::actors
