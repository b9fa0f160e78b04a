// Everything in codec/ that reads bytes of others: shard headers, directories, frames, seal
// records, sealed lists. What is authenticated would never be reached by guessing, so most modes
// seal the input first: a reader must survive what a hostile or broken writer with the right keys
// would have made. The first byte of the input is the mode.
#include <array>
#include <cstdlib>

#include <sodium.h>

#include "base/assert.hpp"
#include "codec/directory.hpp"
#include "codec/evp.hpp"
#include "codec/shard.hpp"
#include "support/placed_frames.hpp"

namespace {

using namespace qs;
using namespace qs::codec;
using qs::codec::test::build_from;
using qs::codec::test::placed_frame;

const key_ring& ring() {
  static const key_ring one{volume_keys::derive(root_secret{buffer(32)}, "fuzz"),
                            {volume_key{1, key32{buffer(32)}}}};
  return one;
}

segment_info info_of(cipher_id cipher) {
  segment_info info;
  info.generation = 1;
  info.cipher = cipher;
  return info;
}

void raw_shard(byte_span in) {
  (void)open_shard_header(ring().volume(), in);
  (void)open_shard(ring(), share(to_buffer(in)), shard_check::body);
}

/// 144 bytes of fields, sealed as a writer would, then a payload.
void sealed_shard(byte_span in) {
  buffer fields(144);
  std::copy_n(in.begin(), std::min(in.size(), fields.size()), fields.begin());
  // Most random fields fail at the volume id, the first; the interesting ones come after it.
  std::copy(ring().volume().id().begin(), ring().volume().id().end(), fields.begin());
  buffer value(shard_header_bytes);
  const unsigned char clear[8] = {'q', 's', 'S', 'h', 1, 0, 0, 0};
  std::memcpy(value.data(), clear, sizeof clear);
  auto* nonce = uchars(mutable_byte_span{value}) + 8;
  auto key = ring().volume().shard_header_nonces().bytes();
  crypto_generichash_blake2b(nonce, 24, uchars(byte_span{fields}), fields.size(), uchars(key),
                             key.size());
  crypto_aead_xchacha20poly1305_ietf_encrypt(
      uchars(mutable_byte_span{value}) + 32, nullptr, uchars(byte_span{fields}), fields.size(),
      clear, sizeof clear, nullptr, nonce, uchars(ring().volume().shard_headers().bytes()));
  auto header = open_shard_header(ring().volume(), value);
  if (!header) return;
  QS_ASSERT(header->shard_length <= shard_payload_max &&
            header->directory_length <= header->shard_length);
  QS_ASSERT(header->data_shards >= 1 && header->data_shards <= 32 &&
            header->used_shards <= header->data_shards);
  value.resize(shard_header_bytes + header->shard_length);
  auto rest = in.subspan(std::min(in.size(), fields.size()));
  std::copy_n(rest.begin(), std::min<std::size_t>(rest.size(), header->shard_length),
              value.begin() + shard_header_bytes);
  auto whole = open_shard(ring(), share(std::move(value)), shard_check::header);
  QS_ASSERT(whole.ok());
  (void)list_frames(ring(), *whole);
  (void)frame_bytes(*whole, header->info.generation, 100); // any number will do
}

void directory_plain(byte_span in) {
  if (in.size() < 4) return;
  auto length = load_le<std::uint32_t>(in.data()) % (shard_payload_max + 1);
  auto entries = directory::decode(in.subspan(4), length);
  if (!entries) return;
  QS_ASSERT(directory::encode(*entries) == to_buffer(in.subspan(4)));
  std::uint32_t end = 0;
  for (const auto& e : *entries) {
    QS_ASSERT(e.position >= end && e.stored_length <= frame_stored_max);
    end = e.position + e.stored_length;
  }
  QS_ASSERT(end + directory_bytes(entries->size()) <= length);
}

void record(byte_span in) {
  auto one = decode_seal_record(in);
  if (one) QS_ASSERT(encode(*one) == to_buffer(in));
}

/// The input is what a sealed frame holds: zstd meets any bytes and any length.
void sealed_frame(byte_span in) {
  if (in.size() < 6) return;
  auto cipher =
      (in[0] & std::byte{1}) == std::byte{0} ? cipher_id::aes256_gcm : cipher_id::chacha20_poly1305;
  auto codec = static_cast<frame_codec>(in[1] & std::byte{3});
  auto plain_length = load_le<std::uint32_t>(in.data() + 2) % (frame_plain_max + 2);
  auto body = in.subspan(6);
  auto info = info_of(cipher);
  auto context = evp::make_context(
      cipher, evp::segment_key(ring().newest().segments(), ring().volume().id(), info),
      evp::direction::seal);
  buffer stored(body.size() + frame_tag_bytes);
  std::array<std::byte, 5> ad{};
  store_le(ad.data(), plain_length);
  ad[4] = static_cast<std::byte>(codec);
  std::array<std::byte, 16> tag;
  int n = 0;
  QS_ASSERT(evp::start(context.get(), 7) && evp::add_associated(context.get(), ad));
  if (!body.empty())
    EVP_EncryptUpdate(context.get(), uchars(mutable_byte_span{stored}), &n, uchars(body),
                      static_cast<int>(body.size()));
  QS_ASSERT(evp::finish_tag(context.get(), tag));
  std::copy(tag.begin(), tag.end(), stored.end() - frame_tag_bytes);
  auto reader = *make_frame_cipher(ring(), info);
  buffer out(plain_length);
  auto opened = reader->open(7, codec, stored, out);
  if (codec == frame_codec::raw && !body.empty() && body.size() == plain_length)
    QS_ASSERT(opened.ok() && out == to_buffer(body));
}

void sealed_lists(byte_span in) {
  (void)unwrap_volume_keys(ring().volume(), in);
  (void)open_identity(ring().volume(), in);
}

/// Any lengths, k, m and losses: what is rebuilt is what was built.
void rebuild(byte_span in) {
  if (in.size() < 8) return;
  auto k = 1 + static_cast<unsigned>(in[0]) % 6, m = static_cast<unsigned>(in[1]) % 5;
  auto kept = load_le<std::uint16_t>(in.data() + 2);
  seeded_random random{1};
  auto info = info_of((in[4] & std::byte{1}) == std::byte{0} ? cipher_id::aes256_gcm
                                                             : cipher_id::chacha20_poly1305);
  segment_packer packer{k};
  std::vector<buffer> bytes;
  std::vector<placed_frame> placed;
  for (std::uint32_t i = 0; 5 + 2 * i + 1 < in.size() && i < 40; ++i) {
    directory_entry e;
    e.frame_number = i;
    e.plain_length = 1U + load_le<std::uint16_t>(in.data() + 5 + 2 * i);
    e.stored_length = e.plain_length + frame_tag_bytes;
    auto place = packer.add(e);
    if (!place) break;
    bytes.emplace_back(e.stored_length);
    random.fill(bytes.back());
    placed.push_back({*place, {}});
  }
  for (std::size_t i = 0; i < placed.size(); ++i) placed[i].bytes = bytes[i];
  auto sealed = *seal_segment(ring(), info, packer.layout(), random);
  auto values = *build_from(ring(), sealed, placed, m);
  std::vector<shard> have;
  std::vector<unsigned> all;
  for (unsigned i = 0; i < values.size(); ++i) {
    all.push_back(i);
    if (values[i] && (kept >> i & 1U) != 0)
      have.push_back(*open_shard(ring(), values[i], shard_check::body));
  }
  auto again = rebuild_shards(ring(), have, all);
  auto enough = !have.empty() && have.size() + (k - sealed.used_shards()) >= k;
  QS_ASSERT(again.ok() == enough);
  for (unsigned i = 0; enough && i < values.size(); ++i)
    QS_ASSERT(values[i] ? *values[i] == *(*again)[i] : (*again)[i] == nullptr);
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0 || sodium_init() < 0) return 0;
  auto in = std::as_bytes(std::span{data, size}).subspan(1);
  switch (data[0] % 7) {
  case 0:
    raw_shard(in);
    break;
  case 1:
    sealed_shard(in);
    break;
  case 2:
    directory_plain(in);
    break;
  case 3:
    record(in);
    break;
  case 4:
    sealed_frame(in);
    break;
  case 5:
    sealed_lists(in);
    break;
  default:
    rebuild(in);
    break;
  }
  return 0;
}
