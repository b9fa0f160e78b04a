#include "codec/frame.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstring>

#include <fmt/format.h>
#include <openssl/crypto.h>
#include <zstd.h>

#include "base/assert.hpp"
#include "codec/evp.hpp"

namespace qs::codec {
namespace {

constexpr int zstd_level = 1;

// zstd's contexts hold some hundred KiB: one per thread, made when a thread first needs it, gone
// with the thread.
ZSTD_CCtx* compressor() {
  struct free_it {
    void operator()(ZSTD_CCtx* c) const noexcept { ZSTD_freeCCtx(c); }
  };
  static thread_local std::unique_ptr<ZSTD_CCtx, free_it> context{ZSTD_createCCtx()};
  return context.get();
}

ZSTD_DCtx* decompressor() {
  struct free_it {
    void operator()(ZSTD_DCtx* c) const noexcept { ZSTD_freeDCtx(c); }
  };
  static thread_local std::unique_ptr<ZSTD_DCtx, free_it> context{ZSTD_createDCtx()};
  return context.get();
}

/// plain length (4) ‖ codec (1).
std::array<std::byte, 5> associated_data(std::uint32_t plain_length, frame_codec codec) {
  std::array<std::byte, 5> out;
  store_le(out.data(), plain_length);
  out[4] = static_cast<std::byte>(codec);
  return out;
}

/// Bytes of zstd's output, or 0 if it does not save 3 %. At most plain.size() * 97 / 100 bytes of
/// `out` are used.
std::size_t compress(byte_span plain, mutable_byte_span out) {
  auto most = plain.size() * 97 / 100;
  if (most == 0 || !looks_compressible(plain)) return 0;
  auto* context = compressor();
  if (context == nullptr) return 0;
  auto n = ZSTD_compressCCtx(context, out.data(), most, plain.data(), plain.size(), zstd_level);
  return ZSTD_isError(n) != 0
             ? 0
             : n; // an error is, but for lack of memory, that `most` was not enough
}

error crypto_failed(const char* doing) {
  return {errc::io, fmt::format("libcrypto failed to {} a frame", doing)};
}

error damaged(std::uint32_t frame_number) {
  return {errc::corrupt,
          fmt::format("frame {} does not authenticate: it is damaged or of another place",
                      frame_number)};
}

bool decrypt(EVP_CIPHER_CTX* context, std::uint32_t number, byte_span ad, byte_span stored,
             std::byte* out) {
  if (context == nullptr) return false;
  auto iv = evp::nonce_of(number);
  auto body = stored.first(stored.size() - frame_tag_bytes);
  std::array<std::byte, frame_tag_bytes> tag;
  std::memcpy(tag.data(), stored.data() + body.size(), tag.size());
  int n = 0;
  unsigned char none = 0;
  return EVP_DecryptInit_ex(context, nullptr, nullptr, nullptr, iv.data()) == 1 &&
         EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_SET_TAG, frame_tag_bytes, tag.data()) == 1 &&
         EVP_DecryptUpdate(context, nullptr, &n, uchars(ad), static_cast<int>(ad.size())) == 1 &&
         EVP_DecryptUpdate(context, reinterpret_cast<unsigned char*>(out), &n, uchars(body),
                           static_cast<int>(body.size())) == 1 &&
         EVP_DecryptFinal_ex(context, &none, &n) == 1;
}

/// The 64 bits behind "name=" or, for the second of two, behind its colon; 0 if there are none.
std::uint64_t cpu_bits(std::string_view settings, std::string_view name) {
  auto at = settings.find(name);
  if (at == std::string_view::npos) return 0;
  auto text = settings.substr(at + name.size());
  if (text.starts_with("0x")) text.remove_prefix(2);
  std::uint64_t bits = 0;
  std::from_chars(text.data(), text.data() + text.size(), bits, 16);
  return bits;
}

} // namespace

cipher_id best_cipher_for(std::string_view cpu_settings) noexcept {
  // Bits as in OPENSSL_ia32cap(3): 57 = AES-NI, 33 = PCLMULQDQ; and in libcrypto's arm_arch.h: 2 =
  // AES, 5 = PMULL.
  constexpr auto x86 = (std::uint64_t{1} << 57) | (std::uint64_t{1} << 33);
  constexpr auto arm = (std::uint64_t{1} << 2) | (std::uint64_t{1} << 5);
  auto fast = (cpu_bits(cpu_settings, "OPENSSL_ia32cap=") & x86) == x86 ||
              (cpu_bits(cpu_settings, "OPENSSL_armcap=") & arm) == arm;
  return fast ? cipher_id::aes256_gcm : cipher_id::chacha20_poly1305;
}

cipher_id best_cipher() noexcept {
  static const auto best = [] {
    const char* settings = OPENSSL_info(OPENSSL_INFO_CPU_SETTINGS);
    return best_cipher_for(settings == nullptr ? "" : settings);
  }();
  return best;
}

segment_info new_segment(const key_ring& ring, const segment_id& id, random_source& random) {
  QS_ASSERT(id.session.epoch < epoch_limit && id.counter < segment_counter_limit);
  return {id, random.array<32>(), ring.newest().generation(), best_cipher()};
}

bool looks_compressible(byte_span plain) noexcept {
  // Sixteen samples of a cache line (more would cost more in misses than it tells), each elsewhere
  // in its 512 bytes, so that one header per disk block does not pass for the whole. The entropy of
  // their single bytes: for noise, 7.82 bits a byte from so few; text has 4 to 5, base64 6, code 6.
  // From 7.2 on Huffman's part is a tenth at most, which is not worth what zstd takes: five times
  // the rest of sealing. Noise that repeats itself over a distance passes for noise: rare, kept raw.
  constexpr std::size_t samples = 16, sample_bytes = 64, taken = samples * sample_bytes;
  if (plain.size() < taken) return true; // zstd is as quick as looking
  std::array<std::uint16_t, 256> counts{};
  auto stride = plain.size() / samples;
  auto room = std::min<std::size_t>(8, stride / sample_bytes);
  auto sample = [&](std::size_t s) {
    return plain.subspan(s * stride + s / 2 * 3 % room * sample_bytes, sample_bytes);
  };
  auto fetch = [&](std::size_t first) { // all at once: one after the other each would be waited for
    for (auto s = first; s < samples; s += 2) {
      __builtin_prefetch(sample(s).data());
      __builtin_prefetch(sample(s).data() + sample_bytes - 1);
    }
  };
  constexpr auto half = sample_bytes / 2;
  // The upper half of every other sample and the lower one of the rest: what repeats itself at each
  // 64 bytes is seen whole.
  auto count_halves = [&](std::size_t first, bool other) {
    for (auto s = first; s < samples; s += 2)
      for (auto b : sample(s).subspan(((s & 2) != 0) != other ? half : 0, half))
        ++counts[static_cast<std::size_t>(b)];
  };
  // Half of every second sample decides where there is nothing to decide, by how often two of its
  // 256 bytes are the same: 127 ± 11 pairs for noise, 222 at 7.2 bits a byte or less (a source's
  // pairs are at least as many as its entropy says).
  fetch(0);
  count_halves(0, false);
  std::uint32_t squares = 0;
  for (auto c : counts) squares += std::uint32_t{c} * c;
  if ((squares - taken / 4) / 2 < 165) return false;
  fetch(1);
  count_halves(0, true);
  count_halves(1, false);
  count_halves(1, true);
  static const auto weighted = [] { // c * log2(c)
    std::array<float, taken + 1> table{};
    for (std::size_t c = 1; c <= taken; ++c)
      table[c] = static_cast<float>(c) * std::log2(static_cast<float>(c));
    return table;
  }();
  std::array<float, 4> sums{}; // one alone would wait for itself at each step
  for (std::size_t i = 0; i < counts.size(); i += sums.size())
    for (std::size_t j = 0; j < sums.size(); ++j) sums[j] += weighted[counts[i + j]];
  constexpr float bits_of_taken = 10; // log2
  return bits_of_taken - (sums[0] + sums[1] + sums[2] + sums[3]) / taken < 7.2F;
}

class frame_cipher::impl {
public:
  impl(cipher_id cipher, const key32& key)
      : sealing{cipher, key, evp::direction::seal}, opening{cipher, key, evp::direction::open} {}
  evp::context_pool sealing;
  evp::context_pool opening;
};

frame_cipher::frame_cipher(const volume_id& volume, const volume_key& key, const segment_info& info)
    : impl_{std::make_unique<impl>(info.cipher, evp::segment_key(key.segments(), volume, info))} {
  QS_ASSERT(key.generation() == info.generation);
}

frame_cipher::~frame_cipher() = default;

result<packed_frame> pack_frame(byte_span plain, mutable_byte_span scratch) {
  if (plain.empty() || plain.size() > frame_plain_max || scratch.size() < plain.size())
    return error{errc::invalid_argument,
                 fmt::format("a frame of {} bytes with {} to pack it in: it must have 1 to {} and as "
                             "much room",
                             plain.size(), scratch.size(), frame_plain_max)};
  packed_frame out{plain, static_cast<std::uint32_t>(plain.size()), frame_codec::raw};
  if (auto compressed = compress(plain, scratch); compressed != 0) {
    out.body = scratch.first(compressed);
    out.codec = frame_codec::zstd;
  }
  return out;
}

result<frame_size> frame_cipher::seal(std::uint32_t frame_number, byte_span plain,
                                      mutable_byte_span out) const {
  // What is compressed into `out` is sealed in place, raw bytes on their way there. The tag's room is
  // asked for whether or not it compresses, so that no length works by luck.
  auto room = out.size() - std::min<std::size_t>(out.size(), frame_tag_bytes);
  QS_TRY_ASSIGN(auto packed, pack_frame(plain, out.first(room)));
  return seal(frame_number, packed, out);
}

result<frame_size> frame_cipher::seal(std::uint32_t frame_number, const packed_frame& packed,
                                      mutable_byte_span out) const {
  const auto& body = packed.body;
  if (body.empty() || body.size() > packed.plain_length || packed.plain_length > frame_plain_max ||
      out.size() < packed.stored_length())
    return error{errc::invalid_argument,
                 fmt::format("a frame of {} bytes, {} packed, does not go into {}: it needs room for "
                             "a tag",
                             packed.plain_length, body.size(), out.size())};
  auto ad = associated_data(packed.plain_length, packed.codec);
  auto iv = evp::nonce_of(frame_number);
  auto lease = impl_->sealing.take();
  auto* context = lease.get();
  int n = 0;
  unsigned char none = 0;
  if (context == nullptr ||
      EVP_EncryptInit_ex(context, nullptr, nullptr, nullptr, iv.data()) != 1 ||
      EVP_EncryptUpdate(context, nullptr, &n, uchars(byte_span{ad}), static_cast<int>(ad.size())) !=
          1 ||
      EVP_EncryptUpdate(context, uchars(out), &n, uchars(body), static_cast<int>(body.size())) !=
          1 ||
      EVP_EncryptFinal_ex(context, &none, &n) != 1 ||
      EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, frame_tag_bytes,
                          out.data() + body.size()) != 1)
    return crypto_failed("seal");
  return frame_size{packed.stored_length(), packed.plain_length, packed.codec};
}

status frame_cipher::open(std::uint32_t frame_number, frame_codec codec, byte_span stored,
                          mutable_byte_span out) const {
  auto fail = [&](error e) -> status {
    std::fill(out.begin(), out.end(), std::byte{0}); // unauthenticated bytes never leave
    return e;
  };
  auto known = codec == frame_codec::raw || codec == frame_codec::zstd;
  if (!known || out.empty() || out.size() > frame_plain_max || stored.size() <= frame_tag_bytes ||
      stored.size() > out.size() + frame_tag_bytes ||
      (codec == frame_codec::raw && stored.size() != out.size() + frame_tag_bytes))
    return fail({errc::corrupt, fmt::format("frame {} has impossible lengths: {} stored, {} plain",
                                            frame_number, stored.size(), out.size())});
  auto ad = associated_data(static_cast<std::uint32_t>(out.size()), codec);
  auto lease = impl_->opening.take();
  if (codec == frame_codec::raw) {
    if (!decrypt(lease.get(), frame_number, ad, stored, out.data()))
      return fail(damaged(frame_number));
    return {};
  }
  static thread_local std::array<std::byte, frame_plain_max> compressed;
  if (!decrypt(lease.get(), frame_number, ad, stored, compressed.data()))
    return fail(damaged(frame_number));
  auto* context = decompressor();
  if (context == nullptr) return fail({errc::io, "no memory for zstd"});
  auto n = ZSTD_decompressDCtx(context, out.data(), out.size(), compressed.data(),
                               stored.size() - frame_tag_bytes);
  if (ZSTD_isError(n) != 0 || n != out.size())
    return fail(
        {errc::corrupt, fmt::format("frame {} is authentic but does not decompress to {} bytes",
                                    frame_number, out.size())});
  return {};
}

result<std::unique_ptr<frame_cipher>> make_frame_cipher(const key_ring& ring,
                                                        const segment_info& info) {
  QS_TRY_ASSIGN(const auto* key, ring.find(info.generation));
  return std::make_unique<frame_cipher>(ring.volume().id(), *key, info);
}

} // namespace qs::codec
