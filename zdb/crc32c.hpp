// CRC-32C as the protocol has it: polynomial of iSCSI, initial value 0, no final inversion ("1" gives 0xc288cab2). ISA-L
// picks the processor's fastest way. No state; callable from any thread.
#pragma once

#include <cstdint>

#include "base/bytes.hpp"

namespace qs::zdb {

/// Continues `crc` over `bytes`; start with 0 for payloads, with anything else where zeros must count.
std::uint32_t crc32c(byte_span bytes, std::uint32_t crc = 0) noexcept;

} // namespace qs::zdb
