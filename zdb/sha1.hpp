// SHA-1, only because the protocol's challenge-response is built on it.
#pragma once

#include <string>
#include <string_view>

namespace qs::zdb {

/// 40 lowercase hex digits.
std::string sha1_hex(std::string_view text);

} // namespace qs::zdb
