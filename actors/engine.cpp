#include "actors/engine.hpp"

#include <cstdint>

#include <caf/all.hpp>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>

#include <unistd.h>

#include <fmt/format.h>

#include "actors/assemble.hpp"
#include "actors/control.hpp"
#include "actors/dispersal.hpp"
#include "actors/pool_executor.hpp"
#include "actors/supervisor.hpp"
#include "actors/system.hpp"
#include "base/log.hpp"
#include "state/lock.hpp"
#include "state/sightings.hpp"

namespace qs::actors {
namespace {

using namespace std::chrono_literals;

constexpr auto state_file = "state.db";
constexpr auto stop_patience = std::chrono::minutes{12};

/// The phrase is checked against the state by the volume id that follows from it.
status check_phrase(world& w) {
  auto id = to_hex(w.keys.id());
  QS_TRY_ASSIGN(auto known, w.store->note(volume_id_note));
  if (!known) return w.store->put_note(volume_id_note, id);
  return phrase_fits(*known, id, w.options.state_directory);
}

/// The keys and the log of a volume without its record: a new record would give its nodes' numbers
/// out again, and nothing would know what they hold.
status state_is_not_missing(const std::filesystem::path& directory) {
  std::error_code failed;
  auto is = [&](const char* name) { return std::filesystem::exists(directory / name, failed); };
  if (is(state_file) || !is("volume.json")) return {};
  return error{errc::refused,
               fmt::format("this volume exists: its keys and its log are here, but {}",
                           state_is_missing(directory))};
}

/// Two that compute, and one that waits for the disk meanwhile (the log's syncs).
constexpr std::size_t volume_threads = 3;

class running_engine final : public engine {
public:
  running_engine(state::state_lock lock, world_ptr w)
      : lock_{std::move(lock)}, world_{std::move(w)},
        config_{runtime_options{world_->options.workers}}, system_{config_}, executor_{volume_threads} {}

  ~running_engine() override { shut_down(); }

  status start() {
    auto recorded = state::read_events(world_->options.state_directory / state_file, 0, 100'000);
    feed_ = std::make_shared<event_feed>(
        recorded.ok() && !recorded->empty() ? recorded->back().number : 0);
    blocking_.emplace(make_blocking(system_, {}));
    dispersal_.emplace(spawn_dispersal(system_, {}));
    port_ = std::make_unique<dispersal_port>(*dispersal_);
    control_config c;
    c.shared = world_;
    c.feed = feed_;
    c.system = &system_;
    c.stop = [this] { request_stop(); };
    control_ = make_control(std::move(c));
    supervisor_config s{
        world_, *blocking_, *dispersal_, port_.get(), &executor_, real_sockets(connector_),
        feed_,  {},         500ms,       {},          {}};
    s.end = [this](int code) { end(code); };
    s.listen = [this](const std::string& address) { return control_->listen(address); };
    supervisor_.emplace(make_supervisor(system_, std::move(s)));
    return control_->start(*supervisor_);
  }

  int wait() override {
    std::unique_lock lock{mutex_};
    ended_.wait(lock, [this] { return done_; });
    auto code = code_;
    lock.unlock();
    if (code != 0) {
      // Crash-only: disk and memory may disagree, so nothing more is written. The watcher starts
      // from what is recorded.
      log::error("engine", "ends with code {}", code);
      log::flush();
      ::_exit(code);
    }
    shut_down();
    return code;
  }

  void request_stop() override { end(0); }

private:
  void end(int code) {
    std::lock_guard lock{mutex_};
    if (done_) return;
    done_ = true;
    code_ = code;
    ended_.notify_all();
  }

  void shut_down() {
    if (!supervisor_) return;
    auto destroyed = false;
    {
      caf::scoped_actor self{system_};
      auto ask = [&](const auto& who, auto message, auto reply_type, const char* what) {
        using reply = decltype(reply_type);
        self->request(who, stop_patience, message)
            .receive([](reply) {},
                     [&](caf::error& e) {
                       log::warning("engine", "{} did not stop: {}", what, describe(from_caf(e)));
                     });
      };
      ask(*supervisor_, stop_all{}, done{}, "the supervisor");
      control_->stop();
      ask(*dispersal_, stop_atom_v, caf::ok_atom{}, "the dispersal");
      ask(*blocking_, stop_all{}, done{}, "the blocking lanes");
    }
    // Only when nothing is left that the state is needed for: a stop in the middle of a destroy
    // keeps it, and the next engine goes on.
    if (auto left = world_->store->load(); left.ok())
      destroyed = left->destroying && !left->volume.created &&
                  std::all_of(left->nodes.begin(), left->nodes.end(), [](const auto& n) {
                    return n.state == model::node_state::gone;
                  });
    port_.reset();
    supervisor_.reset();
    dispersal_.reset();
    blocking_.reset();
    executor_.stop();
    world_->store.reset();
    if (destroyed) {
      std::error_code ignored;
      std::filesystem::remove(world_->options.state_directory / state_file, ignored);
      state::remove_sightings(world_->options.state_directory);
    }
    log::info("engine", "stopped");
    log::flush();
  }

  state::state_lock lock_;
  world_ptr world_;
  system_config config_;
  caf::actor_system system_;
  net::connector connector_;
  pool_executor executor_;
  std::shared_ptr<event_feed> feed_;
  std::optional<blocking_actor> blocking_;
  std::optional<dispersal_actor> dispersal_;
  std::unique_ptr<dispersal_port> port_;
  std::optional<supervisor_actor> supervisor_;
  std::unique_ptr<control_server> control_;
  std::mutex mutex_;
  std::condition_variable ended_;
  bool done_ = false;
  int code_ = 0;
};

} // namespace

result<std::unique_ptr<engine>> start_engine(const engine_options& options) {
  auto step = [&](std::string_view what) {
    if (options.progress) options.progress(what);
  };
  QS_TRY_ASSIGN(auto lock, state::state_lock::take(options.state_directory));
  step("checking the recorded state");
  QS_TRY(state_is_not_missing(options.state_directory));
  QS_TRY_ASSIGN(auto store, state::open_store(options.state_directory / state_file, system_random(),
                                              system_clock()));
  // The phrase is looked at before a provider is: a wrong one must not leave a trace of another
  // volume.
  auto keys_only = world{options, codec::volume_keys::derive(options.root, options.volume)};
  keys_only.store = std::move(store);
  QS_TRY(check_phrase(keys_only));
  step("looking at the providers");
  QS_TRY_ASSIGN(auto w, assemble_world(options, false));
  w->store = std::move(keys_only.store);
  // A grid that has nodes of ours and cannot be opened ends the engine here, with its reason.
  QS_TRY_ASSIGN(auto recorded, w->store->load());
  for (const auto& name : grids_of(nullptr, recorded)) QS_TRY(w->providers.get(name));
  auto e = std::make_unique<running_engine>(std::move(lock), std::move(w));
  step("starting its parts");
  QS_TRY(e->start());
  return std::unique_ptr<engine>{std::move(e)};
}

} // namespace qs::actors
