// Small records in memory, so that reading them again costs no call: one cache for all data files
// of a server, within a budget and allocated only as it is used. What is in it was written, or read
// and checked against its checksums; records never change where they stand, so that nothing in it
// gets old. One thread.
#pragma once

#include <cstdint>
#include <vector>

#include "zdb/block.hpp"

namespace qs::zdb {

class record_cache {
public:
  /// What a record takes beside its own bytes: slots of 32 bytes, of which 3/8 to 3/4 are used, and
  /// malloc's part.
  static constexpr std::size_t record_overhead = 100;

  /// `seed`: not to be guessed, so that no client can choose places that collide.
  record_cache(std::size_t budget, std::uint64_t seed) : budget_{budget}, seed_{seed | 1U} {}

  /// A record of so many bytes would be kept: the budget is for a thousand of them at least.
  [[nodiscard]] bool takes(std::uint64_t bytes) const noexcept { return bytes <= budget_ / 1000; }
  /// The whole record (header, key, payload) at `offset` of a file (its serial number, not 0);
  /// null: not here. Good until the next put() or drop().
  [[nodiscard]] const value_block* find(std::uint64_t file, std::uint32_t offset) noexcept;
  /// Makes room by dropping others: any, but not one that was found since it was last spared.
  /// Which ones is left to chance, so that going round over a little more than fits finds most of
  /// it, and that a find costs nothing.
  void put(std::uint64_t file, std::uint32_t offset, value_block record);
  /// It is needed no more.
  void drop(std::uint64_t file, std::uint32_t offset) noexcept;

  [[nodiscard]] std::size_t records() const noexcept { return used_; }
  [[nodiscard]] std::size_t bytes() const noexcept { return bytes_; }
  [[nodiscard]] std::size_t budget() const noexcept { return budget_; }

  std::uint64_t hits = 0;
  std::uint64_t misses = 0;

private:
  struct slot {
    std::uint64_t place = 0;
    value_block record; ///< never empty, where there is one
  };
  static constexpr std::size_t nowhere = static_cast<std::size_t>(-1);
  [[nodiscard]] bool free(std::size_t at) const noexcept { return slots_[at].record.size() == 0; }
  [[nodiscard]] std::size_t home(std::uint64_t place) const noexcept;
  [[nodiscard]] std::size_t next(std::size_t at) const noexcept {
    return (at + 1) & (slots_.size() - 1);
  }
  [[nodiscard]] std::size_t slot_of(std::uint64_t place) const noexcept;
  void insert(std::uint64_t place, value_block record) noexcept;
  void remove(std::size_t at) noexcept;
  void make_room(std::size_t bytes) noexcept;
  void grow();

  std::size_t budget_;
  std::uint64_t seed_;
  std::uint64_t chance_ = 0x9e3779b97f4a7c15;
  std::size_t bytes_ = 0;
  std::size_t used_ = 0;
  std::vector<slot> slots_; ///< a power of two
};

} // namespace qs::zdb
