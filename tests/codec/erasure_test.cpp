#include <doctest/doctest.h>

#include <isa-l/erasure_code.h>

#include "codec/erasure.hpp"
#include "sample.hpp"

using namespace qs;
using namespace qs::codec;
using namespace qs::codec::test;

namespace {

/// k + m columns of `length` bytes; data from `used` on zero.
std::vector<buffer> coded(unsigned k, unsigned used, unsigned m, std::size_t length,
                          std::uint64_t seed) {
  std::vector<buffer> all;
  std::vector<const std::byte*> in;
  std::vector<std::byte*> out;
  for (unsigned i = 0; i < k + m; ++i)
    all.push_back(i < used ? noise(length, seed + i) : buffer(length));
  for (unsigned i = 0; i < used; ++i) in.push_back(all[i].data());
  for (unsigned i = k; i < k + m; ++i) out.push_back(all[i].data());
  erasure::transform::encode(k, used, m).run(length, in, out);
  return all;
}

/// Decodes everything that is not in `given` and compares. An implied shard is never given.
bool decodes(const std::vector<buffer>& all, unsigned k, unsigned used,
             const std::vector<unsigned>& given) {
  std::vector<unsigned> wanted;
  for (unsigned i = 0; i < all.size(); ++i)
    if (std::find(given.begin(), given.end(), i) == given.end()) wanted.push_back(i);
  auto with = erasure::transform::decode(k, used, given, wanted);
  if (!with.ok()) return false;
  std::vector<const std::byte*> in;
  for (auto i : with->sources()) in.push_back(all[i].data());
  std::vector<buffer> got(wanted.size(), buffer(all[0].size()));
  std::vector<std::byte*> out;
  for (auto& g : got) out.push_back(g.data());
  with->run(all[0].size(), in, out);
  for (std::size_t i = 0; i < wanted.size(); ++i)
    if (got[i] != all[wanted[i]]) return false;
  return true;
}

} // namespace

TEST_CASE("every erasure pattern of up to 12 shards decodes (invariant 11)") {
  int bad = 0;
  long patterns = 0;
  for (unsigned n = 2; n <= 12; ++n)
    for (unsigned k = 1; k < n; ++k) {
      auto all = coded(k, k, n - k, 32, n * 100 + k);
      for (unsigned mask = 0; mask < (1U << n); ++mask) {
        if (__builtin_popcount(mask) != static_cast<int>(k))
          continue; // exactly k left is the hardest
        std::vector<unsigned> given;
        for (unsigned i = 0; i < n; ++i)
          if ((mask >> i & 1U) != 0) given.push_back(i);
        bad += decodes(all, k, k, given) ? 0 : 1;
        ++patterns;
      }
    }
  CHECK(bad == 0);
  CHECK(patterns == 8166);
}

TEST_CASE("every erasure pattern with implied zeros (invariant 11)") {
  int bad = 0;
  for (unsigned k : {2U, 4U, 6U})
    for (unsigned m : {1U, 2U, 4U})
      for (unsigned used = 1; used <= k; ++used) {
        auto all = coded(k, used, m, 64, k * 10 + m);
        for (unsigned mask = 0; mask < (1U << (k + m)); ++mask) {
          std::vector<unsigned> given;
          for (unsigned i = 0; i < k + m; ++i)
            if ((mask >> i & 1U) != 0 && (i < used || i >= k)) given.push_back(i);
          auto enough = given.size() + (k - used) >= k;
          bad += decodes(all, k, used, given) == enough ? 0 : 1;
        }
      }
  CHECK(bad == 0);
}

TEST_CASE("random erasures to 32+16 (invariant 11)") {
  seeded_random random{7};
  int bad = 0;
  for (int round = 0; round < 60; ++round) {
    auto k = round < 20 ? 32U : static_cast<unsigned>(1 + random.below(32));
    auto m = round < 20 ? 16U : static_cast<unsigned>(random.below(17));
    auto used = round % 3 == 0 ? static_cast<unsigned>(1 + random.below(k)) : k;
    auto all = coded(k, used, m, 200, static_cast<std::uint64_t>(round));
    std::vector<unsigned> given;
    for (unsigned i = 0; i < k + m; ++i)
      if (i < used || i >= k) given.push_back(i);
    for (unsigned lost = 0; lost < m && !given.empty(); ++lost)
      given.erase(given.begin() + static_cast<std::ptrdiff_t>(random.below(given.size())));
    bad += decodes(all, k, used, given) ? 0 : 1;
  }
  CHECK(bad == 0);
}

TEST_CASE("the matrix is ISA-L's Cauchy matrix, and rows do not depend on m") {
  for (auto [k, m] : {std::pair{4U, 2U}, std::pair{6U, 5U}, std::pair{32U, 16U}}) {
    std::vector<unsigned char> matrix(std::size_t{k} * (k + m));
    gf_gen_cauchy1_matrix(matrix.data(), static_cast<int>(k + m), static_cast<int>(k));
    for (unsigned j = 0; j < k; ++j) {
      // One data shard is all ones, so that parity shows its column.
      std::vector<buffer> data(k, buffer(16)), parity(m, buffer(16));
      data[j].assign(16, std::byte{1});
      std::vector<const std::byte*> in;
      std::vector<std::byte*> out;
      for (auto& d : data) in.push_back(d.data());
      for (auto& p : parity) out.push_back(p.data());
      erasure::transform::encode(k, k, m).run(16, in, out);
      for (unsigned p = 0; p < m; ++p)
        CHECK(static_cast<unsigned char>(parity[p][5]) == matrix[(k + p) * k + j]);
    }
  }
  auto few = coded(5, 5, 2, 64, 1);
  auto many = coded(5, 5, 9, 64, 1);
  CHECK(few[5] == many[5]);
  CHECK(few[6] == many[6]);
}

TEST_CASE("too few shards is an error, not a guess") {
  const unsigned given[] = {0, 1, 1, 5};
  const unsigned wanted[] = {2};
  CHECK(erasure::transform::decode(4, 4, given, wanted).err().code == errc::no_quorum);
  CHECK(erasure::transform::decode(4, 3, given, wanted).ok());
}
