// Where the live version of every key is: in memory, without the keys themselves, and rebuilt from
// the data files at start. User mode: an open-addressing table of 16-byte slots found by 32 bits of
// a keyed hash; whoever asks compares the key with the one on disk. Sequential mode: 12 bytes an
// id. One thread.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <type_traits>
#include <vector>

#include "base/bytes.hpp"
#include "zdb/record.hpp"

namespace qs::zdb {

struct index_entry {
  record_place place;
  std::uint32_t length = 0; ///< of the payload
};

/// 16 to 37 bytes a key (load between 7/16 and 7/8); nothing while empty.
class user_index {
public:
  /// Keyed, so that no client can choose keys that collide.
  explicit user_index(std::array<std::byte, 16> hash_key) : hash_key_{hash_key} {}

  /// The slot whose key is `key`; `is_key(place)` or `is_key(place, length)` reads the
  /// disk to tell. Nothing: not there.
  struct found {
    std::size_t slot = npos;
    index_entry entry;
    [[nodiscard]] bool there() const noexcept { return slot != npos; }
  };
  static constexpr std::size_t npos = static_cast<std::size_t>(-1);
  template <class IsKey>
  found find(byte_span key, IsKey&& is_key) const {
    if (slots_.empty()) return {};
    return find_hash(hash(key), is_key);
  }
  /// The same by the hash of the key.
  template <class IsKey>
  found find_hash(std::uint32_t tag, IsKey&& is_key) const {
    if (slots_.empty()) return {};
    for (auto i = home(tag); slots_[i].file != 0; i = next(i))
      if (slots_[i].tag == tag) {
        index_entry entry{{slots_[i].file, slots_[i].offset}, slots_[i].length};
        bool same = false;
        if constexpr (std::is_invocable_v<IsKey, record_place, std::uint32_t>)
          same = is_key(entry.place, entry.length);
        else
          same = is_key(entry.place);
        if (same) return {i, entry};
      }
    return {};
  }
  /// What the index knows a key by; any thread.
  [[nodiscard]] std::uint32_t hash(byte_span key) const noexcept;
  /// The key must not be there.
  void insert(byte_span key, index_entry entry) { insert_hash(hash(key), entry); }
  void insert_hash(std::uint32_t tag, index_entry entry);
  void replace(std::size_t at, index_entry entry) noexcept;
  void erase(std::size_t at) noexcept;
  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  [[nodiscard]] std::size_t memory_bytes() const noexcept { return slots_.size() * sizeof(slot); }

private:
  struct slot {
    std::uint32_t file = 0; ///< 0 = free
    std::uint32_t offset = 0;
    std::uint32_t length = 0;
    std::uint32_t tag = 0;
  };
  [[nodiscard]] std::size_t home(std::uint32_t tag) const noexcept {
    return tag & (slots_.size() - 1);
  }
  [[nodiscard]] std::size_t next(std::size_t i) const noexcept {
    return (i + 1) & (slots_.size() - 1);
  }
  void grow();

  std::array<std::byte, 16> hash_key_;
  std::vector<slot> slots_; ///< a power of two
  std::size_t size_ = 0;
};

/// Ids 0, 1, 2, …: never reused, deleted ones stay as holes.
class sequential_index {
public:
  [[nodiscard]] std::uint64_t next_id() const noexcept { return entries_.size(); }
  /// Nothing (file 0) when unknown or deleted.
  [[nodiscard]] index_entry find(std::uint64_t id) const noexcept;
  /// Ids skipped on the way become holes.
  void put(std::uint64_t id, index_entry entry);
  void erase(std::uint64_t id) noexcept;
  /// The newest one was never given out.
  void take_back() noexcept;
  /// Ids below are used up.
  void skip_to(std::uint64_t id) {
    if (id > entries_.size()) entries_.resize(static_cast<std::size_t>(id));
  }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  [[nodiscard]] std::size_t memory_bytes() const noexcept {
    return entries_.size() * sizeof(index_entry);
  }

private:
  std::deque<index_entry> entries_;
  std::size_t size_ = 0;
};

} // namespace qs::zdb
