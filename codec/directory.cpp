#include "codec/directory.hpp"

#include <algorithm>

#include <fmt/format.h>
#include <sodium.h>

#include "base/assert.hpp"

namespace qs::codec {
namespace directory {
namespace {

constexpr std::uint16_t directory_format = 1;

directory_entry get_entry(byte_reader& in) {
  directory_entry e;
  e.position = in.get<std::uint32_t>();
  e.stored_length = in.get<std::uint32_t>();
  e.plain_length = in.get<std::uint32_t>();
  e.frame_number = in.get<std::uint32_t>();
  e.inode = in.get<std::uint64_t>();
  e.inode_generation = in.get<std::uint64_t>();
  e.extent_index = in.get<std::uint64_t>();
  e.sequence = in.get<std::uint64_t>();
  e.codec = static_cast<frame_codec>(in.get<std::uint8_t>());
  return e;
}

bool frame_numbers_differ(const std::vector<directory_entry>& entries) {
  std::vector<std::uint32_t> numbers;
  numbers.reserve(entries.size());
  for (const auto& e : entries) numbers.push_back(e.frame_number);
  std::sort(numbers.begin(), numbers.end());
  return std::adjacent_find(numbers.begin(), numbers.end()) == numbers.end();
}

/// Format and count at the head of a sealed directory, deciphered but not authenticated: XChaCha20
/// is HChaCha20 for the key and then ChaCha20 from block 1 (block 0 keys Poly1305).
bool head_matches(const key32& key, byte_span sealed, std::size_t count) {
  std::array<unsigned char, crypto_core_hchacha20_OUTPUTBYTES> inner;
  std::array<unsigned char, crypto_stream_chacha20_ietf_NONCEBYTES> nonce{};
  std::array<unsigned char, directory_head_bytes> head;
  crypto_core_hchacha20(inner.data(), uchars(sealed), uchars(key.bytes()), nullptr);
  std::copy_n(uchars(sealed) + 16, 8, nonce.begin() + 4);
  crypto_stream_chacha20_ietf_xor_ic(head.data(), uchars(sealed) + seal_nonce_bytes, head.size(),
                                     nonce.data(), 1, inner.data());
  sodium_memzero(inner.data(), inner.size());
  byte_reader in{std::as_bytes(std::span{head})};
  auto format = in.get<std::uint16_t>();
  return format == directory_format && in.get<std::uint16_t>() == count;
}

} // namespace

seal_place place(const volume_id& volume, const segment_id& segment, unsigned index) {
  QS_ASSERT(segment.counter < segment_counter_limit && index <= 255);
  return {seal_kind::directory, volume, segment.session, segment.counter << 8 | index};
}

bool is_possible(const directory_entry& e, std::uint32_t limit) noexcept {
  auto known = e.codec == frame_codec::raw || e.codec == frame_codec::zstd;
  auto lengths =
      e.plain_length >= 1 && e.plain_length <= frame_plain_max &&
      e.stored_length > frame_tag_bytes && e.stored_length <= e.plain_length + frame_tag_bytes &&
      (e.codec != frame_codec::raw || e.stored_length == e.plain_length + frame_tag_bytes);
  return known && lengths && e.position <= limit && e.stored_length <= limit - e.position;
}

bool is_possible_length(std::size_t sealed) noexcept {
  return sealed >= directory_bytes(0) && sealed <= directory_bytes(directory_entries_max) &&
         (sealed - directory_bytes(0)) % directory_entry_bytes == 0;
}

buffer encode(const std::vector<directory_entry>& entries) {
  QS_ASSERT(entries.size() <= directory_entries_max);
  buffer out;
  out.reserve(directory_head_bytes + entries.size() * directory_entry_bytes);
  byte_writer w{out};
  w.put(directory_format).put(static_cast<std::uint16_t>(entries.size()));
  for (const auto& e : entries) {
    w.put(e.position).put(e.stored_length).put(e.plain_length).put(e.frame_number);
    w.put(e.inode).put(e.inode_generation).put(e.extent_index).put(e.sequence);
    w.put(static_cast<std::uint8_t>(e.codec));
  }
  return out;
}

result<std::vector<directory_entry>> decode(byte_span plain, std::uint32_t shard_length) {
  byte_reader in{plain};
  auto format = in.get<std::uint16_t>();
  auto count = in.get<std::uint16_t>();
  if (in.ok() && format != directory_format)
    return error{
        errc::version_mismatch,
        fmt::format("a directory has format {}, this version reads {}", format, directory_format)};
  if (!in.ok() || count > directory_entries_max || in.left() != count * directory_entry_bytes ||
      directory_bytes(count) > shard_length)
    return error{errc::corrupt, "a directory has an impossible length"};
  std::vector<directory_entry> out;
  out.reserve(count);
  auto limit = shard_length - directory_bytes(count);
  std::uint32_t end = 0;
  for (unsigned i = 0; i < count; ++i) {
    auto e = get_entry(in);
    if (!is_possible(e, limit) || e.position < end)
      return error{errc::corrupt, fmt::format("entry {} of a directory is impossible", i)};
    end = e.position + e.stored_length;
    out.push_back(e);
  }
  if (!frame_numbers_differ(out)) return error{errc::corrupt, "a directory names a frame twice"};
  return out;
}

std::optional<std::uint32_t> find_length(const volume_id& volume, const volume_key& key,
                                         const segment_id& segment, unsigned index,
                                         byte_span payload) {
  for (std::size_t count = 0;
       count <= directory_entries_max && directory_bytes(count) <= payload.size(); ++count) {
    auto sealed = payload.last(directory_bytes(count));
    if (!head_matches(key.directories(), sealed, count)) continue;
    if (codec::open(key.directories(), place(volume, segment, index), sealed))
      return directory_bytes(count);
  }
  return std::nullopt;
}

} // namespace directory

result<std::vector<directory_entry>> open_directory(const volume_id& volume, const volume_key& key,
                                                    const segment_id& segment, unsigned index,
                                                    std::uint32_t shard_length, byte_span sealed) {
  if (!directory::is_possible_length(sealed.size()) || sealed.size() > shard_length ||
      segment.counter >= segment_counter_limit || index >= limits::data_shards_max)
    return error{errc::corrupt, fmt::format("a directory of {} bytes cannot be", sealed.size())};
  QS_TRY_ASSIGN(auto plain,
                open(key.directories(), directory::place(volume, segment, index), sealed));
  return directory::decode(plain, shard_length);
}

} // namespace qs::codec
