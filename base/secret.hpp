// secret<N>: key material that is wiped when it goes and cannot be printed by accident.
#pragma once

#include <array>
#include <cstddef>
#include <cstring>
#include <string>
#include <string_view>

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

/// A password: text that is wiped when it goes and cannot be printed by accident.
class secret_string {
public:
  secret_string() = default;
  explicit secret_string(std::string_view text) : text_{text} {}
  secret_string(const secret_string&) = default;
  secret_string(secret_string&&) = default;
  secret_string& operator=(const secret_string& other) {
    if (this != &other) {
      wipe();
      text_ = other.text_;
    }
    return *this;
  }
  secret_string& operator=(secret_string&& other) noexcept {
    if (this != &other) {
      wipe();
      text_ = std::move(other.text_);
    }
    return *this;
  }
  ~secret_string() { wipe(); }

  [[nodiscard]] std::string_view text() const noexcept { return text_; }
  [[nodiscard]] bool empty() const noexcept { return text_.empty(); }

private:
  void wipe() noexcept { sodium_memzero(text_.data(), text_.size()); }
  std::string text_;
};

} // namespace qs
