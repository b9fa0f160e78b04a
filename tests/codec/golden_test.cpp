// The formats against vectors made by other code (tests/golden/codec/make_vectors.py) from
// docs/formats alone; once more in a child process whose libcrypto must do without AES-NI.
#include <doctest/doctest.h>

#include <cstdlib>
#include <map>

#include <nlohmann/json.hpp>
#include <spawn.h>
#include <sys/wait.h>

#include "base/posix.hpp"
#include "sample.hpp"

using namespace qs;
using namespace qs::codec;
using namespace qs::codec::test;
using nlohmann::json;

namespace {

const json& vectors() {
  static const auto all = [] {
    auto text = read_file(QS_SOURCE_DIR "/tests/golden/codec/vectors.json");
    REQUIRE(text.ok());
    return json::parse(*text);
  }();
  return all;
}

buffer bytes_of(const json& hex) {
  auto out = from_hex(hex.get<std::string>());
  REQUIRE(out.has_value());
  return *out;
}

std::string hex_of(const key32& key) { return to_hex(key.bytes()); }

key_ring golden_ring() {
  const auto& v = vectors()["keys"];
  return {
      volume_keys::derive(root_secret{bytes_of(v["root"])}, v["volume_name"].get<std::string>()),
      {volume_key{v["generation"].get<std::uint32_t>(), key32{bytes_of(v["volume_key"])}}}};
}

std::uint64_t number_of(const json& text) { return std::stoull(text.get<std::string>()); }

extern "C" char** environ;

/// Runs this program's golden tests with one more environment variable; its exit code.
int run_masked(const std::string& setting) {
  std::vector<std::string> environment{setting, "QS_TEST_CPU_MASKED=1"};
  for (char** e = environ; *e != nullptr; ++e) environment.emplace_back(*e);
  std::vector<char*> env;
  for (auto& e : environment) env.push_back(e.data());
  env.push_back(nullptr);
  std::string self = "/proc/self/exe", filter = "--test-case=golden*";
  char* argv[] = {self.data(), filter.data(), nullptr};
  pid_t child = 0;
  REQUIRE(posix_spawn(&child, self.c_str(), nullptr, nullptr, argv, env.data()) == 0);
  int code = 0;
  REQUIRE(waitpid(child, &code, 0) == child);
  return WIFEXITED(code) ? WEXITSTATUS(code) : -1;
}

} // namespace

TEST_CASE("golden: keys, names and passwords") {
  const auto& v = vectors()["keys"];
  auto ring = golden_ring();
  const auto& keys = ring.volume();
  const auto& vk = ring.newest();
  CHECK(to_hex(keys.id()) == v["volume_id"]);
  CHECK(hex_of(keys.wrap()) == v["wrap"]);
  CHECK(hex_of(keys.local_secrets()) == v["local_secrets"]);
  CHECK(hex_of(keys.reservation_signer_seed()) == v["reservation_signer_seed"]);
  CHECK(hex_of(keys.shard_headers()) == v["shard_headers"]);
  CHECK(hex_of(keys.shard_header_nonces()) == v["shard_header_nonces"]);
  CHECK(hex_of(keys.identity_objects()) == v["identity_objects"]);
  CHECK(hex_of(wallet_key(root_secret{bytes_of(v["root"])})) == v["wallet"]);
  CHECK(hex_of(vk.segments()) == v["segments"]);
  CHECK(hex_of(vk.journal()) == v["journal"]);
  CHECK(hex_of(vk.directories()) == v["directories"]);
  CHECK(hex_of(vk.shard_macs()) == v["shard_macs"]);
  const model::node_id node{v["node"].get<std::uint32_t>()};
  const auto incarnation = v["incarnation"].get<std::uint32_t>();
  CHECK(keys.node_name(node, incarnation) == v["node_name"]);
  CHECK(keys.node_password(keys.node_name(node, incarnation)) == v["node_password"]);
  CHECK(keys.derived_password("admin", "here") == v["admin_password"]);
  CHECK(to_hex(keys.pointer_name()) == v["pointer_name"]);
  CHECK(to_hex(keys.shard_name(sample_id(), 4)) == v["shard_name_index_4"]);
  CHECK(to_hex(keys.identity_name(node, incarnation)) == v["identity_name"]);
  for (const auto& [name, hash] : v["dirent_hashes"].items())
    CHECK(std::to_string(keys.dirent_hash(name)) == hash);
}

TEST_CASE("golden: wrapped volume keys and identity object") {
  const auto& v = vectors()["keys"];
  auto ring = golden_ring();
  auto list = unwrap_volume_keys(ring.volume(), bytes_of(v["wrapped_list"]));
  REQUIRE(list.ok());
  REQUIRE(list->size() == 1);
  CHECK(list->front().generation() == v["generation"]);
  CHECK(hex_of(list->front().key()) == v["volume_key"]);
  auto identity = open_identity(ring.volume(), bytes_of(v["identity_object"]));
  REQUIRE(identity.ok());
  CHECK(identity->node.number == v["node"]);
  CHECK(identity->incarnation == v["incarnation"]);
  CHECK(to_hex(identity->random_id) == v["identity_random"]);
}

TEST_CASE("golden: frames, directories, seal records, shard values of both ciphers") {
  auto ring = golden_ring();
  REQUIRE(vectors()["segments"].size() == 2);
  for (const auto& v : vectors()["segments"]) {
    auto record = decode_seal_record(bytes_of(v["seal_record"]));
    REQUIRE(record.ok());
    CHECK(to_hex(encode(*record)) == v["seal_record"]);
    CHECK(static_cast<unsigned>(record->info.cipher) == v["cipher"]);
    CHECK(record->info.id == sample_id());
    auto cipher = make_frame_cipher(ring, record->info);
    REQUIRE(cipher.ok());

    std::vector<buffer> stored;
    std::vector<placed_frame> placed;
    stored.reserve(v["frames"].size());
    for (const auto& f : v["frames"]) {
      auto plain = bytes_of(f["plain"]);
      stored.push_back(bytes_of(f["stored"]));
      auto number = f["number"].get<std::uint32_t>();
      auto codec = static_cast<frame_codec>(f["codec"].get<unsigned>());
      buffer out(plain.size());
      CHECK((*cipher)->open(number, codec, stored.back(), out).ok());
      CHECK(out == plain);
      if (codec == frame_codec::raw) { // zstd's bytes may change with its version, ours may not
        buffer again(plain.size() + frame_tag_bytes);
        auto size = (*cipher)->seal(number, plain, again);
        REQUIRE(size.ok());
        CHECK(*size == frame_size{static_cast<std::uint32_t>(stored.back().size()),
                                  static_cast<std::uint32_t>(plain.size()), frame_codec::raw});
        CHECK(again == stored.back());
      }
      placed.push_back(
          {{f["shard"].get<unsigned>(), f["position"].get<std::uint32_t>()}, stored.back()});
    }

    auto m = v["m"].get<unsigned>();
    auto values = build_from(ring, *record, placed, m);
    REQUIRE(values.ok());
    std::vector<shard> have;
    for (unsigned i = 0; i < values->size(); ++i) {
      const auto& value = (*values)[i];
      auto name = std::to_string(i);
      REQUIRE((value != nullptr) == v["values"].contains(name));
      if (!value) continue;
      CHECK(to_hex(*value) == v["values"][name]);
      auto s = open_shard(ring, share(bytes_of(v["values"][name])), shard_check::body);
      REQUIRE(s.ok());
      if (i > 0) have.push_back(*s);
      if (s->header.is_parity()) continue;
      auto entries = list_frames(ring, *s);
      REQUIRE(entries.ok());
      for (const auto& e : *entries) {
        auto f = std::find_if(v["frames"].begin(), v["frames"].end(),
                              [&](const auto& x) { return x["number"] == e.frame_number; });
        REQUIRE(f != v["frames"].end());
        CHECK((*f)["position"] == e.position);
        CHECK((*f)["inode"] == e.inode);
        CHECK((*f)["extent"] == e.extent_index);
        CHECK(number_of((*f)["sequence"]) == e.sequence);
        CHECK(e.inode_generation == 1);
      }
    }
    const unsigned wanted[] = {0};
    auto rebuilt = rebuild_shards(ring, have, wanted);
    REQUIRE(rebuilt.ok());
    CHECK(to_hex(*(*rebuilt)[0]) == v["values"]["0"]);
  }
}

#if defined(__x86_64__)
TEST_CASE("golden: the cipher picked where AES-NI is masked") {
  if (std::getenv("QS_TEST_CPU_MASKED") != nullptr)
    CHECK(best_cipher() == cipher_id::chacha20_poly1305);
}

TEST_CASE("what was written with AES-NI reads without it, and the other way round") {
  // Bits 57 and 33 of the first word: AES-NI and PCLMULQDQ; then also everything after SSE2.
  CHECK(run_masked("OPENSSL_ia32cap=~0x200000200000000") == 0);
  CHECK(run_masked("OPENSSL_ia32cap=~0x200000200000000:0") == 0);
}
#endif
