#include "actors/monitor.hpp"

#include <algorithm>
#include <cstdint>
#include <deque>
#include <utility>

#include <caf/all.hpp>

#include "actors/caf_error.hpp"
#include "base/limits.hpp"

namespace qs::actors {
namespace {

/// At most 100 PINGs a second (control.md, 5): so many at a time, and a pause. A round of more nodes than that takes longer,
/// and the next one waits for it.
constexpr std::size_t pings_at_once = 10;
constexpr std::chrono::milliseconds pings_pause{105};
constexpr std::chrono::minutes record_every{5};
constexpr std::chrono::minutes doubted_before{15}; ///< volume.md, 3
constexpr std::chrono::hours forgotten_after{24 * 90}; ///< nodes that are long gone
constexpr std::chrono::milliseconds timer_slack{5}; ///< an alarm by another clock may come a little early

} // namespace

struct monitor_state {
  explicit monitor_state(monitor_actor::pointer p) : self{p} {}

  struct watched {
    connection_actor link;
    link_report last;
    wall_time seen{}; ///< last answer of a node whose identity was right
    model::observed_node view;
    bool asked = false;    ///< a PING of this round is out
    bool answered = false; ///< … and came back
  };

  monitor_actor::behavior_type make_behavior() {
    schedule();
    return {
        [this](link_atom, const link_report& r) { link_changed(r); },
        [this](attach_atom, model::node_id node, const connection_actor& link) {
          auto& w = nodes[node];
          w.link = link;
          w.view.id = node;
          // What it has told already, it has told to a monitor before this one.
          self->request(link, std::chrono::seconds{3}, status_atom_v)
              .then([this](const link_report& r) { link_changed(r); }, [](caf::error&) {});
        },
        [this](detach_atom, model::node_id node) { nodes.erase(node); },
        [this](const watch_pace& p) {
          auto sooner = p.interval < pace.interval;
          pace = p;
          if (sooner) schedule();
        },
        [this](tick) {
          ask_some();
          if (config.shared->time->boot() < next_round) return;
          schedule();
          start_round();
        },
        [this](get_report) -> caf::result<monitor_round> {
          auto answer = self->make_response_promise<monitor_round>();
          waiting.push_back(answer);
          if (outstanding == 0) start_round();
          return answer;
        },
    };
  }

  void schedule() {
    next_round = config.shared->time->boot() + pace.interval;
    caf::delayed_anon_send(monitor_actor{self}, pace.interval, tick{});
  }

  void start_round() {
    if (outstanding > 0) return; // the last one still runs: its answers are as good
    auto now = config.shared->time->boot();
    since_last = last_round == boot_time{} ? boot_time{0} : now - last_round;
    last_round = now;
    // Longer than a round can take: this machine slept. Nobody knows who answered meanwhile, so
    // silence starts anew.
    auto sending = pings_pause * static_cast<std::int64_t>(nodes.size() / pings_at_once);
    if (since_last > 2 * pace.interval + sending + std::chrono::seconds{10}) {
      since_last = boot_time{0};
      for (auto& [node, w] : nodes) w.view.silent_for = {};
    }
    for (auto& [node, w] : nodes) {
      w.asked = true;
      w.answered = false;
      ++outstanding;
      to_ask.push_back(node);
    }
    if (outstanding == 0) return finish_round();
    ask_some();
  }

  /// The next few of the round, unless the last few were just now: also rounds that somebody asked for keep the rate.
  void ask_some() {
    if (to_ask.empty()) return;
    using std::chrono::milliseconds;
    auto now = config.shared->time->boot();
    if (now + timer_slack < next_few) {
      if (!std::exchange(few_due, true)) caf::delayed_anon_send(monitor_actor{self}, next_few - now, tick{});
      return;
    }
    few_due = false;
    next_few = now + pings_pause;
    auto patience = std::clamp(milliseconds{pace.interval}, milliseconds{500}, milliseconds{3000});
    for (std::size_t i = 0; i < pings_at_once && !to_ask.empty(); ++i) {
      auto id = to_ask.front();
      to_ask.pop_front();
      auto found = nodes.find(id);
      if (found == nodes.end()) { // sent away meanwhile
        one_answer(id, false);
        continue;
      }
      self->request(found->second.link, patience, ping_atom_v)
          .then([this, id](caf::ok_atom) { one_answer(id, true); },
                [this, id](caf::error&) { one_answer(id, false); });
    }
    if (to_ask.empty()) return;
    few_due = true;
    caf::delayed_anon_send(monitor_actor{self}, pings_pause, tick{});
  }

  void one_answer(model::node_id node, bool good) {
    if (auto found = nodes.find(node); found != nodes.end()) {
      found->second.answered = good;
      if (good) found->second.seen = config.shared->time->wall();
    }
    if (--outstanding == 0) finish_round();
  }

  void finish_round() {
    std::uint32_t answered = 0;
    for (auto& [node, w] : nodes) answered += w.answered ? 1 : 0;
    for (auto& [node, w] : nodes) {
      update(w);
      if (w.view.state == model::reach::answers)
        w.view.silent_for = {};
      else if (answered >= pace.quorum && w.asked) // not one that came in the middle of the round
        w.view.silent_for += since_last;
      w.asked = false;
    }
    auto round = view(true);
    for (auto& w : waiting) w.deliver(round);
    waiting.clear();
    config.report(round);
    record_sightings();
  }

  /// A new life at once, the times now and then: a time that is too old doubts too much, never too little.
  void record_sightings() {
    if (!config.record) return;
    auto now = config.shared->time->boot();
    bool changed = false;
    for (auto& [node, w] : nodes) {
      if (w.view.state != model::reach::answers || w.last.instance.empty()) continue;
      auto& known = config.known[node];
      changed = changed || known.instance != w.last.instance;
      known = {w.last.instance, w.seen};
    }
    if (!changed && (config.known.empty() || now - recorded_at < record_every)) return;
    recorded_at = now;
    auto wall = config.shared->time->wall();
    std::erase_if(config.known, [&](auto& k) { return k.second.seen + forgotten_after < wall; });
    config.record(config.known);
  }

  void update(watched& w) {
    w.view.used = w.last.used;
    w.view.limit = w.last.limit;
    w.view.detail = w.last.detail;
    switch (w.last.state) {
    case link_state::data_lost:
      w.view.state = model::reach::data_lost;
      return;
    case link_state::access_denied:
      w.view.state = model::reach::access_denied;
      return;
    default:
      w.view.state = w.answered ? model::reach::answers : model::reach::silent;
    }
  }

  /// A link that goes down, stalls or turns out to be another node is told at once; coming up waits for the
  /// next PING.
  void link_changed(const link_report& r) {
    auto found = nodes.find(r.node);
    if (found == nodes.end()) return;
    auto& w = found->second;
    auto before = w.last.state;
    auto same = before == r.state && w.last.stalled == r.stalled;
    auto heard = before != r.state || w.last.last_seen != r.last_seen; // bytes came: what left our queue is no answer
    auto moves_again = before == r.state && w.last.stalled && !r.stalled && heard;
    w.last = r;
    // Another life, or away for a while: what it confirmed shortly before it was last seen is
    // checked again (volume.md, 3).
    auto back =
        r.state == link_state::ready && before != link_state::ready && w.seen != wall_time{};
    // Seen for the first time by this engine, and restarted since the last one saw it.
    auto known = config.known.find(r.node);
    auto other_life = r.state == link_state::ready && w.seen == wall_time{} &&
                      known != config.known.end() && known->second.instance != r.instance;
    if ((r.restarted || back || other_life) && config.doubt) {
      auto seen = other_life ? known->second.seen : w.seen;
      config.doubt({r.node, seen == wall_time{} ? wall_time{} : seen - doubted_before});
    }
    if (r.state != link_state::ready || r.stalled) {
      w.answered = false;
    } else if (heard) {
      w.seen = config.shared->time->wall();
      w.answered = true;
    }
    if (moves_again) w.view.silent_for = {};
    if (same && !r.restarted) return;
    update(w);
    config.report(view(false));
  }

  monitor_round view(bool complete) {
    monitor_round round;
    round.complete = complete;
    for (auto& [node, w] : nodes) round.nodes.push_back(w.view);
    return round;
  }

  monitor_actor::pointer self;
  monitor_config config;
  watch_pace pace;
  std::map<model::node_id, watched> nodes;
  std::size_t outstanding = 0;        ///< of the round under way: asked or to be asked, and no answer yet
  std::deque<model::node_id> to_ask; ///< of the round under way
  boot_time next_few{};
  bool few_due = false; ///< a tick for them is on its way
  boot_time last_round{};
  boot_time next_round{};
  boot_time recorded_at{};
  boot_time since_last{};
  std::vector<caf::typed_response_promise<monitor_round>> waiting;
  static inline const char* name = "qs.monitor";
};

namespace {

monitor_actor::behavior_type monitor(monitor_actor::stateful_pointer<monitor_state> self,
                                     monitor_config config) {
  self->state.config = std::move(config);
  return self->state.make_behavior();
}

} // namespace

monitor_actor make_monitor(caf::actor_system& system, monitor_config config) {
  return system.spawn(monitor, std::move(config));
}

} // namespace qs::actors
