// The person or program in front of the command: stdout for results, stderr for progress and diagnostics, questions.
// Colour and a moving progress line only on a terminal, never with NO_COLOR or TERM=dumb. Main thread only.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/result.hpp"

namespace qs::cli {

/// What decides about colour, so that a test can say it.
struct terminal_facts {
  bool out_tty = false;
  bool err_tty = false;
  bool in_tty = false;
  bool no_color = false; ///< NO_COLOR is set and not empty
  bool dumb = false;     ///< TERM=dumb, or none
  int width = 80;
};
terminal_facts look_at_terminal();

/// `choice`: always, auto or never.
bool wants_colour(std::string_view choice, bool tty, const terminal_facts& facts) noexcept;

/// What progress() shows on a terminal of that width: a bar, if it is known what part is done, and the text. Pure.
std::string progress_line(std::string_view text, std::optional<double> part, int width);

class terminal {
public:
  terminal(const terminal_facts& facts, std::string_view colour_choice);

  /// The result, to stdout, as it is.
  void print(std::string_view text);
  /// A line to stderr.
  void note(std::string_view line);
  /// "error: …" (and what to do) to stderr; gives back the exit code that belongs to it.
  int fail(const error& e);
  int fail(int exit, std::string_view message);
  void warn(std::string_view message);

  /// One changing line on a terminal, with a bar where `part` (0 to 1) is known; elsewhere a line of its own whenever the text is
  /// new. "" takes it away.
  void progress(std::string_view text, std::optional<double> part = {});

  /// Asks on the terminal. On anything else an error that names the flag to pass instead; cancelled on Ctrl-C.
  result<std::string> ask(std::string_view question, std::string_view flag);

  [[nodiscard]] bool colour() const noexcept { return colour_; }
  [[nodiscard]] bool interactive() const noexcept { return facts_.in_tty; }
  [[nodiscard]] const terminal_facts& facts() const noexcept { return facts_; }
  /// Did a write to stdout fail (full disk, closed pipe)?
  [[nodiscard]] bool broken() const noexcept { return broken_; }

private:
  void write(int fd, std::string_view text);

  terminal_facts facts_;
  bool colour_ = false;
  bool err_colour_ = false;
  bool broken_ = false;
  std::string line_; ///< the progress line that is on the screen
};

/// SIGINT and SIGTERM set a flag instead of ending the process, from now on. For loops that have to say something first.
void catch_interrupts();
bool interrupted() noexcept;
/// Waits, or returns early (true) when interrupted.
bool interruptible_pause(int milliseconds);

} // namespace qs::cli
