// dispersal: the actor that brings shards to their nodes and back, over one connection per node.
// Writes are reported acknowledged and, after a barrier, confirmed; reads hedge on the slow. Every
// byte in flight is counted against a window per node and one for all; what waits for a window is a
// few words per operation, its payloads belong to the volume. Decides neither placement nor
// retries: that is the volume's. Pooled; one thread at a time. The jobs carry the callbacks. A job
// that dies unanswered (actor gone, message lost) answers from its destructor.
#pragma once

#include <cstdint>

#include <caf/fwd.hpp>
#include <caf/typed_actor.hpp>

#include <chrono>
#include <functional>
#include <vector>

#include "actors/data_interfaces.hpp"
#include "actors/zdb_connection.hpp"
#include "base/clock.hpp"
#include "base/limits.hpp"
#include "volume/shard_port.hpp"

namespace qs::actors {

struct dispersal_config {
  qs::clock* time = nullptr; ///< null: system_clock()
  // Windows in bytes, counted as the connection counts them (request_overhead, read_charge). One
  // operation is always let through.
  std::size_t node_read_window =
      3 << 20; ///< the three of one node together fit the connection's window
  std::size_t node_write_window = 4 << 20;
  std::size_t node_background_window = 1088 << 10; ///< two shards
  std::size_t total_read_window = 48 << 20;
  std::size_t total_write_window = 96 << 20;
  std::size_t total_background_window = 8 << 20;
  std::chrono::milliseconds hedge_least{30};
  std::chrono::milliseconds fetch_deadline{15'000};
  /// Of a read whose nodes have been silent for most of that time already. One read of a program may
  /// meet it three or four times over (the kernel's read-ahead, then page by page).
  std::chrono::milliseconds silent_fetch_deadline{2'000};
  // A barrier is due when so much time has passed since a node acknowledged something, or when it
  // acknowledged so many bytes: its disk works all the time then, and not in gusts.
  std::chrono::milliseconds barrier_every{1'000};
  std::size_t barrier_bytes = 16 << 20;
};

/// A store and what has been told of each of its shards. Answers what is still open when it dies.
struct store_job {
  store_job(volume::store_request r, volume::store_progress p);
  store_job(const store_job&) = delete;
  store_job& operator=(const store_job&) = delete;
  ~store_job();
  /// Reports; `acknowledged` may be followed by one more, everything else is the last for that
  /// shard.
  void tell(std::size_t shard, volume::shard_outcome outcome);

  volume::store_request request;
  volume::store_progress progress;
  enum class stage : std::uint8_t { waiting, sent, acknowledged, told };
  std::vector<stage> stages; ///< by position in request.shards
};

/// A fetch with the callback that is answered exactly once.
struct fetch_job {
  fetch_job(volume::fetch_request r, volume::fetch_done d);
  fetch_job(const fetch_job&) = delete;
  fetch_job& operator=(const fetch_job&) = delete;
  ~fetch_job();
  void answer(result<std::vector<volume::fetched_shard>> r);
  [[nodiscard]] bool answered() const noexcept { return !done; }

  volume::fetch_request request;
  volume::fetch_done done;
};

struct remove_job {
  model::node_id node;
  object_names_ptr names;
  std::function<void(status)> done;
  remove_job(model::node_id n, object_names_ptr o, std::function<void(status)> d);
  remove_job(const remove_job&) = delete;
  remove_job& operator=(const remove_job&) = delete;
  ~remove_job();
  void answer(status s);
};

struct check_job {
  model::node_id node;
  model::object_name name{};
  std::function<void(result<bool>)> done;
  check_job(model::node_id n, model::object_name o, std::function<void(result<bool>)> d);
  check_job(const check_job&) = delete;
  check_job& operator=(const check_job&) = delete;
  ~check_job();
  void answer(result<bool> r);
};

dispersal_actor spawn_dispersal(caf::actor_system& system, dispersal_config config);

/// What an error of a SET means for the shard.
volume::shard_outcome outcome_of(const error& e) noexcept;

/// The volume's door, callable from any thread; never blocks. Callbacks come on the dispersal
/// actor's thread (or, once the actor is gone, on the caller's) and must be short. The engine makes
/// one and hands it to the volume.
class dispersal_port final : public volume::shard_port {
public:
  explicit dispersal_port(dispersal_actor target);
  ~dispersal_port() override;
  void store(volume::store_request request, volume::store_progress progress) override;
  void fetch(volume::fetch_request request, volume::fetch_done done) override;
  void hurry(model::segment_ref segment, std::uint8_t wanted) override;
  void remove(model::node_id node, std::vector<model::object_name> names,
              std::function<void(status)> done) override;
  void check(model::node_id node, model::object_name name,
             std::function<void(result<bool>)> done) override;

private:
  dispersal_actor target_;
};

} // namespace qs::actors
