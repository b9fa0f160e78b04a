#include "base/bytes.hpp"

namespace qs {

std::string to_hex(byte_span bytes) {
  static constexpr std::string_view digits = "0123456789abcdef";
  std::string out;
  out.reserve(bytes.size() * 2);
  for (auto b : bytes) {
    auto v = static_cast<unsigned>(b);
    out.push_back(digits[v >> 4]);
    out.push_back(digits[v & 15]);
  }
  return out;
}

namespace {

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

} // namespace

std::optional<buffer> from_hex(std::string_view text) {
  if (text.size() % 2 != 0) return std::nullopt;
  buffer out;
  out.reserve(text.size() / 2);
  for (std::size_t i = 0; i < text.size(); i += 2) {
    auto high = hex_digit(text[i]);
    auto low = hex_digit(text[i + 1]);
    if (high < 0 || low < 0) return std::nullopt;
    out.push_back(static_cast<std::byte>(high * 16 + low));
  }
  return out;
}

std::string to_base64url(byte_span bytes) {
  static constexpr std::string_view digits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
  std::string out;
  out.reserve((bytes.size() * 4 + 2) / 3);
  std::uint32_t bits = 0;
  int have = 0;
  for (auto b : bytes) {
    bits = (bits << 8) | static_cast<std::uint32_t>(b);
    have += 8;
    while (have >= 6) {
      have -= 6;
      out.push_back(digits[(bits >> have) & 63]);
    }
  }
  if (have > 0) out.push_back(digits[(bits << (6 - have)) & 63]);
  return out;
}

} // namespace qs
