// What the server counts about its commands, and the text Prometheus reads. No sockets
// (metrics_endpoint.hpp). I/O thread only.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace qs::zdb {

/// How long commands took: counts by upper bounds of 1, 4, 16, … µs up to 67 s, and above.
class latency_histogram {
public:
  static constexpr std::size_t bounds = 14;
  void add(std::chrono::nanoseconds took) noexcept;
  [[nodiscard]] std::uint64_t count() const noexcept { return count_; }
  [[nodiscard]] double seconds() const noexcept { return static_cast<double>(nanoseconds_) / 1e9; }
  /// Those of at most 4^i µs.
  [[nodiscard]] std::uint64_t up_to(std::size_t i) const noexcept;

private:
  std::array<std::uint64_t, bounds> counts_{};
  std::uint64_t count_ = 0;
  std::uint64_t nanoseconds_ = 0;
};

/// Writes the Prometheus text format 0.0.4.
class metrics_text {
public:
  void head(std::string_view name, std::string_view type, std::string_view help);
  /// `labels`: empty, or `a="b",…` made with label().
  void value(std::string_view name, double v, std::string_view labels = {});
  void value(std::string_view name, std::uint64_t v, std::string_view labels = {});
  void histogram(std::string_view name, const latency_histogram& h, std::string_view labels);
  static std::string label(std::string_view name, std::string_view value);
  [[nodiscard]] std::string take() { return std::move(text_); }

private:
  std::string text_;
};

} // namespace qs::zdb
