// libcrypto's AEAD contexts, owned, keyed once and pooled: setting a key costs more than sealing a
// small frame. For frame.cpp and shard.cpp only. A pool is thread-safe; a context taken from it
// belongs to one thread until it goes.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include <openssl/evp.h>

#include "codec/frame.hpp"

namespace qs::codec::evp {

struct free_context {
  void operator()(EVP_CIPHER_CTX* c) const noexcept { EVP_CIPHER_CTX_free(c); }
};
using context = std::unique_ptr<EVP_CIPHER_CTX, free_context>;
using nonce = std::array<unsigned char, 12>;

enum class direction : int { open = 0, seal = 1 };

/// The 12-byte nonce of a number: 4 bytes little-endian, then zeros.
nonce nonce_of(std::uint32_t number) noexcept;

/// A context with cipher and key set, for one direction. Null if libcrypto refuses.
context make_context(cipher_id cipher, const key32& key, direction dir);

/// Contexts of one key and direction.
class context_pool {
public:
  context_pool(cipher_id cipher, const key32& key, direction dir)
      : cipher_{cipher}, key_{key}, dir_{dir} {}

  class lease {
  public:
    lease(context_pool& pool, context c) : pool_{pool}, context_{std::move(c)} {}
    ~lease() { pool_.give_back(std::move(context_)); }
    lease(const lease&) = delete;
    lease& operator=(const lease&) = delete;
    [[nodiscard]] EVP_CIPHER_CTX* get() const noexcept { return context_.get(); }

  private:
    context_pool& pool_;
    context context_;
  };
  lease take();

private:
  void give_back(context c) noexcept;

  cipher_id cipher_;
  key32 key_;
  direction dir_;
  std::mutex mutex_;
  std::vector<context> free_; ///< at most as many as threads were inside at once
};

/// key = BLAKE2b-256(from, generation ‖ volume id ‖ segment id ‖ salt ‖ cipher): 81 bytes. For
/// frames and for MACs.
key32 segment_key(const key32& from, const volume_id& volume, const segment_info& info);

/// A tag with nothing encrypted: GMAC, or Poly1305 as ChaCha20-Poly1305 keys it. start,
/// add_associated as often as wanted (pieces of a multiple of 16 bytes are fastest), finish_tag.
/// Each false if libcrypto refuses or `sealing` is null.
bool start(EVP_CIPHER_CTX* sealing, std::uint32_t number) noexcept;
bool add_associated(EVP_CIPHER_CTX* sealing, byte_span piece) noexcept;
bool finish_tag(EVP_CIPHER_CTX* sealing, std::array<std::byte, 16>& tag) noexcept;

} // namespace qs::codec::evp
