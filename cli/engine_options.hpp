// What an engine, or a look without one, needs to know of this machine for one volume. Reads the 24 words. Main thread.
#pragma once

#include "actors/engine.hpp"
#include "cli/volume_choice.hpp"

namespace qs::cli {

/// Without a mount port: a look needs none. Errors: of read_phrase().
result<actors::engine_options> engine_options_for(const chosen_volume& volume);
/// The same for a look at recorded state alone, where the words are not needed: with a root of zeros.
actors::engine_options options_without_phrase(const chosen_volume& volume);
/// ${…} values as the engine takes them: a JSON object of strings. Secret: over the control socket only.
std::string references_json(const spec::reference_values& values);

} // namespace qs::cli
