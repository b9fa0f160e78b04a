// The commands that only ask the running engine for something: wallet, mount, cache, events, suspend.
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "cli/commands.hpp"
#include "cli/engine_launch.hpp"
#include "cli/exit_codes.hpp"
#include "cli/follow.hpp"
#include "cli/views.hpp"
#include "model/money.hpp"
#include "state/store.hpp"

namespace qs::cli {
namespace {

using namespace std::chrono_literals;
using nlohmann::json;

/// One request to the running engine; the body of a good answer in `body`, else the exit code.
int ask(const common_flags& o, terminal& t, bool posting, const char* path, const std::string& request, std::string& body) {
  auto chosen = choose_volume(o, need::name);
  if (!chosen.ok()) return t.fail(chosen.err());
  auto engine = engage_running(*chosen);
  if (!engine.client) return t.fail(engine.failure.exit, engine.failure.message);
  auto answer = posting ? engine.client->post(path, request) : engine.client->get(path, 60s);
  if (!answer.ok()) return t.fail(answer.err());
  if (!answer->ok()) return t.fail(answer->why().exit, answer->why().message);
  body = std::move(answer->body);
  return exit_done;
}

int simple(const common_flags& o, terminal& t, const char* path, const char* said) {
  std::string body;
  if (auto exit = ask(o, t, true, path, "{}", body); exit != 0) return exit;
  if (o.json) t.print(body);
  t.note(said);
  return exit_done;
}

int show_wallet(const wallet_options& o, terminal& t, bool history) {
  std::string body;
  if (auto exit = ask(o.common, t, false, "/v1/wallet", {}, body); exit != 0) return exit;
  if (o.common.json) {
    auto parsed = json::parse(body, nullptr, false);
    if (!history && parsed.is_object()) parsed.erase("history");
    t.print(parsed.dump(2) + "\n");
  } else {
    t.print(wallet_view(body, history));
  }
  return t.broken() ? exit_failed : exit_done;
}

/// Prints lines of events and remembers the last number.
void print_events(const std::string& lines, bool as_json, std::uint64_t& after, terminal& t) {
  each_event(lines, after, [&](const std::string& line, const std::string&) { t.print((as_json ? line : event_view(line, t.colour())) + "\n"); });
}

std::string as_line(const model::event& e) {
  return json{{"number", e.number}, {"at", to_rfc3339(e.at)}, {"level", e.level}, {"kind", e.kind}, {"subject", e.subject}, {"message", e.message}}
           .dump(-1, ' ', false, json::error_handler_t::replace) +
         "\n";
}

/// What is recorded, newest last; at most `most`.
result<std::string> recorded_events(const chosen_volume& v, std::size_t most) {
  auto list = state::read_events(v.state_directory / "state.db", 0, 100'000);
  if (!list.ok() && list.err().code == errc::not_found) return std::string{};
  if (!list.ok()) return std::move(list).err();
  std::string out;
  auto from = list->size() > most ? list->size() - most : 0;
  for (auto i = from; i < list->size(); ++i) out += as_line((*list)[i]);
  return out;
}

} // namespace

int command_wallet(const wallet_options& o, terminal& t) { return show_wallet(o, t, false); }
int command_wallet_history(const wallet_options& o, terminal& t) { return show_wallet(o, t, true); }

int command_wallet_topup(const wallet_options& o, terminal& t) {
  auto amount = model::parse_money(o.amount.empty() ? "100" : o.amount);
  if (!amount.ok() || amount->units == 0) return t.fail(exit_usage, "the amount must be like 50 or 12.5 (TFT)");
  std::string body;
  if (auto exit = ask(o.common, t, true, "/v1/wallet/topup", json{{"amount", model::to_decimal(*amount)}}.dump(), body); exit != 0) return exit;
  auto parsed = json::parse(body, nullptr, false);
  if (o.common.json) {
    t.print(body);
    return exit_done;
  }
  auto balance = parsed.is_object() ? model::parse_money(parsed.value("balance", "0")) : result<model::money>{model::money{}};
  t.print(fmt::format("{} credited by the local grid; balance {}\n", model::format_money(*amount),
                      balance.ok() ? model::format_money(*balance) : "unknown"));
  return t.broken() ? exit_failed : exit_done;
}

int command_mount(const common_flags& o, terminal& t) { return simple(o, t, "/v1/mount", "mounted"); }
int command_umount(const common_flags& o, terminal& t) { return simple(o, t, "/v1/umount", "unmounted; it stays so until 'qs mount'"); }
int command_suspend(const common_flags& o, terminal& t) {
  return simple(o, t, "/v1/suspend",
                "suspended: no node is reserved, started, replaced or given up until 'qs resume'; "
                "shards are repaired onto the nodes that are there");
}
int command_resume(const common_flags& o, terminal& t) { return simple(o, t, "/v1/resume", "reconciling again"); }
int command_cache_drop(const common_flags& o, terminal& t) {
  t.progress("sealing and waiting until nothing is at risk");
  auto exit = simple(o, t, "/v1/cache/drop", "every cache is empty");
  t.progress("");
  return exit;
}

int command_events(const events_options& o, terminal& t) {
  auto chosen = choose_volume(o.common, need::name);
  if (!chosen.ok()) return t.fail(chosen.err());
  std::uint64_t after = 0;
  auto past = recorded_events(*chosen, static_cast<std::size_t>(std::max(o.last, 0)));
  if (!past.ok() && past.err().code != errc::busy) return t.fail(past.err());
  if (past.ok()) print_events(*past, o.common.json, after, t);
  if (!o.follow) return t.broken() ? exit_failed : exit_done;
  auto engine = engage_running(*chosen);
  if (!engine.client) return t.fail(engine.failure.exit, engine.failure.message);
  catch_interrupts();
  while (!interrupted() && !t.broken()) {
    auto fresh = engine.client->get(fmt::format("/v1/events?after={}&wait_ms=500", after));
    if (!fresh.ok()) {
      if (interrupted()) break;
      auto again = control_client::open(chosen->state_directory, chosen->name, 30s);
      if (!again.ok()) return t.fail(exit_again, "the engine went away; 'qs start' starts it");
      *engine.client = std::move(*again);
      continue;
    }
    if (fresh->ok()) print_events(fresh->body, o.common.json, after, t);
  }
  return exit_interrupted;
}

} // namespace qs::cli
