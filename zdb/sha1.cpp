#include "zdb/sha1.hpp"

#include <openssl/evp.h>

#include "base/assert.hpp"
#include "base/bytes.hpp"

namespace qs::zdb {

std::string sha1_hex(std::string_view text) {
  std::array<std::byte, 20> digest{};
  unsigned length = 0;
  auto ok = EVP_Digest(text.data(), text.size(), uchars(mutable_byte_span{digest}), &length,
                       EVP_sha1(), nullptr);
  QS_ASSERT(ok == 1 && length == digest.size());
  return to_hex(digest);
}

} // namespace qs::zdb
