// Sealed frames that lie elsewhere, copied to their places: for tests that keep them to compare with.
#pragma once

#include <algorithm>
#include <span>
#include <vector>

#include "codec/shard.hpp"

namespace qs::codec::test {

struct placed_frame {
  frame_place place;
  byte_span bytes;
};

inline result<std::vector<buffer_ptr>> build_from(const key_ring& ring, const seal_record& record,
                                                  std::span<const placed_frame> frames,
                                                  unsigned parity_shards) {
  static buffer_pool pool{shard_value_max, 64}; // of tests before: full of whatever they left
  segment_body body{pool};
  for (const auto& f : frames) {
    QS_TRY_ASSIGN(auto room, body.room(f.place, static_cast<std::uint32_t>(f.bytes.size())));
    std::copy(f.bytes.begin(), f.bytes.end(), room.begin());
  }
  return build_shards(ring, record, std::move(body), parity_shards);
}

} // namespace qs::codec::test
