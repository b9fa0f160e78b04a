// qs validate and qs schema: the file alone, offline.
#include <fmt/format.h>

#include "base/posix.hpp"
#include "cli/commands.hpp"
#include "cli/exit_codes.hpp"
#include "cli/plan_client.hpp"
#include "spec/report.hpp"
#include "spec/schema.hpp"

namespace qs::cli {
namespace {

namespace fs = std::filesystem;

/// Unlike other commands this one must not need a name in the file: it is there to say that it is missing.
result<chosen_volume> any_file(const common_flags& o) {
  QS_TRY_ASSIGN(auto around, look_around(o.state_dir));
  std::error_code failed;
  auto here = fs::current_path(failed);
  auto file = !o.file.empty() ? (here / o.file).lexically_normal() : here / "storage.yaml";
  if (o.file.empty() && (!o.volume.empty() || !fs::exists(file, failed))) return choose_volume(o, need::file);
  chosen_volume out;
  out.around = around;
  out.file = file;
  auto text = read_file(file, 1 << 20);
  if (!text.ok()) return std::move(text).err();
  out.text = std::move(*text);
  return out;
}

} // namespace

int command_validate(const common_flags& o, terminal& t) {
  auto chosen = any_file(o);
  if (!chosen.ok()) return t.fail(chosen.err());
  auto shown = o.file.empty() ? chosen->file.filename().string() : o.file;
  auto file = load_file(*chosen);
  if (o.json) {
    t.print(spec::to_json(file.problems, shown, chosen->text));
  } else {
    auto text = render(file.problems, shown, chosen->text);
    while (!text.empty() && text.back() == '\n') text.pop_back();
    if (!text.empty()) t.note(text);
    if (file.spec) t.print(fmt::format("{} is valid.\n", shown));
  }
  return file.spec && !t.broken() ? exit_done : exit_failed;
}

int command_schema(const common_flags&, terminal& t) {
  t.print(spec::schema_json());
  return t.broken() ? exit_failed : exit_done;
}

} // namespace qs::cli
