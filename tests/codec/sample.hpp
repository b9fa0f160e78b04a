// A volume's keys, a segment's worth of frames, and what comes of them: shared by the tests of
// codec/.
#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "codec/shard.hpp"
#include "support/placed_frames.hpp"

namespace qs::codec::test {

inline root_secret sample_root() {
  root_secret root;
  for (std::size_t i = 0; i < 32; ++i) root.bytes()[i] = static_cast<std::byte>(i);
  return root;
}

inline key_ring sample_ring() {
  key32 vk;
  for (std::size_t i = 0; i < 32; ++i) vk.bytes()[i] = static_cast<std::byte>(0x40 + i);
  return {volume_keys::derive(sample_root(), "photos"), {volume_key{7, vk}}};
}

inline segment_id sample_id(std::uint64_t counter = 42) {
  segment_id id;
  id.session.epoch = 3;
  for (std::size_t i = 0; i < 16; ++i) id.session.writer[i] = static_cast<std::byte>(0xa0 + i);
  id.counter = counter;
  return id;
}

inline segment_info sample_info(cipher_id cipher, std::uint64_t counter = 42) {
  segment_info info;
  info.id = sample_id(counter);
  for (std::size_t i = 0; i < 32; ++i) info.salt[i] = static_cast<std::byte>(0xc0 + i);
  info.generation = 7;
  info.cipher = cipher;
  return info;
}

inline buffer noise(std::size_t bytes, std::uint64_t seed) {
  buffer out(bytes);
  seeded_random{seed}.fill(out);
  return out;
}

inline buffer prose(std::size_t bytes, std::uint64_t seed = 1) {
  static const char* words[] = {"grid ", "shard ", "and ",    "the ",    "node ",
                                "of ",   "a ",     "parity ", "lost.\n", "again "};
  seeded_random random{seed};
  std::string out;
  while (out.size() < bytes) out += words[random.below(std::size(words))];
  out.resize(bytes);
  return to_buffer(out);
}

/// A sealed segment with the plain bytes of its frames, to compare with.
struct sample_segment {
  key_ring ring = sample_ring();
  seal_record record;
  std::vector<buffer> plains;
  std::vector<buffer> stored;
  std::vector<directory_entry> entries; ///< positions as placed
  std::vector<placed_frame> placed;
  std::vector<buffer_ptr> values;
};

/// Frames of the given plain lengths; every third is prose, the others noise.
inline std::unique_ptr<sample_segment> make_segment(cipher_id cipher, unsigned k, unsigned m,
                                                    const std::vector<std::size_t>& lengths,
                                                    std::uint64_t seed = 1) {
  auto s = std::make_unique<sample_segment>();
  seeded_random random{seed};
  auto info = sample_info(cipher, seed);
  auto seals = make_frame_cipher(s->ring, info);
  REQUIRE(seals.ok());
  segment_packer packer{k};
  for (std::uint32_t i = 0; i < lengths.size(); ++i) {
    s->plains.push_back(i % 3 == 2 ? prose(lengths[i], seed + i) : noise(lengths[i], seed + i));
    buffer out(lengths[i] + frame_tag_bytes);
    auto size = (*seals)->seal(i, s->plains.back(), out);
    REQUIRE(size.ok());
    out.resize(size->stored);
    s->stored.push_back(std::move(out));
    directory_entry e;
    e.stored_length = size->stored;
    e.plain_length = size->plain;
    e.codec = size->codec;
    e.frame_number = i;
    e.inode = 100 + i / 4;
    e.inode_generation = 1;
    e.extent_index = i % 4;
    e.sequence = 1000 + i;
    auto place = packer.add(e);
    REQUIRE(place.has_value());
    e.position = place->position;
    s->entries.push_back(e);
    s->placed.push_back({*place, {}});
  }
  for (std::size_t i = 0; i < s->placed.size(); ++i) s->placed[i].bytes = s->stored[i];
  auto record = seal_segment(s->ring, info, packer.layout(), random);
  REQUIRE(record.ok());
  s->record = std::move(*record);
  auto values = build_from(s->ring, s->record, s->placed, m);
  REQUIRE_MESSAGE(values.ok(), (values.ok() ? "" : values.err().message));
  s->values = std::move(*values);
  return s;
}

inline shard opened(const key_ring& ring, const buffer_ptr& value) {
  auto s = open_shard(ring, value, shard_check::body);
  REQUIRE_MESSAGE(s.ok(), (s.ok() ? "" : s.err().message));
  return *s;
}

} // namespace qs::codec::test
