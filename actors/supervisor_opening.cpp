// The supervisor opening the volume, and writing the rows that nothing depends on: what a full disk, or somebody who holds the
// state database, may delay and must not end.
#include "actors/supervisor_state.hpp"

#include <algorithm>

#include <fmt/format.h>

#include "base/log.hpp"

namespace qs::actors {
namespace {

using namespace std::chrono_literals;

constexpr auto retry_after = 2s;
/// Opening reads and replays a lot: on a full disk not every two seconds.
constexpr auto retry_most = 30s;
constexpr auto advisory_every = 10s;
constexpr std::size_t advisory_most = 1000;

} // namespace

// -- opening
// -----------------------------------------------------------------------------------------------------------

void supervisor_state::open(bool create, std::vector<model::group> groups) {
  volume_busy = true;
  update_connections();
  tell_nodes();
  volume_setup setup{volume_options(), groups, create};
  self->request(mount_, std::chrono::minutes{40}, setup)
      .then(
          [this, create](done) {
            volume_problem.clear();
            volume_tried = 0;
            if (create) return made();
            note("info", "VolumeOpened", "volume", "the log is replayed");
            opened();
          },
          [this](caf::error& e) { not_opened(from_caf(e)); });
}

/// Recorded is what the volume has, which is not what was asked for where an engine before this one made it and died before it could
/// record that.
void supervisor_state::made() {
  self->request(mount_, 30s, get_report{})
      .then(
          [this](volume_report& r) {
            note("info", "VolumeMade", "volume",
                 fmt::format("{} placement groups", r.view.groups.size()));
            auto s = recorded.volume;
            s.created = true;
            s.data_shards = static_cast<std::uint32_t>(desired->storage.data_shards);
            s.parity_shards = static_cast<std::uint32_t>(desired->storage.parity_shards);
            s.capacity = desired->storage.capacity;
            s.groups = r.view.groups;
            on_state([store = config.shared->store.get(), s] { return store->put_summary(s); },
                     [this, s](status how) {
                       if (!how.ok()) return state_failed(how.err());
                       recorded.volume = s;
                       opened();
                     });
          },
          [this](caf::error& e) { not_opened(from_caf(e)); });
}

void supervisor_state::not_opened(const error& why) {
  volume_busy = false;
  std::chrono::milliseconds pause = retry_after;
  auto text = describe(why);
  if (why.code == errc::no_space) {
    pause = std::min<std::chrono::milliseconds>(retry_most, retry_after * (1U << std::min(volume_tried++, 5U)));
    text = fmt::format("no space left to open the volume: free some on the disk of {} (the files come back by themselves within {} "
                       "of that): {}",
                       config.shared->options.state_directory.string(), format_duration(retry_most), text);
  } else {
    volume_tried = 0;
  }
  volume_retry_at = config.shared->time->boot() + pause;
  if (text != volume_problem) note("error", "VolumeNotOpen", "volume", text);
  volume_problem = text;
}

/// The step is over when its result is seen: a pass before that would open it once more.
void supervisor_state::opened() {
  auto over = [this] {
    volume_busy = false;
    poke();
  };
  self->request(mount_, 30s, get_report{})
      .then(
          [this, over](volume_report& r) {
            volume = std::move(r);
            over();
          },
          [over](caf::error&) { over(); });
}

// -- rows that nothing depends on
// --------------------------------------------------------------------------------------

/// Events, refusals: memory has them too, and no step rests on them. What could not be written waits, in its order.
void supervisor_state::write_advisory(advisory_row row) {
  if (unwritten.empty()) return post_advisory(std::move(row));
  keep_unwritten(std::move(row));
}

void supervisor_state::keep_unwritten(advisory_row row) {
  unwritten.push_back(std::move(row));
  if (unwritten.size() <= advisory_most) return;
  log::warning("supervisor", "{} is not recorded: too much waits for that already", unwritten.front().what);
  unwritten.pop_front();
}

void supervisor_state::post_advisory(advisory_row row) {
  run_blocking<status>(
      self, config.blocking, lane::state, {}, 60s,
      [store = config.shared->store.get(), write = row.write] { return write(*store); },
      [this, row](status how) {
        if (!how.ok()) return advisory_failed(row, how.err());
        advisory_problem.clear();
        for (auto& waiting : std::exchange(unwritten, {})) post_advisory(std::move(waiting));
      },
      [this, row](const error& e) { advisory_failed(row, e); });
}

void supervisor_state::advisory_failed(const advisory_row& row, const error& why) {
  keep_unwritten(row);
  advisory_retry_at = config.shared->time->boot() + advisory_every;
  advisory_trouble(row.what, why);
}

void supervisor_state::advisory_trouble(const std::string& what, const error& why) {
  auto text = describe(why);
  if (text == advisory_problem) return;
  advisory_problem = text; // not an event: that would be one more row
  log::warning("supervisor", "{} could not be recorded: {}; the files are served on, it is tried again every {}: free space on the "
               "disk of {}, or end what holds its state.db",
               what, text, format_duration(advisory_every), config.shared->options.state_directory.string());
}

/// One first: as long as that cannot be written, the others would only wait for the same.
void supervisor_state::retry_advisory() {
  auto now = config.shared->time->boot();
  if (unwritten.empty() || now < advisory_retry_at) return;
  advisory_retry_at = now + advisory_every;
  auto first = std::move(unwritten.front());
  unwritten.pop_front();
  post_advisory(std::move(first));
}

} // namespace qs::actors
