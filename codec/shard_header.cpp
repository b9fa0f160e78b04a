#include "codec/shard_header.hpp"

#include <algorithm>
#include <cstring>

#include <fmt/format.h>
#include <sodium.h>

#include "base/assert.hpp"
#include "codec/directory.hpp"

namespace qs::codec {
namespace header {
namespace {

constexpr std::array<std::byte, 4> magic{std::byte{'q'}, std::byte{'s'}, std::byte{'S'},
                                         std::byte{'h'}};
constexpr std::uint16_t format = 1;
constexpr std::size_t clear_bytes = 8; // magic (4), format (2), zeros (2): the associated data
constexpr std::size_t nonce_bytes = 24;
constexpr std::size_t sealed_at = clear_bytes + nonce_bytes;
constexpr std::size_t plain_bytes = 144; // fields (96), MAC (16), zeros (32)
static_assert(sealed_at + plain_bytes + seal_tag_bytes == shard_header_bytes);

using plain_header = std::array<std::byte, plain_bytes>;
using clear_header = std::array<std::byte, clear_bytes>;
using nonce = std::array<std::byte, nonce_bytes>;

clear_header clear() {
  clear_header out{};
  std::copy(magic.begin(), magic.end(), out.begin());
  store_le(out.data() + 4, format);
  return out;
}

nonce nonce_of(const volume_keys& keys, const plain_header& plain) {
  nonce out;
  auto key = keys.shard_header_nonces().bytes();
  auto code =
      crypto_generichash_blake2b(uchars(mutable_byte_span{out}), out.size(),
                                 uchars(byte_span{plain}), plain.size(), uchars(key), key.size());
  QS_ASSERT(code == 0);
  return out;
}

/// Every bound that later code relies on.
bool is_possible(const shard_header& h) noexcept {
  auto k = h.data_shards;
  if (k < 1 || k > limits::data_shards_max || h.used_shards < 1 || h.used_shards > k) return false;
  if (h.index >= k + limits::parity_shards_max || (h.index >= h.used_shards && h.index < k))
    return false;
  if (h.shard_length < shard_length_step || h.shard_length > shard_payload_max ||
      h.shard_length % shard_length_step != 0)
    return false;
  if (h.is_parity() ? h.directory_length != 0
                    : !directory::is_possible_length(h.directory_length) ||
                          h.directory_length > h.shard_length)
    return false;
  return h.info.id.session.epoch < epoch_limit && h.info.id.counter < segment_counter_limit &&
         (h.info.cipher == cipher_id::aes256_gcm || h.info.cipher == cipher_id::chacha20_poly1305);
}

/// Nothing unless what should be zero is.
std::optional<shard_header> decode(const plain_header& plain) {
  byte_reader in{plain};
  shard_header h;
  h.volume = in.get_array<16>();
  h.info.id = get_segment_id(in);
  h.index = in.get<std::uint8_t>();
  h.data_shards = in.get<std::uint8_t>();
  h.used_shards = in.get<std::uint8_t>();
  h.info.cipher = static_cast<cipher_id>(in.get<std::uint8_t>());
  h.shard_length = in.get<std::uint32_t>();
  h.directory_length = in.get<std::uint32_t>();
  h.info.generation = in.get<std::uint32_t>();
  auto zeros = in.get<std::uint32_t>();
  h.info.salt = in.get_array<32>();
  h.mac = in.get_array<16>();
  auto rest = in.get_bytes(in.left());
  if (zeros != 0 ||
      std::any_of(rest.begin(), rest.end(), [](std::byte b) { return b != std::byte{0}; }))
    return {};
  return h;
}

} // namespace

fields encode_fields(const shard_header& h) {
  buffer out;
  out.reserve(fields_bytes);
  byte_writer w{out};
  w.put_bytes(h.volume);
  put(w, h.info.id);
  w.put(static_cast<std::uint8_t>(h.index)).put(static_cast<std::uint8_t>(h.data_shards));
  w.put(static_cast<std::uint8_t>(h.used_shards)).put(static_cast<std::uint8_t>(h.info.cipher));
  w.put(h.shard_length).put(h.directory_length).put(h.info.generation).put(std::uint32_t{0});
  w.put_bytes(h.info.salt);
  QS_ASSERT(out.size() == fields_bytes);
  fields done;
  std::copy(out.begin(), out.end(), done.begin());
  return done;
}

void write(const volume_keys& keys, const shard_header& h, mutable_byte_span out) {
  QS_ASSERT(out.size() == shard_header_bytes && is_possible(h));
  plain_header plain{};
  auto f = encode_fields(h);
  std::copy(f.begin(), f.end(), plain.begin());
  std::copy(h.mac.begin(), h.mac.end(), plain.begin() + fields_bytes);
  auto ad = clear();
  auto iv = nonce_of(keys, plain);
  std::copy(ad.begin(), ad.end(), out.begin());
  std::copy(iv.begin(), iv.end(), out.begin() + clear_bytes);
  auto code = crypto_aead_xchacha20poly1305_ietf_encrypt(
      uchars(out.subspan(sealed_at)), nullptr, uchars(byte_span{plain}), plain.size(),
      uchars(byte_span{ad}), ad.size(), nullptr, uchars(byte_span{iv}),
      uchars(keys.shard_headers().bytes()));
  QS_ASSERT(code == 0);
}

mac_stream::mac_stream(const key32& key, const shard_header& h)
    : context_{evp::make_context(h.info.cipher, key, evp::direction::seal)},
      ok_{evp::start(context_.get(), h.index) &&
          evp::add_associated(context_.get(), encode_fields(h))} {}

result<shard_mac> mac_stream::finish() noexcept {
  shard_mac out;
  if (!ok_ || !evp::finish_tag(context_.get(), out))
    return error{errc::io, "libcrypto failed to authenticate a shard"};
  return out;
}

} // namespace header

result<shard_header> open_shard_header(const volume_keys& keys, byte_span value) {
  using namespace header;
  if (value.size() < shard_header_bytes)
    return error{errc::corrupt, fmt::format("a shard of {} bytes has no header", value.size())};
  auto ad = clear();
  if (!std::equal(magic.begin(), magic.end(), value.begin()))
    return error{errc::corrupt, "this is no shard: its magic bytes are wrong"};
  if (auto found = load_le<std::uint16_t>(value.data() + 4); found != format)
    return error{errc::version_mismatch,
                 fmt::format("a shard has format {}, this version reads {}", found, format)};
  plain_header plain;
  auto sealed = value.subspan(sealed_at, plain_bytes + seal_tag_bytes);
  auto clear_part = value.first(clear_bytes);
  auto code = crypto_aead_xchacha20poly1305_ietf_decrypt(
      uchars(mutable_byte_span{plain}), nullptr, nullptr, uchars(sealed), sealed.size(),
      uchars(clear_part), clear_part.size(), uchars(value.subspan(clear_bytes)),
      uchars(keys.shard_headers().bytes()));
  if (code != 0 || !std::equal(ad.begin(), ad.end(), value.begin()))
    return error{errc::corrupt,
                 "a shard's header does not authenticate: it is damaged or of another volume"};
  auto h = decode(plain);
  auto iv = nonce_of(keys, plain);
  if (!h || h->volume != keys.id() || !is_possible(*h) ||
      !std::equal(iv.begin(), iv.end(), value.begin() + clear_bytes))
    return error{errc::corrupt, "a shard's header is authentic but impossible"};
  return *h;
}

} // namespace qs::codec
