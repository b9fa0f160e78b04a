// Logging: levelled lines with a component name, to stderr or a rotated file, plain or JSON.
// Never a secret in a line. Wraps spdlog so that no header of ours pulls it in. Thread-safe.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include <fmt/format.h>

namespace qs::log {

enum class level { debug, info, warning, error, off };

struct options {
  level least = level::info;
  bool json = false;
  std::filesystem::path file; ///< empty: stderr; else rotated at 10 MiB, 5 kept, mode 0600
};

/// Once at start, before threads; without it lines of warning and above go to stderr.
void configure(const options& opt);
bool enabled(level l) noexcept;
/// One line; control characters in `text`, and bytes that are no UTF-8, are escaped.
void write(level l, std::string_view component, std::string_view text);
void flush();

template <class... A>
void debug(std::string_view component, fmt::format_string<A...> f, A&&... a) {
  if (enabled(level::debug)) write(level::debug, component, fmt::format(f, std::forward<A>(a)...));
}
template <class... A>
void info(std::string_view component, fmt::format_string<A...> f, A&&... a) {
  if (enabled(level::info)) write(level::info, component, fmt::format(f, std::forward<A>(a)...));
}
template <class... A>
void warning(std::string_view component, fmt::format_string<A...> f, A&&... a) {
  if (enabled(level::warning)) write(level::warning, component, fmt::format(f, std::forward<A>(a)...));
}
template <class... A>
void error(std::string_view component, fmt::format_string<A...> f, A&&... a) {
  if (enabled(level::error)) write(level::error, component, fmt::format(f, std::forward<A>(a)...));
}

} // namespace qs::log
