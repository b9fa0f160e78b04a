// What the tests of the storage engine share: a store in a temporary directory, without a server.
#pragma once

#include <deque>
#include <map>
#include <optional>

#include "support/zdb_server.hpp"

#include "base/log.hpp"
#include "zdb/store.hpp"

namespace qs::zdb {

struct quiet {
  quiet() { log::configure({log::level::off, false, {}}); }
  ~quiet() { log::configure({log::level::warning, false, {}}); }
};

inline write_answer put(name_space& ns, std::string_view key, std::string_view value) {
  std::string id;
  return ns.set(as_bytes(key), as_bytes(value), 1, false, id);
}

inline std::optional<std::string> value_of(name_space& ns, std::string_view key) {
  value_block out;
  if (ns.get(as_bytes(key), out) != read_answer::found) return std::nullopt;
  return to_string(out.bytes());
}

inline void sync_all(name_space& ns) {
  auto job = ns.make_sync_job();
  REQUIRE(job.ok());
  auto done = job->run();
  REQUIRE(done.ok());
  ns.sync_done(*job, done);
}

/// All pages of a walk; each key must come once.
inline std::vector<std::string> keys_of(name_space& ns, scan_order order, std::string cursor = {}) {
  std::vector<std::string> keys;
  for (;;) {
    auto page = ns.scan(as_bytes(cursor), order);
    REQUIRE(page.ok());
    for (auto& item : page->items) keys.push_back(item.key);
    if (page->cursor.empty()) return keys;
    cursor = page->cursor;
  }
}

/// A store of its own and its namespace `default`.
struct storage {
  explicit storage(std::uint64_t datasize = 256 << 20, bool sequential = false) {
    options.data = dir.path / "data";
    options.datasize = datasize;
    options.sequential = sequential;
    reopen();
  }
  void reopen() {
    all.reset();
    auto opened = store::open(options);
    REQUIRE_MESSAGE(opened.ok(), (opened.ok() ? "" : describe(opened.err())));
    all = std::move(*opened);
  }
  name_space& space() { return *shared(); }
  std::shared_ptr<name_space> shared() { return all->find("default"); }

  temporary_directory dir;
  store_options options;
  std::unique_ptr<store> all;
};

} // namespace qs::zdb
