#include "cli/run.hpp"

#include <csignal>
#include <string_view>

#include <sodium.h>

#include "cli/commands.hpp"
#include "cli/exit_codes.hpp"
#include "cli/parse.hpp"

namespace qs::cli {

int run(int argc, char** argv) {
  // A reader that goes away is an error of write(2), not a death in the middle of something.
  std::signal(SIGPIPE, SIG_IGN);
  std::vector<std::string> arguments{argv + (argc > 0 ? 1 : 0), argv + argc};
  // The server has 0-db's flags and runs as dozens of processes: past the parser and everything else.
  if (!arguments.empty() && arguments.front() == "zdb") return command_zdb({arguments.begin() + 1, arguments.end()});
  auto facts = look_at_terminal();
  if (::sodium_init() < 0) return terminal{facts, "auto"}.fail(exit_failed, "libsodium does not start on this machine");
  auto line = parse(arguments);
  terminal t{facts, line.color};
  if (line.exit) {
    t.print(line.out);
    if (!line.err.empty()) t.note(std::string_view{line.err}.substr(0, line.err.size() - 1));
    return *line.exit;
  }
  auto code = line.command(t);
  t.progress("");
  return code;
}

} // namespace qs::cli
