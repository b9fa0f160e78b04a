// Sizes and durations as people write them ("20GiB", "10m") and as we print them.
// Used by storage.yaml, flags and views, so that one spelling holds everywhere.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.hpp"

namespace qs {

using byte_count = std::uint64_t;

inline constexpr byte_count kib = 1024;
inline constexpr byte_count mib = 1024 * kib;
inline constexpr byte_count gib = 1024 * mib;
inline constexpr byte_count tib = 1024 * gib;

/// "512", "20GiB", "1.5 TB": KiB…PiB are powers of 1024, kB…PB of 1000; a plain number is bytes.
/// Decimal fractions are allowed and rounded down. Errors: invalid_argument with what is expected.
result<byte_count> parse_bytes(std::string_view text);
/// "1.5 GiB": at most three significant digits, binary units.
std::string format_bytes(byte_count bytes);
/// The shortest exact form that parse_bytes reads back: "20GiB", "1500".
std::string exact_bytes(byte_count bytes);

/// "90s", "10m", "1h", "30d"; also "500ms". Errors: invalid_argument.
result<std::chrono::milliseconds> parse_duration(std::string_view text);
/// "2 h 10 m", "45 s", "3 d": two largest units, for people.
std::string format_duration(std::chrono::milliseconds duration);
/// The shortest exact form that parse_duration reads back: "10m", "36h", "500ms".
std::string exact_duration(std::chrono::milliseconds duration);

} // namespace qs
