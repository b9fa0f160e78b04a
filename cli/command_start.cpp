// qs start, stop, restart, logs: the engine in the background.
#include <algorithm>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>

#include "base/posix.hpp"
#include "base/units.hpp"
#include "cli/commands.hpp"
#include "cli/engine_launch.hpp"
#include "cli/exit_codes.hpp"
#include "cli/follow.hpp"

namespace qs::cli {
namespace {

/// Until it serves: what was mounted is mounted again, or it is clear why not (4).
int start(const chosen_volume& volume, const std::string& timeout, terminal& t) {
  auto patience = parse_duration(timeout);
  if (!patience.ok()) return t.fail(exit_usage, "--timeout: " + describe(patience.err()));
  catch_interrupts();
  auto engine = engage(volume, t);
  if (!engine.client) return t.fail(engine.failure.exit, engine.failure.message);
  t.note(fmt::format("the engine of '{}' runs{}, process {}", volume.name,
                     engine.started ? "" : " already", engine.client->engine_pid()));
  follow_request what;
  what.timeout = *patience;
  what.after_event = newest_event(*engine.client);
  what.show_events = false;
  what.judge = judge_serving;
  auto end = follow_until(volume, *engine.client, what, t);
  if (end.exit != exit_done) return t.fail(end.exit, end.message);
  if (!end.message.empty()) t.note(end.message);
  return exit_done;
}

int stop(const chosen_volume& volume, const std::string& timeout, terminal& t) {
  auto patience = parse_duration(timeout);
  if (!patience.ok()) return t.fail(exit_usage, "--timeout: " + describe(patience.err()));
  auto running = engine_runs(volume);
  if (!running && !watcher_runs(volume)) {
    t.note(fmt::format("no engine runs for '{}'", volume.name));
    return exit_done;
  }
  catch_interrupts();
  auto stopped = stop_engine(volume, *patience, t);
  if (!stopped.ok()) return t.fail(stopped.err());
  t.note(running ? fmt::format("the engine of '{}' stopped; its storage nodes run on", volume.name)
                 : fmt::format("the engine of '{}' had died and is not started again; its storage nodes run on", volume.name));
  return exit_done;
}

/// Where the last `lines` lines of the open file begin.
off_t tail_of(int fd, int lines) {
  auto end = ::lseek(fd, 0, SEEK_END);
  auto at = end;
  std::string block(65536, '\0');
  int seen = 0;
  while (at > 0) {
    auto from = std::max<off_t>(0, at - static_cast<off_t>(block.size()));
    auto n = ::pread(fd, block.data(), static_cast<std::size_t>(at - from), from);
    if (n <= 0) return from;
    for (auto i = n - 1; i >= 0; --i) {
      if (block[static_cast<std::size_t>(i)] != '\n' || from + i == end - 1) continue;
      if (++seen == lines) return from + i + 1;
    }
    at = from;
  }
  return 0;
}

/// Copies what is there from `at` on; the new position.
off_t copy_rest(int fd, off_t at, terminal& t) {
  std::string block(65536, '\0');
  for (;;) {
    auto n = ::pread(fd, block.data(), block.size(), at);
    if (n <= 0) return at;
    t.print(std::string_view{block}.substr(0, static_cast<std::size_t>(n)));
    at += n;
  }
}

} // namespace

int command_start(const start_options& o, terminal& t) {
  auto chosen = choose_volume(o.common, need::name);
  return chosen.ok() ? start(*chosen, o.timeout, t) : t.fail(chosen.err());
}

int command_stop(const stop_options& o, terminal& t) {
  auto chosen = choose_volume(o.common, need::name);
  return chosen.ok() ? stop(*chosen, o.timeout, t) : t.fail(chosen.err());
}

int command_restart(const stop_options& o, terminal& t) {
  auto chosen = choose_volume(o.common, need::name);
  if (!chosen.ok()) return t.fail(chosen.err());
  if (auto exit = stop(*chosen, o.timeout, t); exit != exit_done) return exit;
  return start(*chosen, o.timeout, t);
}

int command_logs(const logs_options& o, terminal& t) {
  auto chosen = choose_volume(o.common, need::name);
  if (!chosen.ok()) return t.fail(chosen.err());
  auto path = chosen->state_directory / "qs.log";
  auto file = open_file(path, O_RDONLY);
  if (!file.ok()) {
    if (file.err().sys == ENOENT)
      return t.fail(exit_failed, fmt::format("there is no log yet: {} does not exist (an engine "
                                             "under 'qs run' logs to its own stderr)",
                                             path.string()));
    return t.fail(file.err());
  }
  auto at = copy_rest(file->get(), tail_of(file->get(), std::max(o.lines, 1)), t);
  if (!o.follow) return t.broken() ? exit_failed : exit_done;
  catch_interrupts();
  while (!interruptible_pause(200) && !t.broken()) {
    at = copy_rest(file->get(), at, t);
    struct ::stat open_now {};
    struct ::stat named_now {};
    if (::fstat(file->get(), &open_now) != 0 || ::stat(path.c_str(), &named_now) != 0 ||
        open_now.st_ino == named_now.st_ino)
      continue;
    // Rotated: the rest of the old one was shown above.
    if (auto fresh = open_file(path, O_RDONLY); fresh.ok()) {
      file = std::move(fresh);
      at = 0;
    }
  }
  return exit_interrupted;
}

} // namespace qs::cli
