// report: diagnostics as JSON for `qs validate --json`.
// Shape: {format_version, valid, error_count, warning_count, diagnostics: [{severity, code,
// summary, detail, range: {filename, start: {line, column, byte}, end: {…}}}]}. Lines and columns
// from 1, columns in characters, byte from 0, end exclusive; no range where no place is known.
#pragma once

#include <string>
#include <string_view>

#include "base/diagnostic.hpp"

namespace qs::spec {

/// `text` is the content of `file`. Ends with a newline.
std::string to_json(const diagnostics& problems, std::string_view file, std::string_view text);

} // namespace qs::spec
