#include "codec/shard.hpp"

#include <algorithm>

#include <fmt/format.h>
#include <sodium.h>

#include "base/assert.hpp"
#include "codec/directory.hpp"
#include "codec/erasure.hpp"
#include "codec/shard_header.hpp"

namespace qs::codec {
namespace {

mutable_byte_span payload_of(buffer& value) {
  return mutable_byte_span{value}.subspan(shard_header_bytes);
}

/// Frames by shard and position, so that each shard's can be walked along its directory.
std::vector<placed_frame> sorted(std::span<const placed_frame> frames) {
  std::vector<placed_frame> out{frames.begin(), frames.end()};
  std::sort(out.begin(), out.end(), [](const auto& a, const auto& b) {
    return a.place.shard != b.place.shard ? a.place.shard < b.place.shard
                                          : a.place.position < b.place.position;
  });
  return out;
}

/// Makes one shard's value front to back, so that all shards of a segment can grow side by side, a
/// block at a time: what is copied or coded is still in the cache when it is authenticated, and
/// memory is passed over once.
class value_maker {
public:
  value_maker(const shard_header& header, const key32& mac_key)
      : header_{header}, mac_{mac_key, header} {
    value_.reserve(shard_header_bytes + header.shard_length);
    value_.resize(shard_header_bytes);
  }

  /// Where payload bytes up to `end` will be; then written by the caller; then authenticated by
  /// grown().
  std::byte* grow(std::size_t end) {
    value_.resize(shard_header_bytes + end);
    return value_.data() + shard_header_bytes + done_;
  }
  /// The frames up to `end` with zeros between them, and at last the directory.
  const std::byte* grow(std::size_t end, std::span<const placed_frame> frames,
                        byte_span directory) {
    while (next_ < frames.size() && frames[next_].place.position < end) {
      const auto& f = frames[next_];
      append(f.bytes, f.place.position, end);
      if (f.place.position + f.bytes.size() > end) break; // its rest comes with the next block
      ++next_;
    }
    append(directory, header_.shard_length - directory.size(), end);
    return grow(end);
  }
  void grown() {
    auto piece = byte_span{value_}.subspan(shard_header_bytes + done_);
    mac_.update(piece);
    done_ += piece.size();
  }
  result<buffer_ptr> finish(const volume_keys& keys) {
    QS_ASSERT(done_ == header_.shard_length);
    QS_TRY_ASSIGN(header_.mac, mac_.finish());
    header::write(keys, header_, mutable_byte_span{value_}.first(shard_header_bytes));
    return share(std::move(value_));
  }

private:
  /// What of `bytes`, which belong at `position`, is not here yet and lies before `end`.
  void append(byte_span bytes, std::size_t position, std::size_t end) {
    if (position >= end) return;
    auto here = value_.size() - shard_header_bytes;
    if (here < position) {
      value_.resize(shard_header_bytes + position);
      here = position;
    }
    auto rest =
        bytes.subspan(here - position, std::min(bytes.size() - (here - position), end - here));
    value_.insert(value_.end(), rest.begin(), rest.end());
  }

  shard_header header_;
  header::mac_stream mac_;
  buffer value_;
  std::size_t done_ = 0; ///< payload bytes authenticated
  std::size_t next_ = 0; ///< frame to go on with
};

/// Six shards' blocks fit a second-level cache, and a block is long enough for ISA-L and GHASH.
constexpr std::size_t block_bytes = 32 * kib;

/// The frames of shard `index` among all, which are sorted; they must be exactly those its
/// directory lists: one that is missing would be silently lost.
result<std::span<const placed_frame>> frames_of(std::span<const placed_frame> all,
                                                const seal_record& record, unsigned index,
                                                const std::vector<directory_entry>& entries) {
  auto in_shard = [&](const auto& f) { return f.place.shard == index; };
  auto begin = std::find_if(all.begin(), all.end(), in_shard);
  auto end = std::find_if_not(begin, all.end(), in_shard);
  std::span<const placed_frame> frames{begin, end};
  auto fits =
      std::equal(frames.begin(), frames.end(), entries.begin(), entries.end(),
                 [](const auto& f, const auto& e) {
                   return f.place.position == e.position && f.bytes.size() == e.stored_length;
                 });
  if (!fits)
    return error{
        errc::invalid_argument,
        fmt::format("shard {} of segment {}: the frames given are not those its directory lists",
                    index, to_string(record.info.id))};
  return frames;
}

shard_header header_of(const volume_keys& keys, const seal_record& record, unsigned index) {
  shard_header h;
  h.volume = keys.id();
  h.info = record.info;
  h.index = index;
  h.data_shards = record.data_shards;
  h.used_shards = record.used_shards();
  h.shard_length = record.shard_length;
  h.directory_length =
      index < h.used_shards ? static_cast<std::uint32_t>(record.directories[index].size()) : 0;
  return h;
}

status check_record(const seal_record& record, unsigned parity_shards) {
  auto sane =
      record.data_shards >= 1 && record.data_shards <= limits::data_shards_max &&
      record.used_shards() >= 1 && record.used_shards() <= record.data_shards &&
      parity_shards <= limits::parity_shards_max && record.shard_length >= shard_length_step &&
      record.shard_length <= shard_payload_max && record.shard_length % shard_length_step == 0;
  if (!sane)
    return error{errc::invalid_argument,
                 fmt::format("segment {}: {}+{} shards of {} bytes, {} used, cannot be",
                             to_string(record.info.id), record.data_shards, parity_shards,
                             record.shard_length, record.used_shards())};
  return {};
}

bool same_segment(const shard_header& a, const shard_header& b) noexcept {
  return a.volume == b.volume && a.info == b.info && a.data_shards == b.data_shards &&
         a.used_shards == b.used_shards && a.shard_length == b.shard_length;
}

status check_one_segment(std::span<const shard> have) {
  if (have.empty()) return error{errc::no_quorum, "no shard to rebuild from"};
  for (const auto& s : have)
    if (!same_segment(s.header, have.front().header))
      return error{errc::invalid_argument,
                   fmt::format("shards of segments {} and {} do not go together",
                               to_string(have.front().header.info.id),
                               to_string(s.header.info.id))};
  return {};
}

std::vector<unsigned> indexes_of(std::span<const shard> have) {
  std::vector<unsigned> out;
  for (const auto& s : have) out.push_back(s.header.index);
  return out;
}

/// The payloads that `with` reads, in its order, from `position` on.
std::vector<const std::byte*> sources_of(std::span<const shard> have,
                                         const erasure::transform& with, std::size_t position) {
  std::vector<const std::byte*> out;
  for (auto index : with.sources()) {
    auto at = std::find_if(have.begin(), have.end(),
                           [&](const auto& s) { return s.header.index == index; });
    QS_ASSERT(at != have.end());
    out.push_back(at->payload().data() + position);
  }
  return out;
}

const shard* find_index(std::span<const shard> have, unsigned index) {
  auto at = std::find_if(have.begin(), have.end(),
                         [&](const auto& s) { return s.header.index == index; });
  return at == have.end() ? nullptr : &*at;
}

} // namespace

result<std::vector<buffer_ptr>> build_shards(const key_ring& ring, const seal_record& record,
                                             std::span<const placed_frame> frames,
                                             unsigned parity_shards) {
  QS_TRY(check_record(record, parity_shards));
  QS_TRY_ASSIGN(const auto* key, ring.find(record.info.generation));
  const auto& keys = ring.volume();
  const auto all = sorted(frames);
  const auto used = record.used_shards();
  std::vector<std::span<const placed_frame>> by_shard;
  std::size_t placed = 0;
  for (unsigned i = 0; i < used; ++i) {
    QS_TRY_ASSIGN(auto entries, open_directory(keys.id(), *key, record.info.id, i,
                                               record.shard_length, record.directories[i]));
    QS_TRY_ASSIGN(auto own, frames_of(all, record, i, entries));
    placed += own.size();
    by_shard.push_back(own);
  }
  if (placed != all.size())
    return error{
        errc::invalid_argument,
        fmt::format("segment {}: frames for shards it does not have", to_string(record.info.id))};

  const auto mac_key = evp::segment_key(key->shard_macs(), keys.id(), record.info);
  std::vector<value_maker> data, parity;
  data.reserve(used);
  parity.reserve(parity_shards);
  for (unsigned i = 0; i < used; ++i) data.emplace_back(header_of(keys, record, i), mac_key);
  for (unsigned p = 0; p < parity_shards; ++p)
    parity.emplace_back(header_of(keys, record, record.data_shards + p), mac_key);
  const auto coder = erasure::transform::encode(record.data_shards, used, parity_shards);
  std::vector<const std::byte*> sources(used);
  std::vector<std::byte*> rows(parity_shards);
  for (std::size_t begin = 0; begin < record.shard_length; begin += block_bytes) {
    auto end = std::min<std::size_t>(begin + block_bytes, record.shard_length);
    for (unsigned i = 0; i < used; ++i)
      sources[i] = data[i].grow(end, by_shard[i], record.directories[i]);
    for (unsigned p = 0; p < parity_shards; ++p) rows[p] = parity[p].grow(end);
    coder.run(end - begin, sources, rows);
    for (auto& v : data) v.grown();
    for (auto& v : parity) v.grown();
  }
  std::vector<buffer_ptr> out(record.data_shards + parity_shards);
  for (unsigned i = 0; i < used; ++i) {
    QS_TRY_ASSIGN(out[i], data[i].finish(keys));
  }
  for (unsigned p = 0; p < parity_shards; ++p) {
    QS_TRY_ASSIGN(out[record.data_shards + p], parity[p].finish(keys));
  }
  return out;
}

result<shard> open_shard(const key_ring& ring, buffer_ptr value, shard_check check,
                         const std::optional<shard_address>& expected) {
  if (!value) return error{errc::invalid_argument, "no value to open"};
  QS_TRY_ASSIGN(auto h, open_shard_header(ring.volume(), *value));
  if (expected && (h.info.id != expected->segment || h.index != expected->index))
    return error{errc::corrupt,
                 fmt::format("shard {} of segment {} is where shard {} of segment {} should be",
                             h.index, to_string(h.info.id), expected->index,
                             to_string(expected->segment))};
  if (value->size() != shard_header_bytes + h.shard_length)
    return error{errc::corrupt, fmt::format("shard {} of segment {} has {} bytes, {} expected",
                                            h.index, to_string(h.info.id), value->size(),
                                            shard_header_bytes + h.shard_length)};
  shard out{h, std::move(value), check};
  if (check == shard_check::body) {
    QS_TRY_ASSIGN(const auto* key, ring.find(h.info.generation));
    header::mac_stream stream{evp::segment_key(key->shard_macs(), h.volume, h.info), h};
    stream.update(out.payload());
    QS_TRY_ASSIGN(auto mac, stream.finish());
    if (sodium_memcmp(mac.data(), h.mac.data(), mac.size()) != 0)
      return error{errc::corrupt,
                   fmt::format("shard {} of segment {} is damaged: its MAC does not fit", h.index,
                               to_string(h.info.id))};
  }
  return out;
}

result<std::vector<directory_entry>> list_frames(const key_ring& ring, const shard& from) {
  const auto& h = from.header;
  if (h.is_parity()) return error{errc::invalid_argument, "a parity shard lists no frames"};
  QS_TRY_ASSIGN(const auto* key, ring.find(h.info.generation));
  return open_directory(ring.volume().id(), *key, h.info.id, h.index, h.shard_length,
                        from.sealed_directory());
}

result<byte_span> frame_bytes(const shard& from, std::uint32_t position,
                              std::uint32_t stored_length) {
  auto room = from.header.shard_length - from.header.directory_length;
  if (from.header.is_parity() || stored_length > room || position > room - stored_length)
    return error{errc::corrupt,
                 fmt::format("no frame of {} bytes can be at {} in shard {} of segment {}",
                             stored_length, position, from.header.index,
                             to_string(from.header.info.id))};
  return from.payload().subspan(position, stored_length);
}

result<std::vector<buffer_ptr>> rebuild_shards(const key_ring& ring, std::span<const shard> have,
                                               std::span<const unsigned> wanted) {
  QS_TRY(check_one_segment(have));
  if (std::any_of(have.begin(), have.end(),
                  [](const auto& s) { return s.checked != shard_check::body; }))
    return error{errc::invalid_argument,
                 "shards are rebuilt only from shards whose MAC was checked"};
  const auto& like = have.front().header;
  QS_TRY_ASSIGN(const auto* key, ring.find(like.info.generation));
  std::vector<unsigned> missing;
  for (auto index : wanted) {
    if (index >= like.data_shards + limits::parity_shards_max)
      return error{errc::invalid_argument,
                   fmt::format("there is no shard {} in {}+m", index, like.data_shards)};
    auto implied = index >= like.used_shards && index < like.data_shards;
    auto known = std::find(missing.begin(), missing.end(), index) != missing.end();
    if (!implied && !known && find_index(have, index) == nullptr) missing.push_back(index);
  }
  QS_TRY_ASSIGN(auto with, erasure::transform::decode(like.data_shards, like.used_shards,
                                                      indexes_of(have), missing));
  std::vector<buffer> values(missing.size());
  std::vector<std::byte*> rows;
  for (auto& value : values) {
    value.resize(shard_header_bytes + like.shard_length);
    rows.push_back(value.data() + shard_header_bytes);
  }
  with.run(like.shard_length, sources_of(have, with, 0), rows);

  const auto mac_key = evp::segment_key(key->shard_macs(), like.volume, like.info);
  std::vector<buffer_ptr> rebuilt;
  for (std::size_t i = 0; i < missing.size(); ++i) {
    auto h = like;
    h.index = missing[i];
    h.directory_length = 0;
    if (!h.is_parity()) {
      auto length =
          directory::find_length(like.volume, *key, like.info.id, h.index, payload_of(values[i]));
      if (!length)
        return error{errc::corrupt,
                     fmt::format("shard {} of segment {} was rebuilt without a directory", h.index,
                                 to_string(like.info.id))};
      h.directory_length = *length;
    }
    header::mac_stream stream{mac_key, h};
    stream.update(payload_of(values[i]));
    QS_TRY_ASSIGN(h.mac, stream.finish());
    header::write(ring.volume(), h, mutable_byte_span{values[i]}.first(shard_header_bytes));
    rebuilt.push_back(share(std::move(values[i])));
  }
  std::vector<buffer_ptr> out;
  for (auto index : wanted) {
    auto at = std::find(missing.begin(), missing.end(), index);
    const auto* here = find_index(have, index);
    if (at != missing.end())
      out.push_back(rebuilt[static_cast<std::size_t>(at - missing.begin())]);
    else
      out.push_back(here == nullptr ? nullptr : here->value);
  }
  return out;
}

status recover_range(std::span<const shard> have, unsigned index, std::uint32_t position,
                     mutable_byte_span out) {
  QS_TRY(check_one_segment(have));
  const auto& like = have.front().header;
  if (index >= like.data_shards || out.size() > like.shard_length ||
      position > like.shard_length - out.size())
    return error{errc::invalid_argument,
                 fmt::format("no {} bytes at {} in data shard {} of segment {}", out.size(),
                             position, index, to_string(like.info.id))};
  const unsigned wanted[] = {index};
  QS_TRY_ASSIGN(auto with, erasure::transform::decode(like.data_shards, like.used_shards,
                                                      indexes_of(have), wanted));
  std::byte* rows[] = {out.data()};
  with.run(out.size(), sources_of(have, with, position), rows);
  return {};
}

} // namespace qs::codec
