// Rows that were read or written lately, in front of RocksDB, whose lookups take microseconds: every write and every lookup needs
// an inode's row. Exact: what a reader brings from below is taken only if no row of its part was put meanwhile. Owned by the row
// store, which answers for what is not in RocksDB yet. Thread-safe.
#pragma once

#include <array>
#include <cstdint>
#include <list>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

#include "base/bytes.hpp"

namespace qs::volume {

class row_cache {
public:
  /// `most` rows of up to value_bytes_max are kept; longer ones never.
  explicit row_cache(std::size_t most) : part_rows_{most / parts + 1} {}

  struct looked {
    bool known = false;
    std::optional<buffer> value; ///< if known; nothing = there is no such row
    std::uint64_t version = 0;   ///< if not: for fill()
  };
  [[nodiscard]] looked find(std::string_view key);
  /// What the store said after a find() that knew nothing.
  void fill(std::string_view key, const std::optional<buffer>& value, std::uint64_t version);
  /// After the store changed, and before it is asked for the row again.
  void put(std::string_view key, std::optional<buffer> value);

private:
  static constexpr std::size_t parts = 16;
  static constexpr std::size_t value_bytes_max = 1024;
  struct row {
    std::string key;
    std::optional<buffer> value;
  };
  using order = std::list<row>; ///< newest first
  struct part {
    std::mutex mutex;
    order rows;
    std::unordered_map<std::string_view, order::iterator> map; ///< keys live in `rows`
    std::uint64_t version = 0;
  };
  part& of(std::string_view key) { return parts_[(std::hash<std::string_view>{}(key) >> 9) % parts]; }
  void keep(part& p, std::string_view key, std::optional<buffer> value);
  static void drop(part& p, std::string_view key);

  std::size_t part_rows_;
  std::array<part, parts> parts_;
};

} // namespace qs::volume
