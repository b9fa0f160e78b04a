// Gives back the space of overwritten and deleted records, one namespace and a few files at a time,
// while everything else goes on: it copies what is alive of the oldest worthwhile files to a new
// one, makes that safe on the disk, points the index at it, and only then deletes the old ones.
// It decides and drives on the I/O thread; reading, writing and syncing happen on the helper thread
// in pieces, no faster than `bytes_per_second`, so that syncs in between are not kept waiting.
// Never in worm namespaces. Owned by the server, beside the store.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>

#include "zdb/name_space.hpp"

namespace qs::zdb {

struct compaction_options {
  std::uint64_t bytes_per_second = 32ULL << 20; ///< read and written together; 0: no bound
  unsigned dead_percent = 50;                   ///< a file with that much to free is worth it
  std::uint64_t least_bytes = 64 << 10;         ///< that a pass must free
};

struct compaction_environment {
  /// As environment::disk: `work` on the helper thread, then `then` on the I/O thread.
  std::function<void(std::function<void()> work, std::function<void()> then)> disk;
  /// `then` on the I/O thread after a while; dropped when the server ends.
  std::function<void(std::chrono::milliseconds, std::function<void()> then)> after;
};

struct compaction_stats {
  std::uint64_t passes = 0;
  std::uint64_t failures = 0;
  std::uint64_t files_removed = 0;
  std::uint64_t bytes_copied = 0;
  std::uint64_t bytes_freed = 0;
};

class compactor {
public:
  compactor(compaction_options options, compaction_environment env);
  ~compactor();
  compactor(const compactor&) = delete;
  compactor& operator=(const compactor&) = delete;

  /// Looks whether `space` is worth a pass and starts one; nothing while another one runs. True:
  /// started. Call it now and then for every namespace (it costs a look at the files' counters),
  /// and with `anyway` for a pass over whatever has anything to free. `done`: on the I/O thread.
  bool consider(const std::shared_ptr<name_space>& space, bool anyway = false,
                std::function<void(const status&)> done = {});
  /// The namespace that is being compacted, or null.
  [[nodiscard]] std::shared_ptr<name_space> working_on() const noexcept;
  /// No further piece is begun; what was begun is thrown away at the next start.
  void stop() noexcept;
  [[nodiscard]] const compaction_stats& stats() const noexcept { return stats_; }

private:
  struct pass;
  compaction_options options_;
  compaction_environment env_;
  compaction_stats stats_;
  std::shared_ptr<pass> pass_;
  std::chrono::steady_clock::time_point not_before_{}; ///< after a full disk
  bool stopped_ = false;
};

} // namespace qs::zdb
