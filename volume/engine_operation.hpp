// One operation of the volume's core: its rows, and what the core adds beside them, frames above all. And what a frame is on its
// way there: a ticket for a place in an open segment, then sealed bytes. Made by the engine, used by one thread at a time, under
// the operation lock from begin to commit.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "base/random.hpp"
#include "codec/shard.hpp"
#include "model/node.hpp"
#include "volume/core.hpp"
#include "volume/local_segment.hpp"
#include "volume/log.hpp"
#include "volume/log_record.hpp"

namespace qs::volume {

class engine;
using segment_ptr = std::shared_ptr<local_segment>;

/// The right to put one frame into an open segment, and then its place there, which it gives up again unless the frame is added
/// to an operation. The segment is not sealed while tickets are out.
class frame_ticket {
public:
  frame_ticket() = default;
  frame_ticket(engine& e, segment_ptr segment, std::uint32_t number)
      : engine_{&e}, segment_{std::move(segment)}, number_{number} {}
  frame_ticket(frame_ticket&& other) noexcept
      : engine_{std::exchange(other.engine_, nullptr)}, segment_{std::move(other.segment_)}, number_{other.number_},
        placed_{other.placed_}, added_{other.added_} {}
  frame_ticket& operator=(frame_ticket&& other) noexcept;
  ~frame_ticket() { give_back(); }
  [[nodiscard]] const segment_ptr& segment() const noexcept { return segment_; }
  [[nodiscard]] std::uint32_t number() const noexcept { return number_; }
  /// A place, once; and where to seal it there, if the segment's body is in memory. False: it does not fit, and the segment is
  /// closing.
  result<bool> place(std::uint32_t stored_length, mutable_byte_span& room);
  /// From now on it is the operation's to remove.
  void added() noexcept { added_ = true; }

private:
  void give_back();
  engine* engine_ = nullptr;
  segment_ptr segment_;
  std::uint32_t number_ = 0;
  bool placed_ = false;
  bool added_ = false;
};

/// A copy of a shard in a place that is not its place any more.
struct stale_shard {
  model::node_id node;
  model::segment_ref segment;
  std::uint8_t index = 0;
};

/// A frame that is sealed and not in the log yet.
struct sealed_frame {
  frame_ticket ticket;
  std::unique_ptr<std::byte[]> own; ///< its bytes, if the segment has no body
  byte_span stored;                 ///< in `own`, or in the body as long as the ticket is out
  codec::frame_size size;
};

/// Random bytes for many threads, whatever the source is.
class locked_random final : public random_source {
public:
  explicit locked_random(random_source& from) : from_{from} {}
  void fill(mutable_byte_span out) override {
    std::lock_guard lock{mutex_};
    from_.fill(out);
  }

private:
  std::mutex mutex_;
  random_source& from_;
};

/// An operation with what the core itself adds beside rows.
class engine_operation final : public operation {
public:
  engine_operation(engine& e, std::unique_lock<std::mutex> lock, std::uint64_t sequence, file_time now);
  ~engine_operation() override;

  [[nodiscard]] std::uint64_t sequence() const override { return record_.sequence; }
  [[nodiscard]] file_time now() const override { return now_; }
  result<std::optional<buffer>> get(std::string_view key) override;
  status scan(std::string_view from, std::string_view end, const row_visitor& visit) override;
  void put(row_key key, buffer value) override { record_.rows[std::move(key)] = std::move(value); }
  void erase(row_key key) override { record_.rows[std::move(key)] = std::nullopt; }
  void count_inodes(std::int64_t delta) override { inodes_ += delta; }
  status commit() override;

  result<std::optional<extent_row>> extent(inode_number inode, std::uint64_t index);
  /// Bytes of a segment that became live or ceased to be.
  void live(model::segment_ref segment, std::int64_t delta) { live_[segment] += delta; }
  /// Points the extent elsewhere (nothing = nowhere), with the counts that go with it.
  status set_extent(inode_number inode, std::uint64_t index, const std::optional<extent_row>& row);
  /// Makes the frame the extent's base. `visible` of the extent's plain bytes count; ranges up to `ranges_upto` are in it.
  status add_frame(sealed_frame& frame, inode_number inode, std::uint64_t inode_generation,
                   std::uint64_t index, std::uint32_t visible, std::uint64_t ranges_upto);
  /// `bytes` must live until commit; empty = zeros.
  void add_range(inode_number inode, std::uint64_t index, std::uint32_t from, std::uint32_t to, byte_span bytes);
  void add_drop(inode_number inode, std::uint64_t from, std::uint64_t to) { record_.drops.push_back({inode, from, to}); }
  void after(std::function<void()> then) { after_.push_back(std::move(then)); }
  /// Called under the view lock, when the record is in the log; the place is where its data begins.
  void effect(std::function<void(log_position)> e) { effects_.push_back(std::move(e)); }
  log_record& record() { return record_; }

private:
  engine& engine_;
  std::unique_lock<std::mutex> lock_;
  file_time now_;
  log_record record_;
  std::vector<byte_span> data_;
  std::uint64_t data_bytes_ = 0;
  std::map<model::segment_ref, std::int64_t> live_;
  std::int64_t inodes_ = 0;
  std::vector<std::pair<segment_ptr, std::uint32_t>> placed_;
  std::vector<std::pair<model::segment_ref, std::uint32_t>> superseded_;
  std::vector<std::function<void(log_position)>> effects_;
  std::vector<std::function<void()>> after_;
  bool committed_ = false;
};

} // namespace qs::volume
