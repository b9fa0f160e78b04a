#include "volume/row_cache.hpp"

namespace qs::volume {

row_cache::looked row_cache::find(std::string_view key) {
  auto& p = of(key);
  std::lock_guard lock{p.mutex};
  auto it = p.map.find(key);
  if (it == p.map.end()) return {false, {}, p.version};
  p.rows.splice(p.rows.begin(), p.rows, it->second);
  return {true, it->second->value, p.version};
}

void row_cache::fill(std::string_view key, const std::optional<buffer>& value, std::uint64_t version) {
  auto& p = of(key);
  std::lock_guard lock{p.mutex};
  if (p.version == version && !p.map.contains(key)) keep(p, key, value);
}

void row_cache::put(std::string_view key, std::optional<buffer> value) {
  auto& p = of(key);
  std::lock_guard lock{p.mutex};
  ++p.version;
  auto it = p.map.find(key);
  bool longer = value && value->size() > value_bytes_max;
  if (it == p.map.end() || longer) {
    drop(p, key);
    keep(p, key, std::move(value));
    return;
  }
  it->second->value = std::move(value);
  p.rows.splice(p.rows.begin(), p.rows, it->second);
}

void row_cache::keep(part& p, std::string_view key, std::optional<buffer> value) {
  if (value && value->size() > value_bytes_max) return;
  p.rows.push_front({std::string{key}, std::move(value)});
  p.map.emplace(p.rows.front().key, p.rows.begin());
  if (p.rows.size() > part_rows_) drop(p, p.rows.back().key);
}

void row_cache::drop(part& p, std::string_view key) {
  auto it = p.map.find(key);
  if (it == p.map.end()) return;
  auto at = it->second;
  p.map.erase(it);
  p.rows.erase(at);
}

} // namespace qs::volume
