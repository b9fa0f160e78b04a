// value_block: bytes that are not zeroed first and may have several owners; a payload between
// socket and disk. Who shares them changes them no more. All owners are of one thread.
#pragma once

#include <new>
#include <utility>

#include "base/bytes.hpp"

namespace qs::zdb {

class value_block {
public:
  value_block() = default;
  explicit value_block(std::size_t size) : size_{size} {
    if (size == 0) return;
    shared_ = new (::operator new(sizeof(shared) + size)) shared{1, false};
    data_ = reinterpret_cast<std::byte*>(shared_ + 1);
  }
  value_block(const value_block& other) noexcept
      : shared_{other.shared_}, data_{other.data_}, size_{other.size_} {
    if (shared_ != nullptr) ++shared_->owners;
  }
  value_block(value_block&& other) noexcept
      : shared_{std::exchange(other.shared_, nullptr)}, data_{std::exchange(other.data_, nullptr)},
        size_{std::exchange(other.size_, 0)} {}
  value_block& operator=(value_block other) noexcept {
    std::swap(shared_, other.shared_);
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~value_block() {
    if (shared_ != nullptr && --shared_->owners == 0) ::operator delete(shared_);
  }

  [[nodiscard]] byte_span bytes() const noexcept { return {data_, size_}; }
  [[nodiscard]] mutable_byte_span bytes() noexcept { return {data_, size_}; }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  /// Everything from `from` on, owned together with this one.
  [[nodiscard]] value_block rest(std::size_t from) const noexcept {
    value_block out;
    out.size_ = size_ - from;
    if (out.size_ == 0) return out;
    out.shared_ = shared_;
    ++shared_->owners;
    out.data_ = data_ + from;
    return out;
  }

  /// A mark that all owners share.
  [[nodiscard]] bool marked() const noexcept { return shared_ != nullptr && shared_->mark; }
  void mark(bool on) const noexcept {
    if (shared_ != nullptr && shared_->mark != on) shared_->mark = on;
  }

private:
  struct alignas(16) shared {
    std::size_t owners;
    bool mark;
  };
  shared* shared_ = nullptr;
  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

} // namespace qs::zdb
