#include "volume/extents.hpp"

#include <algorithm>

namespace qs::volume {

bool extent_ranges::covers(std::uint32_t to) const noexcept {
  std::uint32_t at = 0;
  for (const auto& r : ranges) {
    if (r.from > at) return false;
    at = r.to;
    if (at >= to) return true;
  }
  return at >= to;
}

std::uint64_t extent_ranges::merge_bytes() const noexcept {
  constexpr std::uint64_t record_bytes = kib; // its header and rows
  if (ranges.empty()) return 0;
  return record_bytes + std::max(base, end());
}

void extent_map::gone(const byte_range& r) {
  --ranges_;
  if (r.zero) return;
  bytes_ -= r.to - r.from;
  hooks_.release(r.where.file);
}

void extent_map::came(const byte_range& r) {
  ++ranges_;
  if (r.zero) return;
  bytes_ += r.to - r.from;
  hooks_.retain(r.where.file);
}

void extent_map::carve(extent_ranges& e, std::uint32_t from, std::uint32_t to) {
  auto first = std::lower_bound(e.ranges.begin(), e.ranges.end(), from,
                                [](const byte_range& r, std::uint32_t at) { return r.to <= at; });
  auto last = first;
  std::vector<byte_range> left;
  for (; last != e.ranges.end() && last->from < to; ++last) {
    if (last->from < from) {
      left.push_back(*last);
      left.back().to = from;
    }
    if (last->to > to) {
      left.push_back(*last);
      auto& tail = left.back();
      tail.where.offset += to - tail.from;
      tail.from = to;
    }
  }
  for (const auto& r : left) came(r); // before the others go, so that no file is ever without a user in between
  for (auto it = first; it != last; ++it) gone(*it);
  auto at = e.ranges.erase(first, last);
  e.ranges.insert(at, left.begin(), left.end());
}

void extent_map::add(extent_place place, const byte_range& range, boot_time now, std::uint32_t base) {
  auto [it, made] = map_.try_emplace(place);
  auto& e = it->second;
  if (made) {
    e.cut = ++cuts_;
    e.since = now;
    e.base = base;
  }
  merge_bytes_ -= e.merge_bytes();
  came(range);
  carve(e, range.from, range.to);
  auto at = std::lower_bound(e.ranges.begin(), e.ranges.end(), range.from,
                             [](const byte_range& r, std::uint32_t from) { return r.from < from; });
  e.ranges.insert(at, range);
  merge_bytes_ += e.merge_bytes();
}

void extent_map::drop(inode_number inode, std::uint64_t from, std::uint64_t to) {
  if (from >= to) return;
  auto it = map_.lower_bound({inode, from / extent_bytes});
  while (it != map_.end() && it->first.first == inode && it->first.second * extent_bytes < to) {
    auto start = it->first.second * extent_bytes;
    auto low = from > start ? static_cast<std::uint32_t>(from - start) : 0;
    auto high = to - start < extent_bytes ? static_cast<std::uint32_t>(to - start) : extent_bytes;
    merge_bytes_ -= it->second.merge_bytes();
    carve(it->second, low, high);
    merge_bytes_ += it->second.merge_bytes();
    it->second.cut = ++cuts_;
    if (it->second.ranges.empty()) it = map_.erase(it);
    else ++it;
  }
}

void extent_map::drop_upto(extent_place place, std::uint64_t sequence) {
  auto it = map_.find(place);
  if (it == map_.end()) return;
  auto& list = it->second.ranges;
  merge_bytes_ -= it->second.merge_bytes();
  std::erase_if(list, [&](const byte_range& r) {
    if (r.sequence > sequence) return false;
    gone(r);
    return true;
  });
  it->second.base = extent_bytes; // a new one: what is left lies over it
  merge_bytes_ += it->second.merge_bytes();
  it->second.cut = ++cuts_;
  if (list.empty()) map_.erase(it);
}

const extent_ranges* extent_map::find(extent_place place) const {
  auto it = map_.find(place);
  return it == map_.end() ? nullptr : &it->second;
}

extent_ranges* extent_map::find(extent_place place) {
  auto it = map_.find(place);
  return it == map_.end() ? nullptr : &it->second;
}

const std::pair<const extent_place, extent_ranges>* extent_map::next(extent_place place) const {
  auto it = map_.lower_bound(place);
  return it == map_.end() ? nullptr : &*it;
}

bool extent_map::any_upto(std::uint64_t sequence) const {
  for (const auto& [place, e] : map_)
    for (const auto& r : e.ranges)
      if (r.sequence <= sequence) return true;
  return false;
}

void extent_map::each(const std::function<void(extent_place, const extent_ranges&)>& visit) const {
  for (const auto& [place, e] : map_) visit(place, e);
}

} // namespace qs::volume
