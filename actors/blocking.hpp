// The blocking actor: the only place of the engine where a job may wait for a disk, a provider or a
// person's machine. Lanes: `state` and `volume` have one worker each and keep order; `provider` has
// several. One job per key at a time. Workers are detached threads in the engine and pooled actors
// in tests (style.md, 4.4).
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "actors/caf_error.hpp"
#include "actors/interfaces.hpp"

namespace qs::actors {

struct blocking_config {
  bool detached = true;
  std::size_t provider_workers = 8;
};

struct blocking_state;
blocking_actor make_blocking(caf::actor_system& system, blocking_config config);

/// Runs `work` (returning T) on a lane and calls `then(T)` inside `self`'s mailbox. If the blocking
/// actor fails or the deadline passes, `otherwise(error)`: the job may still be running, its
/// outcome is then unknown.
template <class T, class Self, class Work, class Then, class Otherwise>
void run_blocking(Self* self, const blocking_actor& blocking, lane where, std::string key,
                  std::chrono::milliseconds deadline, Work work, Then then, Otherwise otherwise) {
  // A pointer rather than an optional: g++ 12 at -O2 takes the latter for uninitialised.
  auto slot = std::make_shared<std::unique_ptr<T>>();
  auto what = std::make_shared<job>();
  what->where = where;
  what->key = std::move(key);
  what->work = [slot, work = std::move(work)]() mutable { *slot = std::make_unique<T>(work()); };
  self->request(blocking, deadline, run_job{std::move(what)})
      .then([slot, then](job_done) mutable { then(std::move(**slot)); },
            [otherwise](caf::error& e) mutable { otherwise(from_caf(e)); });
}

} // namespace qs::actors
