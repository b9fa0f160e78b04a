#include "base/utf8.hpp"

namespace qs {

std::size_t utf8_length(std::string_view text, std::size_t offset) noexcept {
  auto at = [&](std::size_t i) { return static_cast<unsigned char>(text[offset + i]); };
  auto first = at(0);
  if (first < 0x80) return 1;
  auto length = first >= 0xC2 && first < 0xE0   ? 2U
                : first >= 0xE0 && first < 0xF0 ? 3U
                : first >= 0xF0 && first < 0xF5 ? 4U
                                                : 0U;
  if (length == 0 || offset + length > text.size()) return 0;
  for (std::size_t i = 1; i < length; ++i)
    if ((at(i) & 0xC0U) != 0x80U) return 0;
  if (first == 0xE0 && at(1) < 0xA0) return 0;
  if (first == 0xED && at(1) >= 0xA0) return 0;
  if (first == 0xF0 && at(1) < 0x90) return 0;
  if (first == 0xF4 && at(1) >= 0x90) return 0;
  return length;
}

} // namespace qs
