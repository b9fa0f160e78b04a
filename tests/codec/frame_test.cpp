#include <doctest/doctest.h>

#include <thread>

#include "codec/frame.hpp"
#include "sample.hpp"

using namespace qs;
using namespace qs::codec;
using namespace qs::codec::test;

namespace {

struct frame {
  frame_size size;
  buffer stored;
};

frame sealed(const frame_cipher& cipher, std::uint32_t number, byte_span plain) {
  frame f;
  f.stored.resize(plain.size() + frame_tag_bytes);
  auto size = cipher.seal(number, plain, f.stored);
  REQUIRE(size.ok());
  f.size = *size;
  f.stored.resize(size->stored);
  return f;
}

constexpr cipher_id both[] = {cipher_id::aes256_gcm, cipher_id::chacha20_poly1305};

} // namespace

TEST_CASE("frames come back, whatever their length and content") {
  auto ring = sample_ring();
  for (auto id : both) {
    auto cipher = make_frame_cipher(ring, sample_info(id));
    REQUIRE(cipher.ok());
    std::uint32_t number = 0;
    for (std::size_t length :
         {1U, 2U, 15U, 16U, 17U, 33U, 100U, 2047U, 2048U, 4096U, 65535U, 65536U})
      for (const auto& plain : {noise(length, length), prose(length), buffer(length)}) {
        auto f = sealed(**cipher, ++number, plain);
        CHECK(f.size.plain == length);
        CHECK(f.size.stored == f.stored.size());
        CHECK(f.size.stored <= length + frame_tag_bytes);
        buffer out(length);
        auto got = (*cipher)->open(number, f.size.codec, f.stored, out);
        CHECK(got.ok());
        CHECK(out == plain);
      }
  }
}

TEST_CASE("what zstd does not shrink by 3 % is kept raw") {
  auto ring = sample_ring();
  auto cipher = *make_frame_cipher(ring, sample_info(cipher_id::aes256_gcm));
  CHECK(sealed(*cipher, 1, noise(65536, 1)).size.codec == frame_codec::raw);
  CHECK(sealed(*cipher, 2, prose(65536)).size.codec == frame_codec::zstd);
  CHECK(sealed(*cipher, 3, buffer(65536)).size.stored < 100);
  CHECK(sealed(*cipher, 4, noise(1000, 4)).size.codec == frame_codec::raw);
  // 1 % of zeros in noise: compressible, but not worth it.
  auto almost = noise(65536, 5);
  std::fill(almost.begin(), almost.begin() + 655, std::byte{0});
  CHECK(sealed(*cipher, 5, almost).size.codec == frame_codec::raw);
  CHECK_FALSE(looks_compressible(noise(65536, 6)));
  CHECK(looks_compressible(prose(65536)));
  CHECK(looks_compressible(buffer(65536)));
  auto hex = to_buffer(to_hex(noise(32768, 7)));
  CHECK(looks_compressible(hex));
  int noisy = 0; // the sample must not mistake noise often
  for (std::uint64_t seed = 0; seed < 500; ++seed)
    noisy += looks_compressible(noise(4096, 1000 + seed)) ? 1 : 0;
  CHECK(noisy <= 2);
  int seven_bits = 0; // nor what saves an eighth for noise
  for (std::uint64_t seed = 0; seed < 500; ++seed) {
    auto plain = noise(4096, 2000 + seed);
    for (auto& b : plain) b &= std::byte{0x7f};
    seven_bits += looks_compressible(plain) ? 1 : 0;
  }
  CHECK(seven_bits == 500);
  for (std::size_t record : {64U, 128U, 256U, 512U}) // half noise, half zeros, wherever samples fall
    for (auto begin : {std::size_t{0}, record / 2}) {
      auto plain = noise(65536, 3000 + record);
      for (std::size_t at = begin; at < plain.size(); at += record)
        std::fill_n(plain.begin() + static_cast<std::ptrdiff_t>(at), record / 2, std::byte{0});
      CAPTURE(record);
      CHECK(looks_compressible(plain));
    }
}

TEST_CASE("a frame opens only under its number, codec, length and segment (invariant 4)") {
  auto ring = sample_ring();
  for (auto id : both) {
    auto cipher = *make_frame_cipher(ring, sample_info(id));
    for (const auto& plain : {noise(300, 1), prose(3000)}) {
      auto f = sealed(*cipher, 9, plain);
      auto refuses = [&](const frame_cipher& with, std::uint32_t number, frame_codec codec,
                         byte_span stored, std::size_t length) {
        buffer out(length, std::byte{0x55});
        auto got = with.open(number, codec, stored, out);
        return !got.ok() && got.err().code == errc::corrupt && out == buffer(length);
      };
      auto other_codec = f.size.codec == frame_codec::raw ? frame_codec::zstd : frame_codec::raw;
      CHECK(refuses(*cipher, 8, f.size.codec, f.stored, plain.size()));
      CHECK(refuses(*cipher, 9, other_codec, f.stored, plain.size()));
      CHECK(refuses(*cipher, 9, static_cast<frame_codec>(2), f.stored, plain.size()));
      CHECK(refuses(*cipher, 9, f.size.codec, f.stored, plain.size() + 1));
      CHECK(refuses(*cipher, 9, f.size.codec, f.stored, plain.size() - 1));
      CHECK(refuses(*cipher, 9, f.size.codec, f.stored, frame_plain_max + 1));
      CHECK(refuses(*cipher, 9, f.size.codec, f.stored, 0));
      for (std::size_t n = 0; n < f.stored.size(); n += 1 + n / 8)
        CHECK(refuses(*cipher, 9, f.size.codec, byte_span{f.stored}.first(n), plain.size()));
      for (std::size_t i = 0; i < f.stored.size(); ++i) {
        auto bad = f.stored;
        bad[i] ^= std::byte{0x80};
        CHECK(refuses(*cipher, 9, f.size.codec, bad, plain.size()));
      }
      auto other = [&](auto change) {
        auto info = sample_info(id);
        change(info);
        return refuses(**make_frame_cipher(ring, info), 9, f.size.codec, f.stored, plain.size());
      };
      CHECK(other([](auto& i) { i.id.counter ^= 1; }));
      CHECK(other([](auto& i) { i.id.session.epoch ^= 1; }));
      CHECK(other([](auto& i) { i.salt[31] ^= std::byte{1}; }));
      CHECK(other([](auto& i) {
        i.cipher = i.cipher == cipher_id::aes256_gcm ? cipher_id::chacha20_poly1305
                                                     : cipher_id::aes256_gcm;
      }));
    }
  }
}

TEST_CASE("lengths that no frame has are refused when sealing") {
  auto cipher = *make_frame_cipher(sample_ring(), sample_info(cipher_id::aes256_gcm));
  buffer out(frame_stored_max + 1);
  CHECK(cipher->seal(1, byte_span{}, out).err().code == errc::invalid_argument);
  CHECK(cipher->seal(1, buffer(frame_plain_max + 1), out).err().code == errc::invalid_argument);
  CHECK(cipher->seal(1, buffer(100), mutable_byte_span{out}.first(115)).err().code ==
        errc::invalid_argument);
  auto info = sample_info(cipher_id::aes256_gcm);
  info.generation = 8;
  CHECK(make_frame_cipher(sample_ring(), info).err().code == errc::not_found);
}

TEST_CASE("packed first and sealed in its place, a frame has the bytes it has when sealed at once") {
  auto ring = sample_ring();
  auto cipher = *make_frame_cipher(ring, sample_info(cipher_id::aes256_gcm));
  for (const auto& plain : {noise(65536, 3), prose(65536), prose(300), noise(1, 4)}) {
    buffer once(plain.size() + frame_tag_bytes), scratch(plain.size());
    auto whole = *cipher->seal(7, plain, once);
    auto packed = pack_frame(plain, scratch);
    REQUIRE(packed.ok());
    CHECK(packed->stored_length() == whole.stored);
    CHECK(packed->codec == whole.codec);
    buffer out(packed->stored_length());
    CHECK(*cipher->seal(7, *packed, out) == whole);
    once.resize(whole.stored);
    CHECK(out == once);
    CHECK(cipher->seal(7, *packed, mutable_byte_span{out}.first(out.size() - 1)).err().code ==
          errc::invalid_argument);
  }
  buffer small(99);
  CHECK(pack_frame(buffer(100), small).err().code == errc::invalid_argument);
  CHECK(pack_frame({}, small).err().code == errc::invalid_argument);
}

TEST_CASE(
    "the same plaintext under two numbers, salts or ciphers gives unrelated bytes (invariant 1)") {
  auto ring = sample_ring();
  auto plain = noise(200, 1);
  auto info = sample_info(cipher_id::aes256_gcm);
  auto first = sealed(**make_frame_cipher(ring, info), 1, plain).stored;
  CHECK(sealed(**make_frame_cipher(ring, info), 1, plain).stored == first);
  CHECK(sealed(**make_frame_cipher(ring, info), 2, plain).stored != first);
  info.salt[0] ^= std::byte{1};
  CHECK(sealed(**make_frame_cipher(ring, info), 1, plain).stored != first);
  auto a = new_segment(ring, sample_id(), system_random());
  auto b = new_segment(ring, sample_id(), system_random());
  CHECK(a.salt != b.salt);
  CHECK(a.generation == 7);
  CHECK(a.cipher == best_cipher());
}

TEST_CASE("one cipher object serves several threads") {
  auto cipher = *make_frame_cipher(sample_ring(), sample_info(best_cipher()));
  std::vector<std::thread> threads;
  std::array<int, 4> good{};
  for (unsigned t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      for (std::uint32_t i = 0; i < 50; ++i) {
        auto plain = i % 2 == 0 ? noise(5000, t * 1000 + i) : prose(5000, t * 1000 + i);
        buffer stored(plain.size() + frame_tag_bytes), out(plain.size());
        auto size = cipher->seal(t * 1000 + i, plain, stored);
        if (size.ok() &&
            cipher->open(t * 1000 + i, size->codec, byte_span{stored}.first(size->stored), out)
                .ok() &&
            out == plain)
          ++good[t];
      }
    });
  for (auto& t : threads) t.join();
  for (auto g : good) CHECK(g == 50);
}

TEST_CASE("the cipher follows what libcrypto says about the CPU") {
  CHECK(best_cipher_for("OPENSSL_ia32cap=0xfffa32034f8bffff:0x1a415f46f1bf2ffb") ==
        cipher_id::aes256_gcm);
  CHECK(best_cipher_for("OPENSSL_ia32cap=0xfdfa32014f8bffff:0x0 env:~0x200000200000000") ==
        cipher_id::chacha20_poly1305);
  CHECK(best_cipher_for("OPENSSL_ia32cap=0xfdfa32034f8bffff:0x0") == cipher_id::chacha20_poly1305);
  CHECK(best_cipher_for("OPENSSL_armcap=0xbd") == cipher_id::aes256_gcm);
  CHECK(best_cipher_for("OPENSSL_armcap=0x81") == cipher_id::chacha20_poly1305);
  CHECK(best_cipher_for("N/A") == cipher_id::chacha20_poly1305);
  CHECK(best_cipher_for("") == cipher_id::chacha20_poly1305);
}
