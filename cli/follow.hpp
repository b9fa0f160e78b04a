// Watching the engine work: events as they happen and one line of progress, until what was asked for is so. Main thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "cli/control_client.hpp"
#include "cli/terminal.hpp"
#include "cli/volume_choice.hpp"

namespace qs::cli {

enum class verdict { not_yet, done, degraded, paused };

/// What a status document says of what was waited for, with the reason where it is not simply done.
struct judgement {
  verdict how = verdict::not_yet;
  std::string reason;
};


struct follow_request {
  std::uint64_t generation = 0; ///< nothing counts before the engine is at this generation
  std::string wait = "ready";   ///< ready or deployed
  std::chrono::milliseconds timeout{};
  std::uint64_t after_event = 0;
  bool show_events = true;
  std::function<judgement(const std::string& status_json)> judge = {}; ///< null: judge_status
};

struct follow_result {
  int exit = 0;
  std::string message; ///< why it is not 0; for a person
  std::string status;  ///< the last status document
};

/// Ends when the volume is as asked (0), everything is done but the mount or the status page (4), the time is over or nobody goes on
/// with it (5), or the person interrupts (130). An engine that dies on the way is waited for: its watcher brings it back.
follow_result follow_until(const chosen_volume& volume, control_client& client, const follow_request& what, terminal& t);

/// Until no engine holds the lock any more (destroy), or `look` at a status document says how it ends.
follow_result follow_until_gone(const chosen_volume& volume, control_client& client, std::chrono::milliseconds timeout,
                                std::uint64_t after_event, const std::function<std::optional<follow_result>(const std::string&)>& look,
                                terminal& t);

/// Is this status document what was waited for? Tells the reason of a degraded or paused one. Pure.
judgement judge_status(const std::string& status_json, const follow_request& what);
/// Does an engine that was just started serve its files again: open, and mounted where that is declared and wanted? Pure.
judgement judge_serving(const std::string& status_json);
/// "Deploying: 4 of 6 nodes ready, volume made, 12 MiB at risk". Pure.
std::string progress_text(const std::string& status_json);

/// What part of the work is done, as a person sees it: nodes first, then what is to be rebuilt, then what is not safe yet; each against
/// the most there was of it since the meter began.
class progress_meter {
public:
  /// Nothing: not known, or nothing to do.
  std::optional<double> see(const std::string& status_json);

private:
  std::uint64_t nodes_ = 0, rebuild_ = 0, risk_ = 0; ///< the most of each
};

/// The number of the newest event, so that a command shows only its own.
std::uint64_t newest_event(const control_client& client);

} // namespace qs::cli
