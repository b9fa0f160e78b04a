#include "cli/completion.hpp"

#include <fmt/format.h>

namespace qs::cli {
namespace {

std::string joined(const std::vector<std::string>& list) {
  std::string out;
  for (const auto& l : list) out += (out.empty() ? "" : " ") + l;
  return out;
}

/// The word list for every path of commands, as cases of a shell's `case`.
std::string cases(const std::vector<command_help>& commands) {
  std::string out;
  for (const auto& c : commands) {
    auto words = c.words;
    words.insert(words.end(), c.flags.begin(), c.flags.end());
    out += fmt::format("    '{}') words='{} --help' ;;\n", c.path, joined(words));
  }
  return out;
}

constexpr auto bash_head = R"(# qs completion for bash: source <(qs completion bash)
_qs() {
  local current=${COMP_WORDS[COMP_CWORD]} path='' words='' i
  for ((i = 1; i < COMP_CWORD; i++)); do
    case ${COMP_WORDS[i]} in
      -*) ;;
      *) [[ " $(_qs_words "$path") " == *" ${COMP_WORDS[i]} "* ]] && path="${path:+$path }${COMP_WORDS[i]}" ;;
    esac
  done
  words=$(_qs_words "$path")
  COMPREPLY=($(compgen -W "$words" -- "$current") $(compgen -f -- "$current"))
}
_qs_words() {
  local words=''
  case $1 in
)";

constexpr auto bash_tail = R"(  esac
  printf '%s' "$words"
}
)";

std::string quoted(std::string text) {
  std::string out;
  for (char c : text) out += c == '\'' ? std::string{"'\\''"} : std::string(1, c);
  return "'" + out + "'";
}

std::string fish(const std::vector<command_help>& commands) {
  std::string out = "# qs completion for fish: qs completion fish | source\n";
  for (const auto& c : commands) {
    auto top = c.path.empty();
    // Inside a command: all words of its path were seen.
    std::string condition = top ? "__fish_use_subcommand" : "";
    if (!top) {
      std::size_t at = 0;
      while (at < c.path.size()) {
        auto end = std::min(c.path.find(' ', at), c.path.size());
        condition += fmt::format("{}__fish_seen_subcommand_from {}", condition.empty() ? "" : "; and ", c.path.substr(at, end - at));
        at = end + 1;
      }
    }
    for (const auto& w : c.words) {
      auto path = top ? w : c.path + " " + w;
      for (const auto& sub : commands)
        if (sub.path == path) out += fmt::format("complete -c qs -n '{}' -a {} -d {}\n", condition, w, quoted(sub.summary));
    }
    for (const auto& f : c.flags)
      out += f.rfind("--", 0) == 0 ? fmt::format("complete -c qs -n '{}' -l {}\n", condition, f.substr(2))
                                   : fmt::format("complete -c qs -n '{}' -s {}\n", condition, f.substr(1));
  }
  return out;
}

} // namespace

std::string completion_script(const std::string& shell, const std::vector<command_help>& commands) {
  if (shell == "fish") return fish(commands);
  auto body = bash_head + cases(commands) + bash_tail + "complete -F _qs qs\n";
  if (shell == "bash") return body;
  // zsh runs bash's completions as they are.
  return "# qs completion for zsh: source <(qs completion zsh)\nautoload -U +X bashcompinit && bashcompinit\n" + body;
}

} // namespace qs::cli
