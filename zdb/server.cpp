#include "zdb/server.hpp"

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <fcntl.h>
#include <malloc.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fmt/format.h>

#include "base/log.hpp"
#include "base/posix.hpp"
#include "zdb/server_core.hpp"

namespace qs::zdb {

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
std::string server::metrics_address() const { return core_->metrics_address(); }

namespace {

/// --background: the caller goes on in a child with a session of its own, whose parent ends here
/// when the child listens (0) or has ended (its code).
class background {
public:
  static result<background> begin() {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) return errno_error("pipe", errno);
    unique_fd heard{ends[0]};
    unique_fd told{ends[1]};
    auto child = ::fork();
    if (child < 0) return errno_error("fork", errno);
    if (child > 0) {
      told.reset();
      char word = 0;
      while (::read(heard.get(), &word, 1) < 0 && errno == EINTR) {
      }
      int state = 0;
      if (word == 0)
        while (::waitpid(child, &state, 0) < 0 && errno == EINTR) {
        }
      ::_exit(word != 0 ? 0 : WIFEXITED(state) ? WEXITSTATUS(state) : 1);
    }
    ::setsid();
    background b;
    b.told_ = std::move(told);
    return b;
  }
  /// It listens: the terminal is let go.
  void ready() {
    unique_fd null{::open("/dev/null", O_RDWR | O_CLOEXEC)};
    if (null.valid())
      for (int fd : {0, 1, 2}) ::dup2(null.get(), fd);
    if (::write(told_.get(), "+", 1) != 1) log::warning("zdb", "nobody waited for the start");
    told_.reset();
  }

private:
  unique_fd told_;
};

void tune_memory() {
  // Two threads, one of them asleep: a second arena would only cost memory.
  ::mallopt(M_ARENA_MAX, 1);
  // Values come and go in blocks of up to 8 MiB: from the heap, without a page fault for every 4
  // KiB each time. The idle server gives it all back (watch_later).
  ::mallopt(M_MMAP_THRESHOLD, 16 << 20);
  ::mallopt(M_TRIM_THRESHOLD, 48 << 20);
}

void tune_process() {
  tune_memory();
  rlimit files{};
  if (::getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;
    (void)::setrlimit(RLIMIT_NOFILE, &files);
  }
  std::signal(SIGXFSZ, SIG_IGN);
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGHUP, SIG_IGN);
}

/// --dump: what there is, without serving it. Nothing on the disk is changed.
int dump(const server_options& options) {
  store_options s;
  s.data = options.data;
  s.index = options.index;
  s.datasize = options.datasize;
  s.read_only = true;
  auto all = store::open(std::move(s));
  if (!all.ok()) {
    log::error("zdb", "{}", describe(all.err()));
    return all.err().code == errc::busy ? 5 : 1;
  }
  for (auto& [name, space] : (*all)->all()) {
    if (!space->served()) {
      fmt::print("namespace {}: cannot be opened: {}\n", name, space->failed_why().why);
      continue;
    }
    auto u = space->usage();
    fmt::print("namespace {}: {} entries, mode {}, {} bytes live, {} bytes dead, {} files of {} "
               "bytes in {}\n",
               name, space->entries(), space->settings().sequential ? "seq" : "user",
               u.live_payload, u.dead + u.tombstones, u.files, u.disk, space->directory().string());
  }
  return 0;
}

int serve(const server_options& options, background* behind) {
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
    return opened.err().code == errc::busy ? 5 : 1;
  }
  if (!options.hook.empty())
    install_crash_hook({options.hook.string(), "crash", core.id()});
  if (behind != nullptr) behind->ready();
  auto ran = core.run();
  if (ran.ok())
    log::info("zdb", "stopped");
  else
    log::error("zdb", "{}", describe(ran.err()));
  return ran.ok() ? 0 : 1;
}

} // namespace

int run_server(const server_options& options) {
  if (options.show_help || options.show_version) {
    std::fputs(options.show_help ? std::string{server_usage()}.c_str() : "qs zdb " QS_VERSION "\n",
               stdout);
    return 0;
  }
  std::optional<background> behind;
  if (options.background) {
    auto begun = background::begin(); // before there are threads
    if (!begun.ok()) {
      fmt::print(stderr, "error: {}\n", describe(begun.err()));
      return 1;
    }
    behind = std::move(*begun);
  }
  tune_process();
  log::options l;
  l.least = options.verbose ? log::level::debug : log::level::info;
  l.file = options.logfile;
  l.json = options.log_json;
  log::configure(l);
  for (auto& w : options.warnings) log::warning("zdb", "{}", w);
  auto code = options.dump ? dump(options) : serve(options, behind ? &*behind : nullptr);
  log::flush();
  return code;
}

} // namespace qs::zdb
