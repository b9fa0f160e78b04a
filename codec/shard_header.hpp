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
/// Writes magic, format, nonce and the sealed fields. Deterministic: the nonce is a keyed hash of all that is sealed.
void write(const volume_keys& keys, const shard_header& header, mutable_byte_span out);

/// Makes the MACs of one segment's shards. Not thread-safe. A MAC is made for one byte string per index only
/// (invariant 2), so that the nonce, which is the index, meets one message.
class mac_maker {
public:
  mac_maker(const volume_id& volume, const volume_key& key, const segment_info& info);
  /// header.mac is not read. Errors: io.
  result<shard_mac> make(const shard_header& header, byte_span payload) const;

private:
  evp::context context_;
};

} // namespace qs::codec::header
