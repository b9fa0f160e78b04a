// connector: connects stream sockets without blocking whoever asks, each with a deadline.
// One thread of its own for all connects (poll), up to four helper threads for names (getaddrinfo cannot be bounded; an
// answer after the deadline is dropped). Not for sending or receiving: the descriptor is handed over. Owned by the engine.
// Thread-safe. Callbacks run on the connector's thread and must be short; they may call connect().
#pragma once

#include <chrono>
#include <functional>
#include <memory>

#include "base/posix.hpp"
#include "base/result.hpp"
#include "net/address.hpp"

namespace qs::net {

class connector {
public:
  /// Called exactly once. The descriptor is connected, non-blocking, close-on-exec, TCP_NODELAY set.
  /// Errors: unreachable (refused, no route, no such name), timed_out, invalid_argument, cancelled (the connector goes away).
  using done = std::function<void(result<unique_fd>)>;

  connector();
  /// Answers everything outstanding with errc::cancelled, on the calling thread.
  ~connector();
  connector(const connector&) = delete;
  connector& operator=(const connector&) = delete;

  /// All addresses of a name are tried in order within the one deadline. `callback` may be called before this returns
  /// only when the connector is going away.
  void connect(address where, std::chrono::milliseconds deadline, done callback);

private:
  class core;
  std::shared_ptr<core> core_;
};

} // namespace qs::net
