// value_block: owned bytes that are not zeroed first; a payload between socket and disk.
#pragma once

#include <memory>

#include "base/bytes.hpp"

namespace qs::zdb {

class value_block {
public:
  value_block() = default;
  explicit value_block(std::size_t size)
      : data_{size > 0 ? std::make_unique_for_overwrite<std::byte[]>(size) : nullptr}, size_{size} {
  }

  [[nodiscard]] byte_span bytes() const noexcept { return {data_.get(), size_}; }
  [[nodiscard]] mutable_byte_span bytes() noexcept { return {data_.get(), size_}; }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }

private:
  std::unique_ptr<std::byte[]> data_;
  std::size_t size_ = 0;
};

} // namespace qs::zdb
