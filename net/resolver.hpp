// resolver: host names to addresses on helper threads, since getaddrinfo can neither be bounded nor cancelled.
// At most four threads, started when needed; they outlive whoever asked (one stuck in a lookup must not hold up the end of
// the program), so everything they touch is shared. Used by the connector alone.
#pragma once

#include <sys/socket.h>

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "net/address.hpp"

namespace qs::net {

struct socket_address {
  sockaddr_storage storage{};
  socklen_t length = 0;
};

/// The address itself when it is numeric.
std::optional<socket_address> numeric_address(const address& where);

/// One question and, later, its answer. Thread-safe.
class lookup {
public:
  lookup(std::string host, std::uint16_t port) : host_{std::move(host)}, port_{port} {}
  /// The answer, once; nothing while there is none.
  std::optional<result<std::vector<socket_address>>> take();

private:
  friend class resolver;
  std::string host_;
  std::uint16_t port_;
  std::mutex mutex_;
  std::optional<result<std::vector<socket_address>>> answer_;
};

class resolver {
public:
  /// `answered` is called on a helper thread after an answer; it must be harmless at any time.
  explicit resolver(std::function<void()> answered);
  ~resolver();
  /// Dropping the lookup drops the question if it was not begun.
  std::shared_ptr<lookup> start(std::string host, std::uint16_t port);

private:
  struct shared;
  static void work(const std::shared_ptr<shared>& s);
  std::shared_ptr<shared> shared_;
};

} // namespace qs::net
