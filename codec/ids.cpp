#include "codec/ids.hpp"

#include <fmt/format.h>

namespace qs::codec {

void put(byte_writer& out, const session_id& id) { out.put(id.epoch).put_bytes(id.writer); }

void put(byte_writer& out, const segment_id& id) {
  put(out, id.session);
  out.put(id.counter);
}

session_id get_session_id(byte_reader& in) {
  session_id id;
  id.epoch = in.get<std::uint32_t>();
  id.writer = in.get_array<16>();
  return id;
}

segment_id get_segment_id(byte_reader& in) {
  segment_id id;
  id.session = get_session_id(in);
  id.counter = in.get<std::uint64_t>();
  return id;
}

std::string to_string(const segment_id& id) {
  return fmt::format("{}.{}@{}", id.session.epoch, id.counter,
                     to_hex(byte_span{id.session.writer}.first(4)));
}

} // namespace qs::codec
