#include "zdb/index.hpp"

#include <sodium.h>

namespace qs::zdb {

std::uint32_t user_index::hash(byte_span key) const noexcept {
  static_assert(crypto_shorthash_KEYBYTES == 16 && crypto_shorthash_BYTES == 8);
  std::array<std::byte, 8> out{};
  crypto_shorthash(uchars(mutable_byte_span{out}), uchars(key), key.size(), uchars(hash_key_));
  return load_le<std::uint32_t>(out.data());
}

void user_index::grow() {
  auto old = std::exchange(slots_, std::vector<slot>(slots_.empty() ? 64 : slots_.size() * 2));
  for (auto& s : old) {
    if (s.file == 0) continue;
    auto i = home(s.tag);
    while (slots_[i].file != 0) i = next(i);
    slots_[i] = s;
  }
}

void user_index::insert_hash(std::uint32_t tag, index_entry entry) {
  QS_ASSERT(entry.place.valid());
  if ((size_ + 1) * 8 > slots_.size() * 7) grow();
  auto i = home(tag);
  while (slots_[i].file != 0) i = next(i);
  slots_[i] = {entry.place.file, entry.place.offset, entry.length, tag};
  ++size_;
}

void user_index::replace(std::size_t at, index_entry entry) noexcept {
  slots_[at] = {entry.place.file, entry.place.offset, entry.length, slots_[at].tag};
}

void user_index::erase(std::size_t at) noexcept {
  // Closes the gap, so that searches need no tombstones.
  auto gap = at;
  for (auto i = next(gap); slots_[i].file != 0; i = next(i)) {
    auto distance = (i - home(slots_[i].tag)) & (slots_.size() - 1);
    if (distance >= ((i - gap) & (slots_.size() - 1))) {
      slots_[gap] = slots_[i];
      gap = i;
    }
  }
  slots_[gap] = {};
  --size_;
}

} // namespace qs::zdb
