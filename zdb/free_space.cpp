#include "zdb/free_space.hpp"

#include <algorithm>
#include <sys/statvfs.h>

namespace qs::zdb {

std::uint64_t free_space::left() {
  struct statvfs s {};
  left_ = ~std::uint64_t{0};
  if (directory_.empty() || ::statvfs(directory_.c_str(), &s) != 0) return left_;
  left_ = std::uint64_t{s.f_bavail} * s.f_frsize;
  reserve_ = std::min<std::uint64_t>(reserve_most, std::uint64_t{s.f_blocks} * s.f_frsize / 16);
  unseen_ = 0;
  return left_;
}

bool free_space::takes(std::uint64_t bytes) {
  if (directory_.empty()) return true;
  unseen_ += bytes;
  // Small file systems have small reserves: looked at the more often.
  auto due = unseen_ >= std::min<std::uint64_t>(look_every, std::max<std::uint64_t>(reserve_, 4096));
  auto now = due || low_ ? std::chrono::steady_clock::now() : looked_;
  if (low_ ? now - looked_ >= look_again : due) {
    looked_ = now;
    auto have = left();
    low_ = have < reserve_ || have - reserve_ < bytes;
  }
  return !low_;
}

} // namespace qs::zdb
