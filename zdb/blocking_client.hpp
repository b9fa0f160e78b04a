// A zdb client for threads that may wait: one socket, one session, one operation at a time, each
// with a deadline. For providers on blocking threads, tools and tests; actors drive a session
// themselves. Not thread-safe.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/posix.hpp"
#include "zdb/session.hpp"

namespace qs::zdb {

/// Connects a TCP ("host:port", "[::1]:port") or unix ("unix:/path") stream socket, TCP_NODELAY
/// set, non-blocking, within the deadline. Errors: invalid_argument, unreachable, timed_out.
/// Resolves names, on a thread of its own, so that the deadline holds for that as well.
result<unique_fd> connect_stream(std::string_view address, std::chrono::milliseconds deadline);

class blocking_client {
public:
  /// Connects and does the handshake within `deadline`, which later operations take too, each anew;
  /// after `end` none is begun and none goes on: timed_out.
  static result<std::unique_ptr<blocking_client>>
  connect(std::string_view address, session_options options,
          std::chrono::milliseconds deadline = std::chrono::seconds{10},
          std::chrono::steady_clock::time_point end = std::chrono::steady_clock::time_point::max());
  ~blocking_client();

  // As in session.hpp. After unreachable, timed_out, maybe_delivered or protocol the client is
  // closed.
  result<set_outcome> set(std::string key, buffer_ptr value);
  result<set_outcome> set(std::string key, std::string_view value);
  result<bool> setnx(std::string key, buffer_ptr value);
  result<buffer_ptr> get(std::string key);
  status del(std::string key);
  result<bool> exists(std::string key);
  result<bool> check(std::string key);
  status sync();
  result<scan_page> scan(std::string cursor = {});
  result<namespace_info> nsinfo(std::string name_space);
  result<server_info> info();
  status ping();
  result<std::uint64_t> dbsize();
  result<std::string> append(buffer_ptr value);
  status nsnew(std::string name_space);
  status nsset(std::string name_space, std::string property, std::string value);
  status nsdel(std::string name_space);
  result<std::vector<std::string>> nslist();
  status flush();
  status select(std::string name_space, std::string password);

  /// Drives the socket until `done()` or the deadline: for pipelines through session().
  status run_until(const std::function<bool()>& done);
  [[nodiscard]] session& raw() noexcept { return session_; }
  [[nodiscard]] bool closed() const noexcept { return session_.closed(); }
  [[nodiscard]] const server_info& server() const noexcept { return session_.server(); }
  [[nodiscard]] bool has(std::string_view extension) const { return session_.has(extension); }

private:
  blocking_client(unique_fd fd, session_options options, std::chrono::milliseconds deadline,
                  std::chrono::steady_clock::time_point end);
  template <class T, class Start>
  result<T> call(Start&& start);

  unique_fd fd_;
  session session_;
  std::chrono::milliseconds deadline_;
  std::chrono::steady_clock::time_point end_;
  std::vector<piece> sending_;
  std::size_t first_ = 0;
  std::size_t offset_ = 0;
  buffer in_;
};

} // namespace qs::zdb
