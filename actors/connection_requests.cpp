// What a zdb_connection is asked for once it is ready: one function a request, each ends in settle().
#include <cstdint>

#include "actors/zdb_connection.hpp"

#include <caf/all.hpp>
#include <caf/io/all.hpp>

#include <optional>
#include <utility>

#include <fmt/format.h>

#include "actors/caf_error.hpp"
#include "actors/connection_state.hpp"
#include "base/limits.hpp"

namespace qs::actors {

namespace {

constexpr std::chrono::seconds figures_fresh{10};
constexpr std::size_t names_most = 65'536;
constexpr std::size_t busy_bytes = 256 << 10;
constexpr std::chrono::seconds alive_within{1};

} // namespace

std::optional<caf::error> connection_state::refuse(std::size_t cost) const {
  if (stopping) return to_caf({errc::unreachable, model::to_string(cfg.node) + " is being let go"});
  if (state != link_state::ready) {
    auto code = state == link_state::data_lost       ? errc::data_lost
                : state == link_state::access_denied ? errc::access_denied
                                                     : errc::unreachable;
    return to_caf(
        {code, fmt::format("{} is {}: {}", model::to_string(cfg.node), to_string(state), detail)});
  }
  if (charged > 0 && charged + cost > cfg.window_bytes)
    return to_caf({errc::busy, model::to_string(cfg.node) + " has a full window"});
  return std::nullopt;
}

/// An error on its way to whoever asked; some tell more of the node than of the request.
caf::error connection_state::passed_on(const error& e) {
  if (e.code == errc::data_lost ||
      e.message.find("Your active namespace is not available") != std::string::npos) {
    judge(link_state::data_lost, {errc::data_lost, describe(e)});
    return to_caf({errc::data_lost, describe(e)});
  }
  return to_caf(e);
}

caf::result<std::uint64_t> connection_state::store(const model::object_name& object,
                                                   const buffer_ptr& value) {
  auto cost = (value ? value->size() : 0) + request_overhead;
  if (auto e = refuse(cost)) return *e;
  auto answer = self->make_response_promise<std::uint64_t>();
  charged += cost;
  session->set(key_of(object), value,
               [this, answer, cost, object, value](result<zdb::set_outcome> r) mutable {
                 if (r.ok() && *r == zdb::set_outcome::identical &&
                     session->server().extensions.empty())
                   return compare(object, value, cost, std::move(answer));
                 charged -= cost;
                 if (!r.ok()) {
                   note_refusal(r.err());
                   answer.deliver(passed_on(r.err()));
                   return;
                 }
                 failures = 0;
                 answer.deliver(life);
               });
  settle();
  return answer;
}

/// 0-db says "identical" when checksums are equal: only the bytes themselves count (volume.md 7,
/// invariant 3).
void connection_state::compare(const model::object_name& object, buffer_ptr value, std::size_t cost,
                               caf::typed_response_promise<std::uint64_t> answer) {
  session->get(
      key_of(object), [this, value = std::move(value), cost, answer](result<buffer_ptr> r) mutable {
        charged -= cost;
        if (!r.ok()) {
          answer.deliver(passed_on(r.err().code == errc::not_found
                                       ? error{errc::maybe_delivered,
                                               "answered \"identical\" and then has no such object"}
                                       : r.err()));
          return;
        }
        if (**r != *value) {
          answer.deliver(to_caf({errc::corrupt, "the node holds other bytes under this name"}));
          return;
        }
        failures = 0;
        answer.deliver(life);
      });
}

caf::result<buffer_ptr> connection_state::read(const model::object_name& object) {
  if (auto e = refuse(read_charge)) return *e;
  auto answer = self->make_response_promise<buffer_ptr>();
  charged += read_charge;
  session->get(key_of(object),
               [this, answer, since = cfg.time->boot()](result<buffer_ptr> r) mutable {
                 charged -= read_charge;
                 if (!r.ok()) {
                   answer.deliver(passed_on(r.err()));
                   return;
                 }
                 failures = 0;
                 latency.add(cfg.time->boot() - since);
                 answer.deliver(std::move(*r));
               });
  settle();
  return answer;
}

caf::result<caf::ok_atom> connection_state::del(const object_names_ptr& names) {
  if (auto e = refuse(0)) return *e;
  if (!names || names->size() > names_most)
    return to_caf({errc::invalid_argument, "too many names in one request"});
  if (names->empty()) return caf::ok_atom_v;
  struct progress_of {
    std::size_t left;
    std::optional<error> first;
    caf::typed_response_promise<caf::ok_atom> answer;
  };
  auto p = std::make_shared<progress_of>(
      progress_of{names->size(), {}, self->make_response_promise<caf::ok_atom>()});
  auto answer = p->answer;
  for (auto& object : *names)
    session->del(key_of(object), [this, p](status s) {
      if (!s.ok()) {
        auto e = from_caf(passed_on(s.err()));
        if (e.code != errc::not_found && !p->first) p->first = std::move(e);
      }
      if (--p->left > 0) return;
      if (p->first)
        p->answer.deliver(to_caf(*p->first));
      else
        p->answer.deliver(caf::ok_atom_v);
    });
  settle();
  return answer;
}

caf::result<bool> connection_state::check(const model::object_name& object) {
  if (auto e = refuse(0)) return *e;
  auto answer = self->make_response_promise<bool>();
  session->check(key_of(object), [this, answer](result<bool> r) mutable {
    if (r.ok())
      answer.deliver(*r);
    else
      answer.deliver(passed_on(r.err()));
  });
  settle();
  return answer;
}

caf::result<std::uint64_t> connection_state::barrier() {
  if (auto e = refuse(0)) return *e;
  auto answer = self->make_response_promise<std::uint64_t>();
  if (!has_sync) {
    settling.push_back({answer, cfg.time->boot(), life});
  } else {
    // One SYNC at a time: whoever asks while one is under way needs the next, since it may already
    // have passed.
    next_barriers.push_back(answer);
    if (syncing.empty()) send_sync();
  }
  settle();
  return answer;
}

void connection_state::send_sync() {
  syncing = std::exchange(next_barriers, {});
  sync_sent = cfg.time->boot();
  session->sync([this](status s) {
    auto done = std::exchange(syncing, {});
    for (auto& b : done) {
      if (s.ok())
        b.deliver(life);
      else
        b.deliver(passed_on(s.err()));
    }
    if (state == link_state::ready && !session->closed() && !next_barriers.empty()) send_sync();
  });
}

caf::result<caf::ok_atom> connection_state::ping() {
  if (auto e = refuse(0)) return *e;
  // Behind megabytes of requests a PING would tell of the queue, not of the node: its answers to
  // those will do.
  if (session->bytes_in_flight() > busy_bytes && session->waiting() &&
      cfg.time->boot() - received < alive_within)
    return caf::ok_atom_v;
  auto answer = self->make_response_promise<caf::ok_atom>();
  session->ping([this, answer](status s) mutable {
    if (!s.ok()) {
      answer.deliver(passed_on(s.err()));
      return;
    }
    failures = 0;
    answer.deliver(caf::ok_atom_v);
  });
  if (cfg.time->boot() - figures_at >= figures_fresh) {
    figures_at = cfg.time->boot();
    session->nsinfo(cfg.where.ns, [this](result<zdb::namespace_info> i) {
      if (!i.ok()) return;
      take_figures(*i);
      tell(false);
    });
  }
  settle();
  return answer;
}

} // namespace qs::actors
