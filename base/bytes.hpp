// Bytes: the vocabulary types for memory, and little-endian reading and writing with bounds.
// Every length that comes from outside goes through byte_reader, which fails instead of overrunning.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace qs {

using byte_span = std::span<const std::byte>;
using mutable_byte_span = std::span<std::byte>;
using buffer = std::vector<std::byte>;
/// Bytes that cross threads and actors: shared, never changed after they are made.
using buffer_ptr = std::shared_ptr<const buffer>;

inline byte_span as_bytes(std::string_view text) noexcept {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}
inline std::string_view as_text(byte_span bytes) noexcept {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}
inline std::string to_string(byte_span bytes) { return std::string{as_text(bytes)}; }
inline buffer to_buffer(byte_span bytes) { return {bytes.begin(), bytes.end()}; }
inline buffer to_buffer(std::string_view text) { return to_buffer(as_bytes(text)); }
inline buffer_ptr share(buffer bytes) { return std::make_shared<const buffer>(std::move(bytes)); }

/// For C libraries that want unsigned char.
inline const unsigned char* uchars(byte_span bytes) noexcept {
  return reinterpret_cast<const unsigned char*>(bytes.data());
}
inline unsigned char* uchars(mutable_byte_span bytes) noexcept {
  return reinterpret_cast<unsigned char*>(bytes.data());
}

/// Lowercase hex.
std::string to_hex(byte_span bytes);
/// Nothing unless `text` is an even number of hex digits (either case).
std::optional<buffer> from_hex(std::string_view text);
/// base64url without padding (RFC 4648, section 5).
std::string to_base64url(byte_span bytes);

template <class T>
  requires std::is_unsigned_v<T>
T load_le(const std::byte* from) noexcept {
  T value = 0;
  for (std::size_t i = 0; i < sizeof(T); ++i)
    value = static_cast<T>(value | static_cast<T>(static_cast<T>(from[i]) << (8 * i)));
  return value;
}

template <class T>
  requires std::is_unsigned_v<T>
void store_le(std::byte* to, T value) noexcept {
  for (std::size_t i = 0; i < sizeof(T); ++i)
    to[i] = static_cast<std::byte>(static_cast<std::uint8_t>(value >> (8 * i)));
}

/// Big-endian, for keys whose byte order must be their numeric order.
template <class T>
  requires std::is_unsigned_v<T>
T load_be(const std::byte* from) noexcept {
  T value = 0;
  for (std::size_t i = 0; i < sizeof(T); ++i)
    value = static_cast<T>(static_cast<T>(value << 8) | static_cast<T>(from[i]));
  return value;
}

template <class T>
  requires std::is_unsigned_v<T>
void store_be(std::byte* to, T value) noexcept {
  for (std::size_t i = 0; i < sizeof(T); ++i)
    to[sizeof(T) - 1 - i] = static_cast<std::byte>(static_cast<std::uint8_t>(value >> (8 * i)));
}

/// Appends little-endian fields to a buffer it does not own.
class byte_writer {
public:
  explicit byte_writer(buffer& out) : out_{out} {}

  template <class T>
    requires std::is_unsigned_v<T>
  byte_writer& put(T value) {
    auto at = out_.size();
    out_.resize(at + sizeof(T));
    store_le(out_.data() + at, value);
    return *this;
  }
  template <class T>
    requires std::is_unsigned_v<T>
  byte_writer& put_be(T value) {
    auto at = out_.size();
    out_.resize(at + sizeof(T));
    store_be(out_.data() + at, value);
    return *this;
  }
  byte_writer& put_bytes(byte_span bytes) {
    out_.insert(out_.end(), bytes.begin(), bytes.end());
    return *this;
  }
  /// A u32 length, then the bytes.
  byte_writer& put_sized(byte_span bytes) {
    put(static_cast<std::uint32_t>(bytes.size()));
    return put_bytes(bytes);
  }
  byte_writer& put_sized(std::string_view text) { return put_sized(as_bytes(text)); }
  [[nodiscard]] std::size_t size() const noexcept { return out_.size(); }

private:
  buffer& out_;
};

/// Reads little-endian fields from bytes it does not own. After a read past the end `ok()` is false
/// for ever and every further read gives zero: check once, at the end, before anything is believed.
class byte_reader {
public:
  explicit byte_reader(byte_span in) : in_{in} {}

  template <class T>
    requires std::is_unsigned_v<T>
  T get() noexcept {
    if (!take(sizeof(T))) return 0;
    return load_le<T>(in_.data() + at_ - sizeof(T));
  }
  template <class T>
    requires std::is_unsigned_v<T>
  T get_be() noexcept {
    if (!take(sizeof(T))) return 0;
    return load_be<T>(in_.data() + at_ - sizeof(T));
  }
  byte_span get_bytes(std::size_t n) noexcept {
    if (!take(n)) return {};
    return in_.subspan(at_ - n, n);
  }
  template <std::size_t N>
  std::array<std::byte, N> get_array() noexcept {
    std::array<std::byte, N> out{};
    auto bytes = get_bytes(N);
    if (bytes.size() == N) std::memcpy(out.data(), bytes.data(), N);
    return out;
  }
  /// A u32 length, then so many bytes; fails if the length is over `most`.
  byte_span get_sized(std::size_t most) noexcept {
    auto n = get<std::uint32_t>();
    if (n > most) {
      ok_ = false;
      return {};
    }
    return get_bytes(n);
  }
  [[nodiscard]] std::size_t left() const noexcept { return ok_ ? in_.size() - at_ : 0; }
  [[nodiscard]] std::size_t position() const noexcept { return at_; }
  [[nodiscard]] bool ok() const noexcept { return ok_; }
  /// All read, nothing overrun: what a strict parser asks at the end.
  [[nodiscard]] bool done() const noexcept { return ok_ && at_ == in_.size(); }

private:
  bool take(std::size_t n) noexcept {
    if (!ok_ || n > in_.size() - at_) {
      ok_ = false;
      return false;
    }
    at_ += n;
    return true;
  }

  byte_span in_;
  std::size_t at_ = 0;
  bool ok_ = true;
};

} // namespace qs
