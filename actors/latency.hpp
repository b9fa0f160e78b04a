// latency_estimate: a smoothed mean and a 90 % quantile of how long something takes, in constant
// space. A value, not thread-safe; owned by whoever measures.
#pragma once

#include <algorithm>
#include <chrono>

namespace qs::actors {

class latency_estimate {
public:
  using duration = std::chrono::microseconds;

  void add(duration sample) {
    auto x = static_cast<double>(std::max<duration::rep>(sample.count(), 0));
    if (!known_) {
      known_ = true;
      mean_ = p90_ = x;
      return;
    }
    mean_ += (x - mean_) / 8;
    // Stochastic approximation: 9 small steps down balance 1 big step up exactly at the 90 %
    // quantile. The step follows the spread, so that it neither crawls nor jitters.
    auto step = std::max({mean_ / 16, p90_ / 16, 10.0});
    p90_ += x > p90_ ? step * 0.9 * 2 : -step * 0.1 * 2;
    p90_ = std::max(p90_, mean_ / 2);
  }
  [[nodiscard]] bool known() const noexcept { return known_; }
  [[nodiscard]] duration mean() const noexcept {
    return duration{static_cast<duration::rep>(mean_)};
  }
  [[nodiscard]] duration p90() const noexcept { return duration{static_cast<duration::rep>(p90_)}; }

private:
  bool known_ = false;
  double mean_ = 0;
  double p90_ = 0;
};

} // namespace qs::actors
