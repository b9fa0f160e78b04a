// All shard values of a sealed segment, made where its frames already are: zeros between them and the
// directories first, then parity and MACs, a block of all shards at a time.
#include <algorithm>
#include <cstring>

#include <fmt/format.h>

#include "base/assert.hpp"
#include "codec/directory.hpp"
#include "codec/erasure.hpp"
#include "codec/shard.hpp"
#include "codec/shard_header.hpp"

namespace qs::codec {
namespace {

/// Six shards' blocks fit a second-level cache, and a block is long enough for ISA-L and GHASH: what
/// was coded is still in the cache when it is authenticated, and memory is passed over once.
constexpr std::size_t block_bytes = 64 * kib;

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

/// A value whose payload is there, or grows a block at a time, and its MAC.
class value_maker {
public:
  value_maker(const shard_header& header, const key32& mac_key, std::shared_ptr<buffer> value)
      : header_{header}, mac_{mac_key, header}, value_{std::move(value)} {
    QS_ASSERT(value_->size() == shard_header_bytes + header.shard_length);
  }
  [[nodiscard]] std::byte* at(std::size_t payload_position) noexcept {
    return value_->data() + shard_header_bytes + payload_position;
  }
  void authenticate(std::size_t begin, std::size_t end) noexcept {
    mac_.update({at(begin), end - begin});
  }
  result<buffer_ptr> finish(const volume_keys& keys) {
    QS_TRY_ASSIGN(header_.mac, mac_.finish());
    header::write(keys, header_, mutable_byte_span{*value_}.first(shard_header_bytes));
    return buffer_ptr{std::move(value_)};
  }

private:
  shard_header header_;
  header::mac_stream mac_;
  std::shared_ptr<buffer> value_;
};

} // namespace

segment_body::segment_body(buffer_pool& pool, std::uint32_t shard_length)
    : pool_{&pool}, shard_length_{std::min(shard_length, shard_payload_max)} {}

result<mutable_byte_span> segment_body::room(const frame_place& place, std::uint32_t stored_length) {
  if (place.shard >= limits::data_shards_max || stored_length == 0 ||
      stored_length > shard_length_ || place.position > shard_length_ - stored_length)
    return error{errc::invalid_argument,
                 fmt::format("a frame of {} bytes cannot be at {} of shard {}", stored_length,
                             place.position, place.shard)};
  if (place.shard >= shards_.size()) shards_.resize(place.shard + 1);
  auto& shard = shards_[place.shard];
  if (!shard.value) shard.value = pool_->take(shard_header_bytes + shard_length_);
  shard.frames.push_back({place.position, stored_length});
  return mutable_byte_span{*shard.value}.subspan(shard_header_bytes + place.position, stored_length);
}

void segment_body::drop(const frame_place& place) {
  if (place.shard >= shards_.size()) return;
  std::erase_if(shards_[place.shard].frames,
                [&](const extent& f) { return f.position == place.position; });
}

/// Of one segment, once.
class shard_builder {
public:
  shard_builder(const key_ring& ring, const seal_record& record, segment_body body)
      : ring_{ring}, record_{record}, body_{std::move(body)} {}

  result<std::vector<buffer_ptr>> build(unsigned parity_shards) {
    QS_TRY(check_record(record_, parity_shards));
    QS_TRY_ASSIGN(const auto* key, ring_.find(record_.info.generation));
    // Shards at the end that lost all their frames are not in the layout.
    while (body_.shards_.size() > record_.used_shards() && body_.shards_.back().frames.empty())
      body_.shards_.pop_back();
    if (body_.shards_.size() > record_.used_shards())
      return error{errc::invalid_argument, fmt::format("segment {}: frames for shards it does not have",
                                                       to_string(record_.info.id))};
    body_.shards_.resize(record_.used_shards());
    for (unsigned i = 0; i < record_.used_shards(); ++i) QS_TRY(complete(i, *key));
    return code(evp::segment_key(key->shard_macs(), ring_.volume().id(), record_.info),
                parity_shards);
  }

private:
  /// What is neither frame nor directory becomes zero; pooled memory holds anything.
  status complete(unsigned index, const volume_key& key) {
    auto& shard = body_.shards_[index];
    const auto& sealed = record_.directories[index];
    QS_TRY_ASSIGN(auto entries, open_directory(ring_.volume().id(), key, record_.info.id, index,
                                               record_.shard_length, sealed));
    // They must be exactly those its directory lists: one that is missing would be silently lost.
    std::sort(shard.frames.begin(), shard.frames.end(),
              [](const auto& a, const auto& b) { return a.position < b.position; });
    auto same = std::equal(shard.frames.begin(), shard.frames.end(), entries.begin(), entries.end(),
                           [](const auto& f, const auto& e) {
                             return f.position == e.position && f.length == e.stored_length;
                           });
    if (!same)
      return error{
          errc::invalid_argument,
          fmt::format("shard {} of segment {}: the frames given are not those its directory lists",
                      index, to_string(record_.info.id))};
    auto bytes = shard_header_bytes + record_.shard_length;
    if (!shard.value) shard.value = body_.pool_->take(bytes); // only superseded frames were in it
    shard.value->resize(bytes);
    auto* payload = shard.value->data() + shard_header_bytes;
    std::size_t end = 0;
    for (const auto& f : shard.frames) {
      std::memset(payload + end, 0, f.position - end);
      end = f.position + f.length;
    }
    auto directory_at = record_.shard_length - sealed.size();
    std::memset(payload + end, 0, directory_at - end);
    std::memcpy(payload + directory_at, sealed.data(), sealed.size());
    return {};
  }

  result<std::vector<buffer_ptr>> code(const key32& mac_key, unsigned parity_shards) {
    const auto& keys = ring_.volume();
    const auto used = record_.used_shards();
    std::vector<value_maker> makers;
    makers.reserve(used + parity_shards);
    for (unsigned i = 0; i < used; ++i)
      makers.emplace_back(header_of(keys, record_, i), mac_key, std::move(body_.shards_[i].value));
    for (unsigned p = 0; p < parity_shards; ++p)
      makers.emplace_back(header_of(keys, record_, record_.data_shards + p), mac_key,
                          body_.pool_->take(shard_header_bytes + record_.shard_length));
    const auto coder = erasure::transform::encode(record_.data_shards, used, parity_shards);
    std::vector<const std::byte*> sources(used);
    std::vector<std::byte*> rows(parity_shards);
    for (std::size_t begin = 0; begin < record_.shard_length; begin += block_bytes) {
      auto end = std::min<std::size_t>(begin + block_bytes, record_.shard_length);
      for (unsigned i = 0; i < used; ++i) sources[i] = makers[i].at(begin);
      for (unsigned p = 0; p < parity_shards; ++p) rows[p] = makers[used + p].at(begin);
      coder.run(end - begin, sources, rows);
      for (auto& v : makers) v.authenticate(begin, end);
    }
    std::vector<buffer_ptr> out(record_.data_shards + parity_shards);
    for (std::size_t i = 0; i < makers.size(); ++i) {
      auto index = i < used ? i : i - used + record_.data_shards;
      QS_TRY_ASSIGN(out[index], makers[i].finish(keys));
    }
    return out;
  }

  const key_ring& ring_;
  const seal_record& record_;
  segment_body body_;
};

result<std::vector<buffer_ptr>> build_shards(const key_ring& ring, const seal_record& record,
                                             segment_body body, unsigned parity_shards) {
  return shard_builder{ring, record, std::move(body)}.build(parity_shards);
}

} // namespace qs::codec
