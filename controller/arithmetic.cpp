// Sizes and counts; docs/capacity.md shows the same formulas with a table and why they are what
// they are.
#include <algorithm>
#include <limits>

#include "base/assert.hpp"
#include "controller/decide.hpp"

namespace qs::controller {
namespace {

__extension__ using wide = unsigned __int128;

} // namespace

byte_count node_size(byte_count capacity, int data_shards, int parity_shards, int nodes) {
  QS_ASSERT(data_shards > 0 && parity_shards >= 0 && nodes > 0);
  auto k = static_cast<wide>(data_shards);
  auto n = k + static_cast<wide>(parity_shards);
  auto divisor = wide{100} * k * static_cast<wide>(nodes);
  auto payload = (wide{115} * capacity * n + divisor - 1) / divisor;
  auto metadata = std::min<wide>(capacity / 100, wide{4} * gib);
  auto bytes = payload + metadata + wide{256} * mib;
  auto whole = (bytes + gib - 1) / gib;
  auto most = std::numeric_limits<byte_count>::max() / gib;
  return static_cast<byte_count>(std::min<wide>(whole, most)) * gib;
}

std::uint32_t group_count(int nodes, int shards) {
  QS_ASSERT(nodes > 0 && shards > 0);
  return static_cast<std::uint32_t>(std::max(16, (16 * nodes + shards - 1) / shards));
}

byte_count node_room(byte_count size) {
  auto kept = std::max<byte_count>(256 * mib, size / 20);
  return size > kept ? size - kept : 0;
}

byte_count usable_bytes(const std::vector<model::group>& groups,
                        const std::map<model::node_id, byte_count>& sizes, int data_shards) {
  std::map<model::node_id, byte_count> slots;
  for (const auto& g : groups)
    for (auto id : g.slots) ++slots[id];
  std::map<model::node_id, byte_count> share;
  for (auto [id, count] : slots) {
    auto size = sizes.find(id);
    share[id] = size == sizes.end() ? 0 : node_room(size->second) / count;
  }
  byte_count sum = 0;
  for (const auto& g : groups) {
    auto least = std::numeric_limits<byte_count>::max();
    for (auto id : g.slots) least = std::min(least, share[id]);
    if (!g.slots.empty()) sum += least * static_cast<byte_count>(data_shards);
  }
  return sum;
}

} // namespace qs::controller
