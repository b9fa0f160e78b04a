#include "base/random.hpp"

#include <sodium.h>

#include "base/assert.hpp"

namespace qs {
namespace {

class kernel_random final : public random_source {
public:
  kernel_random() { QS_ASSERT(sodium_init() >= 0); }
  void fill(mutable_byte_span out) override { randombytes_buf(out.data(), out.size()); }
};

} // namespace

std::uint64_t random_source::next_u64() {
  auto bytes = array<8>();
  return load_le<std::uint64_t>(bytes.data());
}

std::uint64_t random_source::below(std::uint64_t bound) {
  QS_ASSERT(bound != 0);
  auto limit = UINT64_MAX - UINT64_MAX % bound;
  for (;;)
    if (auto value = next_u64(); value < limit) return value % bound;
}

random_source& system_random() {
  static kernel_random instance;
  return instance;
}

seeded_random::seeded_random(std::uint64_t seed) : seed_{seed} { QS_ASSERT(sodium_init() >= 0); }

void seeded_random::fill(mutable_byte_span out) {
  std::array<std::byte, randombytes_SEEDBYTES> key{};
  store_le(key.data(), seed_);
  store_le(key.data() + 8, calls_++);
  if (!out.empty()) randombytes_buf_deterministic(out.data(), out.size(), uchars(byte_span{key}));
}

} // namespace qs
