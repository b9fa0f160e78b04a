#include "net/connector.hpp"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <deque>
#include <filesystem>
#include <list>
#include <mutex>
#include <thread>
#include <vector>

#include <fmt/format.h>

#include "net/resolver.hpp"

namespace qs::net {

namespace {

using steady = std::chrono::steady_clock;

struct job {
  address where;
  steady::time_point deadline;
  connector::done callback;
  std::shared_ptr<lookup> names;         ///< while the name is being resolved
  std::vector<socket_address> candidates; ///< not tried yet, first first
  unique_fd fd;                          ///< connecting
  steady::time_point give_up{};          ///< on this candidate
  error last;                            ///< why the candidate before failed
};

error connect_error(const address& where, int sys) {
  auto e = errno_error("connect to " + to_string(where), sys);
  // Whatever the kernel's reason, nothing was sent and another attempt may do.
  if (e.code != errc::timed_out) e.code = errc::unreachable;
  return e;
}

error late(const address& where) {
  return {errc::timed_out, fmt::format("connect to {}: no answer in time", to_string(where)), ETIMEDOUT};
}

/// A path over 107 bytes does not fit sockaddr_un: reach it through its directory's descriptor.
result<socket_address> unix_address(const std::string& path, unique_fd& directory) {
  socket_address out;
  sockaddr_un sun{};
  sun.sun_family = AF_UNIX;
  auto name = path;
  if (name.size() >= sizeof(sun.sun_path)) {
    std::filesystem::path whole{path};
    directory.reset(::open(whole.parent_path().c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (!directory.valid()) return errno_error("open " + whole.parent_path().string(), errno);
    name = fmt::format("/proc/self/fd/{}/{}", directory.get(), whole.filename().string());
    if (name.size() >= sizeof(sun.sun_path))
      return error{errc::invalid_argument, "the socket's name is too long: " + path};
  }
  std::memcpy(sun.sun_path, name.data(), name.size());
  std::memcpy(&out.storage, &sun, sizeof sun);
  out.length = sizeof sun;
  return out;
}

} // namespace

class connector::core {
public:
  core() : wake_{::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)} {
    QS_ASSERT(wake_.valid());
    resolver_ = std::make_unique<resolver>([fd = wake_.get()] { ring(fd); }); // gone before wake_ is
    thread_ = std::thread{[this] { run(); }};
  }

  ~core() {
    {
      std::lock_guard lock{mutex_};
      stopping_ = true;
    }
    ring(wake_.get());
    thread_.join();
    for (auto& j : incoming_) jobs_.push_back(std::move(j));
    for (auto& j : jobs_)
      j.callback(error{errc::cancelled, "connect to " + to_string(j.where) + ": stopping"});
  }

  void add(job j) {
    {
      std::lock_guard lock{mutex_};
      if (!stopping_) {
        incoming_.push_back(std::move(j));
        ring(wake_.get());
        return;
      }
    }
    j.callback(error{errc::cancelled, "connect to " + to_string(j.where) + ": stopping"});
  }

private:
  static void ring(int fd) {
    std::uint64_t one = 1;
    [[maybe_unused]] auto n = ::write(fd, &one, sizeof one); // full means that it rings already
  }

  void run() {
    std::vector<pollfd> polled;
    std::vector<std::list<job>::iterator> owners;
    for (;;) {
      {
        std::lock_guard lock{mutex_};
        if (stopping_) return;
        while (!incoming_.empty()) {
          jobs_.push_back(std::move(incoming_.front()));
          incoming_.pop_front();
          fresh_.push_back(std::prev(jobs_.end()));
        }
      }
      for (auto j : std::exchange(fresh_, {})) begin(j);
      polled.assign(1, {wake_.get(), POLLIN, 0});
      owners.assign(1, jobs_.end());
      auto next = steady::now() + std::chrono::hours{1};
      for (auto j = jobs_.begin(); j != jobs_.end(); ++j) {
        next = std::min(next, j->fd.valid() ? std::min(j->give_up, j->deadline) : j->deadline);
        if (!j->fd.valid()) continue;
        polled.push_back({j->fd.get(), POLLOUT, 0});
        owners.push_back(j);
      }
      auto wait = std::chrono::ceil<std::chrono::milliseconds>(next - steady::now()).count();
      ::poll(polled.data(), polled.size(), static_cast<int>(std::max<decltype(wait)>(wait, 0)));
      if (polled[0].revents != 0) {
        std::uint64_t count = 0;
        [[maybe_unused]] auto n = ::read(wake_.get(), &count, sizeof count);
      }
      for (std::size_t i = 1; i < polled.size(); ++i)
        if (polled[i].revents != 0) writable(owners[i]);
      check_names_and_times();
    }
  }

  void begin(std::list<job>::iterator j) {
    if (j->where.is_unix) {
      unique_fd directory;
      auto a = unix_address(j->where.host, directory);
      if (!a.ok()) {
        auto e = std::move(a).err();
        if (e.code != errc::invalid_argument) e.code = errc::unreachable;
        return finish(j, std::move(e));
      }
      j->candidates.push_back(*a);
      return try_next(j); // unix sockets connect at once or not at all: `directory` has done its work
    }
    if (auto a = numeric_address(j->where)) {
      j->candidates.push_back(*a);
      return try_next(j);
    }
    j->names = resolver_->start(j->where.host, j->where.port);
  }

  void try_next(std::list<job>::iterator j) {
    while (!j->candidates.empty()) {
      auto a = j->candidates.front();
      j->candidates.erase(j->candidates.begin());
      auto family = reinterpret_cast<const sockaddr*>(&a.storage)->sa_family;
      unique_fd fd{::socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)};
      if (!fd.valid()) {
        j->last = connect_error(j->where, errno);
        continue;
      }
      if (family != AF_UNIX) {
        int on = 1;
        ::setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
      }
      int rc;
      do rc = ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&a.storage), a.length);
      while (rc != 0 && errno == EINTR);
      if (rc == 0) return finish(j, std::move(fd));
      if (errno != EINPROGRESS) {
        j->last = connect_error(j->where, errno);
        continue;
      }
      auto now = steady::now();
      // What is left is shared among the addresses that are left.
      j->give_up = now + (j->deadline - now) / static_cast<int>(j->candidates.size() + 1);
      j->fd = std::move(fd);
      return;
    }
    finish(j, j->last);
  }

  void writable(std::list<job>::iterator j) {
    int sys = 0;
    socklen_t n = sizeof sys;
    if (::getsockopt(j->fd.get(), SOL_SOCKET, SO_ERROR, &sys, &n) != 0) sys = errno;
    auto fd = std::move(j->fd);
    if (sys == 0) return finish(j, std::move(fd));
    j->last = connect_error(j->where, sys);
    try_next(j);
  }

  void check_names_and_times() {
    auto now = steady::now();
    for (auto j = jobs_.begin(); j != jobs_.end();) {
      auto current = j++;
      if (current->names) {
        if (auto found = current->names->take()) {
          current->names.reset();
          if (!found->ok()) {
            finish(current, std::move(*found).err());
            continue;
          }
          current->candidates = std::move(**found);
          try_next(current);
          continue;
        }
      }
      if (now >= current->deadline) {
        finish(current, late(current->where));
      } else if (current->fd.valid() && now >= current->give_up) {
        current->last = late(current->where);
        current->fd.reset();
        try_next(current);
      }
    }
  }

  void finish(std::list<job>::iterator j, result<unique_fd> outcome) {
    auto callback = std::move(j->callback);
    jobs_.erase(j);
    callback(std::move(outcome));
  }

  unique_fd wake_;
  std::unique_ptr<resolver> resolver_;
  std::mutex mutex_; ///< of incoming_ and stopping_
  std::deque<job> incoming_;
  bool stopping_ = false;
  std::list<job> jobs_;                          ///< the thread's alone
  std::vector<std::list<job>::iterator> fresh_;  ///< the thread's alone
  std::thread thread_;
};

connector::connector() : core_{std::make_shared<core>()} {}
connector::~connector() = default;

void connector::connect(address where, std::chrono::milliseconds deadline, done callback) {
  core_->add({std::move(where), steady::now() + deadline, std::move(callback), {}, {}, {}, {}, {}});
}

} // namespace qs::net
