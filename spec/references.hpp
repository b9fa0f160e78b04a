// references: ${env:NAME}, ${file:PATH} and a leading ~/ in a text of storage.yaml. Internal to
// spec.
#pragma once

#include <optional>
#include <string>

#include "spec/load.hpp"

namespace qs::spec {

struct replaced {
  std::optional<sourced> text;
  bool complete = false; ///< `text->value` is the real value: no reference was kept as written
  std::string code;      ///< of the problem, if `text` is empty
  std::string problem;
};

/// `home`: "~/" at the start is replaced. What was resolved is added to `found`.
replaced replace_references(const std::string& written, bool home, const environment& env,
                            reference_mode mode, reference_values& found);

} // namespace qs::spec
