#include "base/vector_state.hpp"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace qs {

#if defined(__x86_64__)
namespace {
__attribute__((target("avx"))) void clear_now() noexcept { _mm256_zeroupper(); }
const bool has_upper = __builtin_cpu_supports("avx") != 0;
} // namespace
void clear_vector_upper() noexcept {
  if (has_upper) clear_now();
}
#else
void clear_vector_upper() noexcept {}
#endif

} // namespace qs
