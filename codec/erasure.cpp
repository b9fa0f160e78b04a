#include "codec/erasure.hpp"

#include <algorithm>

#include <fmt/format.h>
#include <isa-l/erasure_code.h>

#include "base/assert.hpp"
#include "base/vector_state.hpp"

namespace qs::codec::erasure {
namespace {

constexpr std::size_t table_bytes = 32; // ISA-L: per coefficient

/// Row `index` of the whole k + m matrix: a unit row for data, a Cauchy row for parity.
std::vector<unsigned char> matrix_row(unsigned k, unsigned index) {
  std::vector<unsigned char> row(k, 0);
  if (index < k)
    row[index] = 1;
  else
    for (unsigned j = 0; j < k; ++j) row[j] = gf_inv(static_cast<unsigned char>(index ^ j));
  return row;
}

/// k rows to solve from: implied zeros and data first (they cost nothing to solve), then parity.
result<std::vector<unsigned>> choose_rows(unsigned k, unsigned used,
                                          std::span<const unsigned> given) {
  std::vector<unsigned> rows{given.begin(), given.end()};
  for (unsigned i = used; i < k; ++i) rows.push_back(i);
  std::sort(rows.begin(), rows.end());
  rows.erase(std::unique(rows.begin(), rows.end()), rows.end());
  if (rows.size() < k)
    return error{errc::no_quorum, fmt::format("{} shards of {} needed, {} of them implied",
                                              rows.size(), k, k - used)};
  rows.resize(k);
  return rows;
}

} // namespace

transform::transform(std::vector<unsigned> sources, std::size_t rows,
                     std::span<unsigned char> coefficients)
    : sources_{std::move(sources)}, rows_{rows}, tables_(table_bytes * coefficients.size()) {
  QS_ASSERT(coefficients.size() == rows_ * sources_.size());
  if (!coefficients.empty())
    ec_init_tables(static_cast<int>(sources_.size()), static_cast<int>(rows_), coefficients.data(),
                   tables_.data());
}

transform transform::encode(unsigned k, unsigned used, unsigned m) {
  QS_ASSERT(k >= 1 && k <= limits::data_shards_max && used >= 1 && used <= k &&
            m <= limits::parity_shards_max);
  std::vector<unsigned char> coefficients;
  for (unsigned p = 0; p < m; ++p) {
    auto row = matrix_row(k, k + p);
    coefficients.insert(coefficients.end(), row.begin(), row.begin() + used);
  }
  std::vector<unsigned> sources(used);
  for (unsigned j = 0; j < used; ++j) sources[j] = j;
  return {std::move(sources), m, coefficients};
}

result<transform> transform::decode(unsigned k, unsigned used, std::span<const unsigned> given,
                                    std::span<const unsigned> wanted) {
  QS_ASSERT(k >= 1 && k <= limits::data_shards_max && used >= 1 && used <= k);
  QS_TRY_ASSIGN(auto rows, choose_rows(k, used, given));
  std::vector<unsigned char> square, inverse(std::size_t{k} * k);
  for (auto index : rows) {
    auto row = matrix_row(k, index);
    square.insert(square.end(), row.begin(), row.end());
  }
  // Every square part of a Cauchy matrix is regular, so this holds for any k rows.
  QS_ASSERT(gf_invert_matrix(square.data(), inverse.data(), static_cast<int>(k)) == 0);
  std::vector<unsigned> columns, sources; // those that are not implied zeros
  for (unsigned c = 0; c < k; ++c)
    if (rows[c] < used || rows[c] >= k) {
      columns.push_back(c);
      sources.push_back(rows[c]);
    }
  std::vector<unsigned char> coefficients;
  for (auto index : wanted) {
    QS_ASSERT(index < k + limits::parity_shards_max);
    auto row = matrix_row(k, index);
    for (auto c : columns) {
      unsigned char sum = 0;
      for (unsigned j = 0; j < k; ++j)
        sum = static_cast<unsigned char>(sum ^ gf_mul(row[j], inverse[j * k + c]));
      coefficients.push_back(sum);
    }
  }
  return transform{std::move(sources), wanted.size(), coefficients};
}

void transform::run(std::size_t length, std::span<const std::byte* const> sources,
                    std::span<std::byte* const> outputs) const {
  QS_ASSERT(sources.size() == sources_.size() && outputs.size() == rows_);
  if (rows_ == 0 || length == 0) return;
  std::vector<unsigned char*> in, out;
  // ISA-L reads its sources and tables only, but does not say so.
  for (const auto* s : sources)
    in.push_back(reinterpret_cast<unsigned char*>(const_cast<std::byte*>(s)));
  for (auto* o : outputs) out.push_back(reinterpret_cast<unsigned char*>(o));
  ec_encode_data(static_cast<int>(length), static_cast<int>(in.size()), static_cast<int>(rows_),
                 const_cast<unsigned char*>(tables_.data()), in.data(), out.data());
  clear_vector_upper();
}

} // namespace qs::codec::erasure
