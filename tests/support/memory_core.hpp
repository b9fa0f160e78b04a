// A volume::core on a std::map, for tests of the names half and of fuse/: operations one at a time,
// applied at commit, reaping on a queue that the test runs by hand (or at once). Data of files is
// whatever `drop` does with it.
#pragma once

#include <atomic>
#include <cerrno>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <shared_mutex>

#include "volume/core.hpp"

namespace qs::test {

class memory_core final : public volume::core {
public:
  using drop_function =
      std::function<void(volume::inode_number, std::uint64_t from, std::uint64_t to)>;

  memory_core()
      : keys_{
            codec::volume_keys::derive(root_secret{byte_span{buffer(32, std::byte{7})}}, "test")} {
    rows[volume::inode_key(volume::root_inode)] =
        volume::encode(volume::make_root_row(0, 0, time()));
  }

  class memory_operation final : public volume::operation {
  public:
    explicit memory_operation(memory_core& owner)
        : owner_{owner}, lock_{owner.operation_mutex_}, sequence_{++owner.sequence_} {}
    std::uint64_t sequence() const override { return sequence_; }
    volume::file_time now() const override { return now_; }
    result<std::optional<buffer>> get(std::string_view key) override {
      if (auto it = changes_.find(std::string{key}); it != changes_.end()) return it->second;
      return owner_.get(key);
    }
    status scan(std::string_view from, std::string_view end,
                const volume::row_visitor& visit) override {
      std::map<std::string, buffer> merged;
      QS_TRY(owner_.scan(from, end, [&](std::string_view key, byte_span value) {
        merged.emplace(key, to_buffer(value));
        return true;
      }));
      for (const auto& [key, value] : changes_) {
        if (key < from || key >= end) continue;
        merged.erase(key);
        if (value) merged.emplace(key, *value);
      }
      for (const auto& [key, value] : merged)
        if (!visit(key, value)) break;
      return {};
    }
    void put(volume::row_key key, buffer value) override {
      changes_[std::move(key)] = std::move(value);
    }
    void erase(volume::row_key key) override { changes_[std::move(key)] = std::nullopt; }
    void count_inodes(std::int64_t delta) override { inodes_ += delta; }
    status commit() override {
      if (owner_.fail_commits) return posix_error(EIO);
      {
        std::unique_lock write{owner_.rows_mutex_};
        for (auto& [key, value] : changes_) {
          if (value)
            owner_.rows[key] = std::move(*value);
          else
            owner_.rows.erase(key);
        }
        owner_.inodes += inodes_;
        if (!changes_.empty()) ++owner_.records;
      }
      for (auto& [inode, from, to] : drops)
        if (owner_.drop) owner_.drop(inode, from, to);
      lock_.unlock();
      return {};
    }
    std::deque<std::tuple<volume::inode_number, std::uint64_t, std::uint64_t>> drops;

  private:
    memory_core& owner_;
    std::unique_lock<std::mutex> lock_;
    std::uint64_t sequence_;
    volume::file_time now_ = memory_core::time();
    std::map<std::string, std::optional<buffer>> changes_;
    std::int64_t inodes_ = 0;
  };

  result<std::unique_ptr<volume::operation>> begin(volume::purpose why) override {
    if (full && why == volume::purpose::grow) return posix_error(ENOSPC);
    return std::unique_ptr<volume::operation>{std::make_unique<memory_operation>(*this)};
  }
  result<std::optional<buffer>> get(std::string_view key) const override {
    std::shared_lock lock{rows_mutex_};
    auto it = rows.find(key);
    if (it == rows.end()) return std::optional<buffer>{};
    return std::optional{it->second};
  }
  status scan(std::string_view from, std::string_view end,
              const volume::row_visitor& visit) const override {
    std::vector<std::pair<std::string, buffer>>
        found; // a visitor may take its time, and may read rows
    {
      std::shared_lock lock{rows_mutex_};
      for (auto it = rows.lower_bound(from); it != rows.end() && it->first < end; ++it)
        found.emplace_back(*it);
    }
    for (const auto& [key, value] : found)
      if (!visit(key, value)) break;
    return {};
  }
  const codec::volume_keys& keys() const override { return keys_; }
  volume::inode_number new_inode() override {
    return volume::make_inode_number(1, ++inode_counter_);
  }
  result<bool> drop_extents(volume::operation& op, volume::inode_number inode, volume::inode_row&,
                            std::uint64_t from, std::uint64_t to) override {
    static_cast<memory_operation&>(op).drops.emplace_back(inode, from, to);
    return true;
  }
  void reap_orphan(volume::inode_number inode) override {
    {
      std::lock_guard lock{reap_mutex_};
      reap_queue_.push_back(inode);
    }
    if (reap_at_once) run_reaper();
  }
  void
  on_reaped(std::function<status(volume::operation&, volume::inode_number)> erase_rows) override {
    erase_rows_ = std::move(erase_rows);
  }

  /// Does what the background would; true if there was something.
  bool run_reaper() {
    std::deque<volume::inode_number> queue;
    {
      std::lock_guard lock{reap_mutex_};
      queue.swap(reap_queue_);
    }
    for (auto inode : queue) {
      memory_operation op{*this};
      op.drops.emplace_back(inode, 0, ~std::uint64_t{0});
      if (!erase_rows_(op, inode) || !op.commit()) return false;
    }
    return !queue.empty();
  }
  /// As after a restart: what was queued or held is forgotten, every orphan row is found again.
  void reap_all_orphans() {
    auto prefix = volume::kind_prefix(volume::row_kind::orphan);
    (void)scan(prefix, volume::prefix_end(prefix), [&](std::string_view key, byte_span) {
      std::lock_guard lock{reap_mutex_};
      reap_queue_.push_back(*volume::parse_inode_key(key));
      return true;
    });
    run_reaper();
  }

  static volume::file_time time() {
    return std::chrono::time_point_cast<std::chrono::nanoseconds>(std::chrono::system_clock::now());
  }

  std::map<std::string, buffer, std::less<>> rows;
  std::atomic<std::int64_t> inodes{1};
  std::atomic<std::uint64_t> records{0}; ///< operations that changed something
  std::atomic<bool> full{false};
  std::atomic<bool> fail_commits{false};
  bool reap_at_once = false;
  drop_function drop;

private:
  codec::volume_keys keys_;
  mutable std::shared_mutex rows_mutex_;
  std::mutex operation_mutex_;
  std::mutex reap_mutex_;
  std::deque<volume::inode_number> reap_queue_;
  std::function<status(volume::operation&, volume::inode_number)> erase_rows_;
  std::uint64_t sequence_ = 0;
  std::atomic<std::uint64_t> inode_counter_{1};
};

} // namespace qs::test
