// A fast 64-bit checksum against accidents (torn writes, bad sectors), not against people.
// CRC-64/XZ by ISA-L, which uses carry-less multiplication where there is one and gives the same
// value everywhere. Any thread.
#pragma once

#include <cstdint>

#include "base/bytes.hpp"

namespace qs::codec {

/// checksum64(b, checksum64(a)) == checksum64(a ‖ b); so a record's checksum can go on from the
/// last one's.
std::uint64_t checksum64(byte_span bytes, std::uint64_t before = 0) noexcept;

} // namespace qs::codec
