// rules: what values of storage.yaml must be together. Internal to spec. control.md 3 is where they
// come from. A rule speaks only if everything it looks at was read without a problem.
#pragma once

#include "spec/reader.hpp"

namespace qs::spec {

void check_rules(const storage_spec& spec, const fields_read& read, diagnostics& problems);

/// The part that is about machines and places: locations, spread, exclude, hosts.
void check_placement(const storage_spec& spec, const fields_read& read, diagnostics& problems);

} // namespace qs::spec
