#include <doctest/doctest.h>

#include <cstring>

#include "sample.hpp"

using namespace qs;
using namespace qs::codec;
using namespace qs::codec::test;

namespace {

constexpr cipher_id both[] = {cipher_id::aes256_gcm, cipher_id::chacha20_poly1305};

std::vector<shard> open_all(const sample_segment& s, std::uint64_t keep_mask = ~std::uint64_t{0}) {
  std::vector<shard> out;
  for (unsigned i = 0; i < s.values.size(); ++i)
    if (s.values[i] && (keep_mask >> i & 1U) != 0) out.push_back(opened(s.ring, s.values[i]));
  return out;
}

std::vector<unsigned> all_indexes(const sample_segment& s) {
  std::vector<unsigned> out;
  for (unsigned i = 0; i < s.values.size(); ++i) out.push_back(i);
  return out;
}

bool same(const buffer_ptr& a, const buffer_ptr& b) { return (!a && !b) || (a && b && *a == *b); }

} // namespace

TEST_CASE("a segment's shards hold its frames, and salvage lists them from one shard alone") {
  for (auto id : both) {
    auto s = make_segment(
        id, 4, 2, {65536, 65536, 65536, 1, 500, 4000, 65536, 65536, 65536, 65536, 65536, 65536, 9});
    CHECK(s->values.size() == 6);
    auto cipher = *make_frame_cipher(s->ring, s->record.info);
    std::size_t seen = 0;
    for (unsigned i = 0; i < 4; ++i) {
      CHECK((s->values[i] != nullptr) == (i < s->record.used_shards()));
      if (!s->values[i]) continue;
      auto one = opened(s->ring, s->values[i]);
      CHECK(one.header.index == i);
      CHECK(one.header.info == s->record.info);
      auto entries = list_frames(s->ring, one);
      REQUIRE(entries.ok());
      for (const auto& e : *entries) {
        CHECK(e == s->entries[e.frame_number]);
        auto stored = frame_bytes(one, e.position, e.stored_length);
        REQUIRE(stored.ok());
        buffer out(e.plain_length);
        CHECK(cipher->open(e.frame_number, e.codec, *stored, out).ok());
        CHECK(out == s->plains[e.frame_number]);
        ++seen;
      }
      CHECK(frame_bytes(one, one.header.shard_length - 10, 11).err().code == errc::corrupt);
      CHECK(frame_bytes(one, UINT32_MAX, 17).err().code == errc::corrupt);
      CHECK(frame_bytes(one, 17, UINT32_MAX).err().code == errc::corrupt);
    }
    CHECK(seen == s->plains.size());
    auto parity = opened(s->ring, s->values[5]);
    CHECK(parity.header.is_parity());
    CHECK(list_frames(s->ring, parity).err().code == errc::invalid_argument);
    CHECK(frame_bytes(parity, 0, 17).err().code == errc::corrupt);
  }
}

TEST_CASE("shard values depend on seal record and frames only (invariant 2)") {
  auto s = make_segment(cipher_id::aes256_gcm, 4, 2, {65536, 10, 3000, 65536});
  auto record = decode_seal_record(encode(s->record)); // as after a start
  REQUIRE(record.ok());
  std::vector<placed_frame> other_order{s->placed.rbegin(), s->placed.rend()};
  auto again = build_from(s->ring, *record, other_order, 5);
  REQUIRE(again.ok());
  for (unsigned i = 0; i < 6; ++i)
    CHECK(same((*again)[i], s->values[i])); // a greater m touches none
}

TEST_CASE("any k shards give all others, byte-identical, implied ones included (invariant 11)") {
  struct shape {
    unsigned k, m;
    std::vector<std::size_t> lengths;
  };
  const std::vector<shape> shapes{{4, 2, {65536, 100, 3000}},
                                  {4, 2, std::vector<std::size_t>(11, 65536)},
                                  {2, 3, {1}},
                                  {1, 2, {777}},
                                  {3, 3, std::vector<std::size_t>(24, 65536)}};
  for (const auto& [k, m, lengths] : shapes) {
    auto s = make_segment(both[(k + m) % 2], k, m, lengths);
    auto implied = k - s->record.used_shards();
    auto wanted = all_indexes(*s);
    for (std::uint64_t mask = 0; mask < (1U << (k + m)); ++mask) {
      auto have = open_all(*s, mask);
      if (have.empty() || have.size() > k) continue; // exactly k, and too few
      auto got = rebuild_shards(s->ring, have, wanted);
      if (have.size() + implied < k) {
        CHECK(got.err().code == errc::no_quorum);
        continue;
      }
      REQUIRE_MESSAGE(got.ok(), got.err().message);
      int bad = 0;
      for (unsigned i = 0; i < k + m; ++i) bad += same((*got)[i], s->values[i]) ? 0 : 1;
      CHECK(bad == 0);
    }
  }
}

TEST_CASE("shards beyond the m they were built with are the ones a greater m would have given") {
  auto s = make_segment(cipher_id::aes256_gcm, 3, 2, {65536, 65536, 9});
  auto more = build_from(s->ring, s->record, s->placed, 16);
  REQUIRE(more.ok());
  auto have = open_all(*s);
  have.erase(have.begin());
  const unsigned wanted[] = {0, 18, 10};
  auto got = rebuild_shards(s->ring, have, wanted);
  REQUIRE(got.ok());
  CHECK(same((*got)[0], s->values[0]));
  CHECK(same((*got)[1], (*more)[18]));
  CHECK(same((*got)[2], (*more)[10]));
}

TEST_CASE("32+16, random losses") {
  std::vector<std::size_t> lengths(100, 20000);
  auto s = make_segment(cipher_id::aes256_gcm, 32, 16, lengths);
  seeded_random random{3};
  auto have = open_all(*s);
  for (unsigned lost = 0; lost < 16; ++lost)
    have.erase(have.begin() + static_cast<std::ptrdiff_t>(random.below(have.size())));
  auto wanted = all_indexes(*s);
  auto got = rebuild_shards(s->ring, have, wanted);
  REQUIRE(got.ok());
  for (unsigned i = 0; i < 48; ++i) CHECK(same((*got)[i], s->values[i]));
}

TEST_CASE("a shard full of small frames is rebuilt too") {
  auto s = make_segment(cipher_id::aes256_gcm, 2, 1,
                        std::vector<std::size_t>(directory_entries_max + 5, 20));
  CHECK(s->record.used_shards() == 2);
  auto have = open_all(*s);
  for (unsigned lost = 0; lost < 3; ++lost) {
    std::vector<shard> left;
    for (const auto& one : have)
      if (one.header.index != lost) left.push_back(one);
    const unsigned wanted[] = {lost};
    auto got = rebuild_shards(s->ring, left, wanted);
    REQUIRE(got.ok());
    CHECK(same((*got)[0], s->values[lost]));
  }
}

TEST_CASE("one frame is read while its node is away") {
  auto s = make_segment(cipher_id::aes256_gcm, 4, 2, std::vector<std::size_t>(40, 65536));
  REQUIRE(s->record.used_shards() == 4);
  auto cipher = *make_frame_cipher(s->ring, s->record.info);
  for (std::size_t i = 0; i < s->placed.size(); i += 7) {
    auto place = s->placed[i].place;
    auto have = open_all(
        *s, ~(std::uint64_t{1} << place.shard | std::uint64_t{1} << ((place.shard + 1) % 4)));
    buffer stored(s->entries[i].stored_length), out(s->entries[i].plain_length);
    REQUIRE(recover_range(have, place.shard, place.position, stored).ok());
    CHECK(cipher->open(s->entries[i].frame_number, s->entries[i].codec, stored, out).ok());
    CHECK(out == s->plains[i]);
    CHECK(recover_range(have, place.shard, s->record.shard_length, stored).err().code ==
          errc::invalid_argument);
    CHECK(recover_range(have, 4, 0, stored).err().code == errc::invalid_argument);
    have.pop_back();
    CHECK(recover_range(have, place.shard, place.position, stored).err().code == errc::no_quorum);
  }
}

TEST_CASE(
    "damage is an error: every byte of the header, some of the body, every length (invariant 4)") {
  for (auto id : both) {
    auto s = make_segment(id, 2, 1, {5000, 100});
    for (unsigned index : {0U, 2U}) {
      const auto& good = *s->values[index];
      auto refuses = [&](buffer bad) {
        auto got = open_shard(s->ring, share(std::move(bad)), shard_check::body);
        return !got.ok() &&
               (got.err().code == errc::corrupt || got.err().code == errc::version_mismatch);
      };
      CHECK(open_shard(s->ring, share(good), shard_check::body).ok());
      for (std::size_t i = 0; i < good.size(); i += i < shard_header_bytes ? 1 : 61) {
        auto bad = good;
        bad[i] ^= std::byte{1};
        CHECK_MESSAGE(refuses(std::move(bad)), i);
      }
      for (std::size_t n = 0; n < good.size(); n += n < shard_header_bytes ? 1 : 97)
        CHECK(refuses({good.begin(), good.begin() + static_cast<std::ptrdiff_t>(n)}));
      auto longer = good;
      longer.resize(good.size() + 4096);
      CHECK(refuses(std::move(longer)));
    }
  }
}

TEST_CASE("a sound shard in the wrong place, volume or generation is refused") {
  auto s = make_segment(cipher_id::aes256_gcm, 2, 1, {5000});
  auto check = [&](const shard_address& expected) {
    return open_shard(s->ring, s->values[0], shard_check::header, expected);
  };
  CHECK(check({s->record.info.id, 0}).ok());
  CHECK(check({s->record.info.id, 1}).err().code == errc::corrupt);
  CHECK(check({sample_id(9), 0}).err().code == errc::corrupt);
  key_ring other_volume{volume_keys::derive(sample_root(), "other"), s->ring.generations()};
  CHECK(open_shard(other_volume, s->values[0], shard_check::header).err().code == errc::corrupt);
  key_ring later{s->ring.volume(), {volume_key::make(8, system_random())}};
  CHECK(open_shard(later, s->values[0], shard_check::body).err().code == errc::not_found);
  CHECK(
      open_shard_header(s->ring.volume(), byte_span{*s->values[0]}.first(shard_header_bytes)).ok());
}

TEST_CASE("only shards of one segment, checked, are put together") {
  auto a = make_segment(cipher_id::aes256_gcm, 2, 1, {5000, 70000 - 5000}, 1);
  auto b = make_segment(cipher_id::aes256_gcm, 2, 1, {5000, 70000 - 5000}, 2);
  const unsigned wanted[] = {0};
  std::vector<shard> mixed{opened(a->ring, a->values[0]), opened(b->ring, b->values[2])};
  CHECK(rebuild_shards(a->ring, mixed, wanted).err().code == errc::invalid_argument);
  auto unchecked = open_shard(a->ring, a->values[2], shard_check::header);
  REQUIRE(unchecked.ok());
  std::vector<shard> lazy{*unchecked};
  CHECK(rebuild_shards(a->ring, lazy, wanted).err().code == errc::invalid_argument);
  CHECK(rebuild_shards(a->ring, {}, wanted).err().code == errc::no_quorum);
  const unsigned beyond[] = {18};
  std::vector<shard> sound{opened(a->ring, a->values[2])};
  CHECK(rebuild_shards(a->ring, sound, beyond).err().code == errc::invalid_argument);
}

TEST_CASE("the header's nonce covers the MAC: another body gives another nonce (invariant 1)") {
  auto a = make_segment(cipher_id::aes256_gcm, 2, 1, {5000});
  auto b = make_segment(cipher_id::aes256_gcm, 2, 1, {5000});
  CHECK(same(a->values[0], b->values[0]));
  auto placed = b->placed; // the same id, salt, lengths, directory; one byte of a frame differs
  b->stored[0][100] ^= std::byte{1};
  auto changed = build_from(b->ring, b->record, placed, 1);
  REQUIRE(changed.ok());
  auto nonce = [](const buffer_ptr& value) { return to_hex(byte_span{*value}.subspan(8, 24)); };
  CHECK(nonce((*changed)[0]) != nonce(a->values[0]));
  CHECK(nonce((*changed)[2]) != nonce(a->values[2]));
  CHECK(nonce(a->values[0]) != nonce(a->values[2]));
}

TEST_CASE("building refuses frames that are not the directory's") {
  auto s = make_segment(cipher_id::aes256_gcm, 2, 1, {5000, 60000, 65536});
  auto fails = [&](const std::vector<placed_frame>& frames) {
    auto got = build_from(s->ring, s->record, frames, 1);
    return !got.ok() && got.err().code == errc::invalid_argument;
  };
  auto missing = s->placed;
  missing.pop_back();
  CHECK(fails(missing));
  auto twice = s->placed;
  twice.push_back(twice.front());
  CHECK(fails(twice));
  auto moved = s->placed;
  moved[0].place.position += 1;
  CHECK(fails(moved));
  auto elsewhere = s->placed;
  elsewhere[0].place.shard = 7;
  CHECK(fails(elsewhere));
  auto shorter = s->placed;
  shorter[0].bytes = shorter[0].bytes.first(100);
  CHECK(fails(shorter));
  auto record = s->record;
  record.shard_length += 1;
  CHECK(build_from(s->ring, record, s->placed, 1).err().code == errc::invalid_argument);
  CHECK(build_from(s->ring, s->record, s->placed, 17).err().code == errc::invalid_argument);
}

TEST_CASE("frames that had room and were dropped leave no trace, nor do shards that had only those") {
  auto s = make_segment(cipher_id::aes256_gcm, 3, 1, {5000, 60000});
  buffer_pool pool{shard_value_max, 8};
  segment_body body{pool};
  auto fill = [&](const frame_place& place, byte_span bytes) {
    auto room = body.room(place, static_cast<std::uint32_t>(bytes.size()));
    REQUIRE(room.ok());
    std::memcpy(room->data(), bytes.data(), bytes.size());
  };
  for (const auto& f : s->placed) fill(f.place, f.bytes);
  frame_place behind{0, 200'000};
  frame_place last{2, 0};
  fill(behind, s->placed[0].bytes);
  fill(last, s->placed[0].bytes);
  body.drop(behind);
  body.drop(last);
  body.drop({7, 0}); // never there
  auto built = build_shards(s->ring, s->record, std::move(body), 1);
  REQUIRE_MESSAGE(built.ok(), describe(built.err()));
  REQUIRE(built->size() == s->values.size());
  for (std::size_t i = 0; i < built->size(); ++i) {
    CAPTURE(i);
    REQUIRE(((*built)[i] == nullptr) == (s->values[i] == nullptr));
    if ((*built)[i]) CHECK(*(*built)[i] == *s->values[i]);
  }
}

TEST_CASE("what is no frame and no directory is zero (invariants 11, 12)") {
  auto s = make_segment(cipher_id::aes256_gcm, 2, 1, {100, 100});
  auto one = opened(s->ring, s->values[0]);
  auto end = s->entries[1].position + s->entries[1].stored_length;
  auto gap =
      one.payload().subspan(end, one.header.shard_length - end - one.header.directory_length);
  CHECK(std::all_of(gap.begin(), gap.end(), [](std::byte b) { return b == std::byte{0}; }));
}
