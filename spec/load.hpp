// load: the text of storage.yaml → storage_spec, or everything that is wrong with it, with places.
// Pure: looks at nothing but its arguments. Not the plan (controller) and not the look of the
// output (cli). Any thread.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "base/diagnostic.hpp"
#include "spec/environment.hpp"
#include "spec/storage_spec.hpp"

namespace qs::spec {

struct loaded {
  /// There if and only if `problems` holds no error.
  std::optional<storage_spec> spec;
  /// All of them, warnings included, in the order of the file.
  diagnostics problems;
  /// Where each key's value stands: "storage.redundancy.parity", "storage.locations[0].nodes".
  std::map<std::string, source_range> places;
  /// What the references stood for: to be sealed in the state at `apply`, never shown.
  reference_values references;
};

/// What to do about ${env:…} and ${file:…}: replace them (a missing one is an error), or keep them
/// as written
/// (`sourced::value` is then empty, and nothing outside is asked).
enum class reference_mode { resolve, keep };

/// Parses and checks, including what this version understands but does not do yet.
loaded load(std::string_view text, const environment& env,
            reference_mode mode = reference_mode::resolve);

/// One error for everything in `from.spec` that this version does not act on yet, a warning where that does no harm.
diagnostics unsupported(const loaded& from);

/// load and unsupported together: what `qs validate`, `diff` and `apply` go by.
loaded validate(std::string_view text, const environment& env,
                reference_mode mode = reference_mode::resolve);

/// Every value, defaults written out, in one fixed order and spelling, references as written: YAML
/// that loads to an equal spec. Two files mean the same if their canonical texts are equal. Holds
/// no secret that the file does not.
std::string to_canonical(const storage_spec& spec);
/// BLAKE2b-256 of the canonical text as 64 hex digits: the spec's hash in state and plans.
std::string canonical_hash(const storage_spec& spec);

} // namespace qs::spec
