// CRC-32C as the protocol has it: polynomial of SSE4.2's instruction, initial value 0, no final
// inversion
// ("1" gives 0xc288cab2). The processor's instruction where there is one, a table elsewhere.
#pragma once

#include <cstdint>

#include "base/bytes.hpp"

namespace qs::zdb {

/// Continues `crc` over `bytes`; start with 0 for payloads, with anything else where zeros must
/// count.
std::uint32_t crc32c(byte_span bytes, std::uint32_t crc = 0) noexcept;
/// The same by table, for processors without the instruction and for the test that compares them.
std::uint32_t crc32c_table(byte_span bytes, std::uint32_t crc = 0) noexcept;

} // namespace qs::zdb
