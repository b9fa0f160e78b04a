#include "actors/repair.hpp"

#include <cstdint>

#include <caf/all.hpp>

namespace qs::actors {

struct repair_state {
  explicit repair_state(repair_actor::pointer p) : self{p} {}

  repair_actor::behavior_type make_behavior() {
    caf::anon_send(repair_actor{self}, tick{});
    return {[this](tick) {
      caf::delayed_anon_send(repair_actor{self}, config.interval, tick{});
      self->request(config.mount, std::chrono::seconds{30}, get_report{})
          .then(
              [this](const volume_report& r) {
                if (!r.open || r.stats.read_only) return;
                auto urgent = false;
                for (std::size_t missing = 1; missing < r.stats.segments_by_missing.size();
                     ++missing)
                  urgent = urgent || r.stats.segments_by_missing[missing] > 0;
                self->send(config.mount, repair_some{urgent ? config.urgent : config.calm});
              },
              [](caf::error&) {});
    }};
  }

  repair_actor::pointer self;
  repair_config config;
  static inline const char* name = "qs.repair";
};

namespace {

repair_actor::behavior_type repair(repair_actor::stateful_pointer<repair_state> self,
                                   repair_config config) {
  self->state.config = std::move(config);
  return self->state.make_behavior();
}

} // namespace

repair_actor make_repair(caf::actor_system& system, repair_config config) {
  return system.spawn(repair, std::move(config));
}

} // namespace qs::actors
