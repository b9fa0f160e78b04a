// qs apply, grow, add-nodes: the plan is shown, asked about and accepted by the engine, and its work followed.
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/units.hpp"
#include "cli/commands.hpp"
#include "cli/engine_launch.hpp"
#include "cli/engine_options.hpp"
#include "cli/exit_codes.hpp"
#include "cli/follow.hpp"
#include "cli/leftovers.hpp"
#include "cli/phrase_file.hpp"
#include "cli/plan_client.hpp"
#include "spec/edit.hpp"

namespace qs::cli {
namespace {

using namespace std::chrono_literals;
using nlohmann::json;

std::uint64_t generation_of(const control_client& client) {
  auto status = client.get("/v1/status");
  if (!status.ok() || !status->ok()) return 0;
  auto parsed = json::parse(status->body, nullptr, false);
  return parsed.is_object() ? parsed.value("generation", std::uint64_t{0}) : 0;
}

struct applying {
  const apply_options& o;
  terminal& t;
  const chosen_volume& volume;
  bool new_here; ///< there was no state before
  engaged engine;

  /// An engine that was started for this and has nothing to do ends again, and leaves no trace of a volume that is none.
  int give_up(int exit) {
    if (engine.started && generation_of(*engine.client) == 0) {
      auto stopped = stop_engine(volume, 60s, t);
      if (!stopped.ok()) t.warn(describe(stopped.err()));
      else if (new_here && !holds_volume(volume)) remove_state_leftovers(volume); // it had no volume to cache
    }
    return exit;
  }

  result<bool> consent(const plan_answer& plan) {
    if (o.auto_approve) return true;
    if (o.common.json) return error{errc::invalid_argument, "--json asks nothing; pass --auto-approve"};
    if (plan.needs_typed_name) {
      QS_TRY_ASSIGN(auto said, t.ask(fmt::format("This lowers durability or destroys data. Type the volume's name to go on: "), "--auto-approve"));
      return said == volume.name;
    }
    QS_TRY_ASSIGN(auto said, t.ask("Do you want this? Only 'yes' is taken for an answer: ", "--auto-approve"));
    return said == "yes";
  }

  int finish(const plan_answer& plan, std::uint64_t generation, std::uint64_t after_event) {
    auto timeout = parse_duration(o.timeout);
    follow_result end;
    if (o.wait != "none") {
      follow_request what;
      what.generation = generation;
      what.wait = o.wait;
      what.timeout = timeout.ok() ? *timeout : 30min;
      what.after_event = after_event;
      end = follow_until(volume, *engine.client, what, t);
    }
    if (o.common.json) {
      json out{{"format_version", 1}, {"generation", generation}, {"exit", end.exit}, {"message", end.message}};
      out["plan"] = json::parse(plan.plan_json, nullptr, false);
      if (!end.status.empty()) out["status"] = json::parse(end.status, nullptr, false);
      t.print(out.dump(2) + "\n");
    }
    if (end.exit == exit_degraded) {
      t.warn(fmt::format("everything is done, except: {}", end.message));
      return exit_degraded;
    }
    if (end.exit != 0) return t.fail(end.exit, end.message);
    if (o.common.json) return exit_done;
    if (o.wait == "none")
      t.note("Accepted. The engine works on it: 'qs status --watch'.");
    else
      t.note((plan.empty || plan.only_unknown) && !plan.refresh ? "Nothing to change; the volume is as the file says." : fmt::format("Done: '{}' is {}.", volume.name, o.wait));
    return exit_done;
  }
};

int apply_text(const apply_options& o, const chosen_volume& volume, terminal& t) {
  if (auto timeout = parse_duration(o.timeout); !timeout.ok()) return t.fail(exit_usage, "--timeout: " + describe(timeout.err()));
  auto file = load_file(volume);
  if (!report_problems(volume, file, t)) return exit_failed;
  // Said before an engine is started in vain.
  if (auto words = find_phrase(volume.around, volume.name); !words.ok() && !engine_runs(volume)) return t.fail(words.err());
  catch_interrupts();
  std::error_code ignored;
  auto new_here = !std::filesystem::exists(volume.state_directory / "state.db", ignored);
  applying a{o, t, volume, new_here, engage(volume, t)};
  if (!a.engine.client) return t.fail(a.engine.failure.exit, a.engine.failure.message);
  t.progress("looking at what there is");
  auto plan = ask_for_plan(*a.engine.client, volume, file, false);
  t.progress("");
  if (!plan.ok()) return a.give_up(t.fail(plan.err()));
  if (auto exit = report_plan(*plan, t); exit != 0) return a.give_up(exit);
  if (!o.common.json) t.print(t.colour() ? plan->human_colour : plan->human);
  // What is only unknown is left untouched: there is nothing to accept, and nobody to ask.
  auto nothing = plan->empty || plan->only_unknown;
  if (nothing && !plan->refresh) {
    remember_file(volume);
    return a.finish(*plan, generation_of(*a.engine.client), newest_event(*a.engine.client));
  }
  auto wanted = nothing ? result<bool>{true} : a.consent(*plan);
  if (!wanted.ok()) {
    auto code = wanted.err().code == errc::invalid_argument ? exit_usage : exit_of(wanted.err().code);
    return a.give_up(t.fail(code, describe(wanted.err())));
  }
  if (!*wanted) return a.give_up(t.fail(exit_failed, "not approved; nothing was changed"));
  auto after = newest_event(*a.engine.client);
  auto accepted = a.engine.client->post("/v1/accept", json{{"plan_hash", plan->plan_hash}, {"serial", plan->serial}}.dump());
  if (!accepted.ok()) return t.fail(accepted.err());
  if (!accepted->ok()) {
    auto why = accepted->why();
    return a.give_up(t.fail(why.exit, why.message));
  }
  remember_file(volume);
  auto said = json::parse(accepted->body, nullptr, false);
  return a.finish(*plan, said.is_object() ? said.value("generation", std::uint64_t{0}) : 0, after);
}

/// Edits the file in place and applies it. A plan that is declined leaves the edit, as if it had been made by hand.
int apply_edited(const apply_options& o, terminal& t, const std::function<result<std::string>(const std::string&)>& edit) {
  auto chosen = choose_volume(o.common, need::file);
  if (!chosen.ok()) return t.fail(chosen.err());
  auto text = edit(chosen->text);
  if (!text.ok()) return t.fail(text.err());
  auto edited = *chosen;
  edited.text = *text;
  if (!report_problems(edited, load_file(edited), t)) {
    t.note(fmt::format("{} was not changed", chosen->file.string()));
    return exit_failed;
  }
  if (edited.text != chosen->text) {
    std::error_code ignored;
    auto mode = static_cast<mode_t>(std::filesystem::status(chosen->file, ignored).permissions()) & 0777U;
    if (auto written = write_file_atomic(std::filesystem::canonical(chosen->file, ignored), as_bytes(edited.text), mode); !written.ok())
      return t.fail(written.err());
    t.note(fmt::format("{} edited", chosen->file.string()));
  }
  return apply_text(o, edited, t);
}

/// "5 of 8 nodes ready, 3 not begun".
std::string cancelled_text(const std::string& status) {
  auto s = json::parse(status, nullptr, false);
  std::size_t ready = 0;
  std::size_t planned = 0;
  std::size_t all = 0;
  for (const auto& n : s.is_object() ? s.value("nodes", json::array()) : json::array()) {
    auto state = n.value("state", "");
    if (state == "replaced") continue;
    ++all;
    if (state == "ready") ++ready;
    if (state == "planned") ++planned;
  }
  return fmt::format("Cancelled: {} of {} nodes ready, {} not begun. 'qs resume' goes on with it, 'qs apply' takes the file as it is then.", ready, all,
                     planned);
}

int cancel(const apply_options& o, terminal& t) {
  auto timeout = parse_duration(o.timeout);
  if (!timeout.ok()) return t.fail(exit_usage, "--timeout: " + describe(timeout.err()));
  auto chosen = choose_volume(o.common, need::name);
  if (!chosen.ok()) return t.fail(chosen.err());
  auto engine = engage_running(*chosen);
  if (!engine.client) return t.fail(engine.failure.exit, engine.failure.message);
  catch_interrupts();
  auto after = newest_event(*engine.client);
  auto answer = engine.client->post("/v1/cancel", "{}");
  if (!answer.ok()) return t.fail(answer.err());
  if (!answer->ok()) return t.fail(answer->why().exit, answer->why().message);
  auto said = json::parse(answer->body, nullptr, false);
  auto cancelled = said.is_object() && said.value("cancelled", false);
  follow_result end;
  if (cancelled) {
    follow_request what;
    what.timeout = *timeout;
    what.after_event = after;
    what.judge = [](const std::string& status) {
      auto s = json::parse(status, nullptr, false);
      return judgement{s.is_object() && s.value("under_way", 1) == 0 ? verdict::done : verdict::not_yet, {}};
    };
    end = follow_until(*chosen, *engine.client, what, t);
  }
  if (o.common.json) {
    json out{{"format_version", 1}, {"cancelled", cancelled}, {"exit", end.exit}, {"message", end.message}};
    if (!end.status.empty()) out["status"] = json::parse(end.status, nullptr, false);
    t.print(out.dump(2) + "\n");
  }
  if (end.exit != 0) return t.fail(end.exit, end.message);
  t.note(cancelled ? cancelled_text(end.status) : "Nothing is under way: there is nothing to cancel.");
  return exit_done;
}

} // namespace

int command_apply(const apply_options& o, terminal& t) {
  if (o.cancel) return cancel(o, t);
  auto chosen = choose_volume(o.common, need::file);
  if (!chosen.ok()) return t.fail(chosen.err());
  return apply_text(o, *chosen, t);
}

int command_grow(const size_options& o, terminal& t) {
  return apply_edited(o.apply, t, [&](const std::string& text) { return spec::set_capacity(text, o.size); });
}

int command_add_nodes(const size_options& o, terminal& t) {
  return apply_edited(o.apply, t, [&](const std::string& text) -> result<std::string> {
    auto now = spec::load(text, spec::fixed_environment{}, spec::reference_mode::keep);
    if (!now.spec) return error{errc::invalid_argument, "the file has mistakes; 'qs validate' shows them"};
    return spec::set_nodes(text, now.spec->storage.nodes + o.nodes);
  });
}

} // namespace qs::cli
