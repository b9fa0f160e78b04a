// A segment whose bytes are (also) in this machine's log: open and taking frames, or sealed and pinned until the nodes have it.
// Knows where each frame lies in the log and how the sending stands. Guarded by its own mutex, the last in the order of locks.
#pragma once

#include <algorithm>
#include <memory>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <vector>

#include "base/clock.hpp"
#include "codec/shard.hpp"
#include "volume/log.hpp"

namespace qs::volume {

struct local_frame {
  log_position where;
  std::uint32_t stored = 0;
  std::uint32_t position = 0;
  std::uint8_t shard = 0;
  std::uint64_t inode = 0;
  std::uint64_t extent = 0;
};

struct local_segment {
  local_segment(const codec::segment_info& i, unsigned data_shards) : info{i}, packer{data_shards} {}

  const codec::segment_info info;
  std::shared_ptr<const codec::frame_cipher> cipher; ///< null if its key generation is unknown
  [[nodiscard]] model::segment_ref ref() const noexcept { return info.id.ref(); }

  std::mutex mutex; ///< everything below
  std::unordered_map<std::uint32_t, local_frame> frames;
  std::vector<std::uint64_t> record_files; ///< log files of its opening and its seal record
  std::uint64_t bytes = 0;                 ///< stored bytes of the frames

  // While it is open in this session:
  codec::segment_packer packer;
  /// Where its frames are sealed, and sent from. Only as many segments have one as there is memory for (body_share); the frames
  /// of the others, and of those that wait for long, are read back from the log.
  std::optional<codec::segment_body> body;
  std::shared_ptr<void> body_share;
  std::uint32_t unplaced = 0;    ///< tickets out whose frame has no place yet
  std::uint32_t next_frame = 0;  ///< given out once, also if the frame is never placed
  std::uint32_t outstanding = 0; ///< tickets out: it is not sealed before they are back
  bool ours = false;             ///< opened by this session; others' are never added to
  bool closing = false;          ///< no more tickets; sealed when the last is back
  bool sealing = false;
  bool short_seal = false;
  boot_time opened{};
  boot_time last_frame{};

  // Once it is sealed:
  std::optional<codec::seal_record> record;
  bool unsynced = false;       ///< the record is not certainly on the disk yet: nothing may leave
  std::uint64_t acked = 0;     ///< on the slots of `generation`
  std::uint64_t confirmed = 0;
  std::uint64_t waiting = 0;   ///< sent, outcome not final
  std::uint64_t distrusted = 0; ///< of this attempt: no word for these counts any more (unconfirm), they are sent again
  std::uint64_t unanswered = 0; ///< sent, and no word yet: their bytes are in memory
  std::uint32_t value_bytes = 0; ///< of each
  bool late = false;           ///< those count among late_bytes
  std::uint32_t generation = 0;
  unsigned attempt = 0;        ///< answers to earlier attempts are ignored
  boot_time next_try{};
  bool queued = false;         ///< in the send queue, or being prepared
  bool flying = false;         ///< counts among the segments in flight
  bool replacing = false;      ///< a node was full: its frames are going to another segment
  bool let_go = false;         ///< not in the engine's table any more: what is said of its shards changes nothing
  bool removing = false;       ///< dead, its shards are being deleted

  void drop_body() {
    body.reset();
    body_share.reset();
  }
  /// Of an open segment: a frame that was superseded, or did not happen.
  void drop_frame(std::uint32_t number) {
    auto place = packer.remove(number);
    if (place && body) body->drop(*place);
  }
};

/// What is left in memory of a segment that the nodes have, while the log still has some of its frames: a cache. Guarded by the
/// engine's view lock.
struct kept_segment {
  struct frame {
    std::uint32_t number = 0;
    std::uint32_t stored = 0;
    log_position where;
  };
  std::shared_ptr<const codec::frame_cipher> cipher;
  std::vector<frame> frames; ///< by number
  std::uint64_t last_file = 0;

  [[nodiscard]] const frame* find(std::uint32_t number) const noexcept {
    auto it = std::lower_bound(frames.begin(), frames.end(), number,
                               [](const frame& f, std::uint32_t n) { return f.number < n; });
    return it == frames.end() || it->number != number ? nullptr : &*it;
  }
};

} // namespace qs::volume
