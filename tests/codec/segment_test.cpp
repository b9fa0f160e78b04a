#include <doctest/doctest.h>

#include "sample.hpp"

using namespace qs;
using namespace qs::codec;
using namespace qs::codec::test;

namespace {

directory_entry entry(std::uint32_t number, std::uint32_t stored) {
  directory_entry e;
  e.frame_number = number;
  e.stored_length = stored;
  e.plain_length = stored - frame_tag_bytes;
  e.sequence = number;
  return e;
}

/// Frames in one shard, in order, apart, with the directory behind them.
void check_layout(const segment_layout& layout) {
  CHECK(layout.shard_length % shard_length_step == 0);
  CHECK(layout.shard_length <= shard_payload_max);
  CHECK(layout.shards.size() <= layout.data_shards);
  std::uint32_t fullest = 0;
  for (const auto& shard : layout.shards) {
    CHECK(shard.size() <= directory_entries_max);
    std::uint32_t end = 0;
    for (const auto& e : shard) {
      CHECK(e.position >= end);
      end = e.position + e.stored_length;
    }
    CHECK(end + directory_bytes(shard.size()) <= layout.shard_length);
    fullest = std::max(fullest, end + directory_bytes(shard.size()));
  }
  CHECK(layout.shard_length - fullest < shard_length_step);
}

} // namespace

TEST_CASE("a shard takes eight raw frames and its directory") {
  CHECK(8 * frame_stored_max + directory_bytes(8) <= shard_payload_max);
  segment_packer packer{4};
  for (std::uint32_t i = 0; i < 32; ++i) {
    CHECK(packer.fits(frame_stored_max));
    auto place = packer.add(entry(i, frame_stored_max));
    REQUIRE(place.has_value());
    CHECK(*place == frame_place{i / 8, (i % 8) * frame_stored_max});
  }
  CHECK_FALSE(packer.fits(frame_stored_max));
  CHECK_FALSE(packer.add(entry(32, frame_stored_max)).has_value());
  CHECK(packer.fits(100)); // between the last frame and the directory
  CHECK(packer.frames() == 32);
  CHECK(packer.bytes() == 32 * frame_stored_max);
  auto layout = packer.layout();
  CHECK(layout.shard_length == shard_payload_max);
  CHECK(layout.shards.size() == 4);
  check_layout(layout);
}

TEST_CASE("short segments use as few shards as possible, as short as possible (invariant 11)") {
  segment_packer one{4};
  REQUIRE(one.add(entry(1, 17)).has_value());
  CHECK(one.layout().shards.size() == 1);
  CHECK(one.layout().shard_length == 4096);

  segment_packer nine{4};
  for (std::uint32_t i = 0; i < 9; ++i) REQUIRE(nine.add(entry(i, frame_stored_max)).has_value());
  CHECK(nine.layout().shards.size() == 2);
  CHECK(nine.layout().shard_length == shard_payload_max);
  auto tight = nine.tight_layout();
  check_layout(tight);
  CHECK(tight.shards.size() == 2);
  CHECK(tight.shard_length == (5 * frame_stored_max + directory_bytes(5) + 4095) / 4096 * 4096);
  std::size_t frames = 0;
  for (const auto& s : tight.shards) frames += s.size();
  CHECK(frames == 9);
}

TEST_CASE("at most 4096 frames in a shard") {
  segment_packer packer{2};
  for (std::uint32_t i = 0; i < 2 * directory_entries_max; ++i) {
    auto place = packer.add(entry(i, 17));
    REQUIRE(place.has_value());
    REQUIRE(place->shard == i / directory_entries_max);
  }
  CHECK_FALSE(packer.fits(17));
  check_layout(packer.layout());
}

TEST_CASE("superseded frames leave zeros and no entry") {
  segment_packer packer{3};
  for (std::uint32_t i = 0; i < 20; ++i)
    REQUIRE(packer.add(entry(i, frame_stored_max)).has_value());
  CHECK(packer.remove(3).has_value());
  CHECK_FALSE(packer.remove(3).has_value());
  CHECK_FALSE(packer.remove(77).has_value());
  auto layout = packer.layout();
  CHECK(layout.shards[0].size() == 7);
  CHECK(layout.shards[0][3].position == 4 * frame_stored_max);
  for (std::uint32_t i = 16; i < 20; ++i) CHECK(packer.remove(i).has_value()); // the last shard is empty again
  CHECK(packer.layout().shards.size() == 2);
  for (std::uint32_t i = 0; i < 8; ++i) packer.remove(i);
  layout = packer.layout();
  CHECK(layout.shards.size() == 2);
  CHECK(layout.shards[0].empty());
  check_layout(layout);
  auto tight = packer.tight_layout();
  CHECK(tight.shards.size() == 1);
  check_layout(tight);
  for (std::uint32_t i = 8; i < 16; ++i) packer.remove(i);
  CHECK(packer.empty());
  CHECK(packer.bytes() == 0);
}

TEST_CASE("a frame has its place before it is there, and may give it up") {
  segment_packer packer{2};
  auto first = packer.place(1, 1000);
  auto second = packer.place(2, 2000);
  auto third = packer.place(3, 500);
  REQUIRE((first && second && third));
  CHECK(*second == frame_place{0, 1000});
  CHECK(*third == frame_place{0, 3000});
  CHECK(packer.frames() == 3);
  CHECK(packer.bytes() == 3500);
  CHECK(packer.fill(entry(3, 500)) == *third); // in whatever order they are done
  CHECK(packer.fill(entry(1, 1000)) == *first);
  CHECK(packer.remove(2) == second);
  CHECK_FALSE(packer.remove(2).has_value());
  CHECK(packer.bytes() == 1500);
  auto layout = packer.layout();
  REQUIRE(layout.shards.size() == 1);
  REQUIRE(layout.shards[0].size() == 2);
  CHECK(layout.shards[0][0].frame_number == 1);
  CHECK(layout.shards[0][1].frame_number == 3);
  CHECK(layout.shards[0][1].position == 3000);
}

TEST_CASE("random frames: nothing overlaps, tight is never longer") {
  for (std::uint64_t seed = 0; seed < 30; ++seed) {
    seeded_random random{seed};
    segment_packer packer{static_cast<unsigned>(1 + random.below(8))};
    auto count = random.below(60) + 1;
    for (std::uint32_t i = 0; i < count; ++i) {
      auto stored = static_cast<std::uint32_t>(17 + random.below(frame_plain_max));
      auto fits = packer.fits(stored);
      CHECK(packer.add(entry(i, stored)).has_value() == fits);
      if (random.below(5) == 0 && packer.frames() > 1) packer.remove(i);
    }
    auto layout = packer.layout();
    auto tight = packer.tight_layout();
    check_layout(layout);
    check_layout(tight);
    CHECK(tight.shards.size() <= layout.shards.size());
    if (tight.shards.size() == layout.shards.size())
      CHECK(tight.shard_length <= layout.shard_length);
  }
}

TEST_CASE("directories open at their shard only (invariant 4)") {
  auto s = make_segment(cipher_id::aes256_gcm, 3, 1, std::vector<std::size_t>(20, 65536));
  auto& key = s->ring.newest();
  auto volume = s->ring.volume().id();
  REQUIRE(s->record.used_shards() >= 2);
  auto read = [&](const segment_id& id, unsigned index, byte_span sealed) {
    return open_directory(volume, key, id, index, s->record.shard_length, sealed);
  };
  const auto& sealed = s->record.directories[0];
  auto entries = read(s->record.info.id, 0, sealed);
  REQUIRE(entries.ok());
  for (const auto& e : *entries) CHECK(e == s->entries[e.frame_number]);
  CHECK(read(s->record.info.id, 1, sealed).err().code == errc::corrupt);
  CHECK(read(sample_id(77), 0, sealed).err().code == errc::corrupt);
  for (std::size_t i = 0; i < sealed.size(); ++i) {
    auto bad = sealed;
    bad[i] ^= std::byte{1};
    CHECK(read(s->record.info.id, 0, bad).err().code == errc::corrupt);
    CHECK(read(s->record.info.id, 0, byte_span{sealed}.first(i)).err().code == errc::corrupt);
  }
  // Authentic, but naming places outside the shard it says it is in.
  CHECK(open_directory(volume, key, s->record.info.id, 0, 4096, sealed).err().code ==
        errc::corrupt);
}

TEST_CASE("seal records come back from the log, or are refused") {
  auto s = make_segment(cipher_id::chacha20_poly1305, 4, 2, {100, 200, 65536});
  auto bytes = encode(s->record);
  auto back = decode_seal_record(bytes);
  REQUIRE(back.ok());
  CHECK(*back == s->record);
  for (std::size_t i = 0; i < bytes.size(); ++i)
    CHECK_FALSE(decode_seal_record(byte_span{bytes}.first(i)).ok());
  bytes.push_back(std::byte{0});
  CHECK_FALSE(decode_seal_record(bytes).ok());
  bytes[0] = std::byte{2};
  CHECK(decode_seal_record(bytes).err().code == errc::version_mismatch);
}
