#include "state/store.hpp"

#include <algorithm>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>

#include "base/posix.hpp"
#include "state/rows.hpp"

namespace qs::state {
namespace {

inline constexpr std::uint64_t events_kept = 10'000;
constexpr std::string_view flags[] = {"protect", "suspended", "cancelled", "destroying",
                                      "mount_wanted"};
/// A refusal is of no use to anybody after this (control.md, 5).
constexpr auto refusals_kept = std::chrono::hours{24 * 7};

result<std::optional<std::string>> load_note(database& db, std::string_view key) {
  QS_TRY_ASSIGN(auto query, db.prepare("SELECT value FROM notes WHERE key = ?"));
  query.bind(key);
  QS_TRY_ASSIGN(auto found, query.step());
  if (!found) return std::optional<std::string>{};
  return std::optional<std::string>{query.text(0)};
}

class sqlite_store final : public store {
public:
  sqlite_store(database db, const clock& time) : db_{std::move(db)}, time_{time} {}

  result<model::recorded> load() override { return load_recorded(db_); }

  result<std::uint64_t> accept(const acceptance& what) override {
    std::uint64_t serial = 0;
    auto body = [&]() -> status {
      QS_TRY_ASSIGN(serial, meta_number(db_, "serial"));
      if (serial != what.expected_serial)
        return error{
            errc::busy,
            fmt::format(
                "the plan was made for serial {}, and it is {} now: look again with 'qs diff'",
                what.expected_serial, serial)};
      QS_TRY(take_rows(what.nodes, what.next_node_number));
      QS_TRY_ASSIGN(auto generation, meta_number(db_, "accepted_generation"));
      ++serial;
      QS_TRY(put_meta_number(db_, "serial", serial));
      QS_TRY(put_meta(db_, "accepted_text", what.spec.text));
      QS_TRY(put_meta(db_, "accepted_hash", what.spec.hash));
      QS_TRY(put_meta_number(db_, "accepted_generation", generation + 1));
      auto at = what.spec.accepted_at == wall_time{} ? time_.wall() : what.spec.accepted_at;
      QS_TRY(put_meta_number(db_, "accepted_at",
                             static_cast<std::uint64_t>(std::max<std::int64_t>(0, to_millis(at)))));
      QS_TRY(put_meta_number(db_, "protect", what.protect ? 1 : 0));
      QS_TRY(put_meta_number(db_, "cancelled", 0)); // a new word stands for itself
      if (what.destroying) QS_TRY(put_meta_number(db_, "destroying", 1));
      return put_meta(db_, "sealed_references", what.sealed_references);
    };
    QS_TRY(write(body));
    return serial;
  }

  result<std::optional<model::recorded_node>> node(model::node_id id) override {
    return get_node(db_, id);
  }

  status put_node(const model::recorded_node& node) override {
    return write([&] { return state::put_node(db_, node); });
  }

  status put_nodes(const std::vector<model::recorded_node>& nodes,
                   std::uint32_t next_node_number) override {
    return write([&]() -> status {
      QS_TRY(check_numbers(nodes, next_node_number));
      for (auto n : nodes) {
        if (n.since == wall_time{}) n.since = time_.wall();
        QS_TRY(state::put_node(db_, n));
      }
      return put_meta_number(db_, "next_node_number", next_node_number);
    });
  }

  status put_summary(const model::volume_summary& summary) override {
    return write([&] { return state::put_summary(db_, summary); });
  }

  status set_flag(std::string_view flag, bool on) override {
    if (std::find(std::begin(flags), std::end(flags), flag) == std::end(flags))
      return error{errc::invalid_argument, fmt::format("there is no flag '{}' in the state", flag)};
    return write([&] { return put_meta_number(db_, flag, on ? 1 : 0); });
  }

  status put_refusal(std::string_view provider, std::string_view host) override {
    return write([&]() -> status {
      auto now = time_.wall();
      QS_TRY_ASSIGN(auto trim, db_.prepare("DELETE FROM refused_hosts WHERE at < ?"));
      QS_TRY(trim.bind(to_millis(now - refusals_kept)).run());
      QS_TRY_ASSIGN(auto insert, db_.prepare("INSERT OR REPLACE INTO refused_hosts (provider, "
                                             "host, at) VALUES (?, ?, ?)"));
      return insert.bind(provider).bind(host).bind(to_millis(now)).run();
    });
  }

  status put_note(std::string_view key, std::string_view value) override {
    return write([&]() -> status {
      QS_TRY_ASSIGN(auto insert,
                    db_.prepare("INSERT OR REPLACE INTO notes (key, value) VALUES (?, ?)"));
      return insert.bind(key).bind(value).run();
    });
  }

  result<std::optional<std::string>> note(std::string_view key) override {
    return load_note(db_, key);
  }

  result<std::string> sealed_references() override {
    QS_TRY_ASSIGN(auto value, meta(db_, "sealed_references"));
    return std::move(value).value_or("");
  }

  result<model::intent> add_intent(model::intent draft) override {
    auto body = [&]() -> status {
      // From a counter of its own: never reused, whatever rows go.
      QS_TRY_ASSIGN(auto last, meta_number(db_, "last_intent"));
      draft.number = last + 1;
      if (draft.written_at == wall_time{}) draft.written_at = time_.wall();
      QS_TRY(put_meta_number(db_, "last_intent", draft.number));
      return state::put_intent(db_, draft);
    };
    QS_TRY(write(body));
    return draft;
  }

  status put_intent(const model::intent& changed) override {
    if (changed.number == 0)
      return error{errc::invalid_argument, "an intent without a number was never written"};
    return write([&] { return state::put_intent(db_, changed); });
  }

  result<std::vector<model::intent>> open_intents() override {
    QS_TRY_ASSIGN(auto query,
                  db_.prepare(fmt::format(
                      "{} WHERE progress IN ('written', 'submitted', 'unknown') ORDER BY number",
                      select_intent)));
    std::vector<model::intent> out;
    for (;;) {
      QS_TRY_ASSIGN(auto more, query.step());
      if (!more) return out;
      QS_TRY_ASSIGN(auto i, read_intent(query));
      out.push_back(std::move(i));
    }
  }

  result<std::optional<model::intent>> reservation_of(model::node_id node,
                                                      std::uint32_t incarnation) override {
    QS_TRY_ASSIGN(auto query,
                  db_.prepare(fmt::format("{} WHERE node = ? AND incarnation = ? AND verb = "
                                          "'reserve' ORDER BY number DESC LIMIT 1",
                                          select_intent)));
    query.bind(static_cast<std::int64_t>(node.number)).bind(static_cast<std::int64_t>(incarnation));
    QS_TRY_ASSIGN(auto found, query.step());
    if (!found) return std::optional<model::intent>{};
    QS_TRY_ASSIGN(auto i, read_intent(query));
    return std::optional{std::move(i)};
  }

  status add_event(const model::event& draft) override {
    return write([&]() -> status {
      QS_TRY_ASSIGN(auto last, meta_number(db_, "last_event"));
      auto number = last + 1;
      QS_TRY(put_meta_number(db_, "last_event", number));
      QS_TRY_ASSIGN(auto insert, db_.prepare("INSERT INTO events (number, at, level, kind, "
                                             "subject, message) VALUES (?, ?, ?, ?, ?, ?)"));
      auto at = draft.at == wall_time{} ? time_.wall() : draft.at;
      QS_TRY(insert.bind(static_cast<std::int64_t>(number))
                 .bind(to_millis(at))
                 .bind(draft.level)
                 .bind(draft.kind)
                 .bind(draft.subject)
                 .bind(draft.message)
                 .run());
      if (number <= events_kept) return {};
      QS_TRY_ASSIGN(auto trim, db_.prepare("DELETE FROM events WHERE number <= ?"));
      return trim.bind(static_cast<std::int64_t>(number - events_kept)).run();
    });
  }

  result<std::vector<model::event>> events(std::uint64_t after, std::size_t most) override {
    return load_events(db_, after, most);
  }

private:
  template <class F>
  status write(F&& body) {
    QS_TRY_ASSIGN(auto t, transaction::begin(db_));
    QS_TRY(body());
    QS_TRY(t.commit());
    ++commits_;
    if (after_commit) after_commit(commits_);
    return {};
  }

  /// New numbers come from the counter, one after the other; anything else was planned on an older
  /// state.
  status check_numbers(const std::vector<model::recorded_node>& nodes, std::uint32_t next) {
    QS_TRY_ASSIGN(auto counter, meta_number(db_, "next_node_number"));
    std::uint64_t fresh = 0;
    for (const auto& n : nodes) {
      QS_TRY_ASSIGN(auto known, get_node(db_, n.id));
      if (known) continue;
      if (n.id.number < counter || n.id.number >= next)
        return error{
            errc::busy,
            fmt::format("{} is a number that was given out already: look again with 'qs diff'",
                        to_string(n.id))};
      ++fresh;
    }
    if (counter + fresh != next)
      return error{errc::busy, fmt::format("nodes were added since the plan was made (the next is "
                                           "n{}): look again with 'qs diff'",
                                           counter)};
    return {};
  }

  status take_rows(const std::vector<model::recorded_node>& rows, std::uint32_t next) {
    QS_TRY(check_numbers(rows, next));
    for (const auto& planned : rows) {
      QS_TRY_ASSIGN(auto known, get_node(db_, planned.id));
      if (!known) {
        auto fresh = planned;
        if (fresh.since == wall_time{}) fresh.since = time_.wall();
        QS_TRY(state::put_node(db_, fresh));
        continue;
      }
      auto now = std::move(*known);
      auto leaves = [](model::node_state s) {
        return s == model::node_state::draining || s == model::node_state::replaced;
      };
      if (planned.since == wall_time{} || now.state == model::node_state::gone ||
          now.state == model::node_state::replaced || now.host != planned.host ||
          now.incarnation != planned.incarnation)
        return error{errc::busy,
                     fmt::format("{} changed since the plan was made: look again with 'qs diff'",
                                 to_string(now.id))};
      now.size = planned.size;
      now.price_limit = planned.price_limit;
      if (planned.replaced_by) now.replaced_by = planned.replaced_by;
      if (leaves(planned.state) && planned.state != now.state) {
        now.state = planned.state;
        now.reason = planned.reason;
        now.since = time_.wall();
      }
      QS_TRY(state::put_node(db_, now));
    }
    return put_meta_number(db_, "next_node_number", next);
  }

  database db_;
  const clock& time_;
  std::uint64_t commits_ = 0;
};

std::string new_lineage(random_source& random) {
  auto bytes = random.array<16>();
  bytes[6] = (bytes[6] & std::byte{0x0f}) | std::byte{0x40}; // UUID version 4
  bytes[8] = (bytes[8] & std::byte{0x3f}) | std::byte{0x80};
  auto hex = to_hex(bytes);
  return fmt::format("{}-{}-{}-{}-{}", hex.substr(0, 8), hex.substr(8, 4), hex.substr(12, 4),
                     hex.substr(16, 4), hex.substr(20));
}

/// The file itself, 0600, before SQLite sees it: it gives its journal the same mode.
status make_file(const std::filesystem::path& file) {
  if (!file.parent_path().empty()) QS_TRY(make_directories(file.parent_path()));
  auto fresh = ::access(file.c_str(), F_OK) != 0;
  QS_TRY_ASSIGN(auto fd, open_file(file, O_RDWR | O_CREAT | O_NOFOLLOW, 0600));
  struct ::stat info {};
  if (::fstat(fd.get(), &info) != 0)
    return errno_error(fmt::format("stat {}", file.string()), errno);
  if ((info.st_mode & 077) != 0 && ::fchmod(fd.get(), 0600) != 0)
    return errno_error(fmt::format("chmod {}", file.string()), errno);
  if (fresh) return sync_directory(file.parent_path().empty() ? "." : file.parent_path());
  return {};
}

status fill_new(database& db, random_source& random) {
  QS_TRY_ASSIGN(auto t, transaction::begin(db));
  QS_TRY(create_schema(db));
  QS_TRY(put_meta(db, "lineage", new_lineage(random)));
  QS_TRY(put_meta_number(db, "serial", 0));
  QS_TRY(put_meta_number(db, "next_node_number", 1));
  QS_TRY(put_meta_number(db, "mount_wanted", 1));
  return t.commit();
}

status bring_up(database& db, random_source& random) {
  QS_TRY(db.execute("PRAGMA journal_mode = DELETE"));
  QS_TRY(db.execute("PRAGMA synchronous = EXTRA"));
  auto version = 0;
  auto checked = check_schema(db, version);
  if (!checked.ok() && checked.err().code == errc::not_found) return fill_new(db, random);
  QS_TRY(std::move(checked));
  QS_TRY_ASSIGN(auto look, db.prepare("PRAGMA quick_check(1)"));
  QS_TRY_ASSIGN(auto row, look.step());
  if (row && look.text(0) != "ok")
    return error{
        errc::corrupt,
        fmt::format(
            "{} is damaged ({}); put back a copy of it",
            db.file().string(), look.text(0))};
  if (version == schema_version) return {};
  QS_TRY(copy_before_migration(db.file(), version));
  QS_TRY_ASSIGN(auto t, transaction::begin(db));
  QS_TRY(migrate(db, version));
  return t.commit();
}

result<database> open_to_read(const std::filesystem::path& file) {
  if (::access(file.c_str(), F_OK) != 0)
    return errno == ENOENT ? error{errc::not_found, fmt::format("there is no {}", file.string())}
                           : errno_error(fmt::format("open {}", file.string()), errno);
  QS_TRY_ASSIGN(auto db, database::open(file, open_mode::read_only));
  auto version = 0;
  QS_TRY(check_schema(db, version));
  QS_TRY(db.execute("BEGIN")); // one look at one moment
  return db;
}

} // namespace

result<std::unique_ptr<store>> open_store(const std::filesystem::path& file, random_source& random,
                                          const clock& time) {
  QS_TRY(make_file(file));
  QS_TRY_ASSIGN(auto db, database::open(file, open_mode::read_write));
  QS_TRY(bring_up(db, random));
  return std::unique_ptr<store>{std::make_unique<sqlite_store>(std::move(db), time)};
}

result<model::recorded> read_recorded(const std::filesystem::path& file) {
  QS_TRY_ASSIGN(auto db, open_to_read(file));
  return load_recorded(db);
}

result<std::vector<model::event>> read_events(const std::filesystem::path& file,
                                              std::uint64_t after, std::size_t most) {
  QS_TRY_ASSIGN(auto db, open_to_read(file));
  return load_events(db, after, most);
}

result<std::optional<std::string>> read_note(const std::filesystem::path& file, std::string_view key) {
  QS_TRY_ASSIGN(auto db, open_to_read(file));
  return load_note(db, key);
}

result<std::filesystem::path> state_directory(const state_roots& roots,
                                              std::string_view volume_name) {
  if (!roots.explicit_dir.empty()) return std::filesystem::path{roots.explicit_dir};
  auto system = roots.system_root / volume_name;
  auto user = roots.user_root / volume_name;
  std::error_code ignored;
  auto has_system = std::filesystem::exists(system, ignored);
  auto has_user = !roots.user_root.empty() && std::filesystem::exists(user, ignored);
  if (has_system && has_user)
    return error{errc::invalid_argument,
                 fmt::format("{} has two state directories, {} and {}: say which with --state-dir, "
                             "or move the wrong one away",
                             volume_name, system.string(), user.string())};
  if (has_system) return system;
  if (roots.user_root.empty())
    return error{
        errc::invalid_argument,
        fmt::format("there is no home directory to keep the state of {} in: use --state-dir",
                    volume_name)};
  return user;
}

} // namespace qs::state
