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
