// control: the socket that commands talk to (control.md, 1), and the status page. HTTP and JSON
// over AF_UNIX, <state>/control.sock, 0600; with status.listen the reading half also over TCP. Runs
// on httplib's threads; every request becomes one message to the supervisor. Owns no decision and
// no state.
//
// Every answer is JSON with "format_version": 1. An error is HTTP 4xx/5xx with {"error": text,
// "exit": code of interface.md}.
//
//   GET  /v1/hello            {protocol, version, spec_versions[], state_schema, pid, name,
//   started, accepted: bool} POST /v1/plan             {text, references{}, destroy}        →
//   {format_version, exit, empty, plan{…diff --json…}, human, human_colour,
//                             needs_typed_name, only_unknown, refresh (accept it even if empty), errors[], warnings[]}   (fresh look;
//                             exit 3 or 1 when refused: errors says why)
//   POST /v1/accept           {plan_hash, serial}                  → {generation, serial}; 409 exit
//   3 when stale GET  /v1/status           the document of `qs status --json` GET  /v1/nodes … of
//   `qs nodes --json` GET  /v1/wallet           … of `qs wallet --json`, with history[] POST
//   /v1/wallet/topup     {amount: "12.5"}                     → the same GET
//   /v1/events?after=N&wait_ms=M     one event a line (application/x-ndjson); waits up to M ms for
//   the first POST /v1/mount, /v1/umount            remembered POST /v1/cache/drop       seals,
//   waits until nothing is at risk (else exit 5), drops every cache POST /v1/suspend, /v1/resume
//   POST /v1/nodes/replace, /v1/nodes/drain   {node: "n3"}
//   POST /v1/stop             orderly; answers at once, the socket goes away when it is down
//   GET  /metrics             Prometheus text
//   GET  /                    the status page (HTML)
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "actors/event_feed.hpp"
#include "actors/interfaces.hpp"
#include "actors/world.hpp"

namespace qs::actors {

struct control_config {
  world_ptr shared;
  std::shared_ptr<event_feed> feed;
  caf::actor_system* system = nullptr;
  std::function<void()> stop; ///< POST /v1/stop
};

class control_server {
public:
  virtual ~control_server() = default;
  /// Starts to serve the unix socket. Errors: io.
  virtual status start(const supervisor_actor& supervisor) = 0;
  /// Serves the reading half at "127.0.0.1:9480" too, or stops to ("").
  virtual status listen(const std::string& address) = 0;
  virtual void stop() = 0;
};

std::unique_ptr<control_server> make_control(control_config config);

} // namespace qs::actors
