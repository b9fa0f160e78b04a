#include "volume/segment_row.hpp"

#include "base/limits.hpp"

namespace qs::volume {

namespace {
constexpr std::uint16_t field_damaged = 1;
}

buffer encode(const segment_row& row) {
  buffer out;
  out.reserve(112);
  byte_writer w{out};
  w.put(static_cast<std::uint8_t>(row.state))
    .put(row.data_shards)
    .put(row.parity_shards)
    .put(row.used_shards)
    .put(static_cast<std::uint8_t>(row.cipher))
    .put(row.key_generation)
    .put_bytes(row.salt)
    .put(row.shard_length)
    .put(row.group)
    .put(row.group_generation)
    .put(row.confirmed)
    .put(row.live_bytes)
    .put(row.sealed_ms)
    .put(row.confirmed_ms);
  put_number(w, field_damaged, row.damaged);
  put_fields(w, row.unknown);
  return out;
}

result<segment_row> decode_segment(byte_span value) {
  byte_reader in{value};
  segment_row row;
  auto state = in.get<std::uint8_t>();
  row.data_shards = in.get<std::uint8_t>();
  row.parity_shards = in.get<std::uint8_t>();
  row.used_shards = in.get<std::uint8_t>();
  auto cipher = in.get<std::uint8_t>();
  row.key_generation = in.get<std::uint32_t>();
  row.salt = in.get_array<32>();
  row.shard_length = in.get<std::uint32_t>();
  row.group = in.get<std::uint32_t>();
  row.group_generation = in.get<std::uint32_t>();
  row.confirmed = in.get<std::uint64_t>();
  row.live_bytes = in.get<std::uint64_t>();
  row.sealed_ms = in.get<std::uint64_t>();
  row.confirmed_ms = in.get<std::uint64_t>();
  if (!in.ok() || state > 2 || cipher < 1 || cipher > 2 || row.data_shards == 0 ||
      row.data_shards > limits::data_shards_max || row.parity_shards > limits::parity_shards_max ||
      row.used_shards > row.data_shards || row.shard_length > codec::frame_stored_max * 16)
    return error{errc::corrupt, "a segment's row is damaged"};
  row.state = static_cast<segment_state>(state);
  row.cipher = static_cast<codec::cipher_id>(cipher);
  QS_TRY(read_fields(in, row.unknown, [&](std::uint16_t tag, byte_span bytes) {
    return tag == field_damaged && take_number(bytes, row.damaged);
  }));
  return row;
}

buffer encode_slots(const std::vector<model::node_id>& slots) {
  buffer out;
  byte_writer w{out};
  w.put(static_cast<std::uint16_t>(slots.size()));
  for (auto node : slots) w.put(node.number);
  return out;
}

result<std::vector<model::node_id>> decode_slots(byte_span value) {
  byte_reader in{value};
  auto count = in.get<std::uint16_t>();
  std::vector<model::node_id> slots;
  if (count > limits::data_shards_max + limits::parity_shards_max)
    return error{errc::corrupt, "a group's row is damaged"};
  for (unsigned i = 0; i < count; ++i) slots.push_back({in.get<std::uint32_t>()});
  if (!in.done()) return error{errc::corrupt, "a group's row is damaged"};
  return slots;
}

} // namespace qs::volume
