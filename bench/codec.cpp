// What codec/ costs on one core, beside the parts it is made of: memcpy, AEAD, zstd, GMAC, ISA-L.
// Bytes per second are bytes of files (plain), also where more is written, so that columns compare.
// The parts run over the same buffers in the same order of sizes as the whole does: frames of 64
// KiB, shards of 516 KiB.
#include <benchmark/benchmark.h>

#include <array>
#include <cstring>

#include <isa-l/erasure_code.h>
#include <zstd.h>

#include "base/assert.hpp"
#include "codec/checksum.hpp"
#include "codec/erasure.hpp"
#include "codec/evp.hpp"
#include "codec/shard.hpp"

namespace {

using namespace qs;
using namespace qs::codec;

constexpr unsigned k = 4, m = 2;
constexpr std::size_t frames = 8 * k;
constexpr std::size_t plain_bytes = frames * frame_plain_max;

buffer noise(std::size_t bytes) {
  buffer out(bytes);
  seeded_random{1}.fill(out);
  return out;
}

/// Words in the frequencies of language: part_zstd's counter says what zstd -1 makes of it.
buffer prose(std::size_t bytes) {
  seeded_random random{2};
  std::vector<std::string> words;
  for (int i = 0; i < 2000; ++i) {
    std::string w;
    for (auto n = 2 + random.below(8); n > 0; --n)
      w.push_back(static_cast<char>('a' + random.below(26)));
    words.push_back(w + (i % 11 == 0 ? ",\n" : " "));
  }
  std::string text;
  while (text.size() < bytes) {
    auto most = 1 + random.below(words.size());
    text += words[random.below(most)];
  }
  text.resize(bytes);
  return to_buffer(text);
}

const buffer& input(bool text) {
  static const auto a = noise(plain_bytes), b = prose(plain_bytes);
  return text ? b : a;
}

key_ring ring() {
  return {volume_keys::derive(root_secret{noise(32)}, "bench"),
          {volume_key::make(1, system_random())}};
}

segment_info info_of(cipher_id cipher, std::uint64_t counter) {
  segment_info info;
  info.id.session.epoch = 1;
  info.id.counter = counter;
  info.generation = 1;
  info.cipher = cipher;
  info.salt = system_random().array<32>();
  return info;
}

struct encoded {
  segment_info info;
  seal_record record;
  std::vector<buffer_ptr> values;
  std::vector<directory_entry> entries;
  std::vector<frame_place> places;
};

/// The values of the last segments come back for the next, as they do in a volume.
buffer_pool& values_pool() {
  static buffer_pool pool{shard_value_max, 2 * (k + m)};
  return pool;
}

/// The whole way of one segment: pack all frames, seal each where it will be sent from, seal
/// directories, make all shard values.
encoded encode_segment(const key_ring& keys, const segment_info& info, byte_span plain) {
  static std::array<std::byte, frame_plain_max> scratch;
  encoded out;
  out.info = info;
  auto cipher = *make_frame_cipher(keys, info);
  segment_packer packer{k};
  segment_body body{values_pool()};
  for (std::uint32_t i = 0; i < frames; ++i) {
    auto packed =
        *pack_frame(plain.subspan(i * std::size_t{frame_plain_max}, frame_plain_max), scratch);
    directory_entry e;
    e.stored_length = packed.stored_length();
    e.plain_length = packed.plain_length;
    e.codec = packed.codec;
    e.frame_number = i;
    auto place = packer.add(e);
    QS_ASSERT(place.has_value());
    QS_ASSERT(cipher->seal(i, packed, *body.room(*place, e.stored_length)).ok());
    out.entries.push_back(e);
    out.places.push_back(*place);
  }
  out.record = *seal_segment(keys, info, packer.layout(), system_random());
  out.values = *build_shards(keys, out.record, std::move(body), m);
  return out;
}

void set_bytes(benchmark::State& state, std::size_t per_round) {
  state.SetBytesProcessed(static_cast<std::int64_t>(per_round) *
                          static_cast<std::int64_t>(state.iterations()));
}

cipher_id cipher_of(const benchmark::State& state) {
  return static_cast<cipher_id>(state.range(1));
}

// -- The whole

void encode_4_2(benchmark::State& state) {
  auto keys = ring();
  const auto& plain = input(state.range(0) != 0);
  std::uint64_t counter = 0;
  for (auto _ : state)
    benchmark::DoNotOptimize(encode_segment(keys, info_of(cipher_of(state), ++counter), plain));
  set_bytes(state, plain_bytes);
}

/// Every frame out of data shards whose headers are opened; `lost` data shards are decoded from
/// parity, bodies checked.
void decode(benchmark::State& state, unsigned lost) {
  auto keys = ring();
  buffer out(frame_plain_max);
  auto s = encode_segment(keys, info_of(cipher_of(state), 1), input(state.range(0) != 0));
  auto check = lost == 0 ? shard_check::header : shard_check::body;
  for (auto _ : state) {
    std::vector<shard> have;
    for (unsigned i = lost; i < s.values.size() && have.size() < k; ++i)
      if (s.values[i]) have.push_back(*open_shard(keys, s.values[i], check));
    auto cipher = *make_frame_cipher(keys, s.info);
    std::vector<buffer> recovered(lost);
    for (unsigned i = 0; i < lost; ++i) {
      recovered[i].resize(s.record.shard_length);
      QS_ASSERT(recover_range(have, i, 0, recovered[i]).ok());
    }
    for (std::size_t i = 0; i < frames; ++i) {
      const auto& e = s.entries[i];
      auto [index, position] = s.places[i];
      auto bytes = index < lost ? byte_span{recovered[index]}.subspan(position, e.stored_length)
                                : *frame_bytes(have[index - lost], position, e.stored_length);
      QS_ASSERT(
          cipher->open(e.frame_number, e.codec, bytes, mutable_byte_span{out}.first(e.plain_length))
              .ok());
    }
    benchmark::DoNotOptimize(out.data());
  }
  set_bytes(state, plain_bytes);
}

void decode_4_2(benchmark::State& state) { decode(state, 0); }
void decode_4_2_two_lost(benchmark::State& state) { decode(state, 2); }

/// Two shards of six made again, as repair does: four checked, two rebuilt. Bytes are those of the
/// segment's data.
void rebuild_4_2(benchmark::State& state) {
  auto keys = ring();
  auto s = encode_segment(keys, info_of(cipher_of(state), 1), input(state.range(0) != 0));
  const unsigned wanted[] = {0, 5};
  for (auto _ : state) {
    std::vector<shard> have;
    for (unsigned i : {1U, 2U, 3U, 4U})
      if (s.values[i]) have.push_back(*open_shard(keys, s.values[i], shard_check::body));
    benchmark::DoNotOptimize(rebuild_shards(keys, have, wanted));
  }
  set_bytes(state, plain_bytes);
}

/// Only the second half of encoding: sealed frames come from elsewhere (in a volume, out of the log)
/// and are copied to their places.
void build_shards_4_2(benchmark::State& state) {
  auto keys = ring();
  auto s = encode_segment(keys, info_of(cipher_of(state), 1), input(state.range(0) != 0));
  std::vector<buffer> stored;
  for (std::size_t i = 0; i < frames; ++i) {
    auto payload = byte_span{*s.values[s.places[i].shard]}.subspan(shard_header_bytes);
    stored.push_back(to_buffer(payload.subspan(s.places[i].position, s.entries[i].stored_length)));
  }
  for (auto _ : state) {
    segment_body body{values_pool(), s.record.shard_length};
    for (std::size_t i = 0; i < frames; ++i) {
      auto room = *body.room(s.places[i], s.entries[i].stored_length);
      std::memcpy(room.data(), stored[i].data(), room.size());
    }
    benchmark::DoNotOptimize(*build_shards(keys, s.record, std::move(body), m));
  }
  set_bytes(state, plain_bytes);
}

// -- The parts

void part_memcpy(benchmark::State& state) {
  const auto& in = input(false);
  buffer out(in.size());
  for (auto _ : state) {
    std::memcpy(out.data(), in.data(), in.size());
    benchmark::ClobberMemory();
  }
  set_bytes(state, plain_bytes);
}

/// All frames through libcrypto alone, each with associated data and its tag as a frame has them,
/// contexts reused, from and to memory that is there.
void part_aead(benchmark::State& state, evp::direction dir) {
  key32 key;
  auto context = evp::make_context(cipher_of(state), key, dir);
  const auto& in = input(false);
  buffer out(in.size());
  int n = 0;
  std::uint32_t number = 0;
  std::array<unsigned char, 5> associated{};
  std::array<unsigned char, frame_tag_bytes> tag{};
  for (auto _ : state) {
    for (std::size_t i = 0; i < frames; ++i) {
      auto iv = evp::nonce_of(++number);
      EVP_CipherInit_ex(context.get(), nullptr, nullptr, nullptr, iv.data(), -1);
      if (dir == evp::direction::open) // of something else: the work is the same, the answer no
        EVP_CIPHER_CTX_ctrl(context.get(), EVP_CTRL_AEAD_SET_TAG, frame_tag_bytes, tag.data());
      EVP_CipherUpdate(context.get(), nullptr, &n, associated.data(), associated.size());
      EVP_CipherUpdate(context.get(), uchars(mutable_byte_span{out}.subspan(i * frame_plain_max)),
                       &n, uchars(byte_span{in}.subspan(i * frame_plain_max)), frame_plain_max);
      EVP_CipherFinal_ex(context.get(), tag.data(), &n);
      if (dir == evp::direction::seal)
        EVP_CIPHER_CTX_ctrl(context.get(), EVP_CTRL_AEAD_GET_TAG, frame_tag_bytes, tag.data());
    }
    benchmark::ClobberMemory();
  }
  set_bytes(state, plain_bytes);
}
void part_aead_seal(benchmark::State& state) { part_aead(state, evp::direction::seal); }
void part_aead_open(benchmark::State& state) { part_aead(state, evp::direction::open); }

void part_mac(benchmark::State& state) {
  key32 key;
  auto context = evp::make_context(cipher_of(state), key, evp::direction::seal);
  auto body = byte_span{input(false)}.first(shard_payload_max);
  std::array<std::byte, 16> tag;
  std::uint32_t number = 0;
  for (auto _ : state) {
    QS_ASSERT(evp::start(context.get(), ++number) && evp::add_associated(context.get(), body) &&
              evp::finish_tag(context.get(), tag));
    benchmark::DoNotOptimize(tag);
  }
  set_bytes(state, shard_payload_max);
}

void part_isal_4_2(benchmark::State& state) {
  std::vector<buffer> all;
  for (unsigned i = 0; i < k + m; ++i) all.push_back(noise(shard_payload_max));
  const std::byte* in[] = {all[0].data(), all[1].data(), all[2].data(), all[3].data()};
  std::byte* out[] = {all[4].data(), all[5].data()};
  auto with = erasure::transform::encode(k, k, m);
  for (auto _ : state) {
    with.run(shard_payload_max, in, out);
    benchmark::ClobberMemory();
  }
  set_bytes(state, std::size_t{k} * shard_payload_max);
}

void part_zstd(benchmark::State& state) {
  const auto& in = input(state.range(0) != 0);
  auto* context = ZSTD_createCCtx();
  buffer out(ZSTD_compressBound(frame_plain_max));
  std::size_t packed = 0;
  for (auto _ : state) {
    packed = 0;
    for (std::size_t i = 0; i < frames; ++i)
      packed += ZSTD_compressCCtx(context, out.data(), out.size(), in.data() + i * frame_plain_max,
                                  frame_plain_max, 1);
  }
  ZSTD_freeCCtx(context);
  state.counters["packed"] = static_cast<double>(packed) / plain_bytes;
  set_bytes(state, plain_bytes);
}

void part_unzstd(benchmark::State& state) {
  const auto& in = input(state.range(0) != 0);
  auto* context = ZSTD_createDCtx();
  std::vector<buffer> packed;
  for (std::size_t i = 0; i < frames; ++i) {
    buffer one(ZSTD_compressBound(frame_plain_max));
    one.resize(
        ZSTD_compress(one.data(), one.size(), in.data() + i * frame_plain_max, frame_plain_max, 1));
    packed.push_back(std::move(one));
  }
  buffer out(frame_plain_max);
  for (auto _ : state)
    for (const auto& one : packed)
      benchmark::DoNotOptimize(
          ZSTD_decompressDCtx(context, out.data(), out.size(), one.data(), one.size()));
  ZSTD_freeDCtx(context);
  set_bytes(state, plain_bytes);
}

void part_quick_look(benchmark::State& state) {
  auto in = byte_span{input(state.range(0) != 0)}.first(frame_plain_max);
  for (auto _ : state) benchmark::DoNotOptimize(looks_compressible(in));
  set_bytes(state, frame_plain_max);
}

void part_checksum64(benchmark::State& state) {
  auto in = byte_span{input(false)}.first(frame_plain_max);
  for (auto _ : state) benchmark::DoNotOptimize(checksum64(in));
  set_bytes(state, frame_plain_max);
}

/// Memory for six shard values, touched once and given back: what the allocator and the kernel
/// take.
void part_allocate(benchmark::State& state) {
  for (auto _ : state)
    for (unsigned i = 0; i < k + m; ++i) benchmark::DoNotOptimize(buffer(shard_value_max).data());
  set_bytes(state, plain_bytes);
}

void text_and_cipher(benchmark::internal::Benchmark* b) {
  b->ArgNames({"text", "cipher"})->Unit(benchmark::kMicrosecond);
  for (int text : {0, 1})
    for (int cipher : {1, 2}) b->Args({text, cipher});
}
void cipher_only(benchmark::internal::Benchmark* b) {
  b->ArgNames({"text", "cipher"})->Unit(benchmark::kMicrosecond)->Args({0, 1})->Args({0, 2});
}
void text_only(benchmark::internal::Benchmark* b) {
  b->ArgNames({"text"})->Unit(benchmark::kMicrosecond)->Arg(0)->Arg(1);
}

BENCHMARK(encode_4_2)->Apply(text_and_cipher);
BENCHMARK(build_shards_4_2)->Apply(cipher_only);
BENCHMARK(decode_4_2)->Apply(text_and_cipher);
BENCHMARK(decode_4_2_two_lost)->Apply(text_and_cipher);
BENCHMARK(rebuild_4_2)->Apply(cipher_only);
BENCHMARK(part_memcpy)->Unit(benchmark::kMicrosecond);
BENCHMARK(part_aead_seal)->Apply(cipher_only);
BENCHMARK(part_aead_open)->Apply(cipher_only);
BENCHMARK(part_mac)->Apply(cipher_only);
BENCHMARK(part_isal_4_2)->Unit(benchmark::kMicrosecond);
BENCHMARK(part_zstd)->Apply(text_only);
BENCHMARK(part_unzstd)->Apply(text_only);
BENCHMARK(part_quick_look)->Apply(text_only);
BENCHMARK(part_checksum64)->Unit(benchmark::kMicrosecond);
BENCHMARK(part_allocate)->Unit(benchmark::kMicrosecond);

} // namespace

BENCHMARK_MAIN();
