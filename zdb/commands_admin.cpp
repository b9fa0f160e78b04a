// Commands on namespaces.
#include <algorithm>
#include <charconv>
#include <sys/statvfs.h>

#include <fmt/format.h>

#include "base/log.hpp"
#include "zdb/commands.hpp"

namespace qs::zdb {

namespace {
constexpr std::size_t name_bytes_max = 128;
constexpr std::size_t value_bytes_max = 63;

bool is_reserved(std::string_view name) {
  return name == "." || name == ".." || name == "default" ||
         name.find('/') != std::string_view::npos;
}
} // namespace

void commands::nsnew(client& c, arguments args) {
  auto name = std::string{args[1].text()};
  if (name.size() > name_bytes_max) return fail(c, "Namespace too long");
  if (is_reserved(name)) return fail(c, "This name is not allowed");
  auto what = std::make_shared<store::creation>();
  admin_job job;
  job.name = name;
  job.prepare = [this, name, what](std::function<status()>& work) -> std::optional<std::string> {
    if (store_.is_taken(name)) return "-This namespace is not available";
    *what = store_.begin_new(name);
    work = [creation = *what] { return name_space::create(creation.directory, creation.settings); };
    return std::nullopt;
  };
  job.finish = [this, what](const status& made) -> std::string {
    auto done = store_.finish_new(*what, made);
    if (!done.ok()) return "-Could not create namespace";
    log::info("zdb", "namespace {} made", what->settings.name);
    hook("namespace-created", {what->settings.name});
    return "+OK";
  };
  later(c, std::move(job));
}

void commands::nsdel(client& c, arguments args) {
  auto name = std::string{args[1].text()};
  if (name.size() > name_bytes_max) return fail(c, "Namespace too long");
  if (name == "default") return fail(c, "Cannot remove default namespace");
  auto space = std::make_shared<std::shared_ptr<name_space>>();
  admin_job job;
  job.name = name;
  job.prepare = [this, name, space,
                 current = c.space](std::function<status()>& work) -> std::optional<std::string> {
    *space = store_.find(name);
    if (!*space) return fmt::format("-{}", not_found("This namespace doesn't exists"));
    if (*space == current) return "-Cannot remove namespace you're currently using.";
    work = [directory = store_.begin_remove(*space)] { return store::remove_files(directory); };
    return std::nullopt;
  };
  job.finish = [this, space](const status& removed) -> std::string {
    store_.finish_remove(*space, removed);
    if (!removed.ok()) return "-Could not delete this namespace";
    clear_away((*space)->directory());
    log::info("zdb", "namespace {} deleted", (*space)->settings().name);
    hook("namespace-deleted", {(*space)->settings().name});
    return "+OK";
  };
  later(c, std::move(job));
}

/// Step by step, so that others' syncs get their turn between two.
void commands::clear_away(const std::filesystem::path& directory) {
  auto more = std::make_shared<bool>(false);
  env_.disk([directory, more] { *more = store::remove_some(directory); },
            [this, directory, more] {
              if (*more) clear_away(directory);
            });
}

void commands::nslist(client& c, arguments) {
  auto known = [&](auto& named) { return may_know(c, *named.second); };
  auto& all = store_.all();
  c.out.array(static_cast<std::size_t>(std::count_if(all.begin(), all.end(), known)));
  for (auto& named : all)
    if (known(named)) c.out.bulk(named.first);
}

std::optional<std::string> commands::change_setting(name_space& space, std::string_view property,
                                                    std::string_view value,
                                                    namespace_settings& changed, bool& stored) {
  auto on = value.front() == '1';
  stored = true;
  if (property == "lock" || property == "freeze") {
    (property == "lock" ? space.locked : space.frozen) = on;
    stored = false;
  } else if (property == "mode") {
    if (options_.mode_is_fixed)
      return "-This server instance is configured to use a single runtime mode";
    if (space.ever_written()) return "-Cannot change mode of used namespace";
    if (value != "user" && value != "seq") return "-Invalid property value (expected: user, seq)";
    changed.sequential = value == "seq";
  } else if (space.settings().name == "default" &&
             (property == "maxsize" || property == "password" || property == "public" ||
              property == "worm")) {
    return "-Cannot update default namespace";
  } else if (property == "maxsize") {
    auto [end, ec] = std::from_chars(value.data(), value.data() + value.size(), changed.maxsize);
    if (ec != std::errc{} || end != value.data() + value.size())
      return "-Invalid property value (expected: bytes)";
  } else if (property == "password") {
    changed.password = value == "*" ? std::string_view{} : value;
  } else if (property == "public") {
    changed.is_public = on;
  } else if (property == "worm") {
    changed.worm = on;
  } else {
    return "-Invalid property";
  }
  return std::nullopt;
}

void commands::nsset(client& c, arguments args) {
  auto name = std::string{args[1].text()};
  auto property = std::string{args[2].text()};
  auto value = std::string{args[3].text()};
  if (name.size() > name_bytes_max) return fail(c, "Namespace too long");
  if (value.size() > value_bytes_max) return fail(c, "Argument too long");
  struct state {
    std::shared_ptr<name_space> space;
    namespace_settings changed;
    std::shared_ptr<void> old_versions; ///< stay, from the moment it is asked to be worm
  };
  auto s = std::make_shared<state>();
  admin_job job;
  job.name = name;
  job.prepare = [this, name, property, value,
                 s](std::function<status()>& work) -> std::optional<std::string> {
    s->space = store_.find(name);
    if (!s->space) return fmt::format("-{}", not_found());
    if (!s->space->served()) return fmt::format("-{}", not_served_text);
    s->changed = s->space->settings();
    bool stored = false;
    if (auto refused = change_setting(*s->space, property, value, s->changed, stored))
      return refused;
    if (!stored) return "+OK";
    s->space->changing_mode = property == "mode";
    work = [directory = s->space->directory(), changed = s->changed] {
      return name_space::save(directory, changed);
    };
    return std::nullopt;
  };
  job.finish = [this, s, property](const status& saved) -> std::string {
    s->space->changing_mode = false;
    if (!saved.ok()) return "-Could not update namespace";
    s->space->set_settings(std::move(s->changed));
    log::info("zdb", "namespace {}: {} set", s->space->settings().name, property);
    hook("namespace-updated", {s->space->settings().name});
    return "+OK";
  };
  auto space = property == "worm" && value.starts_with('1') ? store_.find(name) : nullptr;
  if (!space) return later(c, std::move(job));
  s->old_versions = space->hold_versions();
  job.reply = promise_answer(c);
  c.blocked = true;
  when_whole(space, std::move(job));
}

/// What a pass that can no longer be given up has to remove is gone when the answer is there, and
/// nothing after it.
void commands::when_whole(const std::shared_ptr<name_space>& space, admin_job job) {
  constexpr std::chrono::milliseconds pause{20};
  if (!space->compacting() || space->removed) return later(std::move(job));
  env_.timers->add(env_.time->boot() + pause, [this, space, job = std::move(job)]() mutable {
    when_whole(space, std::move(job));
  });
}

void commands::nsinfo(client& c, arguments args) {
  auto space = store_.find(args[1].text());
  auto hidden = options_.hide_namespaces && !c.admin && (!space || !may_know(c, *space));
  if (!hidden && pending_names_.contains(args[1].text())) {
    // What is being made or deleted is neither there nor not there: the answer waits for it.
    admin_job job;
    job.prepare = [this, name = std::string{args[1].text()},
                   asks = c.weak_from_this()](std::function<status()>&) -> std::string {
      auto who = asks.lock();
      auto now = store_.find(name);
      if (!who || !now || !may_know(*who, *now)) return fmt::format("-{}", not_found());
      if (!now->served()) return fmt::format("-{}", not_served_text);
      auto text = describe_namespace(*who, *now);
      return fmt::format("${}\r\n", text.size()) + text;
    };
    return later(c, std::move(job));
  }
  if (!space || hidden) return fail(c, not_found());
  if (!space->served()) return fail(c, not_served_text);
  c.out.bulk(describe_namespace(c, *space));
}

std::string commands::describe_namespace(const client& c, const name_space& shown) const {
  auto* space = &shown;
  auto& s = space->settings();
  std::string t;
  auto line = [&](std::string_view name, auto value) { t += fmt::format("{}: {}\n", name, value); };
  auto yes = [](bool b) { return b ? "yes" : "no"; };
  auto mb = [](std::uint64_t bytes) {
    return fmt::format("{:.2f}", static_cast<double>(bytes) / 1048576);
  };
  t += "# namespace\n";
  line("name", s.name);
  line("entries", space->entries());
  line("public", yes(s.is_public));
  line("worm", yes(s.worm));
  line("locked", yes(space->locked || space->frozen));
  line("password", yes(!s.password.empty()));
  line("data_size_bytes", space->live_bytes());
  line("data_size_mb", mb(space->live_bytes()));
  line("data_limits_bytes", s.maxsize);
  line("index_size_bytes", space->index_bytes());
  line("index_size_kb", fmt::format("{:.2f}", static_cast<double>(space->index_bytes()) / 1024));
  auto next = space->next_id(); // printed as 0-db does: byte-swapped
  line("next_internal_id",
       next == 0 ? std::string{"0x00000000"} : fmt::format("0x{:08x}", __builtin_bswap64(next)));
  line("mode", s.sequential ? "sequential" : "userkey");
  line("stats_index_io_errors", 0);
  line("stats_index_io_error_last", 0);
  line("stats_index_faults", 0);
  line("stats_data_io_errors", space->read_errors + space->write_errors);
  line("stats_data_io_error_last", space->last_error_at);
  line("stats_data_faults", space->read_errors);
  if (s.maxsize > 0)
    line("space_available", s.maxsize > space->live_bytes() ? s.maxsize - space->live_bytes() : 0);
  struct statvfs fs {};
  std::uint64_t free_bytes = 0;
  if (::statvfs(space->directory().c_str(), &fs) == 0)
    free_bytes = std::uint64_t{fs.f_bavail} * fs.f_frsize;
  line("index_disk_freespace_bytes", free_bytes);
  line("index_disk_freespace_mb", mb(free_bytes));
  line("data_disk_freespace_bytes", free_bytes);
  line("data_disk_freespace_mb", mb(free_bytes));
  // Ours.
  auto usage = space->usage();
  line("data_disk_size_bytes", usage.disk);
  line("data_dead_bytes", usage.dead + usage.tombstones);
  if (c.master) line("password_raw", s.password);
  if (c.admin) {
    auto path = space->directory().string();
    line("data_path", path);
    line("data_active", data_file_path(space->directory(), space->active_file()).string());
    line("index_path", path);
    line("index_active", data_file_path(space->directory(), space->active_file()).string());
    line("data_current_id", space->active_file());
    line("data_current_offset", space->end().size);
  }
  return t;
}

void commands::nsjump(client& c, arguments) {
  auto done = c.space->jump();
  if (done.ok()) return c.out.simple("OK");
  fail(c, "Cannot write data right now");
  disk_trouble();
}

void commands::reload(client& c, arguments args) {
  auto space = store_.find(args[1].text());
  if (!space) return fail(c, not_found());
  c.blocked = true;
  try_reload(promise_answer(c), space, 0);
}

/// Not while it is synced or compacted: then again a little later.
void commands::try_reload(const promise& p, const std::shared_ptr<name_space>& space, int tries) {
  constexpr int most = 500;
  constexpr std::chrono::milliseconds pause{20};
  auto end = [&](std::string_view reply) {
    if (auto who = p.who.lock()) who->blocked = false;
    answer(p, reply);
  };
  if (space->removed) return end("-Namespace not found\r\n");
  auto done = store_.reload(space);
  if (!done.ok() && done.err().code == errc::busy && tries < most) {
    env_.timers->add(env_.time->boot() + pause,
                     [this, p, space, tries] { try_reload(p, space, tries + 1); });
    return;
  }
  if (!done.ok()) {
    log::error("zdb", "reload of {}: {}", space->settings().name, describe(done.err()));
    return end(space->served() ? std::string{"-Could not reload namespace\r\n"}
                               : fmt::format("-{}\r\n", not_served_text));
  }
  hook("namespace-reloaded", {space->settings().name});
  end("+OK\r\n");
}

} // namespace qs::zdb
