#include "base/diagnostic.hpp"

#include <algorithm>
#include <numeric>

#include <fmt/format.h>

namespace qs {
namespace {

std::string_view line_of(std::string_view text, int number) {
  std::size_t from = 0;
  for (int i = 1; i < number; ++i) {
    auto end = text.find('\n', from);
    if (end == std::string_view::npos) return {};
    from = end + 1;
  }
  auto line = text.substr(from, text.find('\n', from) - from);
  if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
  return line;
}

std::size_t distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 1; i <= a.size(); ++i) {
    auto diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      auto above = row[j];
      row[j] = std::min({above + 1, row[j - 1] + 1, diagonal + (a[i - 1] == b[j - 1] ? 0U : 1U)});
      diagonal = above;
    }
  }
  return row.back();
}

} // namespace

bool has_errors(const diagnostics& list) noexcept {
  return std::any_of(list.begin(), list.end(),
                     [](const diagnostic& d) { return d.level == severity::error; });
}

std::string render(const diagnostics& list, std::string_view file, std::string_view text) {
  auto sorted = list;
  std::stable_sort(sorted.begin(), sorted.end(), [](const diagnostic& a, const diagnostic& b) {
    return std::pair{a.where.line, a.where.column} < std::pair{b.where.line, b.where.column};
  });
  std::string out;
  for (const auto& d : sorted) {
    auto level = d.level == severity::error ? "error" : "warning";
    if (d.where.line <= 0) {
      out += fmt::format("{}: {}: {} [{}]\n", file, level, d.message, d.code);
      continue;
    }
    auto column = std::max(d.where.column, 1);
    out += fmt::format("{}:{}:{}: {}: {} [{}]\n", file, d.where.line, column, level, d.message, d.code);
    auto line = std::string{line_of(text, d.where.line)};
    std::replace(line.begin(), line.end(), '\t', ' ');
    auto width = std::max(1, d.where.end_column - column);
    out += fmt::format("{:>5} | {}\n", d.where.line, line);
    out += fmt::format("      | {}{}\n", std::string(static_cast<std::size_t>(column - 1), ' '),
                       std::string(static_cast<std::size_t>(width), '^'));
  }
  return out;
}

std::string_view nearest(std::string_view word, const std::vector<std::string_view>& candidates) {
  std::string_view best;
  auto best_distance = std::max<std::size_t>(2, word.size() / 3) + 1;
  for (auto candidate : candidates)
    if (auto d = distance(word, candidate); d < best_distance) {
      best = candidate;
      best_distance = d;
    }
  return best;
}

} // namespace qs
