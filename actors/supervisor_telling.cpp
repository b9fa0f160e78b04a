// The supervisor telling: events, the summary row, what the volume and the mount are to be, the status of now.
#include "actors/supervisor_state.hpp"

#include <unistd.h>

#include <fmt/format.h>

#include "base/log.hpp"

namespace qs::actors {
namespace {

using namespace std::chrono_literals;

constexpr auto summary_every = 10s;

} // namespace

/// Events are for what a person may want to know: not the moments in which a new node was not
/// looked at yet, and not the conditions that merely say that work is going on.
void supervisor_state::note_conditions() {
  static const std::set<std::string> told{"Ready", "Quorum", "Redundant", "Mounted",
                                          "ApprovalNeeded"};
  if (!observe().complete) return;
  auto now = config.shared->time->wall();
  for (const auto& c : decided->conditions) {
    auto& age = condition_since[c.type];
    if (age.status == c.status) continue;
    auto first = age.status.empty();
    age = {c.status, now};
    if (c.reason == "NothingStored") continue; // nothing has happened yet
    if (told.contains(c.type) && (!first || c.status == "Unknown"))
      note(c.status == "True" ? "info" : "warning", "Condition", c.type,
           fmt::format("{} is {}: {}{}{}", c.type, c.status, c.reason,
                       c.message.empty() ? "" : ", ", c.message));
  }
}

/// The summary row is what `diff` and `status` know without an engine; written when it changed, not
/// more often than it is worth.
void supervisor_state::save_summary() {
  retry_advisory();
  auto now = config.shared->time->boot();
  if (!volume.open || !recorded.volume.created || now - summary_at < summary_every) return;
  auto s = recorded.volume;
  s.used_bytes = volume.stats.used_bytes;
  s.bytes_at_risk = volume.stats.bytes_at_risk;
  s.health = volume.view.health;
  s.groups = volume.view.groups;
  auto print = fmt::format("{} {} {} {}", s.used_bytes, s.bytes_at_risk, s.groups.size(),
                           volume.stats.segments);
  summary_at = now;
  if (print == summary_last) return;
  summary_last = print;
  auto failed = [this](const error& e) {
    summary_last.clear(); // as good as never written: the next one is
    advisory_trouble("the summary of the volume", e);
  };
  run_blocking<status>(
      self, config.blocking, lane::state, {}, 60s,
      [store = config.shared->store.get(), s] { return store->put_summary(s); },
      [this, s, failed](status how) {
        if (!how.ok()) return failed(how.err());
        recorded.volume = s;
      },
      failed);
}

void supervisor_state::note(std::string level, std::string kind, std::string subject,
                            std::string message) {
  if (kind.empty()) { // poke()
    poked = false;
    pass();
    return;
  }
  model::event e;
  e.at = config.shared->time->wall();
  e.level = std::move(level);
  e.kind = std::move(kind);
  e.subject = std::move(subject);
  e.message = std::move(message);
  if (e.level == "error")
    log::error(e.subject, "{}: {}", e.kind, e.message);
  else if (e.level == "warning")
    log::warning(e.subject, "{}: {}", e.kind, e.message);
  else
    log::info(e.subject, "{}: {}", e.kind, e.message);
  e = config.feed->push(std::move(e));
  if (stopping) return;
  write_advisory({"an event", [e](state::store& s) { return s.add_event(e); }});
}

volume::volume_options supervisor_state::volume_options() const {
  volume::volume_options o;
  const auto& opt = config.shared->options;
  o.name = opt.volume;
  o.root = opt.root;
  o.state_directory = opt.state_directory;
  o.cache_directory = opt.cache_directory;
  o.data_shards = static_cast<std::uint8_t>(desired->storage.data_shards);
  o.parity_shards = static_cast<std::uint8_t>(desired->storage.parity_shards);
  o.capacity = desired->storage.capacity;
  o.log_file_bytes = config.shared->log_file_bytes;
  if (desired->mount) {
    const auto& m = *desired->mount;
    o.cache_bytes = m.cache.size;
    if (m.cache.path) o.cache_directory = m.cache.path->value;
    o.staging_bytes = m.staging.size;
    if (m.staging.path) o.staging_directory = m.staging.path->value;
  }
  return o;
}

mount_settings supervisor_state::mount_wish() const {
  mount_settings s;
  s.volume_name = config.shared->options.volume;
  if (desired && desired->mount) {
    s.path = desired->mount->path.value;
    s.allow_other = desired->mount->options.allow_other;
    s.writeback = desired->mount->options.writeback;
  }
  return s;
}

status_input supervisor_state::status_of_now() const {
  status_input in;
  in.volume = config.shared->options.volume;
  in.recorded = recorded;
  in.observed = observe();
  in.report = volume;
  in.now = config.shared->time->wall();
  in.pid = static_cast<std::uint64_t>(::getpid());
  in.started = started;
  in.mount_problem = mount_problem;
  in.volume_problem = volume_problem;
  in.under_way = under_way();
  in.open_ends = open_ends;
  if (decided) in.redundancy_left = decided->redundancy_left;
  in.state = !loaded || !spec_problem.empty() ? "Unknown" : !desired ? "Stopped" : decided ? decided->state : "Deploying";
  if (decided)
    for (const auto& c : decided->conditions) {
      auto age = condition_since.find(c.type);
      in.conditions.push_back({c, age == condition_since.end() ? wall_time{} : age->second.since});
    }
  if (!spec_problem.empty()) in.conditions.push_back({{"ConfigValid", "False", "Unreadable", spec_problem}, {}});
  if (!edit_waits.empty())
    for (auto& c : in.conditions)
      if (c.what.type == "ApprovalNeeded" && c.what.status == "False")
        c.what = {c.what.type, "True", "EditNeedsPerson", edit_waits};
  if (!listen_problem.empty())
    in.conditions.push_back({{"StatusServed", "False", "AddressInUse", listen_problem}, {}});
  return in;
}

} // namespace qs::actors
