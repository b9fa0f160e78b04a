#include "zdb/crc32c.hpp"

#include <algorithm>
#include <isa-l/crc.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace qs::zdb {

namespace {
#if defined(__x86_64__)
/// ISA-L leaves the upper halves of the vector registers in use, and every SSE instruction of the
/// process pays for it from then on: several microseconds for a small command.
__attribute__((target("avx"))) void clear_upper() noexcept { _mm256_zeroupper(); }
const bool has_upper = __builtin_cpu_supports("avx") != 0;
#else
void clear_upper() noexcept {}
constexpr bool has_upper = false;
#endif
} // namespace

std::uint32_t crc32c(byte_span bytes, std::uint32_t crc) noexcept {
  constexpr std::size_t most = std::size_t{1} << 30; // ISA-L counts in int
  while (!bytes.empty()) {
    auto piece = bytes.first(std::min(bytes.size(), most));
    auto* p = const_cast<unsigned char*>(reinterpret_cast<const unsigned char*>(piece.data())); // only read
    crc = ::crc32_iscsi(p, static_cast<int>(piece.size()), crc);
    bytes = bytes.subspan(piece.size());
  }
  if (has_upper) clear_upper();
  return crc;
}

} // namespace qs::zdb
