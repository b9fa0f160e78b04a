// Randomness as a parameter. Keys come from system_random(), everything that must replay from a seed from seeded_random.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "base/bytes.hpp"

namespace qs {

class random_source {
public:
  virtual ~random_source() = default;
  virtual void fill(mutable_byte_span out) = 0;

  std::uint64_t next_u64();
  /// Uniform in [0, bound); bound must not be 0.
  std::uint64_t below(std::uint64_t bound);
  template <std::size_t N>
  std::array<std::byte, N> array() {
    std::array<std::byte, N> out;
    fill(out);
    return out;
  }
};

/// The kernel's generator through libsodium. Thread-safe.
random_source& system_random();

/// Deterministic stream of a seed (libsodium's ChaCha20 stream). Never for keys. Not thread-safe.
class seeded_random final : public random_source {
public:
  explicit seeded_random(std::uint64_t seed);
  void fill(mutable_byte_span out) override;

private:
  std::uint64_t seed_;
  std::uint64_t calls_ = 0;
};

} // namespace qs
