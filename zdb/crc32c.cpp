#include "zdb/crc32c.hpp"

#include <array>
#include <cstring>

#if defined(__x86_64__)
#include <nmmintrin.h>
#elif defined(__aarch64__)
#include <arm_acle.h>
#include <sys/auxv.h>
#endif

namespace qs::zdb {

namespace {

constexpr std::array<std::uint32_t, 256> make_table() {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t i = 0; i < 256; ++i) {
    auto c = i;
    for (int bit = 0; bit < 8; ++bit) c = (c >> 1) ^ ((c & 1) != 0 ? 0x82f63b78U : 0U);
    table[i] = c;
  }
  return table;
}
constexpr auto table = make_table();

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) std::uint32_t by_instruction(byte_span bytes,
                                                               std::uint32_t crc) noexcept {
  auto* p = bytes.data();
  auto n = bytes.size();
  std::uint64_t wide = crc;
  for (; n >= 8; n -= 8, p += 8) {
    std::uint64_t word = 0;
    std::memcpy(&word, p, 8);
    wide = _mm_crc32_u64(wide, word);
  }
  auto narrow = static_cast<std::uint32_t>(wide);
  for (; n > 0; --n, ++p) narrow = _mm_crc32_u8(narrow, std::to_integer<std::uint8_t>(*p));
  return narrow;
}
bool has_instruction() noexcept { return __builtin_cpu_supports("sse4.2") != 0; }
#elif defined(__aarch64__)
__attribute__((target("+crc"))) std::uint32_t by_instruction(byte_span bytes,
                                                             std::uint32_t crc) noexcept {
  auto* p = bytes.data();
  auto n = bytes.size();
  for (; n >= 8; n -= 8, p += 8) {
    std::uint64_t word = 0;
    std::memcpy(&word, p, 8);
    crc = __crc32cd(crc, word);
  }
  for (; n > 0; --n, ++p) crc = __crc32cb(crc, std::to_integer<std::uint8_t>(*p));
  return crc;
}
bool has_instruction() noexcept { return (getauxval(AT_HWCAP) & (1UL << 7)) != 0; } // HWCAP_CRC32
#else
std::uint32_t by_instruction(byte_span bytes, std::uint32_t crc) noexcept {
  return crc32c_table(bytes, crc);
}
bool has_instruction() noexcept { return false; }
#endif

} // namespace

std::uint32_t crc32c_table(byte_span bytes, std::uint32_t crc) noexcept {
  for (auto b : bytes) crc = (crc >> 8) ^ table[(crc ^ std::to_integer<std::uint32_t>(b)) & 0xff];
  return crc;
}

std::uint32_t crc32c(byte_span bytes, std::uint32_t crc) noexcept {
  static const bool fast = has_instruction();
  return fast ? by_instruction(bytes, crc) : crc32c_table(bytes, crc);
}

} // namespace qs::zdb
