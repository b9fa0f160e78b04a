// Small records in memory, so that reading them again costs no call: one cache for all data files
// of a server, within a budget and allocated only as it is used. What is in it was written, or read
// and checked against its checksums; records never change where they stand, so that nothing in it
// gets old. One thread.
#pragma once

#include <cstdint>
#include <deque>
#include <vector>

#include "zdb/block.hpp"

namespace qs::zdb {

class record_cache {
public:
  /// What a record takes beside its own bytes: its entry, slots and malloc's part.
  static constexpr std::size_t record_overhead = 100;

  /// `seed`: not to be guessed, so that no client can choose places that collide.
  record_cache(std::size_t budget, std::uint64_t seed) : budget_{budget}, seed_{seed | 1U} {}

  /// A record of so many bytes would be kept: the budget is for a thousand of them at least.
  [[nodiscard]] bool takes(std::uint64_t bytes) const noexcept { return bytes <= budget_ / 1000; }
  /// The whole record (header, key, payload) at `offset` of a file; null: not here. Good until the
  /// next put().
  [[nodiscard]] const value_block* find(std::uint64_t file, std::uint32_t offset) noexcept;
  /// Makes room by dropping others: any, but not one that was found since it was last spared.
  /// Which ones is left to chance, so that going round over a little more than fits finds most of
  /// it, and that a find costs nothing.
  void put(std::uint64_t file, std::uint32_t offset, value_block record);
  /// It is needed no more.
  void drop(std::uint64_t file, std::uint32_t offset) noexcept;

  [[nodiscard]] std::size_t records() const noexcept { return entries_.size(); }
  [[nodiscard]] std::size_t bytes() const noexcept { return bytes_; }
  [[nodiscard]] std::size_t budget() const noexcept { return budget_; }

  std::uint64_t hits = 0;
  std::uint64_t misses = 0;

private:
  struct entry {
    std::uint64_t file = 0;
    std::uint32_t offset = 0;
    bool found = false;
    value_block record;
  };
  static constexpr std::size_t nowhere = static_cast<std::size_t>(-1);
  [[nodiscard]] std::size_t home(std::uint64_t file, std::uint32_t offset) const noexcept;
  [[nodiscard]] std::size_t home_of(std::size_t at) const noexcept {
    auto& e = entries_[slots_[at] - 1];
    return home(e.file, e.offset);
  }
  [[nodiscard]] std::size_t next(std::size_t at) const noexcept {
    return (at + 1) & (slots_.size() - 1);
  }
  [[nodiscard]] std::size_t slot_of(std::uint64_t file, std::uint32_t offset) const noexcept;
  void remove(std::size_t slot) noexcept;
  void make_room(std::size_t bytes) noexcept;
  void grow();

  std::size_t budget_;
  std::uint64_t seed_;
  std::uint64_t chance_ = 0x9e3779b97f4a7c15;
  std::size_t bytes_ = 0;
  std::deque<entry> entries_;         ///< dense
  std::vector<std::uint32_t> slots_;  ///< entry + 1; 0 = free; a power of two, half full at most
};

} // namespace qs::zdb
