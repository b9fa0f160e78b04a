#include "cli/follow.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/units.hpp"
#include "cli/engine_launch.hpp"
#include "cli/exit_codes.hpp"
#include "cli/views.hpp"

namespace qs::cli {
namespace {

using namespace std::chrono_literals;
using nlohmann::json;
using steady = std::chrono::steady_clock;

const json* condition(const json& status, std::string_view type) {
  auto list = status.find("conditions");
  if (list == status.end() || !list->is_array()) return nullptr;
  for (const auto& c : *list)
    if (c.is_object() && c.value("type", "") == type) return &c;
  return nullptr;
}

/// Shows what is new and remembers how far it got.
void show_events(const std::string& lines, std::uint64_t& after, bool show, terminal& t) {
  each_event(lines, after, [&](const std::string& line, const std::string& kind) {
    // Conditions come and go while things are made; the progress line and `qs status` say what of them matters.
    if (show && kind != "Condition") t.note("  " + event_view(line, t.colour()));
  });
}

struct counted {
  std::size_t ready = 0;
  std::size_t all = 0;
};

counted count_nodes(const json& status) {
  counted out;
  auto list = status.find("nodes");
  if (list == status.end() || !list->is_array()) return out;
  for (const auto& n : *list) {
    auto state = n.value("state", "");
    if (state == "replaced" || state == "gone") continue;
    ++out.all;
    if (state == "ready") ++out.ready;
  }
  return out;
}

} // namespace

judgement judge_status(const std::string& text, const follow_request& what) {
  auto s = json::parse(text, nullptr, false);
  if (!s.is_object() || s.value("generation", std::uint64_t{0}) < what.generation) return {};
  // Ready is about the data; a node that is still to be made larger is a step to do.
  const auto* synced = condition(s, "Synced");
  auto busy = (synced != nullptr && synced->value("status", "") == "False") || s.value("under_way", 0) > 0;
  // Nobody goes on with it: waiting longer brings nothing. What was in flight at a cancel may have been all of it.
  auto ready = s.value("state", "") == "Ready" && !busy;
  if (!ready && s.value("suspended", false))
    return {verdict::paused, "the volume is suspended, so nothing of it is begun; 'qs resume' goes on"};
  if (!ready && s.value("cancelled", false))
    return {verdict::paused, "it was cancelled; 'qs resume' goes on with it, 'qs apply' takes the file as it is then"};
  auto nodes = count_nodes(s);
  auto created = s.contains("volume") && s["volume"].value("created", false);
  auto deployed = created && nodes.all > 0 && nodes.ready == nodes.all;
  if (what.wait == "deployed") return {deployed ? verdict::done : verdict::not_yet, {}};
  const auto* served = condition(s, "StatusServed");
  auto unserved = served != nullptr && served->value("status", "") == "False";
  if (ready) {
    if (unserved) return {verdict::degraded, served->value("message", "")};
    return {verdict::done, {}};
  }
  // All is there and only the mount is not: waiting longer brings nothing.
  const auto* mounted = condition(s, "Mounted");
  const auto* redundant = condition(s, "Redundant");
  const auto* rebuilding = condition(s, "Rebuilding");
  auto failed = mounted != nullptr && mounted->value("status", "") == "False" && mounted->value("reason", "") == "Failed";
  auto whole = redundant != nullptr && redundant->value("status", "") == "True" && (rebuilding == nullptr || rebuilding->value("status", "") == "False");
  if (deployed && failed && whole) return {verdict::degraded, mounted->value("message", "the mount is not there")};
  return {};
}

judgement judge_serving(const std::string& text) {
  auto s = json::parse(text, nullptr, false);
  if (!s.is_object()) return {};
  // Nothing was applied yet, or all of it is going: there is no mount to come.
  if (s.value("generation", std::uint64_t{0}) == 0 || s.value("destroying", false)) return {verdict::done, {}};
  if (const auto* valid = condition(s, "ConfigValid"); valid != nullptr && valid->value("status", "") == "False")
    return {verdict::degraded, valid->value("message", "what was applied last cannot be read")};
  if (condition(s, "Ready") == nullptr) return {}; // not looked at yet
  auto volume = s.value("volume", json::object());
  if (!volume.value("created", false)) return {verdict::done, "it is still being made: 'qs status --watch' shows how far it is"};
  if (auto problem = volume.value("problem", ""); !problem.empty()) return {verdict::degraded, "the volume does not open: " + problem};
  if (!volume.value("open", false)) return {};
  const auto* mounted = condition(s, "Mounted");
  if (mounted == nullptr || mounted->value("status", "") == "True" || mounted->value("reason", "") == "NotWanted") return {verdict::done, {}};
  if (mounted->value("reason", "") == "Failed") return {verdict::degraded, "it is not mounted: " + mounted->value("message", "")};
  return {};
}

std::string progress_text(const std::string& text) {
  auto s = json::parse(text, nullptr, false);
  if (!s.is_object()) return "the engine is starting";
  auto nodes = count_nodes(s);
  if (s.value("destroying", false)) return fmt::format("Destroying: {} nodes left", nodes.all);
  auto out = fmt::format("{}: {} of {} nodes ready", s.value("state", "Unknown"), nodes.ready, nodes.all);
  auto volume = s.find("volume");
  if (volume == s.end() || !volume->is_object()) return out;
  if (!volume->value("created", false)) return out;
  auto number = [&](const char* key) { return volume->value(key, std::uint64_t{0}); };
  if (auto pending = number("rebuild_pending"); pending > 0) out += fmt::format(", {} segments to rebuild", pending);
  if (auto risk = number("bytes_at_risk"); risk > 0) out += fmt::format(", {} at risk", format_bytes(risk));
  return out;
}

std::optional<double> progress_meter::see(const std::string& text) {
  auto s = json::parse(text, nullptr, false);
  if (!s.is_object()) return {};
  auto nodes = count_nodes(s);
  auto left = [](std::uint64_t now, std::uint64_t& most) {
    most = std::max(most, now);
    return 1.0 - static_cast<double>(now) / static_cast<double>(most);
  };
  if (s.value("destroying", false)) return nodes.all == 0 ? std::optional<double>{} : left(nodes.all, nodes_);
  if (nodes.ready < nodes.all) return static_cast<double>(nodes.ready) / static_cast<double>(nodes.all);
  auto volume = s.value("volume", json::object());
  if (auto pending = volume.value("rebuild_pending", std::uint64_t{0}); pending > 0) return left(pending, rebuild_);
  if (auto risk = volume.value("bytes_at_risk", std::uint64_t{0}); risk > 0) return left(risk, risk_);
  return {};
}

std::uint64_t newest_event(const control_client& client) {
  std::uint64_t after = 0;
  auto answer = client.get("/v1/events?after=0&wait_ms=0");
  if (answer.ok() && answer->ok()) each_event(answer->body, after, [](const std::string&, const std::string&) {});
  return after;
}

namespace {

/// A client of the engine that came back, if one does in time.
bool reconnect(const chosen_volume& volume, control_client& client, terminal& t) {
  t.progress("the engine went away; waiting for it to come back");
  auto until = steady::now() + 60s;
  while (steady::now() < until && !interrupted()) {
    auto again = control_client::open(volume.state_directory, volume.name, 2s);
    if (again.ok()) {
      client = std::move(*again);
      return true;
    }
    interruptible_pause(200);
  }
  return false;
}

follow_result detached(follow_result out) {
  out.exit = exit_interrupted;
  out.message = "detached; the engine goes on with it: 'qs status --watch' shows how far it is";
  return out;
}

} // namespace

follow_result follow_until(const chosen_volume& volume, control_client& client, const follow_request& what, terminal& t) {
  follow_result out;
  auto after = what.after_event;
  auto until = steady::now() + what.timeout;
  progress_meter meter;
  for (;;) {
    if (interrupted()) return detached(std::move(out));
    auto status = client.get("/v1/status");
    if (!status.ok()) {
      if (interrupted()) return detached(std::move(out));
      if (!reconnect(volume, client, t)) {
        if (interrupted()) return detached(std::move(out));
        out.exit = exit_again;
        out.message = "the engine went away and did not come back; 'qs logs' says why, 'qs start' starts it";
        return out;
      }
      after = 0; // a new engine counts from what it finds recorded; show nothing twice
      after = newest_event(client);
      continue;
    }
    if (status->ok()) {
      out.status = status->body;
      auto now = what.judge ? what.judge(out.status) : judge_status(out.status, what);
      if (now.how != verdict::not_yet) {
        auto last = client.get(fmt::format("/v1/events?after={}&wait_ms=0", after));
        if (last.ok() && last->ok()) show_events(last->body, after, what.show_events, t);
        t.progress("");
        out.exit = now.how == verdict::done ? exit_done : now.how == verdict::paused ? exit_again : exit_degraded;
        out.message = now.reason;
        return out;
      }
      t.progress(progress_text(out.status), meter.see(out.status));
    }
    if (steady::now() > until) {
      t.progress("");
      out.exit = exit_again;
      out.message = "not there yet, and the time is over; the engine goes on with it: 'qs status --watch' shows how far it is";
      return out;
    }
    auto events = client.get(fmt::format("/v1/events?after={}&wait_ms=400", after));
    if (events.ok() && events->ok())
      show_events(events->body, after, what.show_events, t);
    else
      interruptible_pause(200);
  }
}

follow_result follow_until_gone(const chosen_volume& volume, control_client& client, std::chrono::milliseconds timeout, std::uint64_t after,
                                const std::function<std::optional<follow_result>(const std::string&)>& look, terminal& t) {
  follow_result out;
  auto until = steady::now() + timeout;
  progress_meter meter;
  while (engine_runs(volume)) {
    if (interrupted()) return detached(std::move(out));
    if (steady::now() > until) {
      out.exit = exit_again;
      out.message = "not all is gone yet, and the time is over; the engine goes on with it: 'qs status --watch' shows how far it is";
      return out;
    }
    auto events = client.get(fmt::format("/v1/events?after={}&wait_ms=300", after));
    if (events.ok() && events->ok())
      show_events(events->body, after, true, t);
    else
      interruptible_pause(100);
    auto status = client.get("/v1/status", 5s);
    if (!status.ok() || !status->ok()) continue;
    t.progress(progress_text(status->body), meter.see(status->body));
    if (auto end = look(status->body)) {
      t.progress("");
      return *end;
    }
  }
  t.progress("");
  return out;
}

} // namespace qs::cli
