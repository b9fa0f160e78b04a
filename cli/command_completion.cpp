// qs completion and qs version.
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "actors/engine.hpp"
#include "cli/commands.hpp"
#include "cli/completion.hpp"
#include "cli/exit_codes.hpp"

namespace qs::cli {

int command_completion(const text_options& o, terminal& t) {
  t.print(completion_script(o.what, all_commands()));
  return t.broken() ? exit_failed : exit_done;
}

int command_version(const common_flags& o, terminal& t) {
  if (o.json)
    t.print(nlohmann::json{{"format_version", 1}, {"version", QS_VERSION}, {"control_protocol", actors::control_protocol}, {"spec_versions", {1}}}.dump() + "\n");
  else
    t.print("qs " QS_VERSION "\n");
  return t.broken() ? exit_failed : exit_done;
}

} // namespace qs::cli
