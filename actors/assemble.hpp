// How a world is put together from options: keys, providers, identity over zdb. Shared by the engine and by the look
// without an engine. Blocks.
#pragma once

#include <string>

#include "actors/world.hpp"

namespace qs::actors {

/// 16 hex digits that name the phrase's wallet and tell nothing of it.
std::string wallet_public_id(const root_secret& root);

/// The world without a store. `read_only`: nothing is made on disk, for a look. Errors: of the providers.
result<world_ptr> assemble_world(const engine_options& options, bool read_only);

} // namespace qs::actors
