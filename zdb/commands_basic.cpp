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

bool commands::answer_fits(client& c, std::string_view hash, std::string_view password) {
  if (!c.challenge) return deny(c, "No CHALLENGE requested, secure authentication not available");
  if (hash.size() != 40) return deny(c, "Invalid hash length");
  auto wanted = challenge_answer(*std::exchange(c.challenge, std::nullopt), password);
  if (sodium_memcmp(wanted.data(), hash.data(), 40) == 0) return true;
  judged(c, false, "-Access denied\r\n");
  return false;
}

void commands::judged(client& c, bool right, std::string_view reply) {
  auto now = env_.time->boot();
  if (!right) {
    ++stats.unauthorized;
    ++stats.wrong_passwords;
    failed_ = true;
    if (now - guess_said_ > std::chrono::seconds{10}) {
      guess_said_ = now;
      log::warning("zdb", "wrong password from {}; {} since the start",
                   c.peer.empty() ? "the unix socket" : c.peer, stats.wrong_passwords);
    }
  }
  auto delay = guard_.judged(c.peer, right, now);
  if (delay.count() == 0) {
    if (!right) ++stats.failed;
    return c.out.add(reply);
  }
  c.blocked = true;
  env_.timers->add(now + delay, [this, p = promise_answer(c), reply = std::string{reply}] {
    if (auto who = p.who.lock()) who->blocked = false;
    answer(p, reply);
  });
}

void commands::auth(client& c, arguments args) {
  if (args.size() == 3) return auth_secure(c, args);
  if (options_.admin_password.empty()) return fail(c, "Authentication disabled");
  if (args[1].size() > 128) return fail(c, "Password too long");
  if (!password_fits(args[1].text(), options_.admin_password))
    return judged(c, false, "-Access denied\r\n");
  c.admin = true;
  judged(c, true, "+OK\r\n");
}

void commands::auth_secure(client& c, arguments args) {
  if (args[1].size() == 0 || !is_prefix(args[1].text(), "SECURE"))
    return fail(c, "Only SECURE extra method supported");
  if (args[2].size() > 0 && is_prefix(args[2].text(), "CHALLENGE")) {
    c.challenge = to_hex(env_.random->array<8>());
    return c.out.simple(*c.challenge);
  }
  if (options_.admin_password.empty()) return fail(c, "Authentication disabled");
  if (!answer_fits(c, args[2].text(), options_.admin_password)) return;
  c.admin = true;
  judged(c, true, "+OK\r\n");
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
  std::string password = space ? space->settings().password : to_hex(env_.random->array<16>());
  if (space && options_.protect && space->settings().name == "default")
    password = options_.admin_password;
  auto writable = true;
  auto asked = !password.empty() && args.size() > 2;
  if (!password.empty() && args.size() == 2) {
    if (!space || !space->settings().is_public)
      return hidden ? judged(c, false, "-Access denied\r\n")
                    : fail(c, "Namespace protected and private");
    writable = false;
  } else if (asked && args.size() == 3) {
    if (args[2].size() > 255) return fail(c, "Password too long");
    if (!password_fits(args[2].text(), password)) return judged(c, false, "-Access denied\r\n");
  } else if (asked) {
    if (args[2].size() == 0 || !is_prefix(args[2].text(), "SECURE"))
      return fail(c, "Only SECURE extra method supported");
    if (!answer_fits(c, args[3].text(), password)) return;
  }
  if (!space->served()) return fail(c, not_served_text);
  c.space = std::move(space);
  c.writable = writable;
  if (asked) return judged(c, true, "+OK\r\n");
  c.out.simple("OK");
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
