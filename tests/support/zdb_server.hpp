// What the zdb tests share: a temporary directory, a server in a thread or in a process of its own,
// a raw socket.
#pragma once

#include <csignal>
#include <filesystem>
#include <functional>
#include <poll.h>
#include <string>
#include <sys/socket.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

#include <doctest/doctest.h>
#include <fmt/format.h>

#include "base/posix.hpp"
#include "zdb/blocking_client.hpp"
#include "zdb/server.hpp"

namespace qs::zdb {

struct temporary_directory {
  temporary_directory() {
    std::string name = (std::filesystem::temp_directory_path() / "qs-zdb-XXXXXX").string();
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    path = name;
  }
  ~temporary_directory() {
    std::error_code ec;
    std::filesystem::remove_all(path, ec);
  }
  temporary_directory(const temporary_directory&) = delete;
  temporary_directory& operator=(const temporary_directory&) = delete;
  std::filesystem::path path;
};

inline server_options local_options(const std::filesystem::path& data) {
  server_options o;
  o.data = data;
  o.port = 0;
  return o;
}

/// A server on a thread of this process, on a port given by the kernel.
class server_thread {
public:
  explicit server_thread(server_options o) {
    auto opened = server::open(std::move(o));
    REQUIRE_MESSAGE(opened.ok(), (opened.ok() ? "" : describe(opened.err())));
    server_ = std::move(*opened);
    thread_ = std::thread{[this] { ended = server_->run(); }};
  }
  ~server_thread() { stop(); }
  void stop() {
    if (!thread_.joinable()) return;
    server_->stop();
    thread_.join();
  }
  void wait() {
    if (thread_.joinable()) thread_.join();
  }
  [[nodiscard]] std::string address() const { return server_->address(); }
  [[nodiscard]] std::string metrics_address() const { return server_->metrics_address(); }
  std::unique_ptr<blocking_client> connect(session_options o = {}) {
    auto c = blocking_client::connect(address(), std::move(o));
    REQUIRE_MESSAGE(c.ok(), (c.ok() ? "" : describe(c.err())));
    return std::move(*c);
  }
  status ended;

private:
  std::unique_ptr<server> server_;
  std::thread thread_;
};

/// Waits for a condition, at most ten seconds.
inline bool eventually(const std::function<bool()>& what) {
  auto until = std::chrono::steady_clock::now() + std::chrono::seconds{10};
  while (!what()) {
    if (std::chrono::steady_clock::now() > until) return false;
    ::poll(nullptr, 0, 2);
  }
  return true;
}

/// A server in a process of its own, to be killed.
class server_process {
public:
  explicit server_process(server_options o) : endpoint_{o.data / "endpoint"} {
    std::filesystem::remove(endpoint_);
    o.logfile = o.data.string() + ".log";
    pid_ = ::fork();
    REQUIRE(pid_ >= 0);
    if (pid_ == 0) {
      // As an engine that waits for signals on a thread of its own would leave them.
      sigset_t all;
      sigfillset(&all);
      ::pthread_sigmask(SIG_BLOCK, &all, nullptr);
      ::_exit(run_server(o));
    }
  }
  ~server_process() {
    if (pid_ > 0) kill(SIGKILL);
  }
  std::string address() {
    std::string text;
    auto there = eventually([&] {
      auto read = read_file(endpoint_);
      if (read.ok()) text = *read;
      return read.ok();
    });
    REQUIRE(there);
    REQUIRE(text.ends_with('\n'));
    text.pop_back();
    return text;
  }
  /// The exit code, or minus the signal.
  int kill(int number) {
    ::kill(pid_, number);
    return wait();
  }
  int wait() {
    int state = 0;
    REQUIRE(::waitpid(pid_, &state, 0) == pid_);
    pid_ = -1;
    return WIFEXITED(state) ? WEXITSTATUS(state) : -WTERMSIG(state);
  }
  [[nodiscard]] pid_t pid() const { return pid_; }

private:
  std::filesystem::path endpoint_;
  pid_t pid_ = -1;
};

/// Bytes out, bytes in, nothing understood.
class raw_socket {
public:
  explicit raw_socket(const std::string& address) {
    auto fd = connect_stream(address, std::chrono::seconds{5});
    REQUIRE(fd.ok());
    fd_ = std::move(*fd);
  }
  void send(std::string_view text) {
    while (!text.empty()) {
      auto n = ::send(fd_.get(), text.data(), text.size(), MSG_NOSIGNAL);
      if (n < 0 && (errno == EPIPE || errno == ECONNRESET)) return;
      if (n > 0)
        text.remove_prefix(static_cast<std::size_t>(n));
      else
        wait(POLLOUT);
    }
  }
  /// Exactly so many bytes, or what came before the end.
  std::string receive(std::size_t n) {
    std::string out;
    while (out.size() < n) {
      auto more = some(n - out.size());
      if (more.empty()) break;
      out += more;
    }
    return out;
  }
  /// Up to the next line's end, without it.
  std::string line() {
    std::string out;
    for (auto c = receive(1); !c.empty() && c != "\n"; c = receive(1)) out += c;
    if (out.ends_with('\r')) out.pop_back();
    return out;
  }
  std::string receive_all() { return receive(static_cast<std::size_t>(-1)); }
  /// Sends and expects exactly this.
  void talk(std::string_view request, std::string_view reply) {
    send(request);
    CHECK(receive(reply.size()) == reply);
  }
  [[nodiscard]] int fd() const { return fd_.get(); }

private:
  std::string some(std::size_t most) {
    std::string out(std::min<std::size_t>(most, 1 << 16), '\0');
    for (;;) {
      auto n = ::recv(fd_.get(), out.data(), out.size(), MSG_DONTWAIT);
      if (n >= 0) {
        out.resize(static_cast<std::size_t>(n));
        return out;
      }
      if (errno != EAGAIN) return {};
      if (!wait(POLLIN)) return {};
    }
  }
  bool wait(short events) {
    pollfd p{fd_.get(), events, 0};
    return ::poll(&p, 1, 10'000) == 1;
  }
  unique_fd fd_;
};

/// A line "NAME value" of the metrics.
inline std::uint64_t metric(const std::string& address, const std::string& name) {
  raw_socket s{address};
  s.send("GET /metrics HTTP/1.1\r\n\r\n");
  auto all = s.receive_all();
  auto at = all.find("\n" + name + " ");
  REQUIRE(at != std::string::npos);
  return std::stoull(all.substr(at + name.size() + 2));
}

inline std::string command(std::initializer_list<std::string_view> args) {
  std::string out = fmt::format("*{}\r\n", args.size());
  for (auto a : args) out += fmt::format("${}\r\n{}\r\n", a.size(), a);
  return out;
}

inline std::string text_of(const buffer_ptr& b) { return std::string{as_text(*b)}; }

} // namespace qs::zdb
