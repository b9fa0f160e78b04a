// A data shard's directory in the clear and where it is sealed for. For segment.cpp and shard.cpp
// only. docs/formats/segment.md has the bytes.
#pragma once

#include <optional>
#include <vector>

#include "codec/segment.hpp"

namespace qs::codec::directory {

/// Bound to volume, session, segment counter and shard index.
seal_place place(const volume_id& volume, const segment_id& segment, unsigned index);

/// Whether a frame of such lengths can be at such a place before `limit`.
bool is_possible(const directory_entry& entry, std::uint32_t limit) noexcept;
/// Whether some number of entries gives a sealed directory of so many bytes.
bool is_possible_length(std::size_t sealed) noexcept;

buffer encode(const std::vector<directory_entry>& entries);
/// Errors: corrupt, version_mismatch. `shard_length` bounds what entries may name.
result<std::vector<directory_entry>> decode(byte_span plain, std::uint32_t shard_length);

/// Bytes of the sealed directory that `payload` ends with, found by trying: a rebuilt shard does
/// not say it otherwise. Looks at four deciphered bytes for each number of entries (at most some
/// milliseconds) and opens what fits.
std::optional<std::uint32_t> find_length(const volume_id& volume, const volume_key& key,
                                         const segment_id& segment, unsigned index,
                                         byte_span payload);

} // namespace qs::codec::directory
