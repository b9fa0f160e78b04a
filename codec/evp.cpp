#include "codec/evp.hpp"

#include <sodium.h>

#include "base/assert.hpp"

namespace qs::codec::evp {

nonce nonce_of(std::uint32_t number) noexcept {
  nonce out{};
  store_le(reinterpret_cast<std::byte*>(out.data()), number);
  return out;
}

namespace {
/// Looked up once: libcrypto's own short-hands look through its providers each time.
const EVP_CIPHER* type_of(cipher_id cipher) {
  struct free_it {
    void operator()(EVP_CIPHER* c) const noexcept { EVP_CIPHER_free(c); }
  };
  using type = std::unique_ptr<EVP_CIPHER, free_it>;
  static const type aes{EVP_CIPHER_fetch(nullptr, "AES-256-GCM", nullptr)};
  static const type chacha{EVP_CIPHER_fetch(nullptr, "ChaCha20-Poly1305", nullptr)};
  return cipher == cipher_id::aes256_gcm ? aes.get() : chacha.get();
}
} // namespace

context make_context(cipher_id cipher, const key32& key, direction dir) {
  context c{EVP_CIPHER_CTX_new()};
  const auto* type = type_of(cipher);
  if (!c || type == nullptr || EVP_CipherInit_ex(c.get(), type, nullptr, uchars(key.bytes()), nullptr,
                              static_cast<int>(dir)) != 1)
    return nullptr;
  return c;
}

context_pool::lease context_pool::take() {
  {
    std::lock_guard lock{mutex_};
    if (!free_.empty()) {
      auto c = std::move(free_.back());
      free_.pop_back();
      return {*this, std::move(c)};
    }
  }
  return {*this, make_context(cipher_, key_, dir_)};
}

void context_pool::give_back(context c) noexcept {
  if (!c) return;
  std::lock_guard lock{mutex_};
  free_.push_back(std::move(c));
}

key32 segment_key(const key32& from, const volume_id& volume, const segment_info& info) {
  buffer message;
  message.reserve(81);
  byte_writer w{message};
  w.put(info.generation).put_bytes(volume);
  put(w, info.id);
  w.put_bytes(info.salt).put(static_cast<std::uint8_t>(info.cipher));
  auto hash = keyed_hash(from.bytes(), message);
  key32 out{hash};
  sodium_memzero(hash.data(), hash.size());
  return out;
}

bool start(EVP_CIPHER_CTX* sealing, std::uint32_t number) noexcept {
  auto iv = nonce_of(number);
  return sealing != nullptr &&
         EVP_EncryptInit_ex(sealing, nullptr, nullptr, nullptr, iv.data()) == 1;
}

bool add_associated(EVP_CIPHER_CTX* sealing, byte_span piece) noexcept {
  int n = 0;
  return sealing != nullptr && EVP_EncryptUpdate(sealing, nullptr, &n, uchars(piece),
                                                 static_cast<int>(piece.size())) == 1;
}

bool finish_tag(EVP_CIPHER_CTX* sealing, std::array<std::byte, 16>& tag) noexcept {
  int n = 0;
  unsigned char none = 0;
  return sealing != nullptr && EVP_EncryptFinal_ex(sealing, &none, &n) == 1 &&
         EVP_CIPHER_CTX_ctrl(sealing, EVP_CTRL_AEAD_GET_TAG, 16, tag.data()) == 1;
}

} // namespace qs::codec::evp
