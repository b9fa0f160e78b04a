#include "spec/source_text.hpp"

#include <algorithm>

namespace qs::spec {
namespace {

bool starts_character(char c) noexcept { return (static_cast<unsigned char>(c) & 0xC0U) != 0x80U; }

int to_int(std::ptrdiff_t n) noexcept { return static_cast<int>(n); }

} // namespace

source_text::source_text(std::string_view text) : text_{text} {
  starts_.push_back(
      text.substr(0, byte_order_mark.size()) == byte_order_mark ? byte_order_mark.size() : 0);
  for (std::size_t i = starts_.front(); i < text.size(); ++i)
    if (text[i] == '\n') starts_.push_back(i + 1);
}

std::size_t source_text::line_end(std::size_t line) const noexcept {
  auto end = line + 1 < starts_.size() ? starts_[line + 1] - 1 : text_.size();
  if (end > starts_[line] && text_[end - 1] == '\r') --end;
  return end;
}

std::size_t source_text::line_of(std::size_t offset) const noexcept {
  auto after = std::upper_bound(starts_.begin(), starts_.end(), offset);
  return after == starts_.begin() ? 0 : static_cast<std::size_t>(after - starts_.begin()) - 1;
}

std::size_t source_text::offset(int line, int byte_column) const noexcept {
  auto index = std::min(static_cast<std::size_t>(std::max(line, 0)), starts_.size() - 1);
  return std::min(starts_[index] + static_cast<std::size_t>(std::max(byte_column, 0)),
                  line_end(index));
}

std::size_t source_text::offset_of(int line, int column) const noexcept {
  auto index = std::min(static_cast<std::size_t>(std::max(line - 1, 0)), starts_.size() - 1);
  auto at = starts_[index];
  auto end = line_end(index);
  for (auto i = 1; i < column && at < end; ++i) do
      ++at;
    while (at < end && !starts_character(text_[at]));
  return at;
}

source_range source_text::range(std::size_t begin, std::size_t end) const noexcept {
  auto line = line_of(begin);
  auto last = line_end(line);
  begin = std::min(begin, last);
  end = std::clamp(end, begin, last);
  auto count = [this](std::size_t from, std::size_t to) {
    return to_int(std::count_if(text_.begin() + static_cast<std::ptrdiff_t>(from),
                                text_.begin() + static_cast<std::ptrdiff_t>(to), starts_character));
  };
  auto column = 1 + count(starts_[line], std::max(begin, starts_[line]));
  return {to_int(static_cast<std::ptrdiff_t>(line)) + 1, column,
          column + std::max(1, count(begin, end))};
}

} // namespace qs::spec
