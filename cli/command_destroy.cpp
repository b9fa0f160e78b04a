// qs destroy: the plan of deleting everything, consent by the typed name, and the engine followed until it has gone.
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/units.hpp"
#include "cli/commands.hpp"
#include "cli/engine_launch.hpp"
#include "cli/exit_codes.hpp"
#include "cli/follow.hpp"
#include "cli/leftovers.hpp"
#include "cli/phrase_file.hpp"
#include "cli/plan_client.hpp"

namespace qs::cli {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;
using nlohmann::json;

bool destroying(const control_client& client) {
  auto status = client.get("/v1/status");
  if (!status.ok() || !status->ok()) return false;
  auto parsed = json::parse(status->body, nullptr, false);
  return parsed.is_object() && parsed.value("destroying", false);
}

/// 0 when the person said so, else the exit code.
int consent(const apply_options& o, const chosen_volume& volume, terminal& t) {
  if (!o.confirm.empty()) {
    if (o.confirm == volume.name) return 0;
    return t.fail(exit_usage, fmt::format("--confirm says '{}', the volume is '{}'; nothing was changed", o.confirm, volume.name));
  }
  auto said = t.ask(fmt::format("All data of this volume will be gone. Type its name ({}) to go on: ", volume.name), "--confirm NAME");
  if (!said.ok()) return t.fail(said.err().code == errc::invalid_argument ? exit_usage : exit_of(said.err().code), describe(said.err()));
  if (*said == volume.name) return 0;
  return t.fail(exit_failed, "that is not its name; nothing was changed");
}

int gone(const chosen_volume& volume, const apply_options& o, terminal& t) {
  remove_leftovers(volume);
  auto words = find_phrase(volume.around, volume.name);
  if (o.common.json) t.print(json{{"format_version", 1}, {"destroyed", volume.name}}.dump() + "\n");
  t.note(fmt::format("'{}' is destroyed: no node, no process, no state is left.{}", volume.name,
                     words.ok() ? fmt::format(" Its 24 words are kept in {}; they open nothing any more but pay from the same wallet.", words->string()) : ""));
  return exit_done;
}

} // namespace

int command_destroy(const apply_options& o, terminal& t) {
  auto timeout = parse_duration(o.timeout);
  if (!timeout.ok()) return t.fail(exit_usage, "--timeout: " + describe(timeout.err()));
  auto chosen = choose_volume(o.common, need::name);
  if (!chosen.ok()) return t.fail(chosen.err());
  if (o.common.json && o.confirm.empty()) return t.fail(exit_usage, "--json asks nothing; pass --confirm NAME");
  std::error_code ignored;
  if (!engine_runs(*chosen) && !fs::exists(chosen->state_directory / "state.db", ignored)) {
    // A destroy that came to its end leaves no keys and no log: these belong to a volume whose nodes nobody here knows now.
    if (holds_volume(*chosen))
      return t.fail(exit_refused, fmt::format("{} holds the keys and the log of '{}', but its recorded state (state.db) is missing, so its nodes cannot "
                                              "be given back: put back a copy of state.db; nothing was deleted",
                                              chosen->state_directory.string(), chosen->name));
    remove_leftovers(*chosen);
    t.note(fmt::format("there is no state of '{}' on this machine: nothing to destroy", chosen->name));
    return exit_done;
  }
  catch_interrupts();
  auto engine = engage(*chosen, t);
  if (!engine.client) return t.fail(engine.failure.exit, engine.failure.message);
  auto give_up = [&](int exit) {
    if (engine.started) (void)stop_engine(*chosen, *timeout, t);
    return exit;
  };
  auto after = newest_event(*engine.client);
  if (!destroying(*engine.client)) {
    t.progress("looking at what there is");
    auto plan = ask_for_plan(*engine.client, *chosen, {}, true);
    t.progress("");
    if (!plan.ok()) return give_up(t.fail(plan.err()));
    if (auto exit = report_plan(*plan, t); exit != 0) return give_up(exit);
    if (!o.common.json) t.print(t.colour() ? plan->human_colour : plan->human);
    if (plan->empty) {
      auto stopped = stop_engine(*chosen, *timeout, t);
      if (!stopped.ok()) return t.fail(stopped.err());
      return gone(*chosen, o, t);
    }
    if (auto exit = consent(o, *chosen, t); exit != 0) return give_up(exit);
    auto accepted = engine.client->post("/v1/accept", json{{"plan_hash", plan->plan_hash}, {"serial", plan->serial}}.dump());
    if (!accepted.ok()) return t.fail(accepted.err());
    if (!accepted->ok()) {
      auto why = accepted->why();
      return give_up(t.fail(why.exit, why.message));
    }
  }
  auto end = follow_until_gone(*chosen, *engine.client, *timeout, after, t);
  if (end.exit != 0) return t.fail(end.exit, end.message);
  if (fs::exists(chosen->state_directory / "state.db", ignored))
    return t.fail(exit_failed, "the engine ended before everything was gone; run the same command again ('qs logs' says what happened)");
  return gone(*chosen, o, t);
}

} // namespace qs::cli
