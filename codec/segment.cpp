#include "codec/segment.hpp"

#include <algorithm>

#include <fmt/format.h>

#include "base/assert.hpp"
#include "codec/directory.hpp"

namespace qs::codec {
namespace {

constexpr std::uint16_t record_format = 1;

constexpr std::uint32_t round_up(std::uint32_t bytes) noexcept {
  return (bytes + shard_length_step - 1) / shard_length_step * shard_length_step;
}

std::uint32_t end_of(const std::vector<directory_entry>& entries) noexcept {
  return entries.empty() ? 0 : entries.back().position + entries.back().stored_length;
}

std::uint32_t shard_length_of(const std::vector<std::vector<directory_entry>>& shards) noexcept {
  std::uint32_t fullest = 0;
  for (const auto& entries : shards)
    fullest = std::max(fullest, end_of(entries) + directory_bytes(entries.size()));
  return round_up(fullest);
}

/// First fit into shards of `capacity` bytes; nothing if that takes more than `most` shards.
std::optional<std::vector<std::vector<directory_entry>>>
first_fit(const std::vector<directory_entry>& frames, std::size_t most, std::uint32_t capacity) {
  std::vector<std::vector<directory_entry>> shards;
  auto room_in = [&](const std::vector<directory_entry>& s, std::uint32_t stored) {
    return s.size() < directory_entries_max &&
           end_of(s) + stored + directory_bytes(s.size() + 1) <= capacity;
  };
  for (auto frame : frames) {
    auto at = std::find_if(shards.begin(), shards.end(),
                           [&](const auto& s) { return room_in(s, frame.stored_length); });
    if (at == shards.end()) {
      if (shards.size() == most) return std::nullopt;
      at = shards.emplace(shards.end());
      if (!room_in(*at, frame.stored_length)) return std::nullopt;
    }
    frame.position = end_of(*at);
    at->push_back(frame);
  }
  return shards;
}

auto find_frame(std::vector<directory_entry>& frames, std::uint32_t number) {
  return std::find_if(frames.begin(), frames.end(),
                      [&](const auto& e) { return e.frame_number == number; });
}

} // namespace

segment_packer::segment_packer(unsigned data_shards) : data_shards_{data_shards} {
  QS_ASSERT(data_shards >= 1 && data_shards <= limits::data_shards_max);
}

bool segment_packer::has_room(const shard_state& shard, std::uint32_t stored_length) noexcept {
  auto frames = shard.entries.size() + shard.placed.size();
  return frames < directory_entries_max &&
         shard.end + stored_length + directory_bytes(frames + 1) <= shard_payload_max;
}

bool segment_packer::fits(std::uint32_t stored_length) const noexcept {
  if (stored_length > frame_stored_max) return false;
  return shards_.size() < data_shards_ ||
         std::any_of(shards_.begin(), shards_.end(),
                     [&](const auto& shard) { return has_room(shard, stored_length); });
}

std::optional<frame_place> segment_packer::place(std::uint32_t frame_number,
                                                 std::uint32_t stored_length) {
  QS_ASSERT(stored_length > frame_tag_bytes && stored_length <= frame_stored_max);
  auto at = std::find_if(shards_.begin(), shards_.end(),
                         [&](const auto& shard) { return has_room(shard, stored_length); });
  if (at == shards_.end()) {
    if (shards_.size() == data_shards_) return std::nullopt;
    at = shards_.emplace(shards_.end());
  }
  auto shard = static_cast<unsigned>(at - shards_.begin());
  auto fresh = shard_of_.emplace(frame_number, shard).second;
  QS_ASSERT(fresh); // invariants 1 and 13
  directory_entry placed;
  placed.frame_number = frame_number;
  placed.position = at->end;
  placed.stored_length = stored_length;
  at->placed.push_back(placed);
  at->end += stored_length;
  ++live_;
  bytes_ += stored_length;
  return frame_place{shard, placed.position};
}

frame_place segment_packer::fill(directory_entry entry) {
  auto known = shard_of_.find(entry.frame_number);
  QS_ASSERT(known != shard_of_.end());
  auto& shard = shards_[known->second];
  auto at = find_frame(shard.placed, entry.frame_number);
  QS_ASSERT(at != shard.placed.end() && at->stored_length == entry.stored_length);
  entry.position = at->position;
  QS_ASSERT(directory::is_possible(entry, shard_payload_max));
  shard.placed.erase(at);
  auto behind = std::find_if(shard.entries.rbegin(), shard.entries.rend(),
                             [&](const auto& e) { return e.position < entry.position; });
  shard.entries.insert(behind.base(), entry); // nearly always at the end
  return {known->second, entry.position};
}

std::optional<frame_place> segment_packer::add(const directory_entry& entry) {
  if (!place(entry.frame_number, entry.stored_length)) return std::nullopt;
  return fill(entry);
}

std::optional<frame_place> segment_packer::remove(std::uint32_t frame_number) {
  auto known = shard_of_.find(frame_number);
  if (known == shard_of_.end()) return std::nullopt;
  auto& shard = shards_[known->second];
  for (auto* frames : {&shard.entries, &shard.placed}) {
    auto at = find_frame(*frames, frame_number);
    if (at == frames->end()) continue;
    frame_place was{known->second, at->position};
    --live_;
    bytes_ -= at->stored_length;
    frames->erase(at);
    return was;
  }
  return std::nullopt; // removed before; its number stays known, so that nobody gives it out again
}

segment_layout segment_packer::layout() const {
  QS_ASSERT(!empty());
  segment_layout out;
  out.data_shards = data_shards_;
  for (const auto& shard : shards_) {
    QS_ASSERT(shard.placed.empty());
    out.shards.push_back(shard.entries);
  }
  while (out.shards.back().empty()) out.shards.pop_back();
  out.shard_length = shard_length_of(out.shards);
  return out;
}

segment_layout segment_packer::tight_layout() const {
  auto out = layout();
  std::vector<directory_entry> frames;
  frames.reserve(live_);
  for (const auto& shard : out.shards) frames.insert(frames.end(), shard.begin(), shard.end());
  // Longest first fills best; equal lengths stay in order of their numbers, so that the result is
  // one only.
  std::sort(frames.begin(), frames.end(), [](const auto& a, const auto& b) {
    return a.stored_length != b.stored_length ? a.stored_length > b.stored_length
                                              : a.frame_number < b.frame_number;
  });
  constexpr auto one = directory_bytes(0);
  auto content = bytes_ + live_ * directory_entry_bytes;
  // As few shards as hold it, then the shortest length at which they do.
  for (std::size_t used = 1; used <= out.shards.size(); ++used) {
    auto least = std::max<std::uint64_t>((content + used - 1) / used + one,
                                         frames.front().stored_length + one);
    for (auto length = least / shard_length_step * shard_length_step; length <= shard_payload_max;
         length += shard_length_step) {
      if (length < least) continue;
      if (used == out.shards.size() && length > out.shard_length) return out;
      if (auto shards = first_fit(frames, used, static_cast<std::uint32_t>(length))) {
        out.shards = std::move(*shards);
        out.shard_length = shard_length_of(out.shards);
        return out;
      }
    }
  }
  return out;
}

result<seal_record> seal_segment(const key_ring& ring, const segment_info& info,
                                 const segment_layout& layout, random_source& random) {
  QS_ASSERT(info.id.session.epoch < epoch_limit && info.id.counter < segment_counter_limit);
  QS_ASSERT(layout.data_shards <= limits::data_shards_max && !layout.shards.empty() &&
            layout.shards.size() <= layout.data_shards && layout.shard_length <= shard_payload_max);
  QS_TRY_ASSIGN(const auto* key, ring.find(info.generation));
  seal_record out{info, layout.data_shards, layout.shard_length, {}};
  for (unsigned i = 0; i < layout.shards.size(); ++i) {
    auto plain = directory::encode(layout.shards[i]);
    out.directories.push_back(
        seal(key->directories(), directory::place(ring.volume().id(), info.id, i), plain, random));
    // What is written must be what reading accepts.
    QS_ASSERT(directory::decode(plain, layout.shard_length).ok());
  }
  return out;
}

buffer encode(const seal_record& record) {
  buffer out;
  byte_writer w{out};
  w.put(record_format);
  w.put(static_cast<std::uint8_t>(record.data_shards))
      .put(static_cast<std::uint8_t>(record.info.cipher));
  w.put(record.info.generation);
  put(w, record.info.id);
  w.put_bytes(record.info.salt).put(record.shard_length);
  w.put(static_cast<std::uint8_t>(record.directories.size()));
  for (const auto& sealed : record.directories) w.put_sized(byte_span{sealed});
  return out;
}

result<seal_record> decode_seal_record(byte_span bytes) {
  byte_reader in{bytes};
  auto format = in.get<std::uint16_t>();
  if (in.ok() && format != record_format)
    return error{
        errc::version_mismatch,
        fmt::format("a seal record has format {}, this version reads {}", format, record_format)};
  seal_record out;
  out.data_shards = in.get<std::uint8_t>();
  out.info.cipher = static_cast<cipher_id>(in.get<std::uint8_t>());
  out.info.generation = in.get<std::uint32_t>();
  out.info.id = get_segment_id(in);
  out.info.salt = in.get_array<32>();
  out.shard_length = in.get<std::uint32_t>();
  auto used = in.get<std::uint8_t>();
  auto sane =
      in.ok() && out.data_shards >= 1 && out.data_shards <= limits::data_shards_max && used >= 1 &&
      used <= out.data_shards && out.shard_length >= shard_length_step &&
      out.shard_length <= shard_payload_max && out.shard_length % shard_length_step == 0 &&
      out.info.id.session.epoch < epoch_limit && out.info.id.counter < segment_counter_limit &&
      (out.info.cipher == cipher_id::aes256_gcm || out.info.cipher == cipher_id::chacha20_poly1305);
  for (unsigned i = 0; sane && i < used; ++i) {
    auto sealed = in.get_sized(std::min(directory_bytes(directory_entries_max), out.shard_length));
    sane = in.ok() && directory::is_possible_length(sealed.size());
    out.directories.push_back(to_buffer(sealed));
  }
  if (!sane || !in.done()) return error{errc::corrupt, "a seal record has impossible fields"};
  return out;
}

} // namespace qs::codec
