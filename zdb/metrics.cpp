#include "zdb/metrics.hpp"

#include <bit>

#include <fmt/format.h>

namespace qs::zdb {

void latency_histogram::add(std::chrono::nanoseconds took) noexcept {
  auto ns = took.count() > 0 ? static_cast<std::uint64_t>(took.count()) : 0;
  ++count_;
  nanoseconds_ += ns;
  // The smallest i with ns <= 1000 * 4^i.
  auto us = (ns + 999) / 1000;
  auto i = us <= 1 ? 0U : (static_cast<unsigned>(std::bit_width(us - 1)) + 1) / 2;
  if (i < bounds) ++counts_[i];
}

std::uint64_t latency_histogram::up_to(std::size_t i) const noexcept {
  std::uint64_t n = 0;
  for (std::size_t at = 0; at <= i && at < bounds; ++at) n += counts_[at];
  return n;
}

void metrics_text::head(std::string_view name, std::string_view type, std::string_view help) {
  text_ += fmt::format("# HELP {} {}\n# TYPE {} {}\n", name, help, name, type);
}

void metrics_text::value(std::string_view name, double v, std::string_view labels) {
  text_ += labels.empty() ? fmt::format("{} {}\n", name, v)
                          : fmt::format("{}{{{}}} {}\n", name, labels, v);
}

void metrics_text::value(std::string_view name, std::uint64_t v, std::string_view labels) {
  text_ += labels.empty() ? fmt::format("{} {}\n", name, v)
                          : fmt::format("{}{{{}}} {}\n", name, labels, v);
}

void metrics_text::histogram(std::string_view name, const latency_histogram& h,
                             std::string_view labels) {
  std::uint64_t us = 1;
  for (std::size_t i = 0; i < latency_histogram::bounds; ++i, us *= 4)
    text_ += fmt::format("{}_bucket{{{},le=\"{}\"}} {}\n", name, labels,
                         static_cast<double>(us) / 1e6, h.up_to(i));
  text_ += fmt::format("{}_bucket{{{},le=\"+Inf\"}} {}\n", name, labels, h.count());
  text_ += fmt::format("{}_sum{{{}}} {}\n", name, labels, h.seconds());
  text_ += fmt::format("{}_count{{{}}} {}\n", name, labels, h.count());
}

std::string metrics_text::label(std::string_view name, std::string_view value) {
  auto out = fmt::format("{}=\"", name);
  for (auto c : value) {
    if (c == '\\' || c == '"')
      (out += '\\') += c;
    else if (c == '\n')
      out += "\\n";
    else
      out += c;
  }
  return out + '"';
}

} // namespace qs::zdb
