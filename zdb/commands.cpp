#include "zdb/commands.hpp"

#include <algorithm>
#include <array>
#include <charconv>

#include <fmt/format.h>

#include "base/log.hpp"

namespace qs::zdb {

namespace {

constexpr char upper(char c) noexcept {
  return c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
}

/// 0-db compares over the received length only: any beginning of a name is that name.
bool is_prefix(std::string_view given, std::string_view name) {
  if (given.size() > name.size()) return false;
  return std::equal(given.begin(), given.end(), name.begin(),
                    [](char a, char b) { return upper(a) == b; });
}

/// The first row whose name begins with each letter: where looking may begin.
std::array<std::uint8_t, 256> first_rows() {
  std::array<std::uint8_t, 256> at{};
  auto rows = commands::table();
  at.fill(static_cast<std::uint8_t>(rows.size()));
  for (auto i = rows.size(); i-- > 0;)
    at[static_cast<unsigned char>(rows[i].name.front())] = static_cast<std::uint8_t>(i);
  return at;
}

constexpr std::size_t any = request_arguments_max;

} // namespace

std::span<const commands::row> commands::table() {
  using c = commands;
  static constexpr row rows[] = {
      {"*", &c::invalid},
      {"WAIT", &c::wait},
      {"MIRROR", &c::mirror, true},
      {"MASTER", &c::master, true},
      {"PING", &c::ping, false, 1, any, false, true},
      {"TIME", &c::time, false, 1, any, false, true},
      {"AUTH", &c::auth, false, 2, 3},
      {"HOOKS", &c::hooks, true},
      {"INDEX", &c::index, true, 2, any},
      {"DATA", &c::data, true, 2, any},
      {"SET", &c::set, false, 3, 4, false, true},
      {"SETX", &c::set, false, 3, 4, false, true},
      {"GET", &c::get, false, 2, 2, true, true},
      {"MGET", &c::mget, false, 1, any, false, true},
      {"DEL", &c::del, false, 2, 3},
      {"EXISTS", &c::exists, false, 2, 2, true, true},
      {"CHECK", &c::check, false, 2, 2, true, true},
      {"SCAN", &c::scan},
      {"SCANX", &c::scan},
      {"RSCAN", &c::rscan},
      {"KSCAN", &c::kscan, false, 2, 3},
      {"HISTORY", &c::history},
      {"KEYCUR", &c::keycur, false, 2, 2, true},
      {"LENGTH", &c::length, false, 2, 2, true, true},
      {"KEYTIME", &c::keytime, false, 2, 2, true, true},
      {"INFO", &c::info},
      {"STOP", &c::stop_command},
      {"DBSIZE", &c::dbsize},
      {"NSNEW", &c::nsnew, true, 2, 2, true},
      {"NSDEL", &c::nsdel, true, 2, 2, true},
      {"NSLIST", &c::nslist},
      {"NSSET", &c::nsset, true, 4, 4, true},
      {"NSINFO", &c::nsinfo, false, 2, 2, true},
      {"NSJUMP", &c::nsjump, true},
      {"SELECT", &c::select, false, 1, any},
      {"RELOAD", &c::reload, true, 2, 2, true},
      {"FLUSH", &c::flush},
      // Ours; behind the others, so that no beginning of a name means something else than there.
      {"SYNC", &c::sync_command},
      {"SETNX", &c::setnx, false, 3, 3, false, true},
      {"GETRANGE", &c::getrange, false, 4, 4, true, true},
  };
  return rows;
}

bool commands::row::in_namespace() const noexcept {
  using c = commands;
  static constexpr handler elsewhere[] = {
      &c::invalid, &c::wait,   &c::mirror, &c::master, &c::ping,  &c::time,   &c::auth, &c::hooks,
      &c::info,    &c::nsnew,  &c::nsdel,  &c::nslist, &c::nsset, &c::nsinfo, &c::select,
      &c::reload,  &c::stop_command};
  return std::find(std::begin(elsewhere), std::end(elsewhere), run) == std::end(elsewhere);
}

std::optional<std::size_t> commands::find(std::string_view name) {
  static const auto first = first_rows();
  auto rows = table();
  std::size_t begin = 0; // no name at all is the beginning of any
  if (!name.empty()) begin = first[static_cast<unsigned char>(upper(name.front()))];
  auto r = std::find_if(rows.begin() + static_cast<std::ptrdiff_t>(begin), rows.end(),
                        [&](auto& x) { return is_prefix(name, x.name); });
  if (r == rows.end()) return std::nullopt;
  return static_cast<std::size_t>(r - rows.begin());
}

commands::commands(store& all, command_options options, environment env)
    : store_{all}, options_{std::move(options)}, env_{std::move(env)},
      guard_{*env_.timers, *env_.time}, latencies_(table().size()) {
  instance_ = static_cast<std::uint32_t>(env_.random->below(0xfffffffeU) + 1); // 0 means "nobody"
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
  failed_ = true;
  c.out.error(text);
}

bool commands::deny(client& c, std::string_view text) {
  fail(c, text);
  return false;
}

void commands::refuse(client& c, std::string_view text) {
  ++stats.unauthorized;
  fail(c, text);
}

void commands::execute(client& c, arguments args) {
  ++stats.executed;
  if (gone_) {
    c.closing = true;
    return fail(c, gone_text);
  }
  if (c.space->removed) {
    c.closing = true;
    return fail(c, removed_text);
  }
  owner_ = instance_;
  if (c.master) {
    auto text = args.back().text();
    args = args.first(args.size() - 1);
    if (args.empty()) return fail(c, "Missing arguments");
    owner_ = 0;
    (void)std::from_chars(text.data(), text.data() + text.size(), owner_);
    // Our own, on its way back: done already, or it would go round for ever.
    if (owner_ == instance_) return c.out.simple("OK");
  }
  auto found = find(args.front().text());
  if (!found) return fail(c, "Command not supported");
  row_ = *found;
  promised_ = failed_ = false;
  if (!mirrors_.empty()) {
    auto copy = encode_copy(c, args, row_);
    if (!copy.empty()) copy_ = std::make_shared<const std::string>(std::move(copy));
  }
  since_ = straight_on_ ? ended_ : std::chrono::steady_clock::now();
  if (!table()[row_].beside) settle_now();
  dispatch(c, args);
  ended_ = std::chrono::steady_clock::now();
  straight_on_ = true;
  if (!promised_) {
    latencies_[row_].add(ended_ - since_);
    if (copy_ && !failed_) tell_mirrors(&c, *copy_);
  }
  copy_.reset();
  if (!waiting_.empty()) tell_waiting(c, c.space.get(), row_);
}

void commands::dispatch(client& c, arguments args) {
  auto& r = table()[row_];
  if (r.admin && !c.admin) return refuse(c);
  if (args.size() < r.least || args.size() > r.most)
    return fail(c, args.size() < r.least && r.most == any ? "Missing arguments"
                                                          : "Unexpected arguments");
  if (r.not_empty)
    for (auto& a : args)
      if (a.size() == 0) return fail(c, "Invalid argument");
  if (!c.space->served() && r.in_namespace()) return fail(c, not_served_text);
  (this->*r.run)(c, args);
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

// -- answers that come later
// -----------------------------------------------------------------------

commands::promise commands::promise_answer(client& c) {
  promised_ = true;
  return {c.weak_from_this(), c.out.hold(), row_, since_, copy_};
}

void commands::answer(const promise& p, std::string_view reply) {
  latencies_[p.row].add(std::chrono::steady_clock::now() - p.since);
  auto failed = reply.starts_with('-');
  if (failed) ++stats.failed;
  auto who = p.who.lock();
  if (p.copy && !failed) tell_mirrors(who.get(), *p.copy);
  if (!who) return;
  who->out.fill(p.ticket, reply);
  who->wake();
}

// -- what is written together ---------------------------------------------------------------------

void commands::settle() {
  settle_now();
  gathering_ = false;
}

void commands::settle_now() {
  while (!gathered_.empty()) gathered_.back().space->settle();
}

/// The answer to a SET whose record is not yet written.
void commands::doubtful(client& c, std::string_view id) {
  auto at = std::find_if(gathered_.begin(), gathered_.end(),
                         [&](auto& g) { return g.space == c.space; });
  if (at == gathered_.end()) {
    at = gathered_.insert(at, {c.space, {}});
    c.space->settled = [this](name_space& space, auto writes) { settled(space, writes); };
  }
  promised_ = true; // its time is measured when it has come out
  at->answers.push_back({c.shared_from_this(), c.out.add_doubtful(bulk_text(id)), row_, since_});
}

/// What came of all that was gathered in a namespace; nothing said: all of it is written.
void commands::settled(name_space& space, std::span<const name_space::settled_write> writes) {
  auto at = std::find_if(gathered_.begin(), gathered_.end(),
                         [&](auto& g) { return g.space.get() == &space; });
  QS_ASSERT(at != gathered_.end());
  auto all = std::move(*at);
  gathered_.erase(at);
  QS_ASSERT(writes.empty() || writes.size() == all.answers.size());
  auto now = std::chrono::steady_clock::now();
  for (auto i = all.answers.size(); i-- > 0;) { // the last first: see reply_queue::replace
    auto& a = all.answers[i];
    latencies_[a.row].add(now - a.since);
    if (writes.empty()) continue;
    if (auto refused = refusal(writes[i].answer); !refused.empty()) {
      ++stats.failed;
      a.who->out.replace(a.at, fmt::format("-{}\r\n", refused));
    } else {
      a.who->out.replace(a.at, bulk_text(writes[i].id));
    }
  }
  write_behind(all.space);
  if (!writes.empty()) disk_trouble();
}

// -- sync -----------------------------------------------------------------------------------------

void commands::sync_command(client& c, arguments) {
  if (!store_.lock_linked() || !c.space->linked()) {
    (void)watch();
    c.closing = true;
    return fail(c, gone_text);
  }
  sync(c.space, [this, p = promise_answer(c)](const status& s) {
    answer(p, s.ok() && !gone_ ? std::string{"+OK\r\n"}
              : gone_          ? fmt::format("-{}\r\n", gone_text)
                               : std::string{"-Cannot write data right now\r\n"});
  }, copy_ ? copy_->size() : 0);
}

void commands::sync(const std::shared_ptr<name_space>& space,
                    std::function<void(const status&)> done, std::size_t holds) {
  space->settle();
  if (!space->dirty()) return done({});
  holds += waiting_answer_bytes;
  waiting_bytes_ += holds;
  space->waiters.push_back({space->end(), [this, holds, done = std::move(done)](const status& s) {
                              waiting_bytes_ -= holds;
                              done(s);
                            }});
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
              ++stats.syncs;
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
// ----------------------------

void commands::later(client& c, admin_job job) {
  job.reply = promise_answer(c);
  c.blocked = true;
  later(std::move(job));
}

void commands::later(admin_job job) {
  if (!job.name.empty()) pending_names_.insert(job.name);
  admin_jobs_.push_back(std::move(job));
  if (admin_jobs_.size() == 1) next_admin_job();
}

void commands::next_admin_job() {
  auto end = [this](std::string_view reply) {
    auto job = std::move(admin_jobs_.front());
    admin_jobs_.pop_front();
    if (auto it = pending_names_.find(job.name); it != pending_names_.end())
      pending_names_.erase(it);
    if (auto who = job.reply.who.lock()) who->blocked = false;
    answer(job.reply, fmt::format("{}\r\n", reply));
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
