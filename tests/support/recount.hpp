// Counts again what the volume keeps counted: live bytes of every segment and allocated bytes of every inode, from the rows of a
// volume that is closed (invariant 6).
#pragma once

#include <fmt/format.h>

#include <map>
#include <string>

#include "volume/row_store.hpp"
#include "volume/segment_row.hpp"

namespace qs::test {

struct recounted {
  std::string difference; ///< empty if all is right
  std::uint64_t live_bytes = 0;
  std::uint64_t segments = 0;
  std::uint64_t shards = 0; ///< that should be on nodes
};

inline recounted recount(const std::filesystem::path& state_directory) {
  recounted out;
  auto opened = volume::row_store::open(state_directory / "rows", false, [] {}, {});
  if (!opened.ok()) {
    out.difference = describe(opened.err());
    return out;
  }
  auto& rows = **opened;
  auto all = [&](volume::row_kind kind, const volume::row_visitor& visit) {
    auto from = volume::kind_prefix(kind);
    if (auto done = rows.scan(from, volume::prefix_end(from), visit); !done.ok()) out.difference = describe(done.err());
  };
  std::map<model::segment_ref, std::uint64_t> live;
  std::map<volume::inode_number, std::uint64_t> allocated;
  all(volume::row_kind::extent, [&](std::string_view key, byte_span value) {
    auto parts = volume::parse_extent_key(key);
    auto row = volume::decode_extent(value);
    if (!parts || !row.ok()) out.difference = "an extent row is damaged";
    else {
      live[row->segment] += row->stored;
      allocated[parts->inode] += row->visible;
      out.live_bytes += row->stored;
    }
    return out.difference.empty();
  });
  all(volume::row_kind::segment, [&](std::string_view key, byte_span value) {
    auto ref = volume::parse_segment_key(key);
    auto row = volume::decode_segment(value);
    if (!ref || !row.ok()) out.difference = "a segment row is damaged";
    else {
      ++out.segments;
      if (row->group != volume::no_group) out.shards += static_cast<std::uint64_t>(std::popcount(row->required()));
      auto it = live.find(*ref);
      auto want = it == live.end() ? 0 : it->second;
      if (want != row->live_bytes)
        out.difference = fmt::format("segment {} has {} live bytes and counts {}", model::to_string(*ref), want, row->live_bytes);
      if (it != live.end()) live.erase(it);
    }
    return out.difference.empty();
  });
  if (out.difference.empty() && !live.empty())
    out.difference = fmt::format("extents point to segment {}, which has no row", model::to_string(live.begin()->first));
  all(volume::row_kind::inode, [&](std::string_view key, byte_span value) {
    auto inode = volume::parse_inode_key(key);
    auto row = volume::decode_inode(value);
    if (!inode || !row.ok()) out.difference = "an inode row is damaged";
    else if (auto it = allocated.find(*inode); row->allocated != (it == allocated.end() ? 0 : it->second))
      out.difference = fmt::format("inode {:x} has {} bytes and counts {}", *inode, it == allocated.end() ? 0 : it->second, row->allocated);
    return out.difference.empty();
  });
  return out;
}

} // namespace qs::test
