// qs key: the 24 words alone, for a storage.yaml written by hand. Never overwrites.
#include <termios.h>
#include <unistd.h>

#include <fmt/format.h>

#include "base/posix.hpp"
#include "cli/commands.hpp"
#include "cli/exit_codes.hpp"
#include "cli/phrase_file.hpp"
#include "cli/volume_choice.hpp"

namespace qs::cli {
namespace {

/// A name given, else that of the storage.yaml here.
result<chosen_volume> named(const key_options& o) {
  auto flags = o.common;
  if (!o.name.empty()) flags.volume = o.name;
  return choose_volume(flags, need::name);
}

int written(const chosen_volume& v, const root_secret& root, terminal& t) {
  if (auto done = write_phrase(v.around, v.name, root); !done.ok()) return t.fail(done.err());
  t.note(fmt::format("The 24 words of '{}' are in {} (readable by you alone).", v.name, phrase_path(v.around, v.name).string()));
  return exit_done;
}

/// Typing is not echoed.
class silent_input {
public:
  silent_input() {
    if (::tcgetattr(STDIN_FILENO, &before_) != 0) return;
    auto silent = before_;
    silent.c_lflag &= ~static_cast<tcflag_t>(ECHO);
    changed_ = ::tcsetattr(STDIN_FILENO, TCSANOW, &silent) == 0;
  }
  silent_input(const silent_input&) = delete;
  silent_input& operator=(const silent_input&) = delete;
  ~silent_input() {
    if (changed_) ::tcsetattr(STDIN_FILENO, TCSANOW, &before_);
  }

private:
  ::termios before_{};
  bool changed_ = false;
};

result<std::string> words_from_outside(const key_options& o, terminal& t) {
  if (!o.from.empty() && o.from != "-") return read_file(o.from, 4096);
  if (t.interactive()) {
    silent_input quiet;
    auto said = t.ask("The 24 words (they are not shown): ", "--from FILE");
    t.note("");
    return said;
  }
  return read_file("/dev/stdin", 4096);
}

} // namespace

int command_key_new(const key_options& o, terminal& t) {
  auto v = named(o);
  if (!v.ok()) return t.fail(v.err());
  auto root = new_root(system_random());
  if (auto exit = written(*v, root, t); exit != 0) return exit;
  if (t.facts().out_tty || o.show_words)
    t.print("Write these words down on paper; they are the only key to the volume and its wallet.\n\n" + show_words(root) + "\n");
  else
    t.note(fmt::format("'qs key show {}' shows them on a terminal. Write them down on paper.", v->name));
  return exit_done;
}

int command_key_import(const key_options& o, terminal& t) {
  auto v = named(o);
  if (!v.ok()) return t.fail(v.err());
  auto text = words_from_outside(o, t);
  if (!text.ok()) return t.fail(text.err());
  auto root = from_phrase(*text);
  sodium_memzero(text->data(), text->size());
  if (!root.ok()) return t.fail(root.err());
  return written(*v, *root, t);
}

int command_key_show(const key_options& o, terminal& t) {
  auto v = named(o);
  if (!v.ok()) return t.fail(v.err());
  auto root = read_phrase(v->around, v->name);
  if (!root.ok()) return t.fail(root.err());
  if (!t.facts().out_tty && !o.show_words)
    return t.fail(exit_usage, "standard output is no terminal; pass --show-words if the words shall really go there");
  t.print(show_words(*root));
  return t.broken() ? exit_failed : exit_done;
}

} // namespace qs::cli
