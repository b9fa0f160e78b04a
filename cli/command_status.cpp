// qs status and qs nodes: what is, from the engine, or from the recorded state when none runs.
#include <chrono>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/units.hpp"
#include "cli/commands.hpp"
#include "cli/engine_launch.hpp"
#include "cli/engine_options.hpp"
#include "cli/exit_codes.hpp"
#include "cli/follow.hpp"
#include "cli/views.hpp"

namespace qs::cli {
namespace {

using namespace std::chrono_literals;
using nlohmann::json;
using steady = std::chrono::steady_clock;

struct looked {
  std::string document;
  int exit = 0;
  std::string problem;
};

/// Before the first apply there is nothing recorded, and that is an answer too.
std::string nothing_recorded(const chosen_volume& v) {
  return json{{"format_version", 1},
              {"name", v.name},
              {"state", "Stopped"},
              {"conditions", json::array()},
              {"generation", 0},
              {"accepted_hash", ""},
              {"unapplied_edits", false},
              {"volume", json::object()},
              {"nodes", json::array()},
              {"wallet", {{"known", false}, {"balance", "0"}, {"per_month", "0"}, {"runway_days", json{}}}},
              {"mount", {{"path", ""}, {"mounted", false}}},
              {"engine", json{}}}
    .dump();
}

looked look(const chosen_volume& v) {
  looked out;
  if (engine_runs(v)) {
    auto engine = engage_running(v);
    if (engine.client) {
      auto answer = engine.client->get("/v1/status");
      if (answer.ok() && answer->ok()) return {answer->body, 0, {}};
      if (answer.ok()) return {{}, answer->why().exit, answer->why().message};
      return {{}, exit_of(answer.err().code), describe(answer.err())};
    }
    if (engine_runs(v)) return {{}, engine.failure.exit, engine.failure.message};
  }
  auto recorded = actors::status_without_engine(options_without_phrase(v));
  if (recorded.ok()) return {std::move(*recorded), 0, {}};
  if (recorded.err().code == errc::not_found) return {nothing_recorded(v), 0, {}};
  return {{}, exit_of(recorded.err().code), describe(recorded.err())};
}

/// The hash is over the meaning, so that a comment is no edit; a file with mistakes was not applied as it is.
bool has_edits(const chosen_volume& v, const std::string& accepted_hash) {
  auto now = spec::load(v.text, spec::fixed_environment{}, spec::reference_mode::keep);
  return !now.spec || spec::canonical_hash(*now.spec) != accepted_hash;
}

/// Only the command knows the file, so only it can tell whether it was edited since.
std::string with_edits(const std::string& document, const chosen_volume& v) {
  auto s = json::parse(document, nullptr, false);
  if (!s.is_object()) return document;
  s["unapplied_edits"] = !v.text.empty() && has_edits(v, s.value("accepted_hash", ""));
  return s.dump(2) + "\n";
}

bool is_so(const std::string& document, const std::string& wanted) {
  auto s = json::parse(document, nullptr, false);
  if (!s.is_object()) return false;
  if (s.value("state", "") == wanted) return true;
  for (const auto& c : s.value("conditions", json::array()))
    if (c.value("type", "") == wanted) return c.value("status", "") == "True";
  return false;
}

int wait_for(const status_options& o, const chosen_volume& first, terminal& t) {
  auto patience = parse_duration(o.timeout);
  if (!patience.ok()) return t.fail(exit_usage, "--timeout: " + describe(patience.err()));
  catch_interrupts();
  auto until = steady::now() + *patience;
  progress_meter meter;
  for (;;) {
    auto now = look(first);
    if (now.exit != 0 && now.exit != exit_again) return t.fail(now.exit, now.problem);
    if (is_so(now.document, o.wait_for)) {
      auto document = with_edits(now.document, first);
      t.progress("");
      t.print(o.common.json ? document : status_view(document, {t.colour(), static_cast<std::size_t>(std::max(80, t.facts().width))}));
      return t.broken() ? exit_failed : exit_done;
    }
    if (steady::now() > until) {
      if (o.common.json && !now.document.empty()) t.print(with_edits(now.document, first));
      return t.fail(exit_again, fmt::format("'{}' was not reached within {}; 'qs status' says what is missing", o.wait_for, format_duration(*patience)));
    }
    t.progress(fmt::format("waiting for {}", o.wait_for), meter.see(now.document));
    if (interruptible_pause(250)) return exit_interrupted;
  }
}

} // namespace

int command_status(const status_options& o, terminal& t) {
  auto chosen = choose_volume(o.common, need::name);
  if (!chosen.ok()) return t.fail(chosen.err());
  if (!o.wait_for.empty()) return wait_for(o, *chosen, t);
  auto interval = parse_duration(o.interval);
  if (!interval.ok()) return t.fail(exit_usage, "--interval: " + describe(interval.err()));
  if (o.watch) catch_interrupts();
  for (;;) {
    auto now = look(*chosen);
    if (now.exit != 0 && !o.watch) return t.fail(now.exit, now.problem);
    auto document = now.exit == 0 ? with_edits(now.document, *chosen) : std::string{};
    if (o.common.json)
      t.print(o.watch && !document.empty() ? json::parse(document).dump() + "\n" : document);
    else {
      auto view = now.exit == 0 ? status_view(document, {t.colour(), static_cast<std::size_t>(std::max(80, t.facts().width))}) : now.problem + "\n";
      if (o.watch && t.facts().out_tty && !t.facts().dumb) t.print("\x1b[H\x1b[2J");
      t.print(view);
    }
    if (t.broken()) return exit_failed;
    if (!o.watch) return exit_done;
    if (interruptible_pause(static_cast<int>(std::max<std::int64_t>(interval->count(), 100)))) return exit_interrupted;
    // The file may have been edited meanwhile.
    if (auto again = choose_volume(o.common, need::name); again.ok()) chosen = std::move(again);
  }
}

namespace {

/// The nodes document; prints what is wrong and gives its exit code if there is none.
int nodes_document(const common_flags& o, terminal& t, std::string& out) {
  auto chosen = choose_volume(o, need::name);
  if (!chosen.ok()) return t.fail(chosen.err());
  auto now = look(*chosen);
  if (now.exit != 0) return t.fail(now.exit, now.problem);
  auto s = json::parse(now.document, nullptr, false);
  if (!s.is_object()) return t.fail(exit_failed, "the engine's answer cannot be read; is it another version? 'qs restart'");
  out = json{{"format_version", 1}, {"name", chosen->name}, {"nodes", s.value("nodes", json::array())}}.dump(2) + "\n";
  return exit_done;
}

int ask_engine(const node_options& o, terminal& t, const char* path, const char* question) {
  auto chosen = choose_volume(o.common, need::name);
  if (!chosen.ok()) return t.fail(chosen.err());
  auto engine = engage_running(*chosen);
  if (!engine.client) return t.fail(engine.failure.exit, engine.failure.message);
  if (!o.yes) {
    auto said = t.ask(fmt::format("{} Only 'yes' is taken for an answer: ", fmt::format(fmt::runtime(question), o.node)), "--yes");
    if (!said.ok()) return t.fail(said.err().code == errc::invalid_argument ? exit_usage : exit_of(said.err().code), describe(said.err()));
    if (*said != "yes") return t.fail(exit_failed, "not approved; nothing was changed");
  }
  auto answer = engine.client->post(path, json{{"node", o.node}}.dump());
  if (!answer.ok()) return t.fail(answer.err());
  if (!answer->ok()) return t.fail(answer->why().exit, answer->why().message);
  if (o.common.json) t.print(answer->body);
  t.note(fmt::format("The engine works on it: 'qs nodes' and 'qs status --watch' show how far it is."));
  return exit_done;
}

} // namespace

int command_nodes(const common_flags& o, terminal& t) {
  std::string document;
  if (auto exit = nodes_document(o, t, document); exit != 0) return exit;
  t.print(o.json ? document : nodes_view(document, {t.colour(), static_cast<std::size_t>(std::max(80, t.facts().width))}));
  return t.broken() ? exit_failed : exit_done;
}

int command_nodes_show(const node_options& o, terminal& t) {
  std::string document;
  if (auto exit = nodes_document(o.common, t, document); exit != 0) return exit;
  auto view = node_view(document, o.node);
  if (view.empty()) return t.fail(exit_failed, fmt::format("there is no node {}; 'qs nodes' lists them", o.node));
  if (o.common.json) {
    for (const auto& n : json::parse(document)["nodes"])
      if (n.value("id", "") == o.node) t.print(json{{"format_version", 1}, {"node", n}}.dump(2) + "\n");
  } else {
    t.print(view);
  }
  return t.broken() ? exit_failed : exit_done;
}

int command_nodes_replace(const node_options& o, terminal& t) {
  return ask_engine(o, t, "/v1/nodes/replace", "Replace {} by a new node? Its data is rebuilt there first.");
}

int command_nodes_drain(const node_options& o, terminal& t) {
  return ask_engine(o, t, "/v1/nodes/drain", "Empty {} onto a new node and give it back?");
}

} // namespace qs::cli
