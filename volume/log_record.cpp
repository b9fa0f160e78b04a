#include "volume/log_record.hpp"

namespace qs::volume {

namespace {

enum class section : std::uint8_t { put = 1, erase = 2, frame = 3, range = 4, drop = 5, opened = 6, sealed = 7 };

constexpr std::size_t key_bytes_max = 1024;
constexpr std::size_t value_bytes_max = 1 << 20;

byte_writer& begin(byte_writer& w, section kind) { return w.put(static_cast<std::uint8_t>(kind)); }

void put_frame(byte_writer& w, const frame_section& f) {
  begin(w, section::frame)
    .put(f.segment.epoch)
    .put(f.segment.counter)
    .put(f.entry.frame_number)
    .put(f.shard)
    .put(static_cast<std::uint8_t>(f.entry.codec))
    .put(f.entry.position)
    .put(f.entry.stored_length)
    .put(f.entry.plain_length)
    .put(f.entry.inode)
    .put(f.entry.inode_generation)
    .put(f.entry.extent_index)
    .put(f.ranges_upto)
    .put(f.data_at);
}

frame_section get_frame(byte_reader& in, std::uint64_t sequence) {
  frame_section f;
  f.segment.epoch = in.get<std::uint32_t>();
  f.segment.counter = in.get<std::uint64_t>();
  f.entry.frame_number = in.get<std::uint32_t>();
  f.shard = in.get<std::uint8_t>();
  f.entry.codec = static_cast<codec::frame_codec>(in.get<std::uint8_t>());
  f.entry.position = in.get<std::uint32_t>();
  f.entry.stored_length = in.get<std::uint32_t>();
  f.entry.plain_length = in.get<std::uint32_t>();
  f.entry.inode = in.get<std::uint64_t>();
  f.entry.inode_generation = in.get<std::uint64_t>();
  f.entry.extent_index = in.get<std::uint64_t>();
  f.ranges_upto = in.get<std::uint64_t>();
  f.data_at = in.get<std::uint32_t>();
  f.entry.sequence = sequence;
  return f;
}

codec::segment_info get_info(byte_reader& in) {
  codec::segment_info info;
  info.id = codec::get_segment_id(in);
  info.salt = in.get_array<32>();
  info.generation = in.get<std::uint32_t>();
  info.cipher = static_cast<codec::cipher_id>(in.get<std::uint8_t>());
  return info;
}

bool sound(const log_record& record, std::uint64_t data_bytes) {
  for (const auto& f : record.frames)
    if (f.entry.stored_length > codec::frame_stored_max || f.entry.plain_length > codec::frame_plain_max ||
        f.data_at > data_bytes || f.entry.stored_length > data_bytes - f.data_at)
      return false;
  for (const auto& r : record.ranges) {
    if (r.from >= r.to || r.to > codec::frame_plain_max) return false;
    if (r.data_at != no_data && (r.data_at > data_bytes || r.to - r.from > data_bytes - r.data_at)) return false;
  }
  return true;
}

} // namespace

buffer encode_body(const log_record& record) {
  buffer out;
  std::size_t guess = record.frames.size() * 72 + record.ranges.size() * 32 + 64;
  for (const auto& [key, value] : record.rows) guess += key.size() + (value ? value->size() : 0) + 16;
  out.reserve(guess);
  byte_writer w{out};
  for (const auto& [key, value] : record.rows) {
    begin(w, value ? section::put : section::erase).put_sized(key);
    if (value) w.put_sized(byte_span{*value});
  }
  for (const auto& d : record.drops) begin(w, section::drop).put(d.inode).put(d.from).put(d.to);
  for (const auto& f : record.frames) put_frame(w, f);
  for (const auto& r : record.ranges)
    begin(w, section::range).put(r.inode).put(r.extent).put(r.from).put(r.to).put(r.data_at);
  if (record.opened) {
    begin(w, section::opened);
    codec::put(w, record.opened->id);
    w.put_bytes(record.opened->salt)
      .put(record.opened->generation)
      .put(static_cast<std::uint8_t>(record.opened->cipher));
  }
  if (record.sealed) begin(w, section::sealed).put_sized(byte_span{*record.sealed});
  return out;
}

result<log_record> decode_body(std::uint64_t sequence, byte_span body, std::uint64_t data_bytes) {
  byte_reader in{body};
  log_record record;
  record.sequence = sequence;
  while (in.ok() && in.left() > 0) {
    switch (static_cast<section>(in.get<std::uint8_t>())) {
      case section::put: {
        auto key = in.get_sized(key_bytes_max);
        auto value = in.get_sized(value_bytes_max);
        if (in.ok()) record.rows[to_string(key)] = to_buffer(value);
        break;
      }
      case section::erase: {
        auto key = in.get_sized(key_bytes_max);
        if (in.ok()) record.rows[to_string(key)] = std::nullopt;
        break;
      }
      case section::frame: record.frames.push_back(get_frame(in, sequence)); break;
      case section::range: {
        range_section r;
        r.inode = in.get<std::uint64_t>();
        r.extent = in.get<std::uint64_t>();
        r.from = in.get<std::uint32_t>();
        r.to = in.get<std::uint32_t>();
        r.data_at = in.get<std::uint32_t>();
        record.ranges.push_back(r);
        break;
      }
      case section::drop: {
        drop_section d;
        d.inode = in.get<std::uint64_t>();
        d.from = in.get<std::uint64_t>();
        d.to = in.get<std::uint64_t>();
        record.drops.push_back(d);
        break;
      }
      case section::opened: record.opened = get_info(in); break;
      case section::sealed: record.sealed = to_buffer(in.get_sized(value_bytes_max)); break;
      default:
        return error{errc::version_mismatch, "a log record has a part that only a newer version of qs understands"};
    }
  }
  if (!in.done() || !sound(record, data_bytes)) return error{errc::corrupt, "a log record does not parse"};
  return record;
}

} // namespace qs::volume
