// qs diff: observes and prints the plan. Changes nothing, starts nothing.
#include <fmt/format.h>

#include "cli/commands.hpp"
#include "cli/engine_launch.hpp"
#include "cli/engine_options.hpp"
#include "cli/exit_codes.hpp"
#include "cli/plan_client.hpp"

namespace qs::cli {
namespace {

result<plan_answer> plan_without_engine(const chosen_volume& volume, const spec::loaded& file, bool probe) {
  actors::offline_request request;
  QS_TRY_ASSIGN(request.options, engine_options_for(volume));
  request.spec_text = volume.text;
  request.references = references_json(file.references);
  request.probe = probe;
  return read_plan(actors::plan_without_engine(request));
}

} // namespace

int command_diff(const plan_options& o, terminal& t) {
  auto chosen = choose_volume(o.common, need::file);
  if (!chosen.ok()) return t.fail(chosen.err());
  auto file = load_file(*chosen);
  if (!report_problems(*chosen, file, t)) return exit_failed;
  auto plan = [&]() -> result<plan_answer> {
    if (o.offline || !engine_runs(*chosen)) return plan_without_engine(*chosen, file, !o.offline);
    auto engine = engage_running(*chosen);
    if (!engine.client) {
      plan_answer refused;
      refused.exit = engine.failure.exit;
      refused.errors.push_back(engine.failure.message);
      return refused;
    }
    return ask_for_plan(*engine.client, *chosen, file, false);
  }();
  if (!plan.ok()) return t.fail(plan.err());
  if (auto exit = report_plan(*plan, t); exit != 0) return exit;
  t.print(o.common.json ? plan->plan_json : t.colour() ? plan->human_colour : plan->human);
  if (t.broken()) return exit_failed;
  if (plan->only_unknown) return exit_degraded;
  return o.detailed_exitcode && !plan->empty ? exit_changes : exit_done;
}

} // namespace qs::cli
