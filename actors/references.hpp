// What ${env:…}, ${file:…} and ~ stood for at `apply`, sealed for the state (control.md, 6): the
// accepted spec keeps references, the values are secret. Pure but for the nonce. Any thread.
#pragma once

#include <string>

#include "base/random.hpp"
#include "base/result.hpp"
#include "codec/keys.hpp"
#include "spec/environment.hpp"

namespace qs::actors {

/// Hex of the sealed JSON object; "" for no values.
std::string seal_references(const codec::volume_keys& keys, const spec::reference_values& values,
                            random_source& random);
/// Nothing if it is empty or was not sealed for this phrase and volume.
spec::reference_values open_references(const codec::volume_keys& keys, const std::string& sealed);
/// A JSON object of strings, as clients send it. Errors: invalid_argument.
result<spec::reference_values> parse_references(const std::string& json);

} // namespace qs::actors
