// result<T>: a value or the error that took its place. Our own, since C++20 has no std::expected.
// Not for bugs (QS_ASSERT) and not for user input (diagnostics).
#pragma once

#include <optional>
#include <utility>
#include <variant>

#include "base/assert.hpp"
#include "base/error.hpp"

namespace qs {

template <class T>
class [[nodiscard]] result {
public:
  using value_type = T;

  result(T value) : data_{std::in_place_index<0>, std::move(value)} {}
  result(error e) : data_{std::in_place_index<1>, std::move(e)} {}

  [[nodiscard]] bool ok() const noexcept { return data_.index() == 0; }
  explicit operator bool() const noexcept { return ok(); }

  T& value() & {
    QS_ASSERT(ok());
    return std::get<0>(data_);
  }
  const T& value() const& {
    QS_ASSERT(ok());
    return std::get<0>(data_);
  }
  T&& value() && {
    QS_ASSERT(ok());
    return std::get<0>(std::move(data_));
  }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

  error& err() & {
    QS_ASSERT(!ok());
    return std::get<1>(data_);
  }
  const error& err() const& {
    QS_ASSERT(!ok());
    return std::get<1>(data_);
  }
  error&& err() && {
    QS_ASSERT(!ok());
    return std::get<1>(std::move(data_));
  }

  T value_or(T fallback) && { return ok() ? std::get<0>(std::move(data_)) : std::move(fallback); }

private:
  std::variant<T, error> data_;
};

/// A result without a value: done, or why not.
template <>
class [[nodiscard]] result<void> {
public:
  using value_type = void;

  result() = default;
  result(error e) : error_{std::move(e)} {}

  [[nodiscard]] bool ok() const noexcept { return !error_.has_value(); }
  explicit operator bool() const noexcept { return ok(); }

  error& err() & {
    QS_ASSERT(!ok());
    return *error_;
  }
  const error& err() const& {
    QS_ASSERT(!ok());
    return *error_;
  }
  error&& err() && {
    QS_ASSERT(!ok());
    return std::move(*error_);
  }

private:
  std::optional<error> error_;
};

using status = result<void>;

} // namespace qs

#define QS_CONCAT_INNER(a, b) a##b
#define QS_CONCAT(a, b) QS_CONCAT_INNER(a, b)

/// Leaves the function with the error of `expression` (a result<...>), if it has one.
#define QS_TRY(expression)                                                                         \
  do {                                                                                             \
    auto qs_try_result = (expression);                                                             \
    if (!qs_try_result.ok()) return std::move(qs_try_result).err();                                \
  } while (false)

/// `QS_TRY_ASSIGN(auto x, f())`: x = the value, or leaves the function with the error. `target` is a declaration or a name:
/// parentheses around it would not compile.
// NOLINTBEGIN(bugprone-macro-parentheses)
#define QS_TRY_ASSIGN(target, expression)                                                          \
  auto QS_CONCAT(qs_try_, __LINE__) = (expression);                                                \
  if (!QS_CONCAT(qs_try_, __LINE__).ok()) return std::move(QS_CONCAT(qs_try_, __LINE__)).err();    \
  target = std::move(QS_CONCAT(qs_try_, __LINE__)).value()
// NOLINTEND(bugprone-macro-parentheses)
