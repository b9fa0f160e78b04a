// qs nodes delete: a node that left and that nothing needs is deleted now, or given up by the person's word.
#include <algorithm>
#include <chrono>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/units.hpp"
#include "cli/commands.hpp"
#include "cli/ending.hpp"
#include "cli/engine_launch.hpp"
#include "cli/exit_codes.hpp"

namespace qs::cli {
namespace {

using namespace std::chrono_literals;
using nlohmann::json;
using steady = std::chrono::steady_clock;

/// What became of it: gone, tried in vain since, or the time is over.
struct outcome {
  int exit = exit_done;
  std::string problem;
  left_node last;
};

std::uint64_t tries_of(const std::string& status, const std::string& id) {
  for (const auto& n : nodes_left(status))
    if (n.id == id) return n.tries;
  return 0;
}

/// `least`: so often it must have been tried in all.
outcome wait_for_tries(const control_client& client, const std::string& id, std::uint64_t least, std::chrono::milliseconds patience, terminal& t) {
  auto until = steady::now() + patience;
  for (;;) {
    auto status = client.get("/v1/status");
    if (!status.ok()) return {exit_again, describe(status.err()), {}};
    auto there = false;
    for (const auto& n : nodes_left(status->body)) {
      if (n.id != id) continue;
      there = true;
      if (n.tries >= least) return {exit_degraded, n.detail, n};
    }
    if (!there) return {};
    if (steady::now() > until) return {exit_again, fmt::format("{} is not deleted yet, and the time is over; the engine goes on with it", id), {}};
    t.progress(fmt::format("deleting {}", id));
    if (interruptible_pause(200)) return {exit_interrupted, "interrupted; the engine goes on with it", {}};
  }
}

int say_gone(const node_options& o, const std::vector<abandoned_node>& given_up, terminal& t) {
  if (o.common.json)
    t.print(json{{"format_version", 1}, {"node", o.node}, {"state", "gone"}, {"abandoned", json::parse(abandoned_json(given_up))}}.dump() + "\n");
  if (given_up.empty()) {
    t.note(fmt::format("{} is deleted", o.node));
    return t.broken() ? exit_failed : exit_done;
  }
  t.note(fmt::format("{} is given up. Whatever is left of it stays there:\n{}", o.node, abandoned_text(given_up)));
  return t.broken() ? exit_failed : exit_degraded;
}

int ask(const node_options& o, terminal& t) {
  if (o.yes) return exit_done;
  auto question = o.abandon ? fmt::format("Delete {}, or give it up if its machine does not answer? What is left there stays there.", o.node)
                            : fmt::format("Delete {}?", o.node);
  auto said = t.ask(question + " Only 'yes' is taken for an answer: ", "--yes");
  if (!said.ok()) return t.fail(said.err().code == errc::invalid_argument ? exit_usage : exit_of(said.err().code), describe(said.err()));
  return *said == "yes" ? exit_done : t.fail(exit_failed, "not approved; nothing was changed");
}

} // namespace

int command_nodes_delete(const node_options& o, terminal& t) {
  auto patience = parse_duration(o.timeout);
  if (!patience.ok()) return t.fail(exit_usage, "--timeout: " + describe(patience.err()));
  auto chosen = choose_volume(o.common, need::name);
  if (!chosen.ok()) return t.fail(chosen.err());
  auto engine = engage_running(*chosen);
  if (!engine.client) return t.fail(engine.failure.exit, engine.failure.message);
  if (auto exit = ask(o, t); exit != exit_done) return exit;
  catch_interrupts();
  auto before = engine.client->get("/v1/status");
  if (!before.ok()) return t.fail(before.err());
  auto tries = tries_of(before->body, o.node);
  auto post = [&](bool abandon) { return engine.client->post("/v1/nodes/delete", json{{"node", o.node}, {"abandon", abandon}}.dump()); };
  auto asked = post(false);
  if (!asked.ok()) return t.fail(asked.err());
  if (!asked->ok()) return t.fail(asked->why().exit, asked->why().message);
  auto least = std::max(tries + 1, o.abandon ? tries_enough : 1);
  auto tried = wait_for_tries(*engine.client, o.node, least, *patience, t);
  t.progress("");
  if (tried.exit == exit_done) return say_gone(o, {}, t);
  if (tried.exit != exit_degraded) return t.fail(tried.exit, tried.problem);
  if (!o.abandon)
    return t.fail(exit_again, fmt::format("{} on {} cannot be deleted: {}\nThe engine goes on trying. If that machine never comes back: "
                                          "'qs nodes delete {} --abandon' gives it up",
                                          o.node, tried.last.host, tried.problem, o.node));
  auto given_up = post(true);
  if (!given_up.ok()) return t.fail(given_up.err());
  if (!given_up->ok()) return t.fail(given_up->why().exit, given_up->why().message);
  auto body = json::parse(given_up->body, nullptr, false);
  if (!body.is_object() || !body.value("abandoned", false)) return say_gone(o, {}, t);
  const auto& n = tried.last;
  return say_gone(o, {{n.id, n.provider, n.host, n.endpoint, n.name_space, body.value("by_hand", "")}}, t);
}

} // namespace qs::cli
