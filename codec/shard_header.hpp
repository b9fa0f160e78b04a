// The 192 bytes in front of a shard's payload, and the MAC in them. For shard.cpp only.
// docs/formats/shard.md has the bytes.
#pragma once

#include <memory>

#include "codec/evp.hpp"
#include "codec/shard.hpp"

namespace qs::codec::header {

/// Bytes of the sealed fields in front of the MAC: what the MAC covers beside the payload.
inline constexpr std::size_t fields_bytes = 96;
using fields = std::array<std::byte, fields_bytes>;

fields encode_fields(const shard_header& header);
/// Writes magic, format, nonce and the sealed fields. Deterministic: the nonce is a keyed hash of
/// all that is sealed.
void write(const volume_keys& keys, const shard_header& header, mutable_byte_span out);

/// The MAC of one shard, over its fields and then its payload, which may come in pieces. A MAC is
/// made for one byte string per index only (invariant 2), so that the nonce, which is the index,
/// meets one message.
class mac_stream {
public:
  /// `key` is evp::segment_key() of the shard MACs. header.mac is not read.
  mac_stream(const key32& key, const shard_header& header);
  void update(byte_span piece) noexcept { ok_ = ok_ && evp::add_associated(context_.get(), piece); }
  /// Once. Errors: io.
  result<shard_mac> finish() noexcept;

private:
  evp::context context_;
  bool ok_;
};

} // namespace qs::codec::header
