#include "codec/checksum.hpp"

#include <isa-l/crc64.h>

#include "base/vector_state.hpp"

namespace qs::codec {

std::uint64_t checksum64(byte_span bytes, std::uint64_t before) noexcept {
  if (bytes.empty()) return before;
  auto sum = crc64_ecma_refl(before, uchars(bytes), bytes.size());
  clear_vector_upper();
  return sum;
}

} // namespace qs::codec
