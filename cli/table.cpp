#include "cli/table.hpp"

#include <algorithm>

#include "base/assert.hpp"

namespace qs::cli {

std::size_t columns_of(std::string_view utf8) noexcept {
  return static_cast<std::size_t>(std::count_if(utf8.begin(), utf8.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0U) != 0x80U; }));
}

std::string shortened(std::string_view utf8, std::size_t most) {
  if (columns_of(utf8) <= most) return std::string{utf8};
  if (most == 0) return {};
  std::string out;
  std::size_t used = 0;
  for (char c : utf8) {
    auto starts = (static_cast<unsigned char>(c) & 0xC0U) != 0x80U;
    if (starts && used == most - 1) break;
    if (starts) ++used;
    out += c;
  }
  return out + "…";
}

std::string wrapped(std::string_view text, std::size_t width, std::size_t indent) {
  std::string out;
  std::size_t used = indent;
  auto first = true;
  while (!text.empty()) {
    auto end = std::min(text.find_first_of(" \n"), text.size());
    auto word = text.substr(0, end);
    auto broken = end < text.size() && text[end] == '\n';
    text.remove_prefix(std::min(end + 1, text.size()));
    if (!word.empty()) {
      auto size = columns_of(word);
      if (!first && used + 1 + size > width) {
        out += "\n" + std::string(indent, ' ');
        used = indent;
        first = true;
      }
      if (!first) {
        out += ' ';
        ++used;
      }
      out += word;
      used += size;
      first = false;
    }
    if (broken && !text.empty()) {
      out += "\n" + std::string(indent, ' ');
      used = indent;
      first = true;
    }
  }
  return out;
}

void table::row(std::vector<std::string> cells) {
  QS_ASSERT(cells.size() == columns_.size());
  rows_.push_back(std::move(cells));
}

std::string table::render(std::size_t width) const {
  if (rows_.empty()) return {};
  std::vector<std::size_t> sizes;
  for (std::size_t c = 0; c < columns_.size(); ++c) {
    auto size = columns_of(columns_[c].title);
    for (const auto& r : rows_) size = std::max(size, columns_of(r[c]));
    sizes.push_back(size);
  }
  auto total = [&] {
    std::size_t sum = sizes.empty() ? 0 : 2 * (sizes.size() - 1);
    for (auto s : sizes) sum += s;
    return sum;
  };
  while (total() > width) {
    // The widest column that may give way, one column at a time, never under eight.
    auto widest = columns_.size();
    for (std::size_t c = 0; c < columns_.size(); ++c)
      if (columns_[c].shrink && sizes[c] > 8 && (widest == columns_.size() || sizes[c] > sizes[widest])) widest = c;
    if (widest == columns_.size()) break;
    --sizes[widest];
  }
  std::string out;
  auto line = [&](auto cell) {
    std::string text;
    for (std::size_t c = 0; c < columns_.size(); ++c) {
      auto content = shortened(cell(c), sizes[c]);
      auto fill = std::string(sizes[c] - columns_of(content), ' ');
      text += (c == 0 ? "" : "  ") + (columns_[c].right ? fill + content : content + fill);
    }
    while (!text.empty() && text.back() == ' ') text.pop_back();
    out += text + "\n";
  };
  line([&](std::size_t c) { return columns_[c].title; });
  for (const auto& r : rows_) line([&](std::size_t c) { return r[c]; });
  return out;
}

} // namespace qs::cli
