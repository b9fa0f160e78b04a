// Values of the model to and from rows of the state database: the one place that knows the columns.
// Internal to state. Schema: state/schema.cpp.
#pragma once

#include "base/clock.hpp"
#include "model/recorded.hpp"
#include "state/sqlite.hpp"

namespace qs::state {

/// Makes the tables of schema_version (in the caller's transaction).
status create_schema(database& db);
/// Brings `db` from `version` to schema_version, step by step, in the caller's transaction.
status migrate(database& db, int version);
/// The copy made before a migration: <file>.v<version>, 0600.
status copy_before_migration(const std::filesystem::path& file, int version);
/// ok if it is ours and of this version; version_mismatch for a newer one, not_found for an empty
/// file, corrupt if it is something else. `version` is set.
status check_schema(database& db, int& version);

// -- meta: single values
// -------------------------------------------------------------------------------------------------
result<std::optional<std::string>> meta(database& db, std::string_view key);
status put_meta(database& db, std::string_view key, std::string_view value);
result<std::uint64_t> meta_number(database& db, std::string_view key);
status put_meta_number(database& db, std::string_view key, std::uint64_t value);

result<std::optional<model::recorded_node>> get_node(database& db, model::node_id id);
status put_node(database& db, const model::recorded_node& node);
status put_intent(database& db, const model::intent& i);
/// SELECT of all intent columns; add WHERE and ORDER BY, then read_intent on each row.
inline constexpr std::string_view select_intent =
    "SELECT number, node, incarnation, verb, progress, request, detail, written_at FROM intents ";
result<model::intent> read_intent(const statement& row);

status put_summary(database& db, const model::volume_summary& summary);
result<model::recorded> load_recorded(database& db);
result<std::vector<model::event>> load_events(database& db, std::uint64_t after, std::size_t most);

inline std::int64_t to_millis(wall_time t) { return t.time_since_epoch().count(); }
inline wall_time from_millis(std::int64_t ms) { return wall_time{std::chrono::milliseconds{ms}}; }

} // namespace qs::state
