// What an engine that has ended for good leaves on this machine, and taking it away. Main thread; no engine may run.
#pragma once

#include "cli/volume_choice.hpp"

namespace qs::cli {

/// Keys, rows or log of a volume are in its state directory (or nobody can tell): never to be removed as a leftover.
bool holds_volume(const chosen_volume& volume);

/// Removes what qs itself puts into the volume's state directory, and nothing else.
void remove_state_leftovers(const chosen_volume& volume);

/// Its cache as well; the words stay.
void remove_leftovers(const chosen_volume& volume);

} // namespace qs::cli
