// What a bug is answered with: QS_ASSERT stops the program in every build, release too.
// It is for broken invariants of ours only; what the world does wrong is a result<T>, what a user writes wrong a diagnostic.
#pragma once

namespace qs {

/// Prints what was asserted and where, then aborts. Never returns.
[[noreturn]] void assertion_failed(const char* expression, const char* file, int line) noexcept;

} // namespace qs

#define QS_ASSERT(expression)                                                                      \
  ((expression) ? static_cast<void>(0) : ::qs::assertion_failed(#expression, __FILE__, __LINE__))
