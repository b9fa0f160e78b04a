// Commands that are about the server and the connection.
#include <algorithm>
#include <cctype>

#include <fmt/format.h>
#include <sodium.h>

#include "base/log.hpp"
#include "zdb/commands.hpp"
#include "zdb/session.hpp"

namespace qs::zdb {

namespace {
/// 0-db takes any beginning of these words, in any case.
bool is_prefix(std::string_view given, std::string_view word) {
  return given.size() <= word.size() &&
         std::equal(given.begin(), given.end(), word.begin(), [](char a, char b) {
           return std::toupper(static_cast<unsigned char>(a)) == b;
         });
}
} // namespace

void commands::invalid(client& c, arguments) { fail(c, "This is not a valid command"); }
void commands::ping(client& c, arguments) { c.out.simple("PONG"); }
void commands::stop_command(client& c, arguments) { fail(c, "Unauthorized"); }

void commands::time(client& c, arguments) {
  auto now = std::chrono::duration_cast<std::chrono::microseconds>(
      std::chrono::system_clock::now().time_since_epoch());
  c.out.array(2);
  c.out.bulk(fmt::format("{}", now.count() / 1'000'000));
  c.out.bulk(fmt::format("{}", now.count() % 1'000'000));
}

void commands::dbsize(client& c, arguments) {
  c.out.integer(static_cast<std::int64_t>(c.space->entries()));
}

bool commands::password_fits(std::string_view given, std::string_view wanted) const {
  // Hashes of both, so that neither length nor content shows in the time it takes.
  auto a = challenge_answer("", given);
  auto b = challenge_answer("", wanted);
  return sodium_memcmp(a.data(), b.data(), a.size()) == 0 && given.size() == wanted.size();
}

commands::verdict commands::plain_check(std::string_view given, secret wanted) const {
  return [this, given = std::string{given}, wanted = std::move(wanted)] {
    return password_fits(given, wanted());
  };
}

std::optional<commands::verdict> commands::answer_check(client& c, std::string_view hash,
                                                      secret wanted) {
  if (!c.challenge)
    return fail(c, "No CHALLENGE requested, secure authentication not available"), std::nullopt;
  if (hash.size() != 40) return fail(c, "Invalid hash length"), std::nullopt;
  return [challenge = *std::exchange(c.challenge, std::nullopt), hash = std::string{hash},
          wanted = std::move(wanted)] {
    return sodium_memcmp(challenge_answer(challenge, wanted()).data(), hash.data(), 40) == 0;
  };
}

void commands::note_judged(const client& c, std::string_view target, bool right) {
  guard_.judged(c.peer, target, right);
  if (right) return;
  ++stats.unauthorized;
  ++stats.wrong_passwords;
  auto now = env_.time->boot();
  if (now - guess_said_ <= std::chrono::seconds{10}) return;
  guess_said_ = now;
  log::warning("zdb", "wrong password from {}; {} since the start",
               c.peer.empty() ? "the unix socket" : c.peer, stats.wrong_passwords);
}

void commands::judge(client& c, std::string_view target, const verdict& right,
                     const std::function<std::string(client&)>& enter) {
  auto reply = [this, target = std::string{target}, right, enter](client& who) {
    auto is_right = right();
    note_judged(who, target, is_right);
    return is_right ? enter(who) : std::string{"-Access denied\r\n"};
  };
  if (guard_.at_once(c.peer)) {
    auto said = reply(c);
    if (said.starts_with('-')) {
      ++stats.failed;
      failed_ = true;
    }
    return c.out.add(said);
  }
  if (!guard_.has_room(c.peer, target)) return fail(c, "Try again"); // nothing was judged
  c.blocked = true;
  c.guess = guard_.wait(c.peer, target, [this, p = promise_answer(c), reply] {
    auto who = p.who.lock();
    if (!who) return;
    auto gone = who->abandoned();
    who->guess.reset();
    if (gone) return who->drop(); // nothing was judged: who hangs up keeps nobody waiting
    who->blocked = false;
    answer(p, gone_ ? fmt::format("-{}\r\n", gone_text) : reply(*who));
  });
}

void commands::become_admin(client& c, const verdict& right) {
  judge(c, {}, right, [](client& who) {
    who.admin = true;
    return std::string{"+OK\r\n"};
  });
}

void commands::auth(client& c, arguments args) {
  if (args.size() == 3) return auth_secure(c, args);
  if (options_.admin_password.empty()) return fail(c, "Authentication disabled");
  if (args[1].size() > 128) return fail(c, "Password too long");
  become_admin(c, plain_check(args[1].text(), [this] { return options_.admin_password; }));
}

void commands::auth_secure(client& c, arguments args) {
  if (args[1].size() == 0 || !is_prefix(args[1].text(), "SECURE"))
    return fail(c, "Only SECURE extra method supported");
  if (args[2].size() > 0 && is_prefix(args[2].text(), "CHALLENGE")) {
    c.challenge = to_hex(env_.random->array<8>());
    return c.out.simple(*c.challenge);
  }
  if (options_.admin_password.empty()) return fail(c, "Authentication disabled");
  auto right = answer_check(c, args[2].text(), [this] { return options_.admin_password; });
  if (right) become_admin(c, *right);
}

bool commands::may_know(const client& c, const name_space& space) const {
  return !options_.hide_namespaces || c.admin || c.space.get() == &space;
}

void commands::select(client& c, arguments args) {
  if (args.size() < 2 || args[1].size() == 0) return fail(c, "Invalid argument");
  if (args.size() > 4) return fail(c, "Too many arguments");
  auto space = store_.find(args[1].text());
  // A hidden name and one that does not exist sound the same: both have a password that is wrong.
  auto hidden = options_.hide_namespaces && !c.admin && (!space || c.space != space);
  if (!space && !hidden) // what is being made or deleted is neither there nor not there
    return fail(c, pending_names_.contains(args[1].text()) ? "Try again" : not_found());
  // Without settings no password can be judged, and to call it wrong would be to say that this is
  // another's.
  if (space ? !space->served() && !space->failed_why().settings_known : store_.unnamed() > 0)
    return fail(c, not_served_text);
  secret wanted = [this, space, none = to_hex(env_.random->array<16>())] {
    if (!space) return none;
    auto& s = space->settings();
    return options_.protect && s.name == "default" ? options_.admin_password : s.password;
  };
  // The names that there are not are one: who tries many of them stands in one line.
  auto target = space ? args[1].text() : std::string_view{"/"};
  auto password = wanted();
  verdict right;
  auto writable = true;
  if (!password.empty() && args.size() == 2) {
    if (space && !space->settings().is_public && !hidden)
      return fail(c, "Namespace protected and private");
    writable = false;
    if (!space || !space->settings().is_public) right = [] { return false; };
  } else if (!password.empty() && args.size() == 3) {
    if (args[2].size() > 255) return fail(c, "Password too long");
    right = plain_check(args[2].text(), wanted);
  } else if (!password.empty()) {
    if (args[2].size() == 0 || !is_prefix(args[2].text(), "SECURE"))
      return fail(c, "Only SECURE extra method supported");
    auto answered = answer_check(c, args[3].text(), wanted);
    if (!answered) return;
    right = std::move(*answered);
  }
  auto enter = [space, writable](client& who) -> std::string {
    if (space->removed) return "-Namespace not found\r\n"; // while it waited
    if (!space->served()) return fmt::format("-{}\r\n", not_served_text);
    who.space = space;
    who.writable = writable;
    return "+OK\r\n";
  };
  if (right) return judge(c, target, right, enter);
  auto said = enter(c);
  if (said.starts_with('+')) return c.out.add(said);
  fail(c, not_served_text);
}

void commands::info(client& c, arguments) {
  auto up = std::chrono::duration_cast<std::chrono::seconds>(env_.time->boot() - started_).count();
  std::string t;
  auto line = [&](std::string_view name, auto value) { t += fmt::format("{}: {}\n", name, value); };
  t += "# server\n";
  line("server_name", "0-db (zdb)");
  line("server_revision", "qs " QS_VERSION);
  line("engine_revision", "qs " QS_VERSION);
  line("instance_id", instance_);
  line("boot_time", boot_seconds_);
  line("uptime", up);
  line("extensions", extensions);
  t += "\n# clients\n";
  line("clients_lifetime", stats.clients);
  t += "\n# internals\n";
  line("sequential_key_size", 8);
  line("data_version", 3);
  line("index_version", 4);
  t += "\n# stats\n";
  std::uint64_t read_errors = 0;
  std::uint64_t write_errors = 0;
  for (auto& [name, space] : store_.all()) {
    read_errors += space->read_errors;
    write_errors += space->write_errors;
  }
  if (store_.failed() > 0) line("namespaces_failed", store_.failed());
  line("commands_executed", stats.executed);
  line("commands_failed", stats.failed);
  line("commands_unauthorized", stats.unauthorized);
  line("index_disk_read_failed", 0);
  line("index_disk_write_failed", 0);
  line("data_disk_read_failed", read_errors);
  line("data_disk_write_failed", write_errors);
  auto pair = [&](std::string_view name, std::uint64_t bytes) {
    line(fmt::format("{}_bytes", name), bytes);
    line(fmt::format("{}_mb", name), fmt::format("{:.2f}", static_cast<double>(bytes) / 1048576));
  };
  pair("index_disk_read", 0);
  pair("index_disk_write", 0);
  pair("data_disk_read", store_.files().bytes_read);
  pair("data_disk_write", store_.files().bytes_written);
  pair("network_rx", stats.received_bytes);
  pair("network_tx", stats.sent_bytes);
  t += "\n# space\n"; // ours; behind all that 0-db has
  std::uint64_t on_disk = 0;
  for (auto& [name, space] : store_.all()) on_disk += space->disk_bytes();
  line("data_disk_size_bytes", on_disk);
  c.out.bulk(t);
}

} // namespace qs::zdb
