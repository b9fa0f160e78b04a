// bind: values by path → storage_spec, defaults where the file gives none. Internal to spec.
// Works on half-broken input too: what was reported has its default, so that the rules can still
// look at the rest.
#pragma once

#include "spec/reader.hpp"

namespace qs::spec {

storage_spec bind(const fields_read& read);

} // namespace qs::spec
