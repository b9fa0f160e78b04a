// codes: every QS0nnn that checking storage.yaml can give. A number is never used again for
// something else. docs/diagnostics.md is the same list for people; a test compares them.
#pragma once

#include <string_view>
#include <vector>

namespace qs::spec {

struct code_info {
  std::string_view code;   ///< "QS0107"
  std::string_view title;  ///< what it is about
  std::string_view advice; ///< what to do
};

const std::vector<code_info>& codes();
/// The advice of a code, "" if unknown.
std::string_view advice(std::string_view code);

} // namespace qs::spec
