// secret<N>: key material that is wiped when it goes and cannot be printed by accident.
#pragma once

#include <array>
#include <cstddef>
#include <cstring>

#include <sodium.h>

#include "base/assert.hpp"
#include "base/bytes.hpp"

namespace qs {

template <std::size_t N>
class secret {
public:
  secret() = default;
  explicit secret(byte_span bytes) {
    QS_ASSERT(bytes.size() == N);
    std::memcpy(data_.data(), bytes.data(), N);
  }
  secret(const secret&) = default;
  secret& operator=(const secret&) = default;
  ~secret() { sodium_memzero(data_.data(), N); }

  [[nodiscard]] byte_span bytes() const noexcept { return data_; }
  [[nodiscard]] mutable_byte_span bytes() noexcept { return data_; }
  /// Compares in constant time.
  bool operator==(const secret& other) const noexcept {
    return sodium_memcmp(data_.data(), other.data_.data(), N) == 0;
  }

private:
  std::array<std::byte, N> data_{};
};

} // namespace qs
