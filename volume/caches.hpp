// The two caches of the read path. Memory: opened frames, LRU by bytes, in several parts so that threads do not meet. Disk: shard
// values exactly as the nodes have them (ciphertext), LRU by bytes, found again at start by listing; what it gives is verified by
// whoever uses it, and it may vanish at any time. Thread-safe.
#pragma once

#include <array>
#include <filesystem>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <unordered_map>

#include "base/bytes.hpp"
#include "base/result.hpp"
#include "base/units.hpp"
#include "model/ids.hpp"

namespace qs::volume {

struct frame_key {
  model::segment_ref segment;
  std::uint32_t number = 0;
  bool operator==(const frame_key&) const = default;
};

class frame_cache {
public:
  explicit frame_cache(byte_count limit) : limit_{limit} {}
  [[nodiscard]] buffer_ptr find(const frame_key& key);
  void put(const frame_key& key, buffer_ptr plain);
  void clear();

private:
  struct hash {
    std::size_t operator()(const frame_key& k) const noexcept {
      return std::hash<model::segment_ref>{}(k.segment) * 0x9e3779b97f4a7c15U + k.number;
    }
  };
  struct part {
    std::mutex mutex;
    std::list<std::pair<frame_key, buffer_ptr>> order; ///< newest first
    std::unordered_map<frame_key, std::list<std::pair<frame_key, buffer_ptr>>::iterator, hash> map;
    byte_count bytes = 0;
  };
  static constexpr std::size_t parts = 8;
  part& of(const frame_key& key) { return parts_[(hash{}(key) >> 7) % parts]; }
  byte_count limit_;
  std::array<part, parts> parts_;
};

struct shard_key {
  model::segment_ref segment;
  std::uint8_t index = 0;
  bool operator==(const shard_key&) const = default;
};
struct shard_key_hash {
  std::size_t operator()(const shard_key& k) const noexcept {
    return std::hash<model::segment_ref>{}(k.segment) * 0x9e3779b97f4a7c15U + k.index;
  }
};

class shard_cache {
public:
  /// An empty directory: memory only, and little of it. Never fails: a directory that cannot be used is not used.
  shard_cache(std::filesystem::path directory, byte_count limit, byte_count memory_limit);

  /// A part of a value, or nothing.
  [[nodiscard]] std::optional<buffer> read(const shard_key& key, std::uint64_t offset, std::size_t length);
  [[nodiscard]] buffer_ptr value(const shard_key& key, std::size_t most);
  [[nodiscard]] bool contains(const shard_key& key) const;
  /// Into memory only, at once: whoever waits for the shard need not wait for the disk. A put() follows.
  void remember(const shard_key& key, const buffer_ptr& value);
  void put(const shard_key& key, const buffer_ptr& value);
  void erase(const shard_key& key);
  void clear();
  [[nodiscard]] byte_count disk_bytes() const;

private:
  struct item {
    shard_key key;
    byte_count bytes = 0;
    buffer_ptr value; ///< while it is in memory
    bool on_disk = false;
  };
  using order = std::list<item>;
  [[nodiscard]] std::filesystem::path path_of(const shard_key& key) const;
  void list_directory();
  void forget(order::iterator it);
  void shrink();

  std::filesystem::path directory_;
  byte_count limit_, memory_limit_;
  mutable std::mutex mutex_;
  order order_; ///< newest first
  std::unordered_map<shard_key, order::iterator, shard_key_hash> map_;
  std::list<shard_key> in_memory_; ///< oldest last
  byte_count disk_ = 0, memory_ = 0;
};

} // namespace qs::volume
