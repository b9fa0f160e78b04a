#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <string>

#include <sodium.h>

#include "base/buffer_pool.hpp"
#include "base/bytes.hpp"
#include "base/diagnostic.hpp"
#include "base/phrase.hpp"
#include "base/units.hpp"
#include "base/utf8.hpp"

using namespace qs;

TEST_CASE("sizes are read in binary and decimal units and refused otherwise") {
  CHECK(*parse_bytes("20GiB") == 20 * gib);
  CHECK(*parse_bytes("1.5 TB") == 1'500'000'000'000U);
  CHECK(*parse_bytes("512") == 512);
  CHECK(exact_bytes(20 * gib) == "20GiB");
  CHECK(format_bytes(1536) == "1.5 KiB");
  for (auto bad : {"", "GiB", "12 XB", "-1", "1..2GiB", "99999999999PiB", "0x10"})
    CHECK_FALSE(parse_bytes(bad).ok());
}

TEST_CASE("durations are read and printed") {
  CHECK(parse_duration("10m")->count() == 600'000);
  CHECK(parse_duration("30d")->count() == 2'592'000'000);
  CHECK(exact_duration(std::chrono::hours{36}) == "36h");
  CHECK(format_duration(std::chrono::seconds{3725}) == "1 h 2 m");
  CHECK_FALSE(parse_duration("10").ok());
}

TEST_CASE("the word list is BIP39's") {
  std::string all;
  for (auto word : bip39_words()) (all += word) += '\n';
  std::array<std::byte, crypto_hash_sha256_BYTES> hash{};
  crypto_hash_sha256(uchars(mutable_byte_span{hash}), uchars(as_bytes(all)), all.size());
  CHECK(to_hex(hash) == "2f5eed53a4727b4bf8880d8f3f199efc90e58503646d9ff8eff3a2ed3b24dbda");
}

TEST_CASE("a phrase comes back as the root it was made from") {
  seeded_random random{7};
  for (int i = 0; i < 50; ++i) {
    auto root = new_root(random);
    auto back = from_phrase(to_phrase(root));
    REQUIRE(back.ok());
    CHECK(*back == root);
  }
  // BIP39's own vector for 32 zero bytes.
  std::string zeros;
  for (int i = 0; i < 23; ++i) zeros += "abandon ";
  CHECK(to_phrase(root_secret{}) == zeros + "art");
  CHECK(from_phrase(zeros + "ART\n").ok());
  CHECK_FALSE(from_phrase(zeros + "able").ok());
  auto typo = from_phrase(zeros + "artt");
  REQUIRE_FALSE(typo.ok());
  CHECK(typo.err().message == "word 24 of the phrase is not in the word list; did you mean 'art'?");
}

TEST_CASE("byte_reader never overruns and stays failed") {
  buffer bytes;
  byte_writer{bytes}.put(std::uint16_t{7}).put_sized(std::string_view{"abc"});
  byte_reader in{bytes};
  CHECK(in.get<std::uint16_t>() == 7);
  CHECK(as_text(in.get_sized(10)) == "abc");
  CHECK(in.done());
  CHECK(in.get<std::uint32_t>() == 0);
  CHECK_FALSE(in.ok());
  byte_reader tight{bytes};
  tight.get<std::uint16_t>();
  CHECK(tight.get_sized(2).empty());
  CHECK_FALSE(tight.ok());
}

TEST_CASE("diagnostics show place and caret in file order") {
  diagnostics list{{severity::error, "QS0002", "second", {2, 3, 6}}, {severity::warning, "QS0001", "first", {1, 1, 2}}};
  CHECK(render(list, "a.yaml", "one\n  two\n") == "a.yaml:1:1: warning: first [QS0001]\n"
                                                   "    1 | one\n"
                                                   "      | ^\n"
                                                   "a.yaml:2:3: error: second [QS0002]\n"
                                                   "    2 |   two\n"
                                                   "      |   ^^^\n");
}

TEST_CASE("pooled buffers come back, up to a number; small ones are made for the occasion") {
  qs::buffer_pool pool{1000, 1};
  auto a = pool.take(1000);
  auto b = pool.take(900);
  CHECK(a->size() == 1000);
  CHECK(b->size() == 900);
  CHECK(pool.idle() == 0);
  const auto* memory = a->data();
  a.reset();
  CHECK(pool.idle() == 1);
  b.reset(); // one is enough
  CHECK(pool.idle() == 1);
  auto small = pool.take(500);
  CHECK(small->size() == 500);
  CHECK(small->capacity() < 1000);
  auto large = pool.take(1001);
  CHECK(large->size() == 1001);
  CHECK(pool.idle() == 1);
  auto again = pool.take(800);
  CHECK(again->data() == memory);
  CHECK(again->size() == 800);
  small.reset();
  large.reset();
  CHECK(pool.idle() == 0);
}

TEST_CASE("a pooled buffer may outlive its pool") {
  std::shared_ptr<qs::buffer> last;
  {
    qs::buffer_pool pool{100, 4};
    last = pool.take(100);
  }
  CHECK(last->size() == 100);
}

TEST_CASE("what is UTF-8 and what is not") {
  struct row {
    std::string text;
    std::size_t length;
  };
  for (const auto& [text, length] : {row{"a", 1},
                                     {"\xC3\xBC", 2},
                                     {"\xE6\x97\xA5", 3},
                                     {"\xF0\x9F\x98\x80", 4},
                                     {"\x80", 0},
                                     {"\xC3", 0},
                                     {"\xC0\xAF", 0},         // overlong
                                     {"\xE0\x80\xAF", 0},     // overlong
                                     {"\xED\xA0\x80", 0},     // surrogate
                                     {"\xF4\x90\x80\x80", 0}, // beyond U+10FFFF
                                     {"\xFF", 0},
                                     {"\xE6\x97", 0}}) {
    auto bytes = text.size();
    auto first = static_cast<int>(static_cast<unsigned char>(text.front()));
    CAPTURE(bytes);
    CAPTURE(first);
    CHECK(utf8_length(text, 0) == length);
  }
}
