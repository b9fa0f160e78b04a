// Frame: up to 64 KiB of one file, compressed alone and sealed with a key of its segment. Bytes in,
// bytes out. docs/formats/frame.md has the bytes. Who owns the open segment gives out frame
// numbers, each once.
//
// Invariant 1 (no key and nonce for two plaintexts): the key depends on 32 random bytes of salt,
// which are in the log before the first frame is sealed; the nonce is the frame number, given out
// once per segment and never again. Invariant 4: a frame opens only under its segment, number,
// plain length and codec; lengths are checked before.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>

#include "base/bytes.hpp"
#include "base/result.hpp"
#include "codec/keys.hpp"

namespace qs::codec {

enum class cipher_id : std::uint8_t { aes256_gcm = 1, chacha20_poly1305 = 2 };
enum class frame_codec : std::uint8_t { raw = 0, zstd = 1 };

inline constexpr std::uint32_t frame_plain_max = 64 * 1024;
inline constexpr std::uint32_t frame_tag_bytes = 16;
/// A frame never takes more than its plain bytes and a tag: what does not shrink is kept raw.
inline constexpr std::uint32_t frame_stored_max = frame_plain_max + frame_tag_bytes;

/// The faster cipher here: AES-GCM where libcrypto uses AES and carry-less multiplication in
/// hardware (so masking them with OPENSSL_ia32cap changes the answer), else ChaCha20-Poly1305.
/// Constant within a process.
cipher_id best_cipher() noexcept;
/// Of libcrypto's own description of the CPU (OPENSSL_INFO_CPU_SETTINGS).
cipher_id best_cipher_for(std::string_view cpu_settings) noexcept;

/// What all frames and shards of a segment share, beside the volume. Chosen once, when the segment
/// is opened.
struct segment_info {
  segment_id id;
  segment_salt salt{};
  std::uint32_t generation = 0; ///< of the volume key
  cipher_id cipher = cipher_id::aes256_gcm;
  bool operator==(const segment_info&) const = default;
};

/// A new segment's info: newest generation, best cipher, fresh salt.
segment_info new_segment(const key_ring& ring, const segment_id& id, random_source& random);

struct frame_size {
  std::uint32_t stored = 0;
  std::uint32_t plain = 0;
  frame_codec codec = frame_codec::raw;
  bool operator==(const frame_size&) const = default;
};

/// Whether zstd is worth trying: false if a sample looks like noise. Never changes what a frame
/// means.
bool looks_compressible(byte_span plain) noexcept;

/// A frame as it will be sealed: compressed, or as it is. What it takes is known before it is sealed,
/// so that it can be sealed straight into its place.
struct packed_frame {
  byte_span body; ///< the plain bytes themselves, or in the caller's scratch
  std::uint32_t plain_length = 0;
  frame_codec codec = frame_codec::raw;
  [[nodiscard]] std::uint32_t stored_length() const noexcept {
    return static_cast<std::uint32_t>(body.size() + frame_tag_bytes);
  }
};
/// Compresses `plain` (1 to frame_plain_max bytes) into `scratch` (at least as long; may not
/// overlap) if that saves at least 3 %. Errors: invalid_argument.
result<packed_frame> pack_frame(byte_span plain, mutable_byte_span scratch);

/// Seals and opens the frames of one segment. The key is derived once; contexts of libcrypto are
/// kept and reused. Thread-safe: several threads may seal and open at the same time. Costs about 2
/// µs to make.
class frame_cipher {
public:
  /// `key` must be of the generation that `info` names.
  frame_cipher(const volume_id& volume, const volume_key& key, const segment_info& info);
  ~frame_cipher();
  frame_cipher(const frame_cipher&) = delete;
  frame_cipher& operator=(const frame_cipher&) = delete;

  /// pack_frame() and seal in one: compresses into `out` (at least plain.size() + frame_tag_bytes;
  /// may not overlap), seals there and says how many bytes it took. Errors: invalid_argument, io
  /// (libcrypto failed).
  result<frame_size> seal(std::uint32_t frame_number, byte_span plain, mutable_byte_span out) const;
  /// Seals what was packed into the first stored_length() bytes of `out`, which may begin where
  /// `packed.body` does. Errors: invalid_argument, io.
  result<frame_size> seal(std::uint32_t frame_number, const packed_frame& packed,
                          mutable_byte_span out) const;
  /// Opens into `out`, whose size must be the frame's plain length. On an error `out` holds zeros.
  /// Errors: corrupt.
  status open(std::uint32_t frame_number, frame_codec codec, byte_span stored,
              mutable_byte_span out) const;

private:
  class impl;
  std::unique_ptr<impl> impl_;
};

/// As above for one generation of a ring. Errors: not_found if the ring lacks it.
result<std::unique_ptr<frame_cipher>> make_frame_cipher(const key_ring& ring,
                                                        const segment_info& info);

} // namespace qs::codec
