// The command line → which command with which options. The only place that knows CLI11 (with help_tree.cpp's data made here).
// Pure: prints nothing, runs nothing.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "cli/terminal.hpp"

namespace qs::cli {

struct parsed {
  std::optional<int> exit; ///< set: nothing to run; print `out` and `err` and end with it
  std::string out;
  std::string err;
  std::string color = "auto";
  std::function<int(terminal&)> command;
};

/// Arguments after the program's name. `qs zdb …` is not parsed here (see run()).
parsed parse(const std::vector<std::string>& arguments);

/// One command as its help knows it: for completions, docs and their tests.
struct command_help {
  std::string path; ///< "grid kill"; "" = qs itself
  std::string summary;
  std::vector<std::string> flags; ///< "--json", "-f"; without --help
  std::vector<std::string> words; ///< subcommands
  std::string text;               ///< what --help prints
};
std::vector<command_help> all_commands();

} // namespace qs::cli
