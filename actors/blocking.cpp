#include "actors/blocking.hpp"

#include <cstdint>
#include <deque>
#include <map>
#include <unordered_map>
#include <vector>

#include <caf/all.hpp>

#include "base/log.hpp"

namespace qs::actors {
namespace {

using worker_actor = caf::typed_actor<caf::replies_to<run_job>::with<job_done>>;

struct worker_state {
  static inline const char* name = "qs.worker";
};

worker_actor::behavior_type worker(worker_actor::stateful_pointer<worker_state>, int) {
  return {[](run_job& r) {
    r.what->work();
    return job_done{};
  }};
}

} // namespace

/// Waiting jobs per lane, in order; a job whose key runs is passed over until that one is done.
struct blocking_state {
  explicit blocking_state(blocking_actor::pointer p) : self{p} {}

  struct waiting {
    job_ptr what;
    caf::typed_response_promise<job_done> answer;
  };
  struct lane_state {
    std::vector<worker_actor> idle;
    std::deque<waiting> queue;
  };

  blocking_actor::behavior_type make_behavior(const blocking_config& config) {
    detached = config.detached;
    auto fill = [&](lane l, std::size_t n) {
      for (std::size_t i = 0; i < n; ++i) {
        lanes[l].idle.push_back(spawn_worker());
      }
    };
    fill(lane::state, 1);
    fill(lane::volume, 1);
    fill(lane::provider, config.provider_workers);
    return {
        [this](run_job& r) -> caf::result<job_done> {
          if (stopping) return to_caf({errc::cancelled, "the engine is stopping"});
          auto answer = self->make_response_promise<job_done>();
          auto where = r.what->where;
          lanes[where].queue.push_back({std::move(r.what), answer});
          pump(where);
          return answer;
        },
        [this](stop_all) -> caf::result<done> {
          stopping = true;
          auto answer = self->make_response_promise<done>();
          stopped.push_back(answer);
          finish_if_idle();
          return answer;
        },
    };
  }

  worker_actor spawn_worker() {
    auto made = detached ? self->spawn<caf::detached>(worker, 0) : self->spawn(worker, 0);
    all.push_back(made);
    return made;
  }

  void pump(lane where) {
    auto& l = lanes[where];
    for (auto it = l.queue.begin(); it != l.queue.end() && !l.idle.empty();) {
      const auto& key = it->what->key;
      if (!key.empty() && running_keys.contains(key)) {
        ++it;
        continue;
      }
      start(where, std::move(*it));
      it = l.queue.erase(it);
    }
  }

  void start(lane where, waiting w) {
    auto who = lanes[where].idle.back();
    lanes[where].idle.pop_back();
    auto key = w.what->key;
    if (!key.empty()) ++running_keys[key];
    ++running;
    auto answer = w.answer;
    auto finished = [this, where, key](const worker_actor& free) {
      if (!key.empty() && --running_keys[key] == 0) running_keys.erase(key);
      --running;
      lanes[where].idle.push_back(free);
      pump(where);
      finish_if_idle();
    };
    // Without a deadline on purpose: every job bounds its own calls, and a worker is not free
    // before its job ends.
    self->request(who, caf::infinite, run_job{w.what})
        .then(
            [answer, finished, who](job_done) mutable {
              answer.deliver(job_done{});
              finished(who);
            },
            [this, answer, finished, who](caf::error& e) mutable {
              log::error("blocking", "a job failed: {}", describe(from_caf(e)));
              answer.deliver(e);
              // A job that threw took its worker along: the lane goes on with another.
              std::erase(all, who);
              finished(spawn_worker());
            });
  }

  void finish_if_idle() {
    if (!stopping || running > 0 || stopped.empty()) return;
    for (auto& l : lanes)
      if (!l.second.queue.empty()) return;
    for (auto& w : all) self->send_exit(w, caf::exit_reason::user_shutdown);
    all.clear();
    lanes.clear();
    for (auto& answer : stopped) answer.deliver(done{});
    stopped.clear();
    self->quit();
  }

  blocking_actor::pointer self;
  std::map<lane, lane_state> lanes;
  std::vector<worker_actor> all;
  std::unordered_map<std::string, int> running_keys;
  std::size_t running = 0;
  bool stopping = false;
  bool detached = true;
  std::vector<caf::typed_response_promise<done>> stopped;
  static inline const char* name = "qs.blocking";
};

namespace {

blocking_actor::behavior_type blocking(blocking_actor::stateful_pointer<blocking_state> self,
                                       blocking_config config) {
  return self->state.make_behavior(config);
}

} // namespace

blocking_actor make_blocking(caf::actor_system& system, blocking_config config) {
  return system.spawn(blocking, config);
}

} // namespace qs::actors
