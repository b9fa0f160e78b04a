// qs destroy: the plan of deleting everything, consent by the typed name, and the engine followed until it has gone.
#include <chrono>
#include <map>
#include <optional>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/units.hpp"
#include "cli/commands.hpp"
#include "cli/ending.hpp"
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
using steady = std::chrono::steady_clock;

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
  auto said = t.ask(fmt::format("All data of this volume will be gone{}. Type its name ({}) to go on: ",
                                o.abandon ? ", and what cannot be deleted is given up and stays where it is" : "", volume.name),
                    "--confirm NAME");
  if (!said.ok()) return t.fail(said.err().code == errc::invalid_argument ? exit_usage : exit_of(said.err().code), describe(said.err()));
  if (*said == volume.name) return 0;
  return t.fail(exit_failed, "that is not its name; nothing was changed");
}

/// Looks at what is left while the engine deletes: what cannot be deleted is told after a while, or given up if that was
/// the person's word.
class end_watch {
public:
  /// What was given up earlier is to be told as well: asked now, as the engine may be gone before it is asked again.
  end_watch(const control_client& client, bool abandon) : client_{client}, abandon_{abandon} {
    if (auto now = client.get("/v1/status"); now.ok() && now->ok()) note(now->body);
  }

  std::optional<follow_result> look(const std::string& status) {
    note(status);
    left_ = nodes_left(status);
    if (!only_stuck(left_)) {
      stuck_since_.reset();
      return std::nullopt;
    }
    if (abandon_) return give_up();
    if (!stuck_since_) stuck_since_ = steady::now();
    if (steady::now() - *stuck_since_ < patience) return std::nullopt;
    return follow_result{exit_again, problem(), status};
  }
  /// Why not all is gone; empty if that is only a matter of time.
  [[nodiscard]] std::string problem() const {
    if (!only_stuck(left_)) return {};
    return fmt::format("all is gone but what cannot be deleted:\n{}\nThe engine goes on trying, and the same command again goes on waiting. What will "
                       "never come back is given up by 'qs destroy --abandon'; what is left there is listed then",
                       left_text(left_));
  }
  [[nodiscard]] std::vector<abandoned_node> given_up() const {
    std::vector<abandoned_node> out;
    for (const auto& [id, n] : given_up_) out.push_back(n);
    return out;
  }

private:
  /// Of what only looks dead something may have come back by now: the rest is looked at again.
  static constexpr auto patience = 60s;

  void note(const std::string& status) {
    for (auto& n : nodes_abandoned(status)) given_up_[n.id] = std::move(n);
  }

  std::optional<follow_result> give_up() {
    for (const auto& n : left_) {
      auto answer = client_.post("/v1/nodes/delete", json{{"node", n.id}, {"abandon", true}}.dump());
      if (!answer.ok()) return std::nullopt; // the engine went away: the loop sees it
      if (!answer->ok()) {
        auto why = answer->why();
        if (why.exit == exit_again) continue;
        return follow_result{why.exit, why.message, {}};
      }
      auto body = json::parse(answer->body, nullptr, false);
      if (body.is_object() && body.value("abandoned", false))
        given_up_[n.id] = {n.id, n.provider, n.host, n.endpoint, n.name_space, body.value("by_hand", "")};
    }
    return std::nullopt;
  }

  const control_client& client_;
  bool abandon_;
  std::vector<left_node> left_;
  std::optional<steady::time_point> stuck_since_;
  std::map<std::string, abandoned_node> given_up_;
};

int gone(const chosen_volume& volume, const apply_options& o, const std::vector<abandoned_node>& given_up, terminal& t) {
  remove_leftovers(volume);
  auto words = find_phrase(volume.around, volume.name);
  if (o.common.json)
    t.print(json{{"format_version", 1}, {"destroyed", volume.name}, {"abandoned", json::parse(abandoned_json(given_up))}}.dump() + "\n");
  auto kept = words.ok() ? fmt::format(" Its 24 words are kept in {}; they open nothing any more but pay from the same wallet.", words->string()) : "";
  if (given_up.empty()) {
    t.note(fmt::format("'{}' is destroyed: no node, no process, no state is left.{}", volume.name, kept));
    return exit_done;
  }
  t.note(fmt::format("'{}' is destroyed: no process, no state is left, and no node but what was given up:\n{}\nWhat is there is sealed; it takes room "
                     "until it is deleted.{}",
                     volume.name, abandoned_text(given_up), kept));
  return exit_degraded;
}

int nothing_recorded(const chosen_volume& volume, terminal& t) {
  // A destroy that came to its end leaves no keys and no log: these belong to a volume whose nodes nobody here knows now.
  if (holds_volume(volume))
    return t.fail(exit_refused, fmt::format("{} holds the keys and the log of '{}', but its recorded state (state.db) is missing, so its nodes cannot "
                                            "be given back: put back a copy of state.db; nothing was deleted",
                                            volume.state_directory.string(), volume.name));
  remove_leftovers(volume);
  t.note(fmt::format("there is no state of '{}' on this machine: nothing to destroy", volume.name));
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
  if (!engine_runs(*chosen) && !fs::exists(chosen->state_directory / "state.db", ignored)) return nothing_recorded(*chosen, t);
  catch_interrupts();
  auto engine = engage(*chosen, t);
  if (!engine.client) return t.fail(engine.failure.exit, engine.failure.message);
  auto give_up = [&](int exit) {
    if (engine.started) (void)stop_engine(*chosen, *timeout, t);
    return exit;
  };
  auto after = newest_event(*engine.client);
  end_watch watch{*engine.client, o.abandon};
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
      return gone(*chosen, o, watch.given_up(), t);
    }
    if (auto exit = consent(o, *chosen, t); exit != 0) return give_up(exit);
    auto accepted = engine.client->post("/v1/accept", json{{"plan_hash", plan->plan_hash}, {"serial", plan->serial}}.dump());
    if (!accepted.ok()) return t.fail(accepted.err());
    if (!accepted->ok()) {
      auto why = accepted->why();
      return give_up(t.fail(why.exit, why.message));
    }
  } else if (o.abandon) {
    if (auto exit = consent(o, *chosen, t); exit != 0) return exit;
  }
  auto end = follow_until_gone(*chosen, *engine.client, *timeout, after, [&](const std::string& status) { return watch.look(status); }, t);
  if (end.exit == exit_again && !watch.problem().empty()) end.message = watch.problem();
  if (end.exit != 0) return t.fail(end.exit, end.message);
  if (fs::exists(chosen->state_directory / "state.db", ignored))
    return t.fail(exit_failed, "the engine ended before everything was gone; run the same command again ('qs logs' says what happened)");
  return gone(*chosen, o, watch.given_up(), t);
}

} // namespace qs::cli
