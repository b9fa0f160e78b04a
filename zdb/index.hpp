// Where the live version of every key is, in user mode (sequential_index.hpp: in the other): in
// memory, without the keys themselves, and rebuilt from the data files at start. An open-addressing
// table of 16-byte slots found by 32 bits of a keyed hash; whoever asks compares the key with the
// one on disk. One thread.
#pragma once

#include <array>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "base/bytes.hpp"
#include "zdb/record.hpp"

namespace qs::zdb {

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

} // namespace qs::zdb
