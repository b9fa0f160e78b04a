// Where the live version of every key is, in user mode (sequential_index.hpp: in the other): in
// memory, without the keys themselves, and rebuilt from the data files at start. 16-byte slots
// found by 32 bits of a keyed hash; whoever asks compares the key with the one on disk. One thread.
//
// The slots are in segments, each a small open-addressing table of its own, so that no insertion
// has to move more than one of them, and nothing is ever there twice: a segment that is full
// becomes two, and two that were one and would be full to 13/16 become one again (extendible
// hashing). While there is one alone it is as small as it can be, and doubles and halves.
//
// Invariants. (1) `doors_` has 2^depth_ entries; the first depth_ bits of a hash choose one, which
// leads to the segment. (2) A segment's keys agree in their first `depth` bits, and all
// doors that begin with these lead to it. (3) All segments have slots_of_segment() slots: fewer
// than segment_slots only while there is one. (4) An eighth of each is free, so searches end.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <type_traits>
#include <vector>

#include "base/bytes.hpp"
#include "zdb/record.hpp"

namespace qs::zdb {

/// 18 to 40 bytes a key (load between 13/32 and 7/8); nothing while empty.
class user_index {
public:
  /// What one insertion or deletion may move, at most: all of a segment.
  static constexpr std::size_t segment_slots = 4096;

  /// Keyed, so that no client can choose keys that collide.
  explicit user_index(std::array<std::byte, 16> hash_key) : hash_key_{hash_key} {}

  /// The slot whose key is `key`, good until the next insertion or deletion; `is_key(place)` or
  /// `is_key(place, length)` reads the disk to tell. Nothing: not there.
  struct found {
    std::size_t slot = npos;
    index_entry entry;
    [[nodiscard]] bool there() const noexcept { return slot != npos; }
  };
  static constexpr std::size_t npos = static_cast<std::size_t>(-1);
  template <class IsKey>
  found find(byte_span key, IsKey&& is_key) const {
    if (doors_.empty()) return {};
    return find_hash(hash(key), is_key);
  }
  /// The same by the hash of the key.
  template <class IsKey>
  found find_hash(std::uint32_t tag, IsKey&& is_key) const {
    if (doors_.empty()) return {};
    auto number = door(tag);
    auto* slots = doors_[number].slots;
    for (auto i = home(tag); slots[i].file != 0; i = next(i))
      if (slots[i].tag == tag) {
        index_entry entry{{slots[i].file, slots[i].offset}, slots[i].length};
        bool same = false;
        if constexpr (std::is_invocable_v<IsKey, record_place, std::uint32_t>)
          same = is_key(entry.place, entry.length);
        else
          same = is_key(entry.place);
        if (same) return {number * segment_slots + i, entry};
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
  [[nodiscard]] std::size_t memory_bytes() const noexcept;
  /// Entries that went from one segment to another, or to another place in theirs because it was
  /// made two, or doubled, or halved; since the beginning.
  [[nodiscard]] std::uint64_t moved() const noexcept { return moved_; }

private:
  struct slot {
    std::uint32_t file = 0; ///< 0 = free
    std::uint32_t offset = 0;
    std::uint32_t length = 0;
    std::uint32_t tag = 0;
  };
  struct segment {
    std::unique_ptr<slot[]> slots;
    std::uint32_t first = 0; ///< the least hash that belongs here
    std::uint16_t used = 0;
    std::uint8_t depth = 0;
  };
  /// Behind a door: the slots, so that a search need not look at the segment, and its number.
  struct entrance {
    slot* slots = nullptr;
    std::uint32_t number = 0;
  };
  [[nodiscard]] std::size_t door(std::uint32_t tag) const noexcept {
    return static_cast<std::size_t>((std::uint64_t{tag} << depth_) >> 32);
  }
  // Within a segment by the last bits: the first ones are alike in all of it.
  [[nodiscard]] std::size_t home(std::uint32_t tag) const noexcept { return tag & mask_; }
  [[nodiscard]] std::size_t next(std::size_t i) const noexcept { return (i + 1) & mask_; }
  [[nodiscard]] std::size_t slots_of_segment() const noexcept { return mask_ + 1; }
  [[nodiscard]] std::uint32_t segment_of(std::uint32_t tag) const noexcept {
    return doors_[door(tag)].number;
  }
  void put(segment& into, const slot& s) noexcept;
  void lead_to(std::uint32_t number) noexcept;
  void make_room(std::uint32_t number);
  void resize(std::size_t slots);
  void split(std::uint32_t number);
  void shrink(std::uint32_t number);
  void merge(std::uint32_t into, std::uint32_t from);
  void drop_doors();

  std::array<std::byte, 16> hash_key_;
  std::vector<entrance> doors_;
  std::vector<segment> segments_;
  std::size_t mask_ = 0;
  unsigned depth_ = 0; ///< bits of a hash that choose a door
  std::size_t size_ = 0;
  std::uint64_t moved_ = 0;
};

} // namespace qs::zdb
