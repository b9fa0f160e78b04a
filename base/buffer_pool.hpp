// Memory of large buffers, kept for the next who needs one: fresh memory costs a page fault for
// every 4 KiB and zeros that nobody reads. A buffer that comes out holds whatever was in it, so it is
// for who writes every byte, and only for bytes that may be seen by whoever gets them next (what
// leaves this machine, never secrets). Any thread; a buffer may outlive its pool.
#pragma once

#include <cstddef>
#include <memory>

#include "base/bytes.hpp"

namespace qs {

class buffer_pool {
public:
  /// For buffers of up to `bytes`; at most `idle_max` that nobody uses are kept.
  buffer_pool(std::size_t bytes, std::size_t idle_max);

  /// `bytes` long, content unspecified. Comes back when its last owner lets go. Those of less than
  /// half of the pool's size, or more than it, are made for the occasion: a small one does not hold
  /// on to the memory of a large one.
  [[nodiscard]] std::shared_ptr<buffer> take(std::size_t bytes);
  [[nodiscard]] std::size_t idle() const;

private:
  struct shelf;
  std::shared_ptr<shelf> shelf_;
};

} // namespace qs
