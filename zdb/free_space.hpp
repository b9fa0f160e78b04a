// What the file system under the data directory has left, looked at now and then. Below a reserve
// (16 MiB, or a sixteenth of a small one) values are refused, so that deleting, settings and compaction
// still work on a disk that is full. One thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>

namespace qs::zdb {

class free_space {
public:
  static constexpr std::uint64_t reserve_most = 16 << 20;
  /// Written between two looks; never more than a reserve.
  static constexpr std::uint64_t look_every = 256 << 10;
  static constexpr std::chrono::milliseconds look_again{100}; ///< while it is low

  /// Without a directory there is always room.
  explicit free_space(std::filesystem::path directory) : directory_{std::move(directory)} {}
  /// Whether `bytes` more of values may be written; counts them as written.
  [[nodiscard]] bool takes(std::uint64_t bytes);
  /// Bytes left now, the reserve included. If the disk cannot tell, as many as can be said.
  [[nodiscard]] std::uint64_t left();

private:
  std::filesystem::path directory_;
  std::uint64_t unseen_ = look_every; ///< written since the last look
  std::uint64_t reserve_ = 0;
  std::uint64_t left_ = ~std::uint64_t{0};
  bool low_ = false;
  std::chrono::steady_clock::time_point looked_{};
};

} // namespace qs::zdb
