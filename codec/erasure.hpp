// Parity over GF(2^8), polynomial 0x11d: systematic Cauchy code, parity row p, column j =
// inverse((k + p) xor j). ISA-L's gf_gen_cauchy1_matrix; its gf_gen_rs_matrix loses data with ≤ m
// shards gone and is not used. Pointers in, pointers out; a null source is implied zeros and costs
// nothing. Any thread. For shard.cpp and bench.
#pragma once

#include <array>
#include <cstddef>
#include <span>
#include <vector>

#include "base/bytes.hpp"
#include "base/limits.hpp"
#include "base/result.hpp"

namespace qs::codec::erasure {

/// How wanted shards follow from given ones: rows of coefficients, expanded to ISA-L's tables once.
class transform {
public:
  /// Parity rows 0 … m-1 from the first `used` of k data shards.
  static transform encode(unsigned k, unsigned used, unsigned m);
  /// Shards with the indexes `wanted` (below k + 16) from those with the indexes `given`. Data
  /// shards from `used` on are implied zeros and never given. Errors: no_quorum if `given`
  /// (distinct) and implied ones are fewer than k.
  static result<transform> decode(unsigned k, unsigned used, std::span<const unsigned> given,
                                  std::span<const unsigned> wanted);

  /// Which of `given` are read, in the order that `run` wants them (for encode: 0 … used-1).
  [[nodiscard]] const std::vector<unsigned>& sources() const noexcept { return sources_; }
  /// Each source and each output has `length` bytes.
  void run(std::size_t length, std::span<const std::byte* const> sources,
           std::span<std::byte* const> outputs) const;

private:
  transform(std::vector<unsigned> sources, std::size_t rows, std::span<unsigned char> coefficients);

  std::vector<unsigned> sources_; ///< shard indexes
  std::size_t rows_ = 0;
  std::vector<unsigned char> tables_;
};

} // namespace qs::codec::erasure
