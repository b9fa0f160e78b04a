// Time as a parameter: everything that looks at a clock gets one of these, so that a test can hold it still.
#pragma once

#include <chrono>
#include <string>

namespace qs {

/// Calendar time, UTC, milliseconds. For records, money and people; it may jump.
using wall_time = std::chrono::sys_time<std::chrono::milliseconds>;
/// Time since boot, suspend included (CLOCK_BOOTTIME). For intervals and deadlines; it never goes back.
using boot_time = std::chrono::milliseconds;

class clock {
public:
  virtual ~clock() = default;
  [[nodiscard]] virtual wall_time wall() const = 0;
  [[nodiscard]] virtual boot_time boot() const = 0;
};

/// The machine's clocks. Thread-safe.
clock& system_clock();

/// A clock that moves only when told. Not thread-safe: for tests under one scheduler.
class manual_clock final : public clock {
public:
  explicit manual_clock(wall_time start = wall_time{std::chrono::hours{24 * 365 * 50}}) : wall_{start} {}
  [[nodiscard]] wall_time wall() const override { return wall_; }
  [[nodiscard]] boot_time boot() const override { return boot_; }
  void advance(std::chrono::milliseconds by) {
    wall_ += by;
    boot_ += by;
  }
  /// Calendar time alone jumps, as after a wrong setting.
  void jump_wall(std::chrono::milliseconds by) { wall_ += by; }

private:
  wall_time wall_;
  boot_time boot_{std::chrono::hours{1}};
};

/// RFC 3339, UTC, seconds: "2026-01-31T09:30:00Z".
std::string to_rfc3339(wall_time time);

} // namespace qs
