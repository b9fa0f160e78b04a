#include <doctest/doctest.h>

#include <set>

#include "codec/checksum.hpp"
#include "codec/keys.hpp"
#include "sample.hpp"

using namespace qs;
using namespace qs::codec;
using namespace qs::codec::test;

TEST_CASE("keys depend on root and volume name, and on nothing else") {
  auto a = volume_keys::derive(sample_root(), "photos");
  auto again = volume_keys::derive(sample_root(), "photos");
  auto other_name = volume_keys::derive(sample_root(), "photo");
  auto other_root = volume_keys::derive(root_secret{noise(32, 9)}, "photos");
  CHECK(a.id() == again.id());
  CHECK(a.id() != other_name.id());
  CHECK(a.id() != other_root.id());
  std::set<std::string> all;
  for (const auto* k : {&a, &other_name, &other_root})
    for (const auto* key :
         {&k->wrap(), &k->local_secrets(), &k->shard_headers(), &k->shard_header_nonces(),
          &k->identity_objects(), &k->reservation_signer_seed()})
      all.insert(to_hex(key->bytes()));
  CHECK(all.size() == 18);
  CHECK(to_hex(wallet_key(sample_root()).bytes()) == to_hex(wallet_key(sample_root()).bytes()));
  CHECK_FALSE(wallet_key(sample_root()) == a.wrap());
}

TEST_CASE("names and passwords of nodes") {
  auto keys = sample_ring().volume();
  auto name = keys.node_name({1}, 1);
  CHECK(name.size() == 18);
  CHECK(name.starts_with("qs"));
  CHECK(from_hex(name.substr(2)).has_value());
  std::set<std::string> names, passwords;
  for (std::uint32_t node = 1; node <= 20; ++node)
    for (std::uint32_t incarnation = 1; incarnation <= 3; ++incarnation) {
      names.insert(keys.node_name({node}, incarnation));
      passwords.insert(keys.node_password(keys.node_name({node}, incarnation)));
    }
  CHECK(names.size() == 60);
  CHECK(passwords.size() == 60);
  CHECK(keys.node_password(name).size() == 43);
  CHECK(keys.derived_password("admin", name).size() == 43);
  CHECK(keys.derived_password("admin", name) != keys.node_password(name));
  CHECK(keys.derived_password("admin", "x") != keys.derived_password("admi", "nx"));
}

TEST_CASE("object names differ by kind, segment and index") {
  auto keys = sample_ring().volume();
  std::set<object_key> names{keys.pointer_name(), keys.identity_name({1}, 1),
                             keys.identity_name({1}, 2), keys.identity_name({2}, 1)};
  for (std::uint64_t counter = 0; counter < 5; ++counter)
    for (unsigned index = 0; index < 48; ++index)
      names.insert(keys.shard_name(sample_id(counter), index));
  CHECK(names.size() == 4 + 5 * 48);
  auto what = to_buffer("x");
  CHECK(keys.object_name(object_kind::journal, what) != keys.object_name(object_kind::claim, what));
}

TEST_CASE("directory-entry hashes have 55 bits and leave the first cookies free") {
  auto keys = sample_ring().volume();
  std::uint64_t seen = 0;
  for (int i = 0; i < 2000; ++i) {
    auto hash = keys.dirent_hash("file " + std::to_string(i));
    CHECK(hash >= 1);
    CHECK(hash < (std::uint64_t{1} << 55));
    CHECK(dirent_cookie(hash, 255) < (std::uint64_t{1} << 63));
    CHECK(dirent_cookie(hash, 0) > 2);
    seen |= hash;
  }
  CHECK(seen == (std::uint64_t{1} << 55) - 1);
  CHECK(keys.dirent_hash("a") != volume_keys::derive(sample_root(), "other").dirent_hash("a"));
}

TEST_CASE("what is sealed opens at its place only (invariant 4)") {
  auto keys = sample_ring().volume();
  seal_place place{seal_kind::local_secret, keys.id(), sample_id().session, 5};
  auto plain = to_buffer("hush");
  auto sealed = seal(keys.local_secrets(), place, plain, system_random());
  CHECK(sealed.size() == plain.size() + seal_overhead);
  CHECK(*open(keys.local_secrets(), place, sealed) == plain);
  CHECK(seal(keys.local_secrets(), place, plain, system_random()) != sealed);

  auto refuses = [&](const key32& key, const seal_place& at, byte_span bytes) {
    auto got = open(key, at, bytes);
    return !got.ok() && got.err().code == errc::corrupt;
  };
  CHECK(refuses(keys.wrap(), place, sealed));
  for (auto change : {0, 1, 2, 3, 4}) {
    auto other = place;
    if (change == 0) other.kind = seal_kind::identity;
    if (change == 1) other.volume[0] ^= std::byte{1};
    if (change == 2) other.session.epoch ^= 1;
    if (change == 3) other.session.writer[15] ^= std::byte{1};
    if (change == 4) other.sequence ^= 1;
    CHECK_MESSAGE(refuses(keys.local_secrets(), other, sealed), change);
  }
  for (std::size_t i = 0; i < sealed.size(); ++i) {
    auto bad = sealed;
    bad[i] ^= std::byte{0x10};
    CHECK(refuses(keys.local_secrets(), place, bad));
    CHECK(refuses(keys.local_secrets(), place, byte_span{sealed}.first(i)));
  }
  auto empty = seal(keys.local_secrets(), place, {}, system_random());
  CHECK(open(keys.local_secrets(), place, empty)->empty());
}

TEST_CASE("volume keys are wrapped for one phrase and one volume name") {
  auto keys = sample_ring().volume();
  std::vector<volume_key> list{volume_key::make(1, system_random()),
                               volume_key::make(2, system_random())};
  auto wrapped = wrap_volume_keys(keys, list, system_random());
  CHECK(wrapped.size() == 4 + 2 * 76);
  auto back = unwrap_volume_keys(keys, wrapped);
  REQUIRE(back.ok());
  REQUIRE(back->size() == 2);
  for (std::size_t i = 0; i < 2; ++i) {
    CHECK((*back)[i].generation() == list[i].generation());
    CHECK((*back)[i].key() == list[i].key());
    CHECK((*back)[i].segments() == list[i].segments());
    CHECK_FALSE((*back)[i].segments() == (*back)[i].shard_macs());
  }
  CHECK(unwrap_volume_keys(volume_keys::derive(sample_root(), "other"), wrapped).err().code ==
        errc::corrupt);
  for (std::size_t i = 0; i < wrapped.size(); ++i) {
    auto bad = wrapped;
    bad[i] ^= std::byte{1};
    CHECK_FALSE(unwrap_volume_keys(keys, bad).ok());
    CHECK_FALSE(unwrap_volume_keys(keys, byte_span{wrapped}.first(i)).ok());
  }
  // The same entry twice is not a list.
  buffer twice{wrapped.begin(), wrapped.begin() + 80};
  twice.insert(twice.end(), wrapped.begin() + 4, wrapped.begin() + 80);
  twice[2] = std::byte{2};
  CHECK(unwrap_volume_keys(keys, twice).err().code == errc::corrupt);
}

TEST_CASE("a ring finds generations and says which is newest") {
  key_ring ring{sample_ring().volume(),
                {volume_key::make(5, system_random()), volume_key::make(2, system_random())}};
  CHECK(ring.newest().generation() == 5);
  CHECK((*ring.find(2))->generation() == 2);
  CHECK(ring.find(3).err().code == errc::not_found);
}

TEST_CASE("identity objects name one reservation of one node") {
  auto keys = sample_ring().volume();
  auto bytes = make_identity(keys, {3}, 2, system_random());
  auto identity = open_identity(keys, bytes);
  REQUIRE(identity.ok());
  CHECK(identity->volume == keys.id());
  CHECK(identity->node == model::node_id{3});
  CHECK(identity->incarnation == 2);
  auto second = open_identity(keys, make_identity(keys, {3}, 2, system_random()));
  CHECK(second->random_id != identity->random_id);
  CHECK(open_identity(volume_keys::derive(sample_root(), "other"), bytes).err().code ==
        errc::corrupt);
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    auto bad = bytes;
    bad[i] ^= std::byte{1};
    CHECK_FALSE(open_identity(keys, bad).ok());
    CHECK_FALSE(open_identity(keys, byte_span{bytes}.first(i)).ok());
  }
}

TEST_CASE("the checksum is CRC-64/XZ and goes on from the last one") {
  CHECK(checksum64(as_bytes("123456789")) == 0x995dc9bbdf1939faU);
  auto bytes = noise(5000, 3);
  auto whole = checksum64(bytes);
  for (std::size_t cut : {0U, 1U, 7U, 64U, 4999U, 5000U}) {
    auto first = checksum64(byte_span{bytes}.first(cut));
    CHECK(checksum64(byte_span{bytes}.subspan(cut), first) == whole);
  }
  CHECK(checksum64({}, 77) == 77);
}
