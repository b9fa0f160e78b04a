// schema: storage.yaml described for editors (JSON Schema) and for people (Markdown), from the
// field table that the parser itself uses.
#pragma once

#include <string>

namespace qs::spec {

/// JSON Schema, draft 2020-12, indented, with a newline at the end: the output of `qs schema`.
std::string schema_json();
/// The table of keys in docs/storage-yaml.md.
std::string reference_markdown();

} // namespace qs::spec
