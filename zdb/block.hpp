// value_block: bytes that are not zeroed first and may have several owners; a payload between
// socket and disk. Who shares them changes them no more.
#pragma once

#include <memory>

#include "base/bytes.hpp"

namespace qs::zdb {

class value_block {
public:
  value_block() = default;
  explicit value_block(std::size_t size) : size_{size} {
    if (size == 0) return;
    owner_ = std::make_shared_for_overwrite<std::byte[]>(size);
    data_ = owner_.get();
  }

  [[nodiscard]] byte_span bytes() const noexcept { return {data_, size_}; }
  [[nodiscard]] mutable_byte_span bytes() noexcept { return {data_, size_}; }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  /// Everything from `from` on, owned together with this one.
  [[nodiscard]] value_block rest(std::size_t from) const {
    value_block out;
    out.size_ = size_ - from;
    if (out.size_ == 0) return out;
    out.owner_ = owner_;
    out.data_ = data_ + from;
    return out;
  }

private:
  std::shared_ptr<std::byte[]> owner_;
  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

} // namespace qs::zdb
