#include "actors/mount.hpp"

#include <cstdint>
#include <mutex>
#include <map>
#include <utility>
#include <vector>

#include <caf/all.hpp>

#include <fmt/format.h>

#include "base/log.hpp"

namespace qs::actors {
namespace {

void give(caf::typed_response_promise<done>& promise, done value) { promise.deliver(value); }
void give(caf::typed_response_promise<done>& promise, caf::error why) {
  promise.deliver(std::move(why));
}

constexpr auto volume_deadline = std::chrono::minutes{30}; // replay of a full log on a slow disk

} // namespace

struct mount_state {
  explicit mount_state(mount_actor::pointer p) : self{p} {}

  mount_actor::behavior_type make_behavior() {
    caf::delayed_anon_send(mount_actor{self}, config.tick_interval, tick{});
    return {
        [this](const volume_setup& setup) { return open(setup); },
        [this](const change_groups& change) -> caf::result<done> {
          if (!vol) return not_open();
          if (auto how = vol->set_groups(change.groups); !how.ok()) return to_caf(how.err());
          return done{};
        },
        [this](const change_nodes& change) {
          nodes = change.nodes;
          if (vol) vol->set_nodes(nodes);
        },
        [this](const change_capacity& change) {
          if (vol) vol->set_capacity(change.usable);
        },
        [this](const doubt_node& doubt) {
          if (vol) return vol->unconfirm(doubt.node, doubt.since);
          // Nodes are there before the volume is open: its own doubt waits for it.
          auto [at, fresh] = doubts.try_emplace(doubt.node, doubt.since);
          if (!fresh) at->second = std::min(at->second, doubt.since);
        },
        [this](get_report how) -> caf::result<volume_report> {
          if (!how.durable || !vol) return report();
          return durable_report();
        },
        [this](const do_mount& order) { return mount(order.settings); },
        [this](const do_unmount& order) { return unmount(order.deadline); },
        [this](const do_drain& order) { return drain(order.deadline); },
        [this](drop_caches) { return drop(); },
        [this](repair_some some) {
          if (vol) vol->repair(some.most);
        },
        [this](const close_volume& order) { return close(order); },
        [this](tick) {
          caf::delayed_anon_send(mount_actor{self}, config.tick_interval, tick{});
          if (vol && !closing) vol->tick();
          collect_drains();
        },
    };
  }

  static caf::error not_open() { return to_caf({errc::busy, "the volume is not open"}); }

  // -- opening and closing
  // ----------------------------------------------------------------------------------------

  caf::result<done> open(const volume_setup& setup) {
    if (vol) return done{};
    if (opening || closing) return to_caf({errc::busy, "the volume is being opened or closed"});
    opening = true;
    auto answer = self->make_response_promise<done>();
    volume::volume_environment env;
    env.time = config.shared->time;
    env.random = config.shared->random;
    env.port = config.port;
    env.work = config.work;
    env.note = [note = config.note](std::string_view level, std::string_view kind,
                                    std::string_view message) {
      if (note) note({std::string{level}, std::string{kind}, "volume", std::string{message}});
    };
    struct opened {
      status how;
      std::shared_ptr<volume::volume> v;
    };
    run_blocking<opened>(
        self, config.blocking, lane::volume, {}, volume_deadline,
        [setup, env]() -> opened {
          if (setup.create) {
            auto made = volume::create_volume(setup.options, env);
            if (!made.ok() && made.err().code != errc::already_exists)
              return {std::move(made).err(), nullptr};
          }
          auto v = volume::open_volume(setup.options, env);
          if (!v.ok()) return {std::move(v).err(), nullptr};
          std::shared_ptr<volume::volume> shared{std::move(*v)};
          // Groups that are there were made by an engine that died before it could record them. The
          // nodes may be others by now: those groups stand, and are handed on from what they are.
          if (!setup.groups.empty() && shared->groups().empty())
            if (auto how = shared->set_groups(setup.groups); !how.ok())
              return {std::move(how).err(), nullptr};
          return {{}, std::move(shared)};
        },
        [this, answer](opened o) mutable {
          opening = false;
          if (o.how.ok()) {
            vol = std::move(o.v);
            vol->set_nodes(nodes);
            for (const auto& [node, since] : std::exchange(doubts, {})) vol->unconfirm(node, since);
            if (config.shared->volume_opened) config.shared->volume_opened(vol);
            give(answer, done{});
          } else {
            give(answer, to_caf(o.how.err()));
          }
          close_waiting();
        },
        [this, answer](const error& e) mutable {
          opening = false;
          give(answer, to_caf(e));
          close_waiting();
        });
    return answer;
  }

  /// Whoever asked for the end while the volume was being opened gets it now.
  void close_waiting() {
    auto waiting = std::move(closes);
    closes.clear();
    for (auto& [order, answer] : waiting) close_now(order, answer);
  }

  caf::result<done> close(const close_volume& order) {
    auto answer = self->make_response_promise<done>();
    if (opening)
      closes.emplace_back(order, answer);
    else
      close_now(order, answer);
    return answer;
  }

  void close_now(const close_volume& order, caf::typed_response_promise<done> answer) {
    auto v = std::exchange(vol, nullptr); // nothing more reaches it
    closing = true;
    run_blocking<status>(
        self, config.blocking, lane::volume, {}, volume_deadline,
        [v, order]() -> status {
          if (v) QS_TRY(v->close());
          return order.destroy ? volume::destroy_volume(order.options) : status{};
        },
        [this, answer](status how) mutable {
          closing = false;
          if (!how.ok()) return give(answer, to_caf(how.err()));
          give(answer, done{});
        },
        [this, answer](const error& e) mutable {
          closing = false;
          give(answer, to_caf(e));
        });
  }

  // -- the kernel's side
  // ------------------------------------------------------------------------------------------

  caf::result<done> mount(const mount_settings& settings) {
    auto port = config.shared->options.mount;
    if (!port) return to_caf({errc::unsupported, "this build or machine has no FUSE"});
    if (!vol) return not_open();
    if (port->mounted()) return done{};
    return on_port([port, v = vol, settings,
                    gone = config.unmounted] { return port->start(v->files(), settings, gone); },
                   [this, settings] { mount_path = settings.path.string(); });
  }

  caf::result<done> unmount(std::chrono::milliseconds deadline) {
    auto port = config.shared->options.mount;
    if (!port) return done{};
    return on_port([port, deadline] { return port->stop(deadline); },
                   [this] { mount_path.clear(); });
  }

  template <class Work, class Then>
  caf::result<done> on_port(Work work, Then then) {
    auto answer = self->make_response_promise<done>();
    run_blocking<status>(
        self, config.blocking, lane::volume, {}, volume_deadline, std::move(work),
        [answer, then](status how) mutable {
          if (!how.ok()) return give(answer, to_caf(how.err()));
          then();
          give(answer, done{});
        },
        [answer](const error& e) mutable { give(answer, to_caf(e)); });
    return answer;
  }

  // -- safety and caches
  // ------------------------------------------------------------------------------------------

  caf::result<done> drain(std::chrono::milliseconds deadline) {
    if (!vol) return done{};
    auto answer = self->make_response_promise<done>();
    // The callback comes on a thread of the volume; promises belong to this actor, so the next tick
    // delivers.
    auto token = next_drain++;
    draining.emplace(token, answer);
    vol->drain(deadline, [token, box = results](status how) {
      std::lock_guard lock{box->mutex};
      box->done.emplace_back(token, std::move(how));
    });
    return answer;
  }

  void collect_drains() {
    std::vector<std::pair<std::uint64_t, status>> finished;
    {
      std::lock_guard lock{results->mutex};
      finished.swap(results->done);
    }
    for (auto& [token, how] : finished) {
      auto found = draining.find(token);
      if (found == draining.end()) continue;
      if (how.ok())
        give(found->second, done{});
      else
        give(found->second, to_caf(how.err()));
      draining.erase(found);
    }
  }

  caf::result<done> drop() {
    if (!vol) return not_open();
    auto port = config.shared->options.mount;
    return on_port(
        [port, v = vol]() -> status {
          QS_TRY(v->drop_caches());
          return port && port->mounted() ? port->drop_page_cache() : status{};
        },
        [] {});
  }

  /// Taken first and synced then: the log has all it rests on.
  caf::result<volume_report> durable_report() {
    auto answer = self->make_response_promise<volume_report>();
    run_blocking<status>(
        self, config.blocking, lane::volume, {}, volume_deadline,
        [v = vol] { return v->files().fsync(); },
        [answer, r = report()](status how) mutable {
          if (how.ok())
            answer.deliver(std::move(r));
          else
            answer.deliver(to_caf(how.err()));
        },
        [answer](const error& e) mutable { answer.deliver(to_caf(e)); });
    return answer;
  }

  volume_report report() {
    volume_report r;
    auto port = config.shared->options.mount;
    r.mounted = port && port->mounted();
    r.mount_path = mount_path;
    if (!vol) return r;
    r.open = true;
    r.stats = vol->stats();
    r.view.open = true;
    r.view.usable_bytes = r.stats.usable_bytes;
    r.view.used_bytes = r.stats.used_bytes;
    r.view.bytes_at_risk = r.stats.bytes_at_risk;
    r.view.groups = vol->groups();
    r.view.health = vol->health();
    r.view.indispensable = vol->indispensable();
    r.view.sources = vol->sources();
    return r;
  }

  mount_actor::pointer self;
  mount_config config;
  std::shared_ptr<volume::volume> vol;
  std::vector<volume::volume::node_view> nodes;
  std::map<model::node_id, wall_time> doubts; ///< told before the volume was open: since when
  std::vector<std::pair<close_volume, caf::typed_response_promise<done>>>
      closes; ///< came while opening
  bool opening = false;
  bool closing = false;
  std::string mount_path;
  struct drain_results {
    std::mutex mutex;
    std::vector<std::pair<std::uint64_t, status>> done;
  };
  std::shared_ptr<drain_results> results = std::make_shared<drain_results>();
  std::map<std::uint64_t, caf::typed_response_promise<done>> draining;
  std::uint64_t next_drain = 1;
  static inline const char* name = "qs.mount";
};

namespace {

mount_actor::behavior_type mount(mount_actor::stateful_pointer<mount_state> self,
                                 mount_config config) {
  self->state.config = std::move(config);
  return self->state.make_behavior();
}

} // namespace

mount_actor make_mount(caf::actor_system& system, mount_config config) {
  if (config.shared->detached) return system.spawn<caf::detached>(mount, std::move(config));
  return system.spawn(mount, std::move(config));
}

} // namespace qs::actors
