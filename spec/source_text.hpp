// source_text: the text of a file with its lines, to turn byte offsets into places for people and
// back. Internal to spec. A byte order mark at the front is no part of the first line's columns.
#pragma once

#include <cstddef>
#include <string_view>
#include <vector>

#include "base/diagnostic.hpp"

namespace qs::spec {

class source_text {
public:
  explicit source_text(std::string_view text);

  [[nodiscard]] std::string_view text() const noexcept { return text_; }
  /// Offset of a line and byte column, both from 0 (as yaml-cpp counts), cut to the end of that
  /// line.
  [[nodiscard]] std::size_t offset(int line, int byte_column) const noexcept;
  /// Offset of a line and character column, both from 1.
  [[nodiscard]] std::size_t offset_of(int line, int column) const noexcept;
  /// The place of [begin, end); what goes over the end of the first line is left out.
  [[nodiscard]] source_range range(std::size_t begin, std::size_t end) const noexcept;
  /// Line from 0.
  [[nodiscard]] std::size_t line_of(std::size_t offset) const noexcept;
  [[nodiscard]] std::size_t line_begin(std::size_t line) const noexcept { return starts_[line]; }
  /// Without the line break.
  [[nodiscard]] std::size_t line_end(std::size_t line) const noexcept;
  [[nodiscard]] std::size_t lines() const noexcept { return starts_.size(); }

private:
  std::string_view text_;
  std::vector<std::size_t> starts_;
};

inline constexpr std::string_view byte_order_mark = "\xEF\xBB\xBF";

} // namespace qs::spec
