#include "zdb/record_cache.hpp"

#include <utility>

#include "base/assert.hpp"

namespace qs::zdb {

namespace {
constexpr std::size_t slots_least = 64;
constexpr int spared_at_once = 4;
} // namespace

std::size_t record_cache::home(std::uint64_t file, std::uint32_t offset) const noexcept {
  auto h = ((file << 32U) ^ offset) * seed_;
  h ^= h >> 32U;
  h *= seed_;
  return static_cast<std::size_t>(h >> 32U) & (slots_.size() - 1);
}

std::size_t record_cache::slot_of(std::uint64_t file, std::uint32_t offset) const noexcept {
  if (slots_.empty()) return nowhere;
  for (auto i = home(file, offset); slots_[i] != 0; i = next(i)) {
    auto& e = entries_[slots_[i] - 1];
    if (e.offset == offset && e.file == file) return i;
  }
  return nowhere;
}

const value_block* record_cache::find(std::uint64_t file, std::uint32_t offset) noexcept {
  auto slot = slot_of(file, offset);
  if (slot == nowhere) {
    ++misses;
    return nullptr;
  }
  ++hits;
  auto& e = entries_[slots_[slot] - 1];
  e.found = true;
  return &e.record;
}

void record_cache::drop(std::uint64_t file, std::uint32_t offset) noexcept {
  if (auto slot = slot_of(file, offset); slot != nowhere) remove(slot);
}

void record_cache::remove(std::size_t slot) noexcept {
  auto index = slots_[slot] - 1;
  // Closes the gap, so that searches need no tombstones.
  auto gap = slot;
  for (auto i = next(gap); slots_[i] != 0; i = next(i)) {
    auto distance = (i - home_of(i)) & (slots_.size() - 1);
    if (distance >= ((i - gap) & (slots_.size() - 1))) {
      slots_[gap] = slots_[i];
      gap = i;
    }
  }
  slots_[gap] = 0;
  bytes_ -= entries_[index].record.size() + record_overhead;
  if (index + 1 != entries_.size()) {
    auto& last = entries_.back();
    slots_[slot_of(last.file, last.offset)] = index + 1;
    entries_[index] = std::move(last);
  }
  entries_.pop_back();
}

void record_cache::make_room(std::size_t bytes) noexcept {
  while (!entries_.empty() && bytes_ + bytes > budget_) {
    for (int tries = 0;; ++tries) {
      chance_ ^= chance_ << 13U;
      chance_ ^= chance_ >> 7U;
      chance_ ^= chance_ << 17U;
      auto& e = entries_[static_cast<std::size_t>(chance_ >> 16U) % entries_.size()];
      if (std::exchange(e.found, false) && tries < spared_at_once) continue;
      remove(slot_of(e.file, e.offset));
      break;
    }
  }
}

void record_cache::grow() {
  slots_.assign(slots_.empty() ? slots_least : slots_.size() * 2, 0);
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    auto at = home(entries_[i].file, entries_[i].offset);
    while (slots_[at] != 0) at = next(at);
    slots_[at] = static_cast<std::uint32_t>(i + 1);
  }
}

void record_cache::put(std::uint64_t file, std::uint32_t offset, value_block record) {
  if (!takes(record.size())) return;
  drop(file, offset);
  make_room(record.size() + record_overhead);
  if ((entries_.size() + 1) * 2 > slots_.size()) grow();
  bytes_ += record.size() + record_overhead;
  entries_.push_back({file, offset, false, std::move(record)});
  auto at = home(file, offset);
  while (slots_[at] != 0) at = next(at);
  slots_[at] = static_cast<std::uint32_t>(entries_.size());
}

} // namespace qs::zdb
