// The one way small things are sealed: XChaCha20-Poly1305, a random nonce in front, and the place
// where the thing belongs as associated data. For identity objects, wrapped volume keys, local
// secrets, directories, journal and superblock; frames and shard headers have ciphers of their own
// (frame.hpp, shard.hpp). Any thread.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/bytes.hpp"
#include "base/random.hpp"
#include "base/result.hpp"
#include "base/secret.hpp"
#include "codec/ids.hpp"

namespace qs::codec {

using key32 = secret<32>;

/// What a sealed thing is: the first byte of its associated data. Numbers are never given out
/// twice.
enum class seal_kind : std::uint8_t {
  wrapped_volume_key = 1,
  identity = 2,
  local_secret = 3,
  directory = 4,
  journal = 5,
  pointer = 6,
  superblock = 7,
  manifest = 8,
  configuration = 9,
  claim = 10,
};

/// Where a sealed thing belongs. Opening it anywhere else fails. `session` and `sequence` stay zero
/// where a thing has none.
struct seal_place {
  seal_kind kind;
  volume_id volume;
  session_id session;
  std::uint64_t sequence = 0;
};

inline constexpr std::size_t seal_nonce_bytes = 24;
inline constexpr std::size_t seal_tag_bytes = 16;
/// Nonce and tag: how much longer the sealed bytes are.
inline constexpr std::size_t seal_overhead = seal_nonce_bytes + seal_tag_bytes;

/// nonce (24) ‖ ciphertext ‖ tag (16).
buffer seal(const key32& key, const seal_place& place, byte_span plain, random_source& random);
/// Errors: corrupt, if it is not what was sealed with this key for this place.
result<buffer> open(const key32& key, const seal_place& place, byte_span sealed);

/// BLAKE2b-256(key, message): all derivations that are not crypto_kdf.
std::array<std::byte, 32> keyed_hash(byte_span key, byte_span message);

} // namespace qs::codec
