#include "net/address.hpp"

#include <arpa/inet.h>

#include <charconv>

#include <fmt/format.h>

namespace qs::net {

namespace {

error bad_address(std::string_view text) {
  return {errc::invalid_argument,
          fmt::format("\"{}\" is no address: expected HOST:PORT, [IPV6]:PORT or unix:PATH", text)};
}

bool parse_port(std::string_view text, std::uint16_t& port) {
  auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), port);
  return ec == std::errc{} && end == text.data() + text.size() && port != 0;
}

} // namespace

result<address> parse_address(std::string_view text) {
  address out;
  if (text.starts_with("unix:")) {
    out.host = text.substr(5);
    out.is_unix = true;
    if (out.host.empty() || out.host.find('\0') != std::string::npos) return bad_address(text);
    return out;
  }
  auto colon = text.rfind(':');
  if (colon == std::string_view::npos || !parse_port(text.substr(colon + 1), out.port))
    return bad_address(text);
  auto host = text.substr(0, colon);
  if (host.starts_with('[')) {
    if (!host.ends_with(']') || host.size() < 3) return bad_address(text);
    host = host.substr(1, host.size() - 2);
  } else if (host.find(':') != std::string_view::npos) {
    return bad_address(text); // an IPv6 address without brackets: which colon is the port's?
  }
  for (char c : host)
    if (c <= ' ' || c == 0x7f || c == '/' || c == '[' || c == ']') return bad_address(text);
  if (host.empty()) return bad_address(text);
  out.host = host;
  return out;
}

std::string to_string(const address& where) {
  if (where.is_unix) return "unix:" + where.host;
  if (where.host.find(':') != std::string::npos) return fmt::format("[{}]:{}", where.host, where.port);
  return fmt::format("{}:{}", where.host, where.port);
}

result<address> from_endpoint(const model::endpoint& where) {
  if (where.address.starts_with("unix:")) return parse_address(where.address);
  if (where.address.starts_with('/')) return parse_address("unix:" + where.address);
  if (where.address.find(':') != std::string::npos && !where.address.starts_with('['))
    return parse_address(fmt::format("[{}]:{}", where.address, where.port));
  return parse_address(fmt::format("{}:{}", where.address, where.port));
}

bool is_loopback(const address& where) {
  if (where.is_unix || where.host == "localhost") return true;
  in_addr four{};
  if (inet_pton(AF_INET, where.host.c_str(), &four) == 1) return (ntohl(four.s_addr) >> 24U) == 127;
  in6_addr six{};
  if (inet_pton(AF_INET6, where.host.c_str(), &six) == 1) return IN6_IS_ADDR_LOOPBACK(&six) != 0;
  return false;
}

} // namespace qs::net
