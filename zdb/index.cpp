#include "zdb/index.hpp"

#include <algorithm>
#include <utility>

#include <sodium.h>

namespace qs::zdb {

namespace {
constexpr std::size_t slots_least = 64;

constexpr bool full(std::size_t used, std::size_t slots) { return used * 8 >= slots * 7; }
/// Not so much that the next few insertions would tear it apart again.
constexpr bool fits(std::size_t used, std::size_t slots) { return used * 16 <= slots * 13; }
/// The bit of a hash by which two segments of this depth differ that were one.
constexpr std::uint32_t last_bit(unsigned depth) { return std::uint32_t{1} << (32 - depth); }
} // namespace

std::uint32_t user_index::hash(byte_span key) const noexcept {
  static_assert(crypto_shorthash_KEYBYTES == 16 && crypto_shorthash_BYTES == 8);
  std::array<std::byte, 8> out{};
  crypto_shorthash(uchars(mutable_byte_span{out}), uchars(key), key.size(), uchars(hash_key_));
  return load_le<std::uint32_t>(out.data());
}

std::size_t user_index::memory_bytes() const noexcept {
  return segments_.size() * slots_of_segment() * sizeof(slot) +
         segments_.capacity() * sizeof(segment) + doors_.capacity() * sizeof(entrance);
}

void user_index::put(segment& into, const slot& s) noexcept {
  auto i = home(s.tag);
  while (into.slots[i].file != 0) i = next(i);
  into.slots[i] = s;
  ++into.used;
}

void user_index::insert_hash(std::uint32_t tag, index_entry entry) {
  QS_ASSERT(entry.place.valid());
  if (doors_.empty()) {
    segments_.resize(1);
    doors_.resize(1);
    depth_ = 0;
    resize(slots_least);
  }
  while (full(segments_[segment_of(tag)].used, slots_of_segment())) make_room(segment_of(tag));
  put(segments_[segment_of(tag)], {entry.place.file, entry.place.offset, entry.length, tag});
  ++size_;
}

void user_index::replace(std::size_t at, index_entry entry) noexcept {
  auto& s = doors_[at / segment_slots].slots[at % segment_slots];
  s = {entry.place.file, entry.place.offset, entry.length, s.tag};
}

void user_index::erase(std::size_t at) noexcept {
  auto number = doors_[at / segment_slots].number;
  auto& from = segments_[number];
  // Closes the gap, so that searches need no tombstones.
  auto gap = at % segment_slots;
  for (auto i = next(gap); from.slots[i].file != 0; i = next(i)) {
    auto distance = (i - home(from.slots[i].tag)) & mask_;
    if (distance >= ((i - gap) & mask_)) {
      from.slots[gap] = from.slots[i];
      gap = i;
    }
  }
  from.slots[gap] = {};
  --from.used;
  --size_;
  shrink(number);
}

// -- growing --------------------------------------------------------------------------------------

void user_index::make_room(std::uint32_t number) {
  slots_of_segment() < segment_slots ? resize(slots_of_segment() * 2) : split(number);
}

/// The only segment there is.
void user_index::resize(std::size_t slots) {
  auto& only = segments_.front();
  auto had = only.slots ? slots_of_segment() : 0;
  auto old = std::exchange(only.slots, std::make_unique<slot[]>(slots));
  mask_ = slots - 1;
  moved_ += std::exchange(only.used, std::uint16_t{0});
  for (std::size_t i = 0; i < had; ++i)
    if (old[i].file != 0) put(only, old[i]);
  lead_to(0);
}

/// All doors of its keys.
void user_index::lead_to(std::uint32_t number) noexcept {
  auto& s = segments_[number];
  auto from = doors_.begin() + static_cast<std::ptrdiff_t>(door(s.first));
  std::fill_n(from, std::size_t{1} << (depth_ - s.depth),
              entrance{s.slots.get(), number});
}

void user_index::split(std::uint32_t number) {
  if (segments_[number].depth == depth_) {
    QS_ASSERT(depth_ < 32); // thousands of keys with one hash
    std::vector<entrance> doors(doors_.size() * 2);
    for (std::size_t i = 0; i < doors.size(); ++i) doors[i] = doors_[i / 2];
    doors_ = std::move(doors);
    ++depth_;
  }
  auto made = static_cast<std::uint32_t>(segments_.size());
  segments_.emplace_back();
  auto& from = segments_[number];
  auto& to = segments_[made];
  to.slots = std::make_unique<slot[]>(slots_of_segment());
  to.depth = ++from.depth;
  auto bit = last_bit(to.depth);
  to.first = from.first | bit;
  lead_to(made);
  // Round from a free slot: no search goes past it, so what is put back finds its place among those
  // that were there before it, and never behind where it stood.
  std::size_t start = 0;
  while (from.slots[start].file != 0) ++start;
  moved_ += std::exchange(from.used, std::uint16_t{0});
  for (auto i = next(start); i != start; i = next(i)) {
    auto s = std::exchange(from.slots[i], {});
    if (s.file != 0) put((s.tag & bit) != 0 ? to : from, s);
  }
}

// -- shrinking ------------------------------------------------------------------------------------

void user_index::shrink(std::uint32_t number) {
  auto& s = segments_[number];
  if (s.depth == 0) {
    if (slots_of_segment() > slots_least && fits(s.used, slots_of_segment() / 2))
      resize(slots_of_segment() / 2);
    return;
  }
  auto bit = last_bit(s.depth);
  auto other = segment_of(s.first ^ bit);
  if (segments_[other].depth != s.depth ||
      !fits(std::size_t{s.used} + segments_[other].used, slots_of_segment()))
    return;
  (s.first & bit) == 0 ? merge(number, other) : merge(other, number);
}

void user_index::merge(std::uint32_t into, std::uint32_t from) {
  {
    auto& a = segments_[into];
    auto& b = segments_[from];
    for (std::size_t i = 0; i < slots_of_segment(); ++i)
      if (b.slots[i].file != 0) put(a, b.slots[i]);
    moved_ += b.used;
    --a.depth;
    lead_to(into);
  }
  // The last one takes the number that is free.
  if (from + 1 != segments_.size()) {
    segments_[from] = std::move(segments_.back());
    lead_to(from);
  }
  segments_.pop_back();
  drop_doors();
}

/// Half of the doors, when a quarter of them would do: not right after they were made, and not to
/// be made again right after.
void user_index::drop_doors() {
  if (depth_ == 0 || segments_.size() > doors_.size() / 4 + 1) return;
  for (auto& s : segments_)
    if (s.depth >= depth_) return;
  std::vector<entrance> doors(doors_.size() / 2);
  for (std::size_t i = 0; i < doors.size(); ++i) doors[i] = doors_[i * 2];
  doors_ = std::move(doors);
  --depth_;
  if (segments_.capacity() > segments_.size() * 4) segments_.shrink_to_fit();
}

} // namespace qs::zdb
