// The 24 words on this machine: where they are looked for, how they are written. They are read here and by nothing else,
// and shown by init and key alone. Never in argv, environment or logs. Main thread.
#pragma once

#include <filesystem>
#include <string>

#include "base/phrase.hpp"
#include "cli/paths.hpp"

namespace qs::cli {

/// Where the words of a volume would be written: $XDG_CONFIG_HOME/qs/<name>/phrase.
std::filesystem::path phrase_path(const surroundings& around, const std::string& volume);

/// The first that exists of QS_PHRASE_FILE, the systemd credential qs-phrase and phrase_path(). Errors: not_found (says how to
/// make them), access_denied (the file can be read by others), invalid_argument (not 24 words).
result<root_secret> read_phrase(const surroundings& around, const std::string& volume);
/// The file read_phrase() would read.
result<std::filesystem::path> find_phrase(const surroundings& around, const std::string& volume);

/// 0600 in a 0700 directory, whole or not at all. Errors: already_exists; never overwrites.
status write_phrase(const surroundings& around, const std::string& volume, const root_secret& root);

/// "  1 word   2 word …" in four columns, to be copied by hand.
std::string show_words(const root_secret& root);

} // namespace qs::cli
