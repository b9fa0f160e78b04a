// How a world is put together from options: keys, providers, identity over zdb. Shared by the
// engine and by the look without an engine. Blocks.
#pragma once

#include <string>

#include "actors/world.hpp"

namespace qs::actors {

/// 16 hex digits that name the phrase's wallet and tell nothing of it.
std::string wallet_public_id(const root_secret& root);

/// The state's note that says which phrase and name it belongs to: hex of the volume id.
inline constexpr std::string_view volume_id_note = "volume_id";
/// refused, with what to do, when the noted id is another one.
status phrase_fits(const std::string& noted, const std::string& id,
                   const std::filesystem::path& state_directory);

/// Before the first accept there is no lineage to seed the choice of hosts with; the volume's id
/// stands in, so that `qs diff` and the `qs apply` after it show the same plan.
model::recorded with_first_lineage(model::recorded recorded, const std::string& volume_id);

/// What the recorded rows say of hosts that failed or refused lately, and of the replacements of the
/// last day that are rationed (control.md, 5). `world.at` is set before.
void note_failures(model::observed& world, const model::recorded& recorded);

/// Reason in the row of a node that was replaced without anybody's confirming that it is lost: such replacements are rationed,
/// and counted from the recorded rows.
inline constexpr std::string_view replaced_unreachable = "Unreachable";

/// "its recorded state (state.db) is missing in DIR …": one text for whoever finds it so.
std::string state_is_missing(const std::filesystem::path& state_directory);

/// The world without a store; its providers are made when they are first used. `read_only`: nothing
/// is made on disk, for a look.
result<world_ptr> assemble_world(const engine_options& options, bool read_only);

} // namespace qs::actors
