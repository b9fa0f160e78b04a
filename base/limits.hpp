// Every limit that more than one room must agree on. A limit of one room alone stands in that room.
#pragma once

#include <chrono>
#include <cstddef>

#include "base/units.hpp"

namespace qs::limits {

inline constexpr std::size_t data_shards_max = 32;   // k
inline constexpr std::size_t parity_shards_max = 16; // m
inline constexpr std::size_t segments_in_flight_max = 8;
inline constexpr std::size_t zdb_key_bytes_max = 255;
inline constexpr std::size_t zdb_payload_bytes_max = 8 << 20;
/// Bytes sent to one node and not yet answered.
inline constexpr std::size_t connection_window_bytes = 8 << 20;
inline constexpr std::chrono::seconds provider_call_deadline{30};
inline constexpr std::chrono::seconds node_request_deadline{10};
inline constexpr std::chrono::seconds node_connect_deadline{5};
inline constexpr std::size_t spec_bytes_max = 1 << 20;

} // namespace qs::limits
