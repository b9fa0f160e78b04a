#include "base/clock.hpp"

#include <ctime>

#include <fmt/chrono.h>
#include <fmt/format.h>

namespace qs {
namespace {

class machine_clock final : public clock {
public:
  [[nodiscard]] wall_time wall() const override {
    return std::chrono::time_point_cast<std::chrono::milliseconds>(std::chrono::system_clock::now());
  }
  [[nodiscard]] boot_time boot() const override {
    timespec now{};
    ::clock_gettime(CLOCK_BOOTTIME, &now);
    return std::chrono::seconds{now.tv_sec} + std::chrono::milliseconds{now.tv_nsec / 1'000'000};
  }
};

} // namespace

clock& system_clock() {
  static machine_clock instance;
  return instance;
}

std::string to_rfc3339(wall_time time) {
  auto seconds = std::chrono::floor<std::chrono::seconds>(time).time_since_epoch().count();
  auto whole = static_cast<std::time_t>(seconds);
  std::tm fields{};
  ::gmtime_r(&whole, &fields);
  return fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fields);
}

} // namespace qs
