// The ordered key-value store under the rows: RocksDB, embedded, without its own write-ahead log (the volume's log is the
// only one). The one place where a shared store could come in. Thread-safe; writes come one at a time.
//
// Changes wait in memory, in order, and go into RocksDB many operations at a time: putting a row into its memtable costs more
// than all else an operation does, and a directory's row, a segment's and the counters change with every one of them. What
// waits is seen by every reader as if it were there. It is no less safe: without a write-ahead log a memtable is memory, too.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/bytes.hpp"
#include "base/result.hpp"
#include "volume/core.hpp"

namespace qs::volume {

/// Ordered, the last change of a key wins; no value = erased.
using row_changes = std::map<row_key, std::optional<buffer>, std::less<>>;

/// Rows in [from, end) as they are with `over` on top, in order. `base` gives what is below to the visitor it is called with.
status scan_over(const row_changes& over, std::string_view from, std::string_view end,
                 const std::function<status(const row_visitor&)>& base, const row_visitor& visit);

class row_store {
public:
  /// `before_flush` runs on a RocksDB thread before anything of a memtable reaches the disk, and may block: it syncs the log.
  /// `after_flush` runs when a flush is done.
  static result<std::unique_ptr<row_store>> open(const std::filesystem::path& directory, bool create,
                                                 std::function<void()> before_flush,
                                                 std::function<void()> after_flush);
  ~row_store();
  row_store(const row_store&) = delete;
  row_store& operator=(const row_store&) = delete;

  [[nodiscard]] result<std::optional<buffer>> get(std::string_view key) const;
  /// Keys in [from, end) in order, of one snapshot.
  status scan(std::string_view from, std::string_view end, const row_visitor& visit) const;
  /// One atomic batch, with `applied_seq` in it; nobody sees a part of it.
  void apply(row_changes changes, std::uint64_t sequence);
  /// Whether so much waits that somebody who has time should drain() it, or that who goes on writing must first.
  [[nodiscard]] bool wants_drain() const;
  [[nodiscard]] bool must_drain() const;
  /// Writes what waits into RocksDB. On an error it waits on, and is read as before.
  status drain();

  /// Of the newest batch, and of the newest one that is in a synced file.
  [[nodiscard]] result<std::uint64_t> applied_sequence() const;
  [[nodiscard]] result<std::uint64_t> flushed_sequence() const;
  /// Drains, and starts a flush of the memtable; waits for it if asked.
  status flush(bool wait);

private:
  class impl;
  explicit row_store(std::unique_ptr<impl> i);
  std::unique_ptr<impl> impl_;
};

} // namespace qs::volume
