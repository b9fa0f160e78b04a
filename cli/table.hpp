// Tables and wrapped text for people, 80 columns unless the terminal is wider. Pure.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace qs::cli {

/// Characters, not bytes: what a terminal's columns hold (no double-width ones among our texts).
std::size_t columns_of(std::string_view utf8) noexcept;
/// Cut to `most` columns with "…" at the end.
std::string shortened(std::string_view utf8, std::size_t most);
/// Words wrapped at `width`, every line but the first after `indent` spaces.
std::string wrapped(std::string_view text, std::size_t width, std::size_t indent);

class table {
public:
  struct column {
    std::string title;
    bool right = false;  ///< numbers
    bool shrink = false; ///< gives way when the table is too wide
  };
  explicit table(std::vector<column> columns) : columns_{std::move(columns)} {}
  void row(std::vector<std::string> cells);
  /// Two spaces between columns, none at the end of a line. Empty without rows.
  [[nodiscard]] std::string render(std::size_t width = 80) const;

private:
  std::vector<column> columns_;
  std::vector<std::vector<std::string>> rows_;
};

} // namespace qs::cli
