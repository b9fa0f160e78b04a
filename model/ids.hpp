// Identities: plain values that name things everywhere. No behaviour beyond printing and comparing.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "base/bytes.hpp"

namespace qs::model {

/// A storage node: what we reserve. n1, n2, …; from a counter in the state, never reused.
struct node_id {
  std::uint32_t number = 0; ///< 0 = none
  auto operator<=>(const node_id&) const = default;
  [[nodiscard]] bool valid() const noexcept { return number != 0; }
};
std::string to_string(node_id id);                        ///< "n7"
std::optional<node_id> parse_node_id(std::string_view text); ///< reads "n7"

/// A placement group, 0-based.
struct group_id {
  std::uint32_t number = 0;
  auto operator<=>(const group_id&) const = default;
};
std::string to_string(group_id id); ///< "g3"

/// A segment within one volume: the epoch of the session that made it and that session's counter.
struct segment_ref {
  std::uint32_t epoch = 0;
  std::uint64_t counter = 0;
  auto operator<=>(const segment_ref&) const = default;
  [[nodiscard]] bool valid() const noexcept { return epoch != 0; }
};
std::string to_string(segment_ref ref); ///< "s3.17"

/// Name of a stored thing on a node: 32 bytes from which nothing can be told (volume.md, 1).
using object_name = std::array<std::byte, 32>;
using volume_id = std::array<std::byte, 16>;

} // namespace qs::model

template <>
struct std::hash<qs::model::node_id> {
  std::size_t operator()(qs::model::node_id id) const noexcept { return id.number; }
};
template <>
struct std::hash<qs::model::group_id> {
  std::size_t operator()(qs::model::group_id id) const noexcept { return id.number; }
};
template <>
struct std::hash<qs::model::segment_ref> {
  std::size_t operator()(qs::model::segment_ref ref) const noexcept {
    return (static_cast<std::size_t>(ref.epoch) << 40U) ^ ref.counter;
  }
};
