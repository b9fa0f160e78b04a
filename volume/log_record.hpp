// One record of the log: what an operation changed, in full. Rows are physical (key and value, or erased), so that replaying is
// putting them; the sections beside them say what happens to what is only in memory: frames, byte ranges, open segments.
// Bytes: docs/formats/log.md. Values, no I/O; any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "codec/segment.hpp"
#include "volume/row_store.hpp"

namespace qs::volume {

/// A sealed frame whose bytes are in the record's data. The extent's row is among the rows.
struct frame_section {
  model::segment_ref segment;
  codec::directory_entry entry;   ///< position, lengths, codec, number, inode, extent; sequence = the record's
  std::uint8_t shard = 0;
  std::uint64_t ranges_upto = 0;  ///< the extent's ranges of operations up to this one are in the frame
  std::uint32_t data_at = 0;      ///< of its stored bytes, in the record's data
  bool operator==(const frame_section&) const = default;
};

inline constexpr std::uint32_t no_data = ~std::uint32_t{0};

/// Raw bytes over an extent that have not met the base frame yet; `no_data`: zeros.
struct range_section {
  std::uint64_t inode = 0;
  std::uint64_t extent = 0;
  std::uint32_t from = 0; ///< in the extent
  std::uint32_t to = 0;
  std::uint32_t data_at = no_data;
  bool operator==(const range_section&) const = default;
};

/// Ranges within these bytes of the file are void; comes before the frames and ranges of the same record.
struct drop_section {
  std::uint64_t inode = 0;
  std::uint64_t from = 0;
  std::uint64_t to = 0;
  bool operator==(const drop_section&) const = default;
};

struct log_record {
  std::uint64_t sequence = 0;
  row_changes rows;
  std::vector<drop_section> drops;
  std::vector<frame_section> frames;
  std::vector<range_section> ranges;
  std::optional<codec::segment_info> opened; ///< a segment begins; its salt is here before any frame uses it
  std::optional<buffer> sealed;              ///< an encoded codec::seal_record
  bool operator==(const log_record&) const = default;
  [[nodiscard]] bool empty() const noexcept {
    return rows.empty() && drops.empty() && frames.empty() && ranges.empty() && !opened && !sealed;
  }
};

/// All but the data and the sequence, which is in the frame around it.
buffer encode_body(const log_record& record);
/// `data_bytes`: how much data the record has; sections that reach beyond it are corrupt. Errors: corrupt, version_mismatch.
result<log_record> decode_body(std::uint64_t sequence, byte_span body, std::uint64_t data_bytes);

} // namespace qs::volume
