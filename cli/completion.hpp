// Scripts that complete commands, flags and files in bash, zsh and fish, from the same tree as the help. Pure.
#pragma once

#include <string>
#include <vector>

#include "cli/parse.hpp"

namespace qs::cli {

/// `shell`: bash, zsh or fish. Ends with a newline.
std::string completion_script(const std::string& shell, const std::vector<command_help>& commands);

} // namespace qs::cli
