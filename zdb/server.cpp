#include "zdb/server.hpp"

#include <algorithm>
#include <arpa/inet.h>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <list>
#include <malloc.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <unordered_set>

#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <fmt/format.h>

#include "base/log.hpp"
#include "zdb/connection.hpp"
#include "zdb/disk_worker.hpp"

namespace qs::zdb {

namespace {

namespace asio = boost::asio;
constexpr std::size_t scratch_bytes = 64 << 10;
constexpr auto stop_linger = std::chrono::seconds{2};

result<unique_fd> listen_tcp(const server_options& o, std::uint16_t& port) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICHOST | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  auto host = o.listen;
  if (host.size() > 2 && host.front() == '[' && host.back() == ']')
    host = host.substr(1, host.size() - 2);
  if (auto rc = ::getaddrinfo(host.c_str(), std::to_string(o.port).c_str(), &hints, &found);
      rc != 0)
    return error{errc::invalid_argument, fmt::format("--listen {}: not a numeric address ({})",
                                                     o.listen, ::gai_strerror(rc))};
  std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> all{found, &::freeaddrinfo};
  auto where = fmt::format("listen on {} port {}", o.listen, o.port);
  unique_fd fd{::socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};
  if (!fd.valid()) return errno_error(where, errno);
  int on = 1;
  ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (::bind(fd.get(), found->ai_addr, found->ai_addrlen) != 0) return errno_error(where, errno);
  if (::listen(fd.get(), 1024) != 0) return errno_error(where, errno);
  sockaddr_storage bound{};
  socklen_t size = sizeof bound;
  if (::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&bound), &size) != 0)
    return errno_error(where, errno);
  port = ntohs(bound.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6*>(&bound)->sin6_port
                                           : reinterpret_cast<sockaddr_in*>(&bound)->sin_port);
  return fd;
}

/// A peer that is gone without a word is noticed after about two minutes. Does nothing on a unix
/// socket.
void tune(int fd) {
  auto set = [fd](int level, int name, int value) {
    ::setsockopt(fd, level, name, &value, sizeof value);
  };
  set(IPPROTO_TCP, TCP_NODELAY, 1);
  set(SOL_SOCKET, SO_KEEPALIVE, 1);
  set(IPPROTO_TCP, TCP_KEEPIDLE, 60);
  set(IPPROTO_TCP, TCP_KEEPINTVL, 15);
  set(IPPROTO_TCP, TCP_KEEPCNT, 4);
  set(IPPROTO_TCP, TCP_USER_TIMEOUT, 120'000);
}

result<unique_fd> listen_unix(const std::filesystem::path& path) {
  auto text = path.string();
  sockaddr_un un{};
  un.sun_family = AF_UNIX;
  if (text.empty() || text.size() >= sizeof un.sun_path)
    return error{errc::invalid_argument,
                 fmt::format("--socket {}: a path of 1 to 107 bytes is needed", text)};
  text.copy(un.sun_path, text.size());
  unique_fd fd{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};
  if (!fd.valid()) return errno_error("socket", errno);
  struct stat st {};
  if (::lstat(text.c_str(), &st) == 0 && S_ISSOCK(st.st_mode)) {
    // Left over, or in use: only the one that nobody answers is taken away.
    unique_fd probe{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    if (::connect(probe.get(), reinterpret_cast<sockaddr*>(&un), sizeof un) == 0)
      return error{errc::busy, fmt::format("--socket {}: a server listens there", text)};
    ::unlink(text.c_str());
  }
  auto old = ::umask(0077);
  auto rc = ::bind(fd.get(), reinterpret_cast<sockaddr*>(&un), sizeof un);
  auto why = errno;
  ::umask(old);
  if (rc != 0) return errno_error(fmt::format("listen on {}", text), why);
  if (::listen(fd.get(), 1024) != 0) return errno_error(fmt::format("listen on {}", text), errno);
  return fd;
}

} // namespace

class server_core {
public:
  explicit server_core(server_options o)
      : options_{std::move(o)}, watch_{io_}, sync_timer_{io_}, linger_{io_}, signals_{io_},
        worker_{[this](std::function<void()> then) { asio::post(io_, std::move(then)); }} {}

  status open();
  status run();
  void stop() {
    asio::post(io_, [this] { begin_stop(); });
  }
  void stop_on_signals() {
    signals_.add(SIGTERM);
    signals_.add(SIGINT);
    signals_.async_wait([this](const boost::system::error_code& ec, int number) {
      if (ec) return;
      log::info("zdb", "signal {}: stopping", number);
      begin_stop();
    });
  }
  [[nodiscard]] std::string address() const { return address_; }

private:
  using listener = asio::posix::stream_descriptor;

  void add_listener(unique_fd fd);
  void accept(listener& l);
  void begin_stop();
  void end_if_idle();
  void watch_later();
  void sync_later();
  void on_gone();
  status sync_everything();
  [[nodiscard]] std::filesystem::path endpoint_path() const { return options_.data / "endpoint"; }

  server_options options_;
  std::unique_ptr<store> store_;
  std::unique_ptr<commands> commands_;
  std::unique_ptr<connection_host> host_;
  asio::io_context io_{1}; ///< after these: handlers that it drops at the end hold namespaces
  std::list<listener> listeners_;
  std::unordered_set<std::shared_ptr<client>> clients_;
  asio::steady_timer watch_;
  asio::steady_timer sync_timer_;
  asio::steady_timer linger_;
  asio::signal_set signals_;
  std::string address_;
  std::uint64_t executed_before_ = 0;
  bool stopping_ = false;
  disk_worker worker_; ///< last: ends first, while what its jobs use is still there
};

status server_core::open() {
  auto& o = options_;
  if (o.protect && o.admin_password.empty())
    return error{errc::invalid_argument, "--protect needs an admin password (--admin-file)"};
  QS_TRY_ASSIGN(store_,
                store::open({o.data, o.datasize, o.maxsize, o.mode == key_mode::sequential}));
  environment env;
  env.disk = [this](std::function<void()> work, std::function<void()> then) {
    worker_.post(std::move(work), std::move(then));
  };
  env.gone = [this] { on_gone(); };
  commands_ = std::make_unique<commands>(*store_,
                                         command_options{o.admin_password, o.protect,
                                                         o.mode != key_mode::mixed,
                                                         o.sync == sync_mode::always},
                                         env);
  auto forget = [this](client& c) {
    // Destroyed when its own handler has returned.
    auto it = clients_.find(c.shared_from_this());
    if (it != clients_.end()) {
      asio::post(io_, [last = *it] {});
      clients_.erase(it);
    }
    end_if_idle();
  };
  host_.reset(
      new connection_host{io_, *commands_, o.client_output_bytes, buffer(scratch_bytes), forget});
  ::unlink(endpoint_path().c_str());
  if (o.socket.empty() || o.dual_net) {
    std::uint16_t port = 0;
    QS_TRY_ASSIGN(auto fd, listen_tcp(o, port));
    auto host = o.listen.find(':') != std::string::npos && !o.listen.starts_with('[')
                    ? fmt::format("[{}]", o.listen)
                    : o.listen;
    address_ = fmt::format("{}:{}", host, port);
    add_listener(std::move(fd));
    if (o.port == 0) QS_TRY(write_file_atomic(endpoint_path(), as_bytes(address_ + "\n")));
  }
  if (!o.socket.empty()) {
    QS_TRY_ASSIGN(auto fd, listen_unix(o.socket));
    if (address_.empty()) address_ = fmt::format("unix:{}", o.socket.string());
    add_listener(std::move(fd));
  }
  log::info("zdb", "{} serves {} namespaces of {}", address_, store_->all().size(),
            o.data.string());
  return {};
}

void server_core::add_listener(unique_fd fd) {
  listeners_.emplace_back(io_, fd.release());
  accept(listeners_.back());
}

void server_core::accept(listener& l) {
  l.async_wait(listener::wait_read, [this, &l](const boost::system::error_code& ec) {
    if (ec || stopping_) return;
    for (int i = 0; i < 64; ++i) {
      unique_fd fd{::accept4(l.native_handle(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK)};
      if (!fd.valid()) {
        if (errno == EINTR || errno == ECONNABORTED) continue;
        if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
          log::warning("zdb", "accept: {}", describe(posix_error(errno)));
          auto pause = std::make_shared<asio::steady_timer>(io_, std::chrono::milliseconds{100});
          return pause->async_wait([this, &l, pause](const boost::system::error_code& e) {
            if (!e && !stopping_) accept(l);
          });
        }
        break;
      }
      tune(fd.get());
      auto c = std::make_shared<connection>(*host_, std::move(fd));
      clients_.insert(c);
      c->start();
    }
    accept(l);
  });
}

void server_core::watch_later() {
  watch_.expires_after(options_.watch_every);
  watch_.async_wait([this](const boost::system::error_code& ec) {
    if (ec || !commands_->watch()) return;
    // Nothing happened for a while: give memory back.
    if (std::exchange(executed_before_, commands_->stats.executed) == commands_->stats.executed)
      ::malloc_trim(64 << 10);
    watch_later();
  });
}

void server_core::sync_later() {
  sync_timer_.expires_after(options_.sync_interval);
  sync_timer_.async_wait([this](const boost::system::error_code& ec) {
    if (ec) return;
    for (auto& [name, space] : store_->all())
      if (space->dirty() && !space->syncing) commands_->sync(space, [](const status&) {});
    sync_later();
  });
}

status server_core::run() {
  watch_later();
  if (options_.sync == sync_mode::interval) sync_later();
  io_.run();
  // If they are gone, what lies at these paths now may be another server's.
  if (commands_->gone())
    return error{errc::data_lost,
                 fmt::format("the data files in {} are gone", options_.data.string())};
  ::unlink(endpoint_path().c_str());
  if (!options_.socket.empty()) ::unlink(options_.socket.c_str());
  return sync_everything();
}

status server_core::sync_everything() {
  status all;
  for (auto& [name, space] : store_->all()) {
    if (!space->dirty()) continue;
    auto job = space->make_sync_job();
    auto done = job.ok() ? job->run() : status{std::move(job).err()};
    if (job.ok()) space->sync_done(*job, done);
    if (!done.ok()) all = std::move(done).err();
  }
  return all;
}

void server_core::begin_stop() {
  if (std::exchange(stopping_, true)) return;
  boost::system::error_code ignored;
  for (auto& l : listeners_) l.close(ignored);
  watch_.cancel();
  sync_timer_.cancel();
  signals_.cancel(ignored);
  // Whoever does not take its replies is not waited for longer than this.
  linger_.expires_after(stop_linger);
  linger_.async_wait([this](const boost::system::error_code& ec) {
    if (!ec) io_.stop();
  });
  auto all = clients_;
  for (auto& c : all) static_cast<connection&>(*c).finish();
  end_if_idle();
}

void server_core::end_if_idle() {
  if (!stopping_ || !clients_.empty()) return;
  linger_.cancel();
}

void server_core::on_gone() {
  // Posted: the command that found it out answers first. Later commands are answered with the
  // error.
  asio::post(io_, [this] {
    if (stopping_) return;
    stopping_ = true;
    boost::system::error_code ignored;
    for (auto& l : listeners_) l.close(ignored);
    watch_.cancel();
    sync_timer_.cancel();
    signals_.cancel(ignored);
    linger_.expires_after(std::chrono::milliseconds{500});
    linger_.async_wait([this](const boost::system::error_code&) { io_.stop(); });
    end_if_idle();
  });
}

server::server(std::unique_ptr<server_core> core) : core_{std::move(core)} {}
server::~server() = default;

result<std::unique_ptr<server>> server::open(server_options options) {
  auto core = std::make_unique<server_core>(std::move(options));
  QS_TRY(core->open());
  return std::unique_ptr<server>{new server{std::move(core)}};
}

status server::run() { return core_->run(); }
void server::stop() { core_->stop(); }
std::string server::address() const { return core_->address(); }

int run_server(const server_options& options) {
  if (options.show_help || options.show_version) {
    std::fputs(options.show_help ? std::string{server_usage()}.c_str() : "qs zdb " QS_VERSION "\n",
               stdout);
    return 0;
  }
  ::mallopt(M_ARENA_MAX,
            1); // two threads, one of them asleep: a second arena would only cost memory
  // Values come and go in blocks of up to 8 MiB: from the heap, without a page fault for every 4
  // KiB each time. The idle server gives it all back (watch_later).
  ::mallopt(M_MMAP_THRESHOLD, 16 << 20);
  ::mallopt(M_TRIM_THRESHOLD, 48 << 20);
  rlimit files{};
  if (::getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;
    (void)::setrlimit(RLIMIT_NOFILE, &files);
  }
  std::signal(SIGXFSZ, SIG_IGN);
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGHUP, SIG_IGN);
  log::options l;
  l.least = options.verbose ? log::level::debug : log::level::info;
  l.file = options.logfile;
  log::configure(l);
  server_core core{options};
  core.stop_on_signals();
  // Whoever started us may have them blocked, and that is inherited.
  sigset_t stop_signals;
  sigemptyset(&stop_signals);
  sigaddset(&stop_signals, SIGTERM);
  sigaddset(&stop_signals, SIGINT);
  ::pthread_sigmask(SIG_UNBLOCK, &stop_signals, nullptr);
  auto opened = core.open();
  if (!opened.ok()) {
    log::error("zdb", "{}", describe(opened.err()));
    log::flush();
    return opened.err().code == errc::busy ? 5 : 1;
  }
  auto ran = core.run();
  if (ran.ok())
    log::info("zdb", "stopped");
  else
    log::error("zdb", "{}", describe(ran.err()));
  log::flush();
  return ran.ok() ? 0 : 1;
}

} // namespace qs::zdb
