// Sockets that a server listens on, and the one that a peer is on. Blocking calls are none of
// these.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "base/posix.hpp"

namespace qs::zdb {

struct tcp_listener {
  unique_fd fd;
  std::string address; ///< "127.0.0.1:9900", "[::1]:9900": with the port the kernel gave
};

/// A numeric address, with or without brackets; port 0: the kernel chooses. `flag` names the
/// option in messages. Errors: invalid_argument, io, busy.
result<tcp_listener> listen_tcp(std::string_view flag, std::string host, std::uint16_t port);
/// Mode 0700 by the umask; one that nobody answers any more is taken away first. Errors: busy,
/// invalid_argument, io.
result<unique_fd> listen_unix(const std::filesystem::path& path);
/// A connected client's socket: no delay, and a peer that is gone without a word is noticed after
/// about two minutes.
void tune_client(int fd);
/// The next client, non-blocking; not valid: nobody (errno says why). `peer`: its address without
/// port, empty on a unix socket.
unique_fd accept_client(int listener, std::string& peer);

} // namespace qs::zdb
