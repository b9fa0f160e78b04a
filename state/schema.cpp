// Schema version 2 of state.db. Times are milliseconds since 1970 UTC, money 1e-7 TFT, sizes bytes.
// A new version adds a step to migrate(); never edit a step that was released.
#include <fcntl.h>

#include <fmt/format.h>

#include "base/posix.hpp"
#include "state/rows.hpp"
#include "state/store.hpp"

namespace qs::state {
namespace {

inline constexpr std::int64_t application_id = 0x71737374; // "qsst"

constexpr auto tables = R"sql(
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE nodes (
  number INTEGER PRIMARY KEY, incarnation INTEGER NOT NULL, provider TEXT NOT NULL, host TEXT NOT NULL,
  farm TEXT NOT NULL, country TEXT NOT NULL, region TEXT NOT NULL, size INTEGER NOT NULL,
  price_limit INTEGER NOT NULL, price INTEGER NOT NULL, state TEXT NOT NULL, reason TEXT NOT NULL, since INTEGER NOT NULL,
  address TEXT NOT NULL, port INTEGER NOT NULL, ns TEXT NOT NULL, identity BLOB NOT NULL,
  replaces INTEGER, replaced_by INTEGER);
CREATE TABLE intents (
  number INTEGER PRIMARY KEY AUTOINCREMENT, node INTEGER NOT NULL, incarnation INTEGER NOT NULL, verb TEXT NOT NULL,
  progress TEXT NOT NULL, request TEXT NOT NULL, detail TEXT NOT NULL, written_at INTEGER NOT NULL);
CREATE INDEX intents_by_node ON intents (node, incarnation, verb);
CREATE INDEX intents_open ON intents (number) WHERE progress IN ('written', 'submitted', 'unknown');
CREATE TABLE events (
  number INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL, level TEXT NOT NULL, kind TEXT NOT NULL,
  subject TEXT NOT NULL, message TEXT NOT NULL);
CREATE TABLE notes (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE summary (id INTEGER PRIMARY KEY CHECK (id = 1), document TEXT NOT NULL);
)sql";

/// Since version 2: who refused a node lately. Before, the engine forgot it when it ended.
constexpr auto refused_hosts = R"sql(
CREATE TABLE refused_hosts (
  provider TEXT NOT NULL, host TEXT NOT NULL, at INTEGER NOT NULL, PRIMARY KEY (provider, host)) WITHOUT ROWID;
)sql";

} // namespace

status create_schema(database& db) {
  QS_TRY(db.execute(tables));
  QS_TRY(db.execute(refused_hosts));
  QS_TRY(db.execute(fmt::format("PRAGMA application_id = {}", application_id)));
  return db.execute(fmt::format("PRAGMA user_version = {}", schema_version));
}

status migrate(database& db, int version) {
  if (version < 1 || version > schema_version)
    return error{errc::corrupt, fmt::format("{}: there is no way from schema {} to {}",
                                            db.file().string(), version, schema_version)};
  if (version < 2) QS_TRY(db.execute(refused_hosts));
  return db.execute(fmt::format("PRAGMA user_version = {}", schema_version));
}

status copy_before_migration(const std::filesystem::path& file, int version) {
  QS_TRY_ASSIGN(auto content, read_file(file, std::size_t{4} << 30));
  auto copy = file;
  copy += fmt::format(".v{}", version);
  return write_file_atomic(copy, as_bytes(content), 0600);
}

status check_schema(database& db, int& version) {
  QS_TRY_ASSIGN(auto owner, db.number("PRAGMA application_id"));
  QS_TRY_ASSIGN(auto found, db.number("PRAGMA user_version"));
  QS_TRY_ASSIGN(auto things, db.number("SELECT count(*) FROM sqlite_master"));
  version = static_cast<int>(found);
  auto name = db.file().string();
  if (owner == 0 && found == 0 && things == 0)
    return error{errc::not_found, fmt::format("{} is empty", name)};
  if (owner != application_id)
    return error{errc::corrupt, fmt::format("{} is not a state database of qs; move it away and put back a copy of "
                                            "the right one",
                                            name)};
  if (version > schema_version)
    return error{errc::version_mismatch,
                 fmt::format("{} was written by a newer qs (schema {}, this one knows {}); use "
                             "that one, nothing was changed",
                             name, version, schema_version)};
  return {};
}

} // namespace qs::state
