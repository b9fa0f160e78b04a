#include <cstdint>

#include "actors/zdb_connection.hpp"

#include <caf/all.hpp>
#include <caf/io/all.hpp>

#include <fcntl.h>

#include <deque>
#include <optional>
#include <utility>

#include <fmt/format.h>

#include "actors/caf_error.hpp"
#include "actors/connection_state.hpp"
#include "base/limits.hpp"

namespace qs::actors {

namespace {

constexpr std::chrono::milliseconds retry_least{100};
constexpr std::chrono::milliseconds retry_most{30'000};
constexpr std::chrono::milliseconds retry_most_loopback{2'000};
/// A node that refused us or was not the one we knew: what a person did to it may be put right.
constexpr std::chrono::milliseconds verdict_retry{30'000};
/// A sync of much unwritten data on a slow disk is no sign of death.
constexpr std::chrono::milliseconds sync_deadline{30'000};
/// From then on new shards do without a node that owes an answer: not long, or writers would wait for
/// it (its share of what may be late is used up in a second), and not so short that a disk that is
/// busy for a moment is passed over.
constexpr std::chrono::milliseconds stalled_after{3'000};
/// While nothing comes from a node that owes something.
constexpr std::chrono::milliseconds look_every{1'000};
/// An alarm so late: this machine slept, and what came meanwhile has not been read yet.
constexpr std::chrono::milliseconds overslept{1'000};
/// volume.md, 3: on a server without SYNC what was acknowledged counts as on disk after so long in
/// the same life.
constexpr std::chrono::minutes settled_after{2};
constexpr std::size_t read_chunk = 64 << 10;

class connector_sockets final : public socket_source {
public:
  explicit connector_sockets(net::connector& c) : connector_{c} {}
  void dial(const net::address& where, std::chrono::milliseconds deadline,
            std::function<void(result<unique_fd>)> done) override {
    connector_.connect(where, deadline, std::move(done));
  }
  std::int64_t adopt(caf::io::abstract_broker& broker, unique_fd fd) override {
    return broker.add_scribe(fd.release()).id();
  }

private:
  net::connector& connector_;
};

} // namespace

std::shared_ptr<socket_source> real_sockets(net::connector& connector) {
  return std::make_shared<connector_sockets>(connector);
}

std::string_view to_string(link_state state) noexcept {
  switch (state) {
  case link_state::disconnected:
    return "disconnected";
  case link_state::connecting:
    return "connecting";
  case link_state::greeting:
    return "greeting";
  case link_state::ready:
    return "ready";
  case link_state::data_lost:
    return "data_lost";
  case link_state::access_denied:
    return "access_denied";
  case link_state::stopped:
    return "stopped";
  }
  return "?";
}

// -- connecting
// ---------------------------------------------------------------------------------------

void connection_state::start(connection_broker::broker_pointer me, connection_config config) {
  self = me;
  cfg = std::move(config);
  QS_ASSERT(cfg.identity != nullptr && cfg.sockets != nullptr);
  if (cfg.time == nullptr) cfg.time = &system_clock();
  if (cfg.random == nullptr) cfg.random = &system_random();
  self->set_exit_handler([this](caf::exit_msg& m) { end(std::move(m.reason)); });
  connect_now();
}

void connection_state::connect_now() {
  retry_at.reset();
  auto where = net::from_endpoint(cfg.where);
  if (!where.ok()) {
    enter(link_state::disconnected,
          cfg.where.valid() ? describe(where.err()) : "has no address yet");
    return;
  }
  loopback = net::is_loopback(*where);
  auto number = ++attempt;
  enter(link_state::connecting, net::to_string(*where));
  cfg.sockets->dial(*where, limits::node_connect_deadline,
                    [me = caf::weak_actor_ptr{self->ctrl()}, number](result<unique_fd> r) {
                      // If the actor is gone the message is not made and the descriptor closes
                      // here.
                      if (auto strong = me.lock())
                        caf::anon_send(caf::actor_cast<caf::actor>(strong), dialed_atom_v, number,
                                       std::make_shared<dialed_socket>(std::move(r)));
                    });
}

void connection_state::on_dialed(std::uint64_t number, dialed_socket& dialed) {
  if (number != attempt || state != link_state::connecting) return;
  if (!dialed.outcome.ok()) {
    lost(dialed.outcome.err(), link_state::disconnected);
    return settle();
  }
  if (dialed.outcome->valid())
    direct.reset(::fcntl(dialed.outcome->get(), F_DUPFD_CLOEXEC, 0));
  hdl = caf::io::connection_handle::from_int(cfg.sockets->adopt(*self, std::move(*dialed.outcome)));
  self->configure_read(
      hdl, caf::io::receive_policy::at_most(read_chunk)); // without it nothing ever arrives
  self->ack_writes(hdl, true);
  outgoing.clear();
  front_given = handed = 0;
  in_kernel = 0;
  watch = {};
  backed_up = false;
  progress = looked_at = cfg.time->boot();
  zdb::session_options options;
  options.name_space = cfg.where.ns;
  options.password = std::string{cfg.password.text()};
  // Not on loopback either: while a tunnel or a node is down, anybody on this machine may listen where
  // it was, and a server that knows no challenge is what he would say he is.
  options.allow_plain = cfg.insecure;
  session = std::make_unique<zdb::session>(std::move(options), *cfg.time);
  enter(link_state::greeting, detail);
  session->handshake([this](status s) { greeted(s); });
  settle();
}

void connection_state::greeted(const status& s) {
  if (!s.ok()) {
    auto& e = s.err();
    if (e.code == errc::access_denied) return judge(link_state::access_denied, e);
    if (e.code == errc::not_found) // the namespace, and with it everything in it
      return judge(link_state::data_lost, e);
    if (e.code == errc::data_lost) return judge(link_state::data_lost, e);
    return judge(link_state::disconnected, e);
  }
  session->get(key_of(cfg.identity_name), [this](result<buffer_ptr> r) { identified(r); });
}

void connection_state::identified(const result<buffer_ptr>& r) {
  if (r.ok()) {
    if (**r != *cfg.identity)
      return judge(link_state::data_lost, {errc::data_lost, "the identity object is another's"});
    return session->nsinfo(cfg.where.ns, [this](result<zdb::namespace_info> i) {
      if (session->closed()) return; // whoever closed it says why
      if (i.ok()) take_figures(*i);
      serve();
    });
  }
  if (r.err().code == errc::not_found)
    return judge(link_state::data_lost, {errc::data_lost, "the identity object is missing"});
  if (r.err().code == errc::data_lost) return judge(link_state::data_lost, r.err());
  judge(link_state::disconnected, std::move(error{r.err()}).with("read the identity object"));
}

void connection_state::serve() {
  auto& info = session->server();
  auto same = life > 0 && !info.instance_id.empty() && info.instance_id == instance &&
              info.boot_time == boot;
  if (!same) ++life;
  instance = info.instance_id;
  boot = info.boot_time;
  has_sync = session->has("SYNC");
  last_seen = cfg.time->wall();
  for (auto& b : std::exchange(settling, {})) {
    if (b.life == life)
      settling.push_back(std::move(b));
    else
      b.answer.deliver(to_caf({errc::unreachable, "the node was restarted"}));
  }
  state = link_state::ready;
  detail = trouble;
  standing.reset();
  tell(!same && life > 1);
}

void connection_state::take_figures(const zdb::namespace_info& info) {
  used = info.data_size_bytes;
  limit = info.data_limits_bytes;
  disk_free = info.free_bytes;
  figures_at = cfg.time->boot();
  trouble.clear();
  if (info.locked)
    trouble = "its namespace is locked or frozen by the administrator of its server";
  else if (limit != 0 && used + read_charge > limit)
    trouble = fmt::format("its namespace is full: {} of {}", format_bytes(used), format_bytes(limit));
  if (state == link_state::ready) detail = trouble;
}

/// A node that answers and takes no writes is there all the same: what it says is told as it is, until
/// its figures say otherwise.
void connection_state::note_refusal(const error& e) {
  if (e.code != errc::refused && e.code != errc::no_space) return;
  auto said = describe(e);
  if (said == trouble || state != link_state::ready) return;
  trouble = detail = std::move(said);
  figures_at = boot_time{0}; // asked again with the next PING
  tell(false);
}

// -- losing
// -------------------------------------------------------------------------------------------

/// A verdict from inside a session's callback: the session must outlive the callback, so settle()
/// acts on it.
void connection_state::judge(link_state next, error why) {
  if (!verdict) verdict.emplace(next, std::move(why));
}

void connection_state::lost(error why, link_state next) {
  if (hdl != caf::io::connection_handle{}) self->close(std::exchange(hdl, {}));
  direct.reset();
  outgoing.clear();
  front_given = 0;
  stalled = false;
  state = next; // before the session fails what is pending: nobody may start something new on it
  if (session) session->connection_lost(why);
  verdict.reset(); // also what those failures seemed to say
  fail_barriers(next == link_state::disconnected ? std::nullopt : std::optional<error>{why});
  detail = describe(why);
  if (next == link_state::data_lost || next == link_state::access_denied) standing.emplace(next, detail);
  if (standing && !stopping) {
    retry_at = cfg.time->boot() + verdict_retry + std::chrono::milliseconds{cfg.random->below(1000)};
  } else if (next == link_state::disconnected && !stopping) {
    auto most = loopback ? retry_most_loopback : retry_most;
    auto wait = std::min(most, retry_least * (1 << std::min<std::uint32_t>(failures, 10)));
    // Half of it is chance, so that the clients of a node that comes back do not come all at once.
    auto half = static_cast<std::uint64_t>(wait.count()) / 2;
    retry_at = cfg.time->boot() + std::chrono::milliseconds{half + cfg.random->below(half + 1)};
    ++failures;
  }
  tell(false);
}

void connection_state::fail_barriers(const std::optional<error>& also_settling) {
  auto e = to_caf({errc::unreachable, "the connection was lost before the barrier was answered"});
  for (auto& b : std::exchange(next_barriers, {})) b.deliver(e);
  if (!also_settling) return;
  for (auto& b : std::exchange(settling, {})) b.answer.deliver(to_caf(*also_settling));
}

/// After everything that may have called back from the session: acts on verdicts, sends, sets the
/// alarm.
void connection_state::settle() {
  if (verdict) {
    auto [next, why] = std::move(*verdict);
    lost(std::move(why), next);
  }
  pump();
  if (stopping && !ended && (state != link_state::ready || session->pending() == 0)) return end({});
  arm();
}

void connection_state::enter(link_state next, std::string why) {
  state = next;
  detail = std::move(why);
  tell(false);
}

link_report connection_state::report() const {
  link_report r;
  r.node = cfg.node;
  auto asked_again = state == link_state::disconnected || state == link_state::connecting ||
                     state == link_state::greeting;
  r.state = standing && asked_again ? standing->first : state;
  r.detail = standing && asked_again ? standing->second : detail;
  r.stalled = stalled;
  if (stalled) r.detail = "owes answers and gives no sign of life";
  r.life = life;
  r.last_seen = last_seen;
  r.instance = instance;
  r.has_sync = has_sync;
  r.used = used;
  r.limit = limit;
  r.disk_free = disk_free;
  r.latency = latency.mean();
  r.latency_p90 = latency.p90();
  r.bytes_in_flight = charged;
  r.failures = failures;
  return r;
}

void connection_state::tell(bool restarted) {
  if (!cfg.listener) return;
  auto r = report();
  r.restarted = restarted;
  caf::anon_send(cfg.listener, link_atom_v, std::move(r));
}

// -- time
// ---------------------------------------------------------------------------------------------

/// One alarm at a time: set for the earliest thing due. An alarm that comes early just sets the
/// next.
void connection_state::arm() {
  std::optional<boot_time> next;
  auto want = [&](boot_time t) { next = next ? std::min(*next, t) : t; };
  if (retry_at) want(*retry_at);
  if (session && session->waiting()) {
    if (direct.valid()) want(next_look());
    want(may_stall() ? sign_of_life() + stalled_after : progress_limit());
  }
  if (!settling.empty() && state == link_state::ready) want(settling.front().since + settled_after);
  if (stopping) want(stop_by);
  if (!next || ended) return;
  auto now = cfg.time->boot();
  next = std::max(*next, now);
  if (alarm_at && *alarm_at <= *next) return;
  alarm_at = next;
  auto delay = std::max(*next - now, boot_time{1});
  caf::delayed_anon_send(caf::actor_cast<caf::actor>(self), delay, alarm_atom_v, ++alarm_number);
}

/// Of what it owes an answer to.
boot_time connection_state::oldest_asked() const {
  return cfg.time->boot() - session->waiting().value_or(boot_time{0});
}

/// Bytes that come, or that it takes, show that the node is alive and only slow. The last of them, or
/// when it was asked what it owes.
boot_time connection_state::sign_of_life() const { return std::max(progress, oldest_asked()); }

boot_time connection_state::next_look() const {
  return std::max(sign_of_life(), looked_at) + look_every;
}

/// Without any for this long it is not.
boot_time connection_state::progress_limit() const {
  auto for_disk = !syncing.empty() && oldest_asked() >= sync_sent; // what was asked before the SYNC is due as ever
  return sign_of_life() + (for_disk ? sync_deadline : boot_time{limits::node_request_deadline});
}

void connection_state::alive() {
  progress = cfg.time->boot();
  if (!std::exchange(stalled, false)) return;
  tell(false);
  arm();
}

void connection_state::on_alarm(std::uint64_t number) {
  if (number != alarm_number || ended) return;
  auto now = cfg.time->boot();
  auto late = std::exchange(alarm_at, {}).value_or(now) + overslept < now;
  if (late && !std::exchange(was_late, true)) return arm();
  was_late = false;
  if (session && !session->closed() && session->waiting() && direct.valid() && now >= next_look())
    look_at_queue();
  if (retry_at && now >= *retry_at) connect_now();
  if (session && !session->closed() && session->waiting() && now >= progress_limit())
    lost({errc::timed_out, fmt::format("no answer from {} in time", model::to_string(cfg.node))},
         link_state::disconnected);
  if (may_stall() && session->waiting() && now >= sign_of_life() + stalled_after) {
    stalled = true;
    tell(false);
  }
  while (state == link_state::ready && !settling.empty() &&
         now >= settling.front().since + settled_after) {
    settling.front().answer.deliver(life);
    settling.pop_front();
  }
  if (stopping && now >= stop_by) return end({});
  settle();
}

void connection_state::move_to(model::endpoint where) {
  if (stopping) return;
  cfg.where = std::move(where);
  ++attempt; // a connect under way is not wanted any more
  standing.reset();
  if (state == link_state::greeting || state == link_state::ready)
    lost({errc::unreachable, "moves to another address"}, link_state::disconnected);
  failures = 0;
  connect_now();
  settle();
}

caf::result<caf::ok_atom> connection_state::stop() {
  auto answer = self->make_response_promise<caf::ok_atom>();
  stops.push_back(answer);
  if (!stopping) {
    stopping = true;
    retry_at.reset();
    stop_by = cfg.time->boot() + limits::node_request_deadline;
    for (auto& b : std::exchange(settling, {}))
      b.answer.deliver(to_caf({errc::unreachable, "stopped before two minutes had passed"}));
  }
  settle();
  return answer;
}

/// The end: everything pending is answered first, since a promise that is only dropped answers
/// nobody.
void connection_state::end(caf::error reason) {
  if (ended) return;
  ended = stopping = true;
  ++attempt;
  retry_at.reset();
  lost({errc::unreachable, "stopped"}, link_state::stopped);
  for (auto& s : std::exchange(stops, {})) s.deliver(caf::ok_atom_v);
  cfg.listener = nullptr;
  self->quit(std::move(reason));
}

connection_broker::behavior_type connection_state::make_behavior() {
  using namespace caf::io;
  return {
      [this](store_atom, const model::object_name& n, const buffer_ptr& v) { return store(n, v); },
      [this](read_atom, const model::object_name& n) { return read(n); },
      [this](del_atom, const object_names_ptr& n) { return del(n); },
      [this](check_atom, const model::object_name& n) { return check(n); },
      [this](barrier_atom) { return barrier(); },
      [this](ping_atom) { return ping(); },
      [this](status_atom) { return report(); },
      [this](move_to_atom, const model::endpoint& where) { move_to(where); },
      [this](stop_atom) { return stop(); },
      [this](const new_data_msg& m) { on_data(m); },
      [this](const connection_closed_msg& m) { on_closed(m); },
      [this](const data_transferred_msg& m) { on_sent(m); },
      [this](dialed_atom, std::uint64_t number, const dialed_socket_ptr& s) {
        on_dialed(number, *s);
      },
      [this](alarm_atom, std::uint64_t number) { on_alarm(number); },
  };
}

namespace {
connection_broker::behavior_type
zdb_connection(connection_broker::stateful_broker_pointer<connection_state> self,
               const std::shared_ptr<connection_config>& config) {
  self->state.start(self, *config);
  return self->state.make_behavior();
}
} // namespace

connection_actor spawn_connection(caf::actor_system& system, connection_config config) {
  auto shared = std::make_shared<connection_config>(std::move(config));
  return system.middleman().spawn_broker(zdb_connection, std::move(shared));
}

} // namespace qs::actors
