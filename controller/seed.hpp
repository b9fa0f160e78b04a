// Seeded choices: one number from names, the same on every machine and in every build. Internal to
// controller.
#pragma once

#include <cstdint>
#include <string_view>

#include <sodium.h>

#include "base/bytes.hpp"

namespace qs::controller {

inline std::uint64_t mix(std::string_view name, std::uint64_t a, std::uint64_t b = 0,
                         std::uint64_t c = 0) {
  buffer in;
  byte_writer{in}.put_sized(name).put(a).put(b).put(c);
  std::array<std::byte, crypto_generichash_BYTES_MIN> out{};
  crypto_generichash(uchars(mutable_byte_span{out}), out.size(), uchars(byte_span{in}), in.size(),
                     nullptr, 0);
  return load_le<std::uint64_t>(out.data());
}

/// Cheap and good enough to break ties with: splitmix64 of both.
inline std::uint64_t stir(std::uint64_t seed, std::uint64_t value) noexcept {
  auto x = seed + 0x9e3779b97f4a7c15ULL * (value + 1);
  x = (x ^ (x >> 30U)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27U)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31U);
}

} // namespace qs::controller
