// A small SET between its command and the write that takes it to the file together with others:
// name_space gathers them, name_space_write.cpp writes them. I/O thread only.
#pragma once

#include "zdb/block.hpp"
#include "zdb/index.hpp"
#include "zdb/record.hpp"

namespace qs::zdb {

/// A record that is not yet written. The index knows it, nothing else does.
struct gathered_write {
  value_block record; ///< with header and key
  index_entry entry;
  index_entry old;
  std::uint32_t timestamp = 0;
  std::uint8_t key_length = 0;
  bool there = false;   ///< `old` is one
  bool appends = false; ///< sequential: a new id
  bool only_new = false;
  [[nodiscard]] byte_span key() const noexcept {
    return record.bytes().subspan(record_header_bytes, key_length);
  }
  [[nodiscard]] byte_span value() const noexcept {
    return record.bytes().subspan(record_header_bytes + key_length);
  }
};

} // namespace qs::zdb
