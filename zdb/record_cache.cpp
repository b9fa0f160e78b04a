#include "zdb/record_cache.hpp"

#include <utility>

namespace qs::zdb {

namespace {
constexpr std::size_t slots_least = 64;
constexpr int spared_at_once = 4;
constexpr std::uint64_t no_place = 0;

/// None for a file whose serial number has more than 32 bits: what is in it is not kept.
std::uint64_t place_of(std::uint64_t file, std::uint32_t offset) noexcept {
  return file > 0xffffffffU ? no_place : (file << 32U) | offset;
}
} // namespace

std::size_t record_cache::home(std::uint64_t place) const noexcept {
  auto h = place * seed_;
  h ^= h >> 32U;
  h *= seed_;
  return static_cast<std::size_t>(h >> 32U) & (slots_.size() - 1);
}

std::size_t record_cache::slot_of(std::uint64_t place) const noexcept {
  if (used_ == 0 || place == no_place) return nowhere;
  for (auto i = home(place); !free(i); i = next(i))
    if (slots_[i].place == place) return i;
  return nowhere;
}

const value_block* record_cache::find(std::uint64_t file, std::uint32_t offset) noexcept {
  auto at = slot_of(place_of(file, offset));
  if (at == nowhere) {
    ++misses;
    return nullptr;
  }
  ++hits;
  slots_[at].record.mark(true);
  return &slots_[at].record;
}

void record_cache::drop(std::uint64_t file, std::uint32_t offset) noexcept {
  if (auto at = slot_of(place_of(file, offset)); at != nowhere) remove(at);
}

void record_cache::remove(std::size_t at) noexcept {
  bytes_ -= slots_[at].record.size() + record_overhead;
  --used_;
  // Closes the gap, so that searches need no tombstones.
  auto gap = at;
  for (auto i = next(gap); !free(i); i = next(i)) {
    auto distance = (i - home(slots_[i].place)) & (slots_.size() - 1);
    if (distance >= ((i - gap) & (slots_.size() - 1))) {
      slots_[gap] = std::move(slots_[i]);
      gap = i;
    }
  }
  slots_[gap] = {};
}

void record_cache::make_room(std::size_t bytes) noexcept {
  while (used_ > 0 && bytes_ + bytes > budget_) {
    for (int tries = 0;; ++tries) {
      chance_ ^= chance_ << 13U;
      chance_ ^= chance_ >> 7U;
      chance_ ^= chance_ << 17U;
      auto at = static_cast<std::size_t>(chance_ >> 16U) & (slots_.size() - 1);
      while (free(at)) at = next(at);
      auto spared = slots_[at].record.marked() && tries < spared_at_once;
      slots_[at].record.mark(false);
      if (spared) continue;
      remove(at);
      break;
    }
  }
}

void record_cache::insert(std::uint64_t place, value_block record) noexcept {
  auto at = home(place);
  while (!free(at) && slots_[at].place != place) at = next(at);
  if (free(at))
    ++used_;
  else
    bytes_ -= slots_[at].record.size() + record_overhead; // it was there
  bytes_ += record.size() + record_overhead;
  slots_[at] = {place, std::move(record)};
}

void record_cache::grow() {
  auto old = std::exchange(slots_, std::vector<slot>(slots_.empty() ? slots_least
                                                                    : slots_.size() * 2));
  used_ = 0;
  bytes_ = 0;
  for (auto& s : old)
    if (s.record.size() > 0) insert(s.place, std::move(s.record));
}

void record_cache::put(std::uint64_t file, std::uint32_t offset, value_block record) {
  auto place = place_of(file, offset);
  if (!takes(record.size()) || record.size() == 0 || place == no_place) return;
  make_room(record.size() + record_overhead);
  if ((used_ + 1) * 4 > slots_.size() * 3) grow();
  record.mark(false);
  insert(place, std::move(record));
}

} // namespace qs::zdb
