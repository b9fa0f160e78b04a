// Addresses of stream sockets as text and as values: "host:port", "[::1]:port", "unix:/path".
// Parsing only: names are resolved by the connector.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.hpp"
#include "model/node.hpp"

namespace qs::net {

struct address {
  std::string host;       ///< a name, an IPv4 or IPv6 address without brackets; for unix the path
  std::uint16_t port = 0; ///< 0 for unix
  bool is_unix = false;
  bool operator==(const address&) const = default;
};

/// Reads "host:port", "1.2.3.4:port", "[::1]:port", "unix:/path". Errors: invalid_argument saying what is expected.
result<address> parse_address(std::string_view text);
/// The text that parse_address reads back.
std::string to_string(const address& where);
/// A node's endpoint: an address that starts with '/' or "unix:" is the path of a unix socket.
/// Errors: invalid_argument for an empty address or port 0.
result<address> from_endpoint(const model::endpoint& where);
/// True for 127.0.0.0/8, ::1, "localhost" and unix sockets: what is said there does not leave this machine.
bool is_loopback(const address& where);

} // namespace qs::net
