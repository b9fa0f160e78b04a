#include "base/assert.hpp"

#include <cstdio>
#include <cstdlib>

namespace qs {

void assertion_failed(const char* expression, const char* file, int line) noexcept {
  std::fprintf(stderr, "qs: bug: assertion failed: %s (%s:%d)\n", expression, file, line);
  std::fflush(stderr);
  std::abort();
}

} // namespace qs
