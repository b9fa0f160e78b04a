#include "codec/seal.hpp"

#include <sodium.h>

#include "base/assert.hpp"

namespace qs::codec {
namespace {

static_assert(seal_nonce_bytes == crypto_aead_xchacha20poly1305_ietf_NPUBBYTES);
static_assert(seal_tag_bytes == crypto_aead_xchacha20poly1305_ietf_ABYTES);

/// kind (1) ‖ volume id (16) ‖ epoch (4) ‖ writer (16) ‖ sequence (8).
buffer associated_data(const seal_place& place) {
  buffer out;
  out.reserve(45);
  byte_writer w{out};
  w.put(static_cast<std::uint8_t>(place.kind)).put_bytes(place.volume);
  put(w, place.session);
  w.put(place.sequence);
  return out;
}

} // namespace

buffer seal(const key32& key, const seal_place& place, byte_span plain, random_source& random) {
  const auto ad = associated_data(place);
  buffer out(plain.size() + seal_overhead);
  random.fill(mutable_byte_span{out}.first(seal_nonce_bytes));
  auto code = crypto_aead_xchacha20poly1305_ietf_encrypt(
      uchars(mutable_byte_span{out}.subspan(seal_nonce_bytes)), nullptr, uchars(plain),
      plain.size(), uchars(ad), ad.size(), nullptr, uchars(byte_span{out}), uchars(key.bytes()));
  QS_ASSERT(code == 0); // only fails for lengths no buffer can have
  return out;
}

result<buffer> open(const key32& key, const seal_place& place, byte_span sealed) {
  if (sealed.size() < seal_overhead)
    return error{errc::corrupt, "a sealed object is shorter than its nonce and tag"};
  const auto ad = associated_data(place);
  buffer out(sealed.size() - seal_overhead);
  auto body = sealed.subspan(seal_nonce_bytes);
  auto code = crypto_aead_xchacha20poly1305_ietf_decrypt(
      uchars(mutable_byte_span{out}), nullptr, nullptr, uchars(body), body.size(), uchars(ad),
      ad.size(), uchars(sealed), uchars(key.bytes()));
  if (code != 0)
    return error{errc::corrupt,
                 "a sealed object does not authenticate: it is damaged, of another place, "
                 "or sealed with another key"};
  return out;
}

std::array<std::byte, 32> keyed_hash(byte_span key, byte_span message) {
  std::array<std::byte, 32> out;
  auto code = crypto_generichash_blake2b(uchars(mutable_byte_span{out}), out.size(),
                                         uchars(message), message.size(), uchars(key), key.size());
  QS_ASSERT(code == 0);
  return out;
}

} // namespace qs::codec
