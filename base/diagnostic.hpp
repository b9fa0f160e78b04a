// diagnostic: one thing wrong in something a user wrote, with where it is and how to mend it.
// Checks collect all of them and never stop at the first. Rendering is in one place, so every file looks the same.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace qs {

enum class severity { error, warning };

/// Lines and columns count from 1, columns in Unicode characters; 0 = unknown. `end_column` is exclusive.
struct source_range {
  int line = 0;
  int column = 0;
  int end_column = 0;
};

struct diagnostic {
  severity level = severity::error;
  std::string code;    ///< "QS0107"; listed in docs/diagnostics.md
  std::string message; ///< what is wrong and what to write instead
  source_range where;
};

using diagnostics = std::vector<diagnostic>;

bool has_errors(const diagnostics& list) noexcept;

/// "file:line:col: error: message [QS0107]", the source line and a caret under the place, for each of `list`
/// in the order of the file. `text` is the file's content.
std::string render(const diagnostics& list, std::string_view file, std::string_view text);

/// The candidate nearest to `word` if the distance is small enough to be a slip of the pen, else "".
std::string_view nearest(std::string_view word, const std::vector<std::string_view>& candidates);

} // namespace qs
