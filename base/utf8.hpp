// What is UTF-8 and what is not.
#pragma once

#include <cstddef>
#include <string_view>

namespace qs {

/// The length of the valid UTF-8 character at `offset`, 0 if there is none (overlong, surrogate,
/// cut, out of range).
std::size_t utf8_length(std::string_view text, std::size_t offset) noexcept;

} // namespace qs
