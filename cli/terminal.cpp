#include "cli/terminal.hpp"

#include <algorithm>

#include <cerrno>
#include <csignal>
#include <cstdlib>

#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <fmt/format.h>

#include "base/posix.hpp"
#include "cli/exit_codes.hpp"

namespace qs::cli {
namespace {

volatile std::sig_atomic_t interrupt_seen = 0;

void on_interrupt(int) { interrupt_seen = 1; }

bool set_and_not_empty(const char* name) {
  const auto* value = std::getenv(name);
  return value != nullptr && *value != '\0';
}

} // namespace

terminal_facts look_at_terminal() {
  terminal_facts f;
  f.out_tty = ::isatty(STDOUT_FILENO) == 1;
  f.err_tty = ::isatty(STDERR_FILENO) == 1;
  f.in_tty = ::isatty(STDIN_FILENO) == 1;
  f.no_color = set_and_not_empty("NO_COLOR");
  const auto* term = std::getenv("TERM");
  f.dumb = term == nullptr || *term == '\0' || std::string_view{term} == "dumb";
  ::winsize size{};
  if (f.out_tty && ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col >= 40) f.width = size.ws_col;
  return f;
}

bool wants_colour(std::string_view choice, bool tty, const terminal_facts& facts) noexcept {
  if (choice == "always") return true;
  if (choice == "never") return false;
  return tty && !facts.no_color && !facts.dumb;
}

terminal::terminal(const terminal_facts& facts, std::string_view colour_choice)
  : facts_{facts}, colour_{wants_colour(colour_choice, facts.out_tty, facts)},
    err_colour_{wants_colour(colour_choice, facts.err_tty, facts)} {}

void terminal::write(int fd, std::string_view text) {
  if (!write_all(fd, as_bytes(text)).ok() && fd == STDOUT_FILENO) broken_ = true;
}

void terminal::print(std::string_view text) {
  progress("");
  write(STDOUT_FILENO, text);
}

void terminal::note(std::string_view line) {
  auto shown = line_;
  progress("");
  write(STDERR_FILENO, fmt::format("{}\n", line));
  if (!shown.empty() && facts_.err_tty && !facts_.dumb) progress(shown);
}

int terminal::fail(int exit, std::string_view message) {
  while (!message.empty() && message.back() == '\n') message.remove_suffix(1);
  progress("");
  if (err_colour_)
    write(STDERR_FILENO, fmt::format("\x1b[31merror:\x1b[0m {}\n", message));
  else
    write(STDERR_FILENO, fmt::format("error: {}\n", message));
  return exit;
}

int terminal::fail(const error& e) { return fail(exit_of(e.code), describe(e)); }

void terminal::warn(std::string_view message) {
  note(err_colour_ ? fmt::format("\x1b[33mwarning:\x1b[0m {}", message) : fmt::format("warning: {}", message));
}

std::string progress_line(std::string_view text, std::optional<double> part, int width) {
  auto room = static_cast<std::size_t>(width > 1 ? width - 1 : 79);
  std::string out;
  if (part && room >= 60) { // on less the words say more
    constexpr int cells = 20;
    auto done = std::clamp(*part, 0.0, 1.0);
    auto full = static_cast<std::size_t>(done * cells);
    // Never 100 % before it is: what is done takes the bar away.
    out = fmt::format("[{}{}] {:2} % ", std::string(full, '#'), std::string(cells - full, '-'), std::min(99, static_cast<int>(done * 100)));
  }
  return out.append(text).substr(0, room);
}

void terminal::progress(std::string_view text, std::optional<double> part) {
  if (facts_.err_tty && !facts_.dumb) {
    if (text.empty() && line_.empty()) return;
    line_ = text.empty() ? std::string{} : progress_line(text, part, facts_.width);
    write(STDERR_FILENO, fmt::format("\r\x1b[K{}", line_));
    return;
  }
  if (text.empty() || text == line_) return;
  line_ = std::string{text};
  write(STDERR_FILENO, fmt::format("{}\n", line_));
}

result<std::string> terminal::ask(std::string_view question, std::string_view flag) {
  if (!facts_.in_tty)
    return error{errc::invalid_argument,
                 fmt::format("this needs an answer, and standard input is no terminal; pass {}", flag)};
  progress("");
  write(STDERR_FILENO, question);
  std::string out;
  for (;;) {
    if (interrupted()) {
      write(STDERR_FILENO, "\n");
      return error{errc::cancelled, "interrupted; nothing was changed"};
    }
    // In short waits: a signal just before a blocking read would be noticed only with the next key.
    ::pollfd input{STDIN_FILENO, POLLIN, 0};
    if (::poll(&input, 1, 100) <= 0) continue;
    char c = 0;
    auto n = ::read(STDIN_FILENO, &c, 1);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      if (out.empty()) return error{errc::cancelled, "no answer; nothing was changed"};
      return out;
    }
    if (c == '\n') return out;
    if (out.size() < 4096) out += c;
  }
}

void catch_interrupts() {
  struct sigaction action {};
  action.sa_handler = on_interrupt;
  sigemptyset(&action.sa_mask);
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
}

bool interrupted() noexcept { return interrupt_seen != 0; }

bool interruptible_pause(int milliseconds) {
  if (!interrupted()) ::poll(nullptr, 0, milliseconds);
  return interrupted();
}

} // namespace qs::cli
