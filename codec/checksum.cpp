#include "codec/checksum.hpp"

#include <isa-l/crc64.h>

namespace qs::codec {

std::uint64_t checksum64(byte_span bytes, std::uint64_t before) noexcept {
  return bytes.empty() ? before : crc64_ecma_refl(before, uchars(bytes), bytes.size());
}

} // namespace qs::codec
