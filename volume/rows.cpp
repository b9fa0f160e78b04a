#include "volume/rows.hpp"

#include <sys/stat.h>

namespace qs::volume {

namespace {

constexpr std::uint16_t field_parent = 1;
constexpr std::uint16_t field_target = 2;
constexpr std::uint16_t field_xattr_bytes = 3;
constexpr std::uint16_t field_chained = 1; // of a dirent

template <class T>
void append_be(row_key& key, T value) {
  std::array<std::byte, sizeof(T)> bytes;
  store_be(bytes.data(), value);
  key.append(as_text(bytes));
}

row_key key_of(row_kind kind) { return row_key(1, static_cast<char>(kind)); }

bool is_kind(std::string_view key, row_kind kind) {
  return !key.empty() && static_cast<std::uint8_t>(key[0]) == static_cast<std::uint8_t>(kind);
}

template <class T>
T number_at(std::string_view key, std::size_t at) {
  return load_be<T>(as_bytes(key).data() + at);
}

std::uint64_t to_wire(file_time t) {
  return static_cast<std::uint64_t>(t.time_since_epoch().count());
}
file_time to_time(std::uint64_t wire) {
  return file_time{std::chrono::nanoseconds{static_cast<std::int64_t>(wire)}};
}

error corrupt(std::string_view kind) {
  return {errc::corrupt, std::string{"a row is damaged: "}.append(kind)};
}

const auto no_field = [](std::uint16_t, byte_span) { return false; };

} // namespace

row_key inode_key(inode_number inode) { return inode_prefix(row_kind::inode, inode); }

row_key dirent_key(inode_number parent, std::uint64_t cookie) {
  auto key = inode_prefix(row_kind::dirent, parent);
  append_be(key, cookie);
  return key;
}

row_key xattr_key(inode_number inode, std::string_view name) {
  return inode_prefix(row_kind::xattr, inode).append(name);
}

row_key extent_key(inode_number inode, std::uint64_t index) {
  auto key = inode_prefix(row_kind::extent, inode);
  append_be(key, index);
  return key;
}

row_key segment_key(model::segment_ref segment) {
  auto key = key_of(row_kind::segment);
  append_be(key, segment.epoch);
  append_be(key, segment.counter);
  return key;
}

row_key group_key(model::group_id group, std::uint32_t generation) {
  auto key = group_prefix(group);
  append_be(key, generation);
  return key;
}

row_key orphan_key(inode_number inode) { return inode_prefix(row_kind::orphan, inode); }

row_key session_key(std::uint32_t epoch) {
  auto key = key_of(row_kind::session);
  append_be(key, epoch);
  return key;
}

row_key local_key(std::string_view name) { return key_of(row_kind::local).append(name); }

row_key kind_prefix(row_kind kind) { return key_of(kind); }

row_key inode_prefix(row_kind kind, inode_number inode) {
  auto key = key_of(kind);
  append_be(key, inode);
  return key;
}

row_key group_prefix(model::group_id group) {
  auto key = key_of(row_kind::group);
  append_be(key, group.number);
  return key;
}

row_key prefix_end(row_key prefix) {
  while (!prefix.empty() && static_cast<std::uint8_t>(prefix.back()) == 0xff) prefix.pop_back();
  QS_ASSERT(!prefix.empty());
  prefix.back() = static_cast<char>(static_cast<std::uint8_t>(prefix.back()) + 1);
  return prefix;
}

std::optional<inode_number> parse_inode_key(std::string_view key) {
  if (key.size() != 9 || !(is_kind(key, row_kind::inode) || is_kind(key, row_kind::orphan)))
    return {};
  return number_at<std::uint64_t>(key, 1);
}

std::optional<dirent_key_parts> parse_dirent_key(std::string_view key) {
  if (key.size() != 17 || !is_kind(key, row_kind::dirent)) return {};
  return dirent_key_parts{number_at<std::uint64_t>(key, 1), number_at<std::uint64_t>(key, 9)};
}

std::optional<extent_key_parts> parse_extent_key(std::string_view key) {
  if (key.size() != 17 || !is_kind(key, row_kind::extent)) return {};
  return extent_key_parts{number_at<std::uint64_t>(key, 1), number_at<std::uint64_t>(key, 9)};
}

std::optional<model::segment_ref> parse_segment_key(std::string_view key) {
  if (key.size() != 13 || !is_kind(key, row_kind::segment)) return {};
  return model::segment_ref{number_at<std::uint32_t>(key, 1), number_at<std::uint64_t>(key, 5)};
}

std::optional<std::pair<model::group_id, std::uint32_t>> parse_group_key(std::string_view key) {
  if (key.size() != 9 || !is_kind(key, row_kind::group)) return {};
  return std::pair{model::group_id{number_at<std::uint32_t>(key, 1)},
                   number_at<std::uint32_t>(key, 5)};
}

std::optional<std::uint32_t> parse_session_key(std::string_view key) {
  if (key.size() != 5 || !is_kind(key, row_kind::session)) return {};
  return number_at<std::uint32_t>(key, 1);
}

std::optional<std::string_view> parse_xattr_key(std::string_view key) {
  if (key.size() < 10 || !is_kind(key, row_kind::xattr)) return {};
  return key.substr(9);
}

void put_field(byte_writer& out, std::uint16_t tag, byte_span bytes) {
  out.put(tag).put_sized(bytes);
}

void put_fields(byte_writer& out, const std::vector<unknown_field>& fields) {
  for (const auto& field : fields) put_field(out, field.tag, field.bytes);
}

buffer encode(const inode_row& row) {
  buffer bytes;
  bytes.reserve(128 + row.target.size());
  byte_writer out{bytes};
  out.put(row.generation)
      .put(row.mode)
      .put(row.nlink)
      .put(row.uid)
      .put(row.gid)
      .put(row.rdev)
      .put(row.project);
  out.put(row.size).put(row.allocated);
  out.put(to_wire(row.atime))
      .put(to_wire(row.mtime))
      .put(to_wire(row.ctime))
      .put(to_wire(row.btime));
  out.put(row.trim_from).put(row.trim_to);
  put_number(out, field_parent, row.parent);
  if (!row.target.empty()) put_field(out, field_target, as_bytes(row.target));
  put_number(out, field_xattr_bytes, row.xattr_bytes);
  put_fields(out, row.unknown);
  return bytes;
}

result<inode_row> decode_inode(byte_span value) {
  byte_reader in{value};
  inode_row row;
  row.generation = in.get<std::uint64_t>();
  row.mode = in.get<std::uint32_t>();
  row.nlink = in.get<std::uint32_t>();
  row.uid = in.get<std::uint32_t>();
  row.gid = in.get<std::uint32_t>();
  row.rdev = in.get<std::uint32_t>();
  row.project = in.get<std::uint32_t>();
  row.size = in.get<std::uint64_t>();
  row.allocated = in.get<std::uint64_t>();
  row.atime = to_time(in.get<std::uint64_t>());
  row.mtime = to_time(in.get<std::uint64_t>());
  row.ctime = to_time(in.get<std::uint64_t>());
  row.btime = to_time(in.get<std::uint64_t>());
  row.trim_from = in.get<std::uint64_t>();
  row.trim_to = in.get<std::uint64_t>();
  if (!in.ok()) return corrupt("inode");
  bool good = true;
  QS_TRY(read_fields(in, row.unknown, [&](std::uint16_t tag, byte_span bytes) {
    if (tag == field_parent) {
      good = take_number(bytes, row.parent) && good;
      return true;
    }
    if (tag == field_target) {
      row.target = to_string(bytes);
      return true;
    }
    if (tag == field_xattr_bytes) {
      good = take_number(bytes, row.xattr_bytes) && good;
      return true;
    }
    return false;
  }));
  if (!good || row.trim_from > row.trim_to || row.target.size() > symlink_bytes_max)
    return corrupt("inode");
  return row;
}

buffer encode(const dirent_row& row) {
  buffer bytes;
  bytes.reserve(16 + row.name.size());
  byte_writer out{bytes};
  out.put(row.inode).put(row.type).put_sized(row.name);
  if (row.chained) put_field(out, field_chained, {});
  put_fields(out, row.unknown);
  return bytes;
}

result<dirent_row> decode_dirent(byte_span value) {
  byte_reader in{value};
  dirent_row row;
  row.inode = in.get<std::uint64_t>();
  row.type = in.get<std::uint32_t>();
  row.name = to_string(in.get_sized(name_bytes_max));
  if (!in.ok()) return corrupt("directory entry");
  QS_TRY(read_fields(in, row.unknown, [&](std::uint16_t tag, byte_span bytes) {
    if (tag != field_chained || !bytes.empty()) return false;
    row.chained = true;
    return true;
  }));
  bool vacant = row.inode == 0 && row.name.empty() && row.chained;
  if (!vacant && (row.inode == 0 || row.name.empty())) return corrupt("directory entry");
  return row;
}

buffer encode(const extent_row& row) {
  buffer bytes;
  bytes.reserve(34);
  byte_writer out{bytes};
  out.put(row.segment.epoch).put(row.segment.counter).put(row.slot).put(row.codec);
  out.put(row.position).put(row.stored).put(row.plain).put(row.frame_number).put(row.visible);
  put_fields(out, row.unknown);
  return bytes;
}

result<extent_row> decode_extent(byte_span value) {
  byte_reader in{value};
  extent_row row;
  row.segment.epoch = in.get<std::uint32_t>();
  row.segment.counter = in.get<std::uint64_t>();
  row.slot = in.get<std::uint8_t>();
  row.codec = in.get<std::uint8_t>();
  row.position = in.get<std::uint32_t>();
  row.stored = in.get<std::uint32_t>();
  row.plain = in.get<std::uint32_t>();
  row.frame_number = in.get<std::uint32_t>();
  row.visible = in.get<std::uint32_t>();
  if (!in.ok() || row.visible > row.plain) return corrupt("extent");
  QS_TRY(read_fields(in, row.unknown, no_field));
  return row;
}

buffer encode(const orphan_row& row) {
  buffer bytes;
  byte_writer out{bytes};
  out.put(row.since);
  put_fields(out, row.unknown);
  return bytes;
}

result<orphan_row> decode_orphan(byte_span value) {
  byte_reader in{value};
  orphan_row row;
  row.since = in.get<std::uint64_t>();
  if (!in.ok()) return corrupt("orphan");
  QS_TRY(read_fields(in, row.unknown, no_field));
  return row;
}

buffer encode(const session_row& row) {
  buffer bytes;
  byte_writer out{bytes};
  out.put_bytes(row.writer).put(row.started_ms);
  put_fields(out, row.unknown);
  return bytes;
}

result<session_row> decode_session(byte_span value) {
  byte_reader in{value};
  session_row row;
  row.writer = in.get_array<16>();
  row.started_ms = in.get<std::uint64_t>();
  if (!in.ok()) return corrupt("session");
  QS_TRY(read_fields(in, row.unknown, no_field));
  return row;
}

attributes to_attributes(inode_number inode, const inode_row& row) {
  attributes a;
  a.inode = inode;
  a.generation = row.generation;
  a.mode = row.mode;
  a.nlink = row.nlink;
  a.uid = row.uid;
  a.gid = row.gid;
  a.rdev = row.rdev;
  a.size = S_ISLNK(row.mode) ? row.target.size() : row.size;
  a.blocks = (row.allocated + 511) / 512;
  a.atime = row.atime;
  a.mtime = row.mtime;
  a.ctime = row.ctime;
  return a;
}

inode_row make_root_row(std::uint32_t uid, std::uint32_t gid, file_time now) {
  inode_row row;
  row.mode = S_IFDIR | 0755;
  row.nlink = 2;
  row.uid = uid;
  row.gid = gid;
  row.atime = row.mtime = row.ctime = row.btime = now;
  row.parent = root_inode;
  return row;
}

} // namespace qs::volume
