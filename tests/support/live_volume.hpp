// A real volume that runs by itself: nodes in memory behind a thread-safe port, an executor with
// threads, a ticking thread. For mounts in tests and in bench/, where nobody can run things by
// hand. Not for tests of interleavings: those use memory_nodes.hpp.
#pragma once

#include <array>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <filesystem>
#include <future>
#include <map>
#include <mutex>
#include <optional>
#include <thread>

#include "base/clock.hpp"
#include "base/random.hpp"
#include "volume/volume.hpp"

namespace qs::test {

class thread_executor final : public volume::executor {
public:
  explicit thread_executor(unsigned threads) {
    for (unsigned i = 0; i < threads; ++i) threads_.emplace_back([this] { work(); });
  }
  ~thread_executor() override { stop(); }
  void post(std::function<void()> job) override {
    std::lock_guard lock{mutex_};
    if (!stopping_) jobs_.push_back(std::move(job));
    changed_.notify_one();
  }
  void stop() {
    {
      std::lock_guard lock{mutex_};
      stopping_ = true;
      changed_.notify_all();
    }
    for (auto& t : threads_) t.join();
    threads_.clear();
  }

private:
  void work() {
    std::unique_lock lock{mutex_};
    for (;;) {
      changed_.wait(lock, [&] { return stopping_ || !jobs_.empty(); });
      if (jobs_.empty()) return;
      auto job = std::move(jobs_.front());
      jobs_.pop_front();
      lock.unlock();
      job();
      job = nullptr;
      lock.lock();
    }
  }
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> jobs_;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

/// Nodes that answer at once, on the caller's thread, without a lock.
class live_nodes final : public volume::shard_port {
public:
  void store(volume::store_request request, volume::store_progress progress) override {
    for (auto& s : request.shards) {
      bool taken = true;
      {
        std::lock_guard lock{mutex_};
        taken = !away_[s.node];
        if (taken && keep_) objects_[s.node][s.name] = s.value;
      }
      if (!taken) {
        progress(s.index, s.node, volume::shard_outcome::unreachable);
        continue;
      }
      progress(s.index, s.node, volume::shard_outcome::acknowledged);
      progress(s.index, s.node, volume::shard_outcome::confirmed);
    }
  }
  void fetch(volume::fetch_request request, volume::fetch_done done) override {
    std::vector<volume::fetched_shard> got;
    std::array<bool, 256> have{};
    bool enough = false;
    {
      std::lock_guard lock{mutex_};
      for (const auto& s : request.sources) {
        auto& objects = objects_[s.node];
        auto it = objects.find(s.name);
        if (away_[s.node] || have[s.index] || it == objects.end()) continue;
        have[s.index] = true;
        got.push_back({s.index, s.node, it->second});
        bool wanted = request.wanted >= 0 && s.index == request.wanted;
        enough = got.size() >= request.needed || wanted;
        if (enough) break;
      }
    }
    if (enough) return done(std::move(got));
    done(error{errc::unreachable, "too few nodes answered"});
  }
  void hurry(model::segment_ref, std::uint8_t) override {}
  void remove(model::node_id node, std::vector<model::object_name> names,
              std::function<void(status)> done) override {
    {
      std::lock_guard lock{mutex_};
      for (const auto& name : names) objects_[node].erase(name);
    }
    done({});
  }
  void check(model::node_id node, model::object_name name,
             std::function<void(result<bool>)> done) override {
    bool there = false;
    {
      std::lock_guard lock{mutex_};
      there = objects_[node].contains(name);
    }
    done(there);
  }
  /// False: nodes whose memory is not this process's: values are let go when they were answered. Nothing can be fetched then.
  void keep_values(bool keep) {
    std::lock_guard lock{mutex_};
    keep_ = keep;
  }
  void set_away(std::uint32_t node, bool away) {
    std::lock_guard lock{mutex_};
    away_[{node}] = away;
  }

private:
  std::mutex mutex_;
  std::map<model::node_id, std::map<model::object_name, buffer_ptr>> objects_;
  std::map<model::node_id, bool> away_;
  bool keep_ = true;
};

/// 4+2 over six nodes, its state in `directory`. Stops by itself; kill() is a crash, start() opens
/// again.
class live_volume {
public:
  explicit live_volume(std::filesystem::path directory) {
    std::array<std::byte, 32> root;
    root.fill(std::byte{9});
    options_.name = "live";
    options_.root = root_secret{root};
    options_.state_directory = directory / "state";
    options_.cache_directory = directory / "cache";
    options_.cache_bytes = gib;
    options_.staging_bytes = 4 * gib;
    options_.capacity = 64 * gib;
    options_.free_disk_bytes = 0;
  }
  ~live_volume() { kill(); }
  live_volume(const live_volume&) = delete;
  live_volume& operator=(const live_volume&) = delete;

  status create() { return volume::create_volume(options_, environment()); }
  status start() {
    work_.emplace(2U);
    QS_TRY_ASSIGN(volume_, volume::open_volume(options_, environment()));
    std::vector<model::group> groups;
    std::vector<volume::volume::node_view> views;
    for (std::uint32_t n = 1; n <= 6; ++n) views.push_back({{n}, true, true, 0, 0});
    for (std::uint32_t g = 0; g < 2; ++g) {
      model::group group{{g}, 1, {}};
      for (std::uint32_t i = 0; i < 6; ++i) group.slots.push_back({(i + g) % 6 + 1});
      groups.push_back(group);
    }
    volume_->set_nodes(views);
    QS_TRY(volume_->set_groups(groups));
    ticking_ = true;
    ticker_ = std::thread{[this] {
      std::unique_lock lock{tick_mutex_};
      while (ticking_) {
        lock.unlock();
        volume_->tick();
        lock.lock();
        tick_.wait_for(lock, std::chrono::milliseconds{50});
      }
    }};
    return {};
  }
  void kill() {
    {
      std::lock_guard lock{tick_mutex_};
      ticking_ = false;
      tick_.notify_all();
    }
    if (ticker_.joinable()) ticker_.join();
    if (work_) work_->stop();
    volume_.reset();
    work_.reset();
  }
  status drain() {
    auto done = std::make_shared<std::promise<status>>();
    volume_->drain(std::chrono::seconds{60}, [done](status s) { done->set_value(std::move(s)); });
    return done->get_future().get();
  }
  volume::volume& operator*() { return *volume_; }
  volume::volume* operator->() { return volume_.get(); }
  live_nodes nodes;

private:
  volume::volume_environment environment() {
    volume::volume_environment e;
    e.time = &system_clock();
    e.random = &system_random();
    e.port = &nodes;
    e.work = work_ ? static_cast<volume::executor*>(&*work_) : nullptr;
    return e;
  }
  volume::volume_options options_;
  std::optional<thread_executor> work_;
  std::unique_ptr<volume::volume> volume_;
  std::mutex tick_mutex_;
  std::condition_variable tick_;
  bool ticking_ = false;
  std::thread ticker_;
};

} // namespace qs::test
