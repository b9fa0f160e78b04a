#include "grid/node_process.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/clock.hpp"

extern char** environ;

namespace qs::grid {
namespace {

using nlohmann::json;

constexpr std::size_t log_max = mib;
constexpr std::chrono::milliseconds spawn_deadline{5000};

// By number: the declarations of glibc 2.36 lack extern "C", and older ones have none.
int open_pidfd(pid_t pid) { return static_cast<int>(::syscall(SYS_pidfd_open, pid, 0U)); }

struct proc_stat {
  char state = 0;
  std::uint64_t start_time = 0; ///< clock ticks since boot
};

std::optional<proc_stat> read_stat(pid_t pid) {
  auto text = read_file(fmt::format("/proc/{}/stat", pid), 64 * kib);
  if (!text) return {};
  // The name, in parentheses, may contain anything; fields are counted from behind it. proc(5).
  auto at = text->rfind(')');
  if (at == std::string::npos || at + 2 >= text->size()) return {};
  proc_stat out;
  out.state = (*text)[at + 2];
  std::size_t from = at + 2;
  for (int field = 3; field < 22; ++field) {
    from = text->find(' ', from);
    if (from == std::string::npos) return {};
    ++from;
  }
  auto end = text->data() + text->size();
  if (std::from_chars(text->data() + from, end, out.start_time).ec != std::errc{}) return {};
  return out;
}

/// Its arguments name exactly this data directory.
bool serves(pid_t pid, const std::filesystem::path& data) {
  auto text = read_file(fmt::format("/proc/{}/cmdline", pid), mib);
  if (!text) return false;
  return text->find('\0' + data.string() + '\0') != std::string::npos;
}

/// This boot of the machine, as the kernel names it; empty if it does not.
std::string boot_of_machine() {
  auto text = read_file("/proc/sys/kernel/random/boot_id", 4096);
  if (!text) return {};
  while (!text->empty() && text->back() == '\n') text->pop_back();
  return *text;
}

/// A pidfd first, then the checks: what matched is what the pidfd means. `certain`: number and start
/// time are of this boot, so that there is no other process they could mean; its arguments are not
/// asked for, since it has none of its own in the middle of exec.
std::optional<process> open_if(pid_t pid, const std::filesystem::path& data,
                               std::optional<std::uint64_t> start_time, bool certain = false) {
  if (pid <= 1) return {};
  process p{pid, unique_fd{open_pidfd(pid)}};
  if (!p.handle.valid()) return {};
  auto stat = read_stat(pid);
  if (!stat || stat->state == 'Z' || stat->state == 'X') return {};
  if (start_time && stat->start_time != *start_time) return {};
  if (!certain && !serves(pid, data)) return {};
  return p;
}

std::optional<process> search_proc(const std::filesystem::path& data) {
  std::error_code failed;
  for (std::filesystem::directory_iterator it{"/proc", failed}, end; !failed && it != end;
       it.increment(failed)) {
    auto name = it->path().filename().string();
    pid_t pid = 0;
    auto [rest, bad] = std::from_chars(name.data(), name.data() + name.size(), pid);
    if (bad != std::errc{} || rest != name.data() + name.size() || pid == ::getpid()) continue;
    if (auto p = open_if(pid, data, {})) return p;
  }
  return {};
}

/// Polls one descriptor; false when the deadline passes.
bool readable(int fd, std::chrono::milliseconds deadline) {
  pollfd p{fd, POLLIN, 0};
  auto until = system_clock().boot() + deadline;
  for (;;) {
    auto left = std::max<std::int64_t>(0, (until - system_clock().boot()).count());
    auto n = ::poll(&p, 1, static_cast<int>(left));
    if (n > 0) return true;
    if (n == 0) return false;
    if (errno != EINTR) return false;
  }
}

/// So many bytes, or fewer at the end of file or deadline.
std::size_t read_some(int fd, void* to, std::size_t n, std::chrono::milliseconds deadline) {
  std::size_t got = 0;
  while (got < n && readable(fd, deadline)) {
    auto r = ::read(fd, static_cast<char*>(to) + got, n - got);
    if (r < 0 && errno == EINTR) continue;
    if (r <= 0) break;
    got += static_cast<std::size_t>(r);
  }
  return got;
}

struct launch {
  std::string program;
  std::vector<std::string> words;
  std::vector<std::string> variables;
  std::vector<char*> argv;
  std::vector<char*> envp;
  int log = -1, null = -1, report = -1, go = -1;
};

/// In the forked child: only async-signal-safe calls from here on, the engine's threads are gone
/// and their locks are not.
[[noreturn]] void become_server(const launch& l) {
  ::setsid();
  // Away from the low numbers first, so that none is overwritten before it was moved.
  int log = ::fcntl(l.log, F_DUPFD, 10), null = ::fcntl(l.null, F_DUPFD, 10);
  int report = ::fcntl(l.report, F_DUPFD, 10), go = ::fcntl(l.go, F_DUPFD, 10);
  if (log < 0 || null < 0 || report < 0 || go < 0) ::_exit(127);
  ::dup2(null, 0);
  ::dup2(log, 1);
  ::dup2(log, 2);
  ::dup3(report, 3, O_CLOEXEC);
  ::dup3(go, 4, O_CLOEXEC);
  ::close_range(5, ~0U, 0);
  auto second = ::_Fork();
  if (second != 0)
    ::_exit(second < 0 ? 127 : 0); // the server is nobody's child: its end leaves no zombie here
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  for (int s : {SIGPIPE, SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2})
    ::signal(s, SIG_DFL);
  ::umask(077);
  if (::chdir("/") != 0) ::_exit(127);
  pid_t self = ::getpid();
  if (::write(3, &self, sizeof self) != sizeof self) ::_exit(127);
  char word = 0;
  if (::read(4, &word, 1) != 1)
    ::_exit(127); // whoever started us is gone before it wrote our number down
  ::execve(l.program.c_str(), l.argv.data(), l.envp.data());
  int why = errno;
  if (::write(3, &why, sizeof why) != sizeof why) ::_exit(126);
  ::_exit(127);
}

std::string program_path(const std::filesystem::path& program) {
  if (program != "/proc/self/exe") return program.string();
  std::error_code failed;
  auto target = std::filesystem::read_symlink(program, failed);
  // After an upgrade the file has another inode or none; then the running one is still reached
  // through the link.
  if (failed || !std::filesystem::exists(target, failed)) return program.string();
  return target.string();
}

void rotate_log(const node_paths& node) {
  struct ::stat info {};
  if (::stat(node.log().c_str(), &info) == 0 && static_cast<std::size_t>(info.st_size) > log_max)
    ::rename(node.log().c_str(), (node.log().string() + ".1").c_str());
}

std::string last_words(const node_paths& node) {
  auto text = read_file(node.log(), 16 * mib);
  if (!text) return "its log cannot be read";
  while (!text->empty() && text->back() == '\n') text->pop_back();
  auto at = text->rfind('\n');
  auto line = at == std::string::npos ? *text : text->substr(at + 1);
  if (line.size() > 300) line.resize(300);
  return line.empty() ? "it said nothing" : line;
}

void fill_vectors(launch& l, const node_paths& node) {
  l.words = {"qs",           "zdb",
             "--data",       node.data().string(),
             "--admin-file", node.admin().string(),
             "--cache",      "4M", // shards are larger; dozens of these run on one machine
             "--protect",    // nobody on this machine fills the disk through `default`
             "--listen",     "127.0.0.1",
             "--port",       "0"};
  // The engine's own variables name its phrase and directories: not a server's business.
  for (char** v = environ; v != nullptr && *v != nullptr; ++v)
    if (!std::string_view{*v}.starts_with("QS_")) l.variables.emplace_back(*v);
  for (auto& w : l.words) l.argv.push_back(w.data());
  for (auto& v : l.variables) l.envp.push_back(v.data());
  l.argv.push_back(nullptr);
  l.envp.push_back(nullptr);
}

status write_process_file(const node_paths& node, pid_t pid) {
  auto stat = read_stat(pid);
  if (!stat) return error{errc::io, "the new process vanished"};
  json out{{"pid", pid}, {"start_time", stat->start_time}, {"boot", boot_of_machine()}};
  return write_file_atomic(node.process(), as_bytes(out.dump() + "\n"), 0600);
}

} // namespace

result<bool> server_runs(const node_paths& node) {
  auto fd = open_file(node.data_lock(), O_RDWR);
  if (!fd) {
    if (fd.err().sys == ENOENT || fd.err().sys == ENOTDIR) return false;
    return std::move(fd).err();
  }
  struct ::flock probe {};
  probe.l_type = F_WRLCK;
  probe.l_whence = SEEK_SET;
  if (::fcntl(fd->get(), F_OFD_GETLK, &probe) != 0)
    return errno_error(fmt::format("ask for the lock of {}", node.data_lock().string()), errno);
  return probe.l_type != F_UNLCK;
}

std::optional<process> find_process(const node_paths& node, const std::filesystem::path& data,
                                    bool search) {
  if (auto text = read_file(node.process(), 4096)) {
    auto in = json::parse(*text, nullptr, false);
    if (in.is_object() && in.contains("pid") && in["pid"].is_number_integer() &&
        in.contains("start_time") && in["start_time"].is_number_unsigned()) {
      auto boot = boot_of_machine();
      auto known = in.find("boot"); // not in files of the first version
      auto certain = !boot.empty() && known != in.end() && known->is_string() && *known == boot;
      if (auto p = open_if(in["pid"].get<pid_t>(), data, in["start_time"].get<std::uint64_t>(),
                           certain))
        return p;
    }
  }
  if (!search) return {};
  return search_proc(data);
}

bool is_suspended(pid_t pid) {
  auto stat = read_stat(pid);
  return stat && (stat->state == 'T' || stat->state == 't');
}

status signal_process(const process& p, int signal) {
  if (::syscall(SYS_pidfd_send_signal, p.handle.get(), signal, nullptr, 0U) != 0 && errno != ESRCH)
    return errno_error(fmt::format("signal process {}", p.pid), errno);
  return {};
}

status end_process(const process& p, int signal, std::chrono::milliseconds deadline) {
  QS_TRY(signal_process(p, signal));
  return wait_ended(p, deadline);
}

status wait_ended(const process& p, std::chrono::milliseconds deadline) {
  if (!readable(p.handle.get(), deadline))
    return error{errc::timed_out, fmt::format("process {} did not end", p.pid)};
  return {};
}

result<process> spawn_server(const std::filesystem::path& program, const node_paths& node) {
  rotate_log(node);
  // A port of an earlier run may belong to another node by now.
  if (::unlink(node.endpoint().c_str()) != 0 && errno != ENOENT)
    return errno_error(fmt::format("delete {}", node.endpoint().string()), errno);
  launch l;
  l.program = program_path(program);
  fill_vectors(l, node);
  QS_TRY_ASSIGN(auto log, open_file(node.log(), O_WRONLY | O_CREAT | O_APPEND, 0600));
  QS_TRY_ASSIGN(auto null, open_file("/dev/null", O_RDWR));
  std::array<int, 2> report{}, go{};
  if (::pipe2(report.data(), O_CLOEXEC) != 0) return errno_error("pipe", errno);
  unique_fd report_read{report[0]}, report_write{report[1]};
  if (::pipe2(go.data(), O_CLOEXEC) != 0) return errno_error("pipe", errno);
  unique_fd go_read{go[0]}, go_write{go[1]};
  l.log = log.get();
  l.null = null.get();
  l.report = report_write.get();
  l.go = go_read.get();
  auto first = ::_Fork();
  if (first < 0) return errno_error("fork", errno);
  if (first == 0) become_server(l);
  report_write.reset();
  go_read.reset();
  int code = 0;
  while (::waitpid(first, &code, 0) < 0 && errno == EINTR) {
  }
  process p;
  if (read_some(report_read.get(), &p.pid, sizeof p.pid, spawn_deadline) != sizeof p.pid)
    return error{errc::io, "a server's process could not be made"};
  // It waits for our word, so this number is its own.
  p.handle.reset(open_pidfd(p.pid));
  if (!p.handle.valid()) return errno_error("pidfd_open", errno);
  QS_TRY(write_process_file(node, p.pid)); // on failure the pipe closes and it ends
  if (::write(go_write.get(), "g", 1) != 1)
    return error{errc::io, "a server's process ended before it began"};
  int why = 0;
  if (read_some(report_read.get(), &why, sizeof why, spawn_deadline) == sizeof why)
    return errno_error(fmt::format("run {}", l.program), why);
  return p;
}

result<model::endpoint> read_endpoint(const node_paths& node) {
  auto text = read_file(node.endpoint(), 4096);
  if (!text) {
    if (text.err().sys == ENOENT)
      return error{errc::not_found, "the server does not listen yet", ENOENT};
    return std::move(text).err();
  }
  while (!text->empty() && (text->back() == '\n' || text->back() == '\r')) text->pop_back();
  auto colon = text->rfind(':');
  model::endpoint out;
  auto ok = colon != std::string::npos && colon > 0;
  if (ok) {
    auto first = text->data() + colon + 1;
    auto last = text->data() + text->size();
    auto [rest, bad] = std::from_chars(first, last, out.port);
    ok = bad == std::errc{} && rest == last && out.port != 0;
  }
  if (!ok)
    return error{errc::corrupt,
                 fmt::format("{}: '{}' is no address", node.endpoint().string(), *text)};
  out.address = text->substr(0, colon);
  return out;
}

result<model::endpoint> wait_listening(const node_paths& node, const process& p,
                                       std::chrono::milliseconds deadline) {
  auto until = system_clock().boot() + deadline;
  for (;;) {
    auto where = read_endpoint(node);
    if (where) return where;
    if (where.err().code != errc::not_found) return std::move(where).err();
    if (readable(p.handle.get(), std::chrono::milliseconds{5}))
      return error{errc::refused, fmt::format("the server of {} ended at its start: {}",
                                              node.directory.string(), last_words(node))};
    if (system_clock().boot() >= until)
      return error{errc::timed_out,
                   fmt::format("the server of {} does not listen yet", node.directory.string())};
  }
}

} // namespace qs::grid
