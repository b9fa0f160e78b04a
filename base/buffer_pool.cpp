#include "base/buffer_pool.hpp"

#include <mutex>
#include <utility>
#include <vector>

namespace qs {

struct buffer_pool::shelf {
  std::size_t bytes = 0;
  std::size_t idle_max = 0;
  mutable std::mutex mutex;
  std::vector<buffer> idle;

  std::unique_ptr<buffer> lift() {
    std::lock_guard lock{mutex};
    if (idle.empty()) return nullptr;
    auto out = std::make_unique<buffer>(std::move(idle.back()));
    idle.pop_back();
    return out;
  }
  void put_back(buffer used) noexcept {
    std::lock_guard lock{mutex};
    if (idle.size() < idle_max) idle.push_back(std::move(used)); // its room was reserved
  }
};

buffer_pool::buffer_pool(std::size_t bytes, std::size_t idle_max)
    : shelf_{std::make_shared<shelf>()} {
  shelf_->bytes = bytes;
  shelf_->idle_max = idle_max;
  shelf_->idle.reserve(idle_max);
}

std::shared_ptr<buffer> buffer_pool::take(std::size_t bytes) {
  if (bytes > shelf_->bytes || bytes <= shelf_->bytes / 2) return std::make_shared<buffer>(bytes);
  auto one = shelf_->lift();
  if (!one) {
    one = std::make_unique<buffer>();
    one->reserve(shelf_->bytes);
  }
  one->resize(bytes);
  return {one.release(), [kept = shelf_](buffer* used) {
            std::unique_ptr<buffer> own{used};
            kept->put_back(std::move(*own));
          }};
}

std::size_t buffer_pool::idle() const {
  std::lock_guard lock{shelf_->mutex};
  return shelf_->idle.size();
}

} // namespace qs
