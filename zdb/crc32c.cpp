#include "zdb/crc32c.hpp"

#include <algorithm>
#include <isa-l/crc.h>

#include "base/vector_state.hpp"

namespace qs::zdb {

std::uint32_t crc32c(byte_span bytes, std::uint32_t crc) noexcept {
  constexpr std::size_t most = std::size_t{1} << 30; // ISA-L counts in int
  while (!bytes.empty()) {
    auto piece = bytes.first(std::min(bytes.size(), most));
    auto* p = const_cast<unsigned char*>(reinterpret_cast<const unsigned char*>(piece.data())); // only read
    crc = ::crc32_iscsi(p, static_cast<int>(piece.size()), crc);
    bytes = bytes.subspan(piece.size());
  }
  clear_vector_upper();
  return crc;
}

} // namespace qs::zdb
