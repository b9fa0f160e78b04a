#include "zdb/commands.hpp"

#include <algorithm>
#include <cctype>

#include <fmt/format.h>
#include <sodium.h>

#include "base/log.hpp"
#include "zdb/session.hpp"

namespace qs::zdb {

namespace {

/// 0-db compares over the received length only: any beginning of a name is that name.
bool is_prefix(std::string_view given, std::string_view name) {
  if (given.size() > name.size()) return false;
  return std::equal(given.begin(), given.end(), name.begin(), [](char a, char b) {
    return std::toupper(static_cast<unsigned char>(a)) == b;
  });
}

constexpr std::size_t any = request_arguments_max;

} // namespace

std::span<const commands::row> commands::table() {
  using c = commands;
  static constexpr row rows[] = {
      {"*", &c::invalid},
      {"WAIT"},
      {"MIRROR", nullptr, true},
      {"MASTER", nullptr, true},
      {"PING", &c::ping},
      {"TIME", &c::time},
      {"AUTH", &c::auth, false, 2, 3},
      {"HOOKS", nullptr, true},
      {"INDEX", nullptr, true},
      {"DATA", nullptr, true},
      {"SET", &c::set, false, 3, 4},
      {"SETX", &c::set, false, 3, 4},
      {"GET", &c::get, false, 2, 2, true},
      {"MGET", &c::mget},
      {"DEL", &c::del, false, 2, 3},
      {"EXISTS", &c::exists, false, 2, 2, true},
      {"CHECK", &c::check, false, 2, 2, true},
      {"SCAN", &c::scan, false, 1, 2},
      {"SCANX", &c::scan, false, 1, 2},
      {"RSCAN"},
      {"KSCAN"},
      {"HISTORY"},
      {"KEYCUR"},
      {"LENGTH", &c::length, false, 2, 2, true},
      {"KEYTIME", &c::keytime, false, 2, 2, true},
      {"INFO", &c::info},
      {"STOP", &c::stop_command},
      {"DBSIZE", &c::dbsize},
      {"NSNEW", &c::nsnew, true, 2, 2, true},
      {"NSDEL", &c::nsdel, true, 2, 2, true},
      {"NSLIST", &c::nslist},
      {"NSSET", &c::nsset, true, 4, 4, true},
      {"NSINFO", &c::nsinfo, false, 2, 2, true},
      {"NSJUMP", nullptr, true},
      {"SELECT", &c::select, false, 1, any},
      {"RELOAD", nullptr, true},
      {"FLUSH", &c::flush},
      {"SYNC", &c::sync_command},
      {"SETNX", &c::setnx, false, 3, 3},
  };
  return rows;
}

commands::commands(store& all, command_options options, environment env)
    : store_{all}, options_{std::move(options)}, env_{std::move(env)} {
  instance_id_ = fmt::format("{}", env_.random->next_u64() >> 1);
  boot_seconds_ =
      std::chrono::duration_cast<std::chrono::seconds>(env_.time->wall().time_since_epoch())
          .count();
  started_ = env_.time->boot();
}

void commands::greet(client& c) {
  ++stats.clients;
  c.space = store_.find("default");
  c.admin = options_.admin_password.empty();
  c.writable = !options_.protect;
}

void commands::fail(client& c, std::string_view text) {
  ++stats.failed;
  c.out.error(text);
}

bool commands::deny(client& c, std::string_view text) {
  fail(c, text);
  return false;
}

void commands::execute(client& c, arguments args) {
  ++stats.executed;
  if (gone_) {
    c.closing = true;
    return fail(c, gone_text);
  }
  if (c.space->removed) {
    c.closing = true;
    return fail(c, "Your active namespace is not available anymore (probably removed).");
  }
  auto name = args.front().text();
  auto rows = table();
  auto r = std::find_if(rows.begin(), rows.end(), [&](auto& x) { return is_prefix(name, x.name); });
  if (r == rows.end() || r->run == nullptr) return fail(c, "Command not supported");
  if (r->admin && !c.admin) {
    ++stats.unauthorized;
    return fail(c, "Permission denied");
  }
  if (args.size() < r->least || args.size() > r->most)
    return fail(c, args.size() < r->least && r->least != r->most ? "Missing arguments"
                                                                 : "Unexpected arguments");
  if (r->not_empty)
    for (auto& a : args)
      if (a.size() == 0) return fail(c, "Invalid argument");
  (this->*r->run)(c, args);
}

bool commands::watch() {
  if (gone_) return false;
  if (store_.linked()) return true;
  gone_ = true;
  log::error("zdb", "the lock or data files in {} are gone: ending",
             store_.options().data.string());
  env_.gone();
  return false;
}

void commands::disk_trouble() {
  // A read or write that failed may be the first sign of files deleted behind our back.
  (void)watch();
}

// -- basic ----------------------------------------------------------------------------------------

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
  ++stats.unauthorized;
  return deny(c, "Access denied");
}

void commands::auth(client& c, arguments args) {
  if (args.size() == 3) return auth_secure(c, args);
  if (options_.admin_password.empty()) return fail(c, "Authentication disabled");
  if (args[1].size() > 128) return fail(c, "Password too long");
  if (!password_fits(args[1].text(), options_.admin_password)) {
    ++stats.unauthorized;
    return fail(c, "Access denied");
  }
  c.admin = true;
  c.out.simple("OK");
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
  c.out.simple("OK");
}

void commands::select(client& c, arguments args) {
  if (args.size() < 2 || args[1].size() == 0) return fail(c, "Invalid argument");
  if (args.size() > 4) return fail(c, "Too many arguments");
  auto space = store_.find(args[1].text());
  if (!space) return fail(c, "Namespace not found");
  auto default_is_protected = options_.protect && space->settings().name == "default";
  auto& password = default_is_protected ? options_.admin_password : space->settings().password;
  auto writable = true;
  if (!password.empty()) {
    if (args.size() == 2) {
      if (!space->settings().is_public) return fail(c, "Namespace protected and private");
      writable = false;
    } else if (args.size() == 3) {
      if (args[2].size() > 255) return fail(c, "Password too long");
      if (!password_fits(args[2].text(), password)) {
        ++stats.unauthorized;
        return fail(c, "Access denied");
      }
    } else {
      if (args[2].size() == 0 || !is_prefix(args[2].text(), "SECURE"))
        return fail(c, "Only SECURE extra method supported");
      if (!answer_fits(c, args[3].text(), password)) return;
    }
  }
  c.space = std::move(space);
  c.writable = writable;
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
  line("instance_id", instance_id_);
  line("boot_time", boot_seconds_);
  line("uptime", up);
  line("extensions", "SYNC SETNX");
  t += "\n# clients\n";
  line("clients_lifetime", stats.clients);
  t += "\n# internals\n";
  line("sequential_key_size", 8);
  line("data_version", 3);
  line("index_version", 4);
  t += "\n# stats\n";
  std::uint64_t read_errors = 0;
  std::uint64_t write_errors = 0;
  std::uint64_t on_disk = 0;
  for (auto& [name, space] : store_.all()) {
    read_errors += space->read_errors;
    write_errors += space->write_errors;
    on_disk += space->disk_bytes();
  }
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
  pair("data_disk_read", 0);
  pair("data_disk_write", on_disk);
  pair("network_rx", stats.received_bytes);
  pair("network_tx", stats.sent_bytes);
  c.out.bulk(t);
}

// -- sync -----------------------------------------------------------------------------------------

void commands::sync_command(client& c, arguments) {
  if (!store_.lock_linked() || !c.space->linked()) {
    (void)watch();
    c.closing = true;
    return fail(c, gone_text);
  }
  auto ticket = c.out.hold();
  sync(c.space, [this, weak = c.weak_from_this(), ticket](const status& s) {
    auto who = weak.lock();
    if (!who) return;
    auto good = s.ok() && !gone_;
    if (!good) ++stats.failed;
    who->out.fill(ticket, good    ? std::string{"+OK\r\n"}
                          : gone_ ? fmt::format("-{}\r\n", gone_text)
                                  : std::string{"-Cannot write data right now\r\n"});
    who->wake();
  });
}

void commands::sync(const std::shared_ptr<name_space>& space,
                    std::function<void(const status&)> done) {
  if (!space->dirty()) return done({});
  space->waiters.push_back({space->end(), std::move(done)});
  if (!space->syncing) start_sync(space);
}

void commands::start_sync(const std::shared_ptr<name_space>& space) {
  auto fail_waiters = [space](const status& why) {
    for (auto& w : std::exchange(space->waiters, {})) w.done(why);
  };
  auto job = space->make_sync_job();
  if (!job.ok()) return fail_waiters(job.err());
  space->syncing = true;
  auto shared = std::make_shared<sync_job>(std::move(*job));
  auto outcome = std::make_shared<status>();
  env_.disk([shared, outcome] { *outcome = shared->run(); },
            [this, space, shared, outcome, fail_waiters] {
              space->syncing = false;
              space->sync_done(*shared, *outcome);
              if (!outcome->ok()) return fail_waiters(*outcome);
              std::vector<name_space::waiter> rest;
              auto waiters = std::exchange(space->waiters, {});
              // What came while this one ran needs another.
              for (auto& w : waiters)
                w.mark <= shared->mark ? w.done({}) : rest.push_back(std::move(w));
              for (auto& w : rest) space->waiters.push_back(std::move(w));
              if (!space->waiters.empty() && !space->syncing) start_sync(space);
            });
}

// -- what changes namespaces: one after the other, on the helper thread
// ----------------------------------------------

void commands::later(client& c, admin_job job) {
  job.who = c.shared_from_this();
  job.ticket = c.out.hold();
  c.blocked = true;
  admin_jobs_.push_back(std::move(job));
  if (admin_jobs_.size() == 1) next_admin_job();
}

void commands::next_admin_job() {
  auto end = [this](std::string_view reply) {
    auto job = std::move(admin_jobs_.front());
    admin_jobs_.pop_front();
    if (reply.starts_with('-')) ++stats.failed;
    job.who->out.fill(job.ticket, fmt::format("{}\r\n", reply));
    job.who->blocked = false;
    job.who->wake();
  };
  while (!admin_jobs_.empty()) {
    std::function<status()> work;
    auto now = admin_jobs_.front().prepare(work);
    if (now) {
      end(*now);
      continue;
    }
    auto outcome = std::make_shared<status>();
    return env_.disk([work = std::move(work), outcome] { *outcome = work(); },
                     [this, outcome, end] {
                       if (!outcome->ok()) log::error("zdb", "{}", describe(outcome->err()));
                       end(admin_jobs_.front().finish(*outcome));
                       next_admin_job();
                     });
  }
}

} // namespace qs::zdb
