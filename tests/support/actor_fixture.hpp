// A CAF system that stands still: one thread, a clock that moves only when told, sockets that are buffers.
// Everything an actor test needs to be the world around the actors. Test cases end actors by themselves.
#pragma once

#include <cstdint>

#include <caf/all.hpp>
#include <caf/io/all.hpp>
#include <caf/io/network/test_multiplexer.hpp>
#include <caf/scheduler/test_coordinator.hpp>

#include <chrono>
#include <deque>
#include <fcntl.h>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <utility>

#include "actors/caf_error.hpp"
#include "actors/zdb_connection.hpp"
#include "base/clock.hpp"
#include "support/scripted_zdb.hpp"

namespace qs::test {

struct still_config : caf::actor_system_config {
  still_config() {
    load<caf::io::middleman, caf::io::network::test_multiplexer>();
    set("scheduler.policy", caf::atom("testing"));
    set("middleman.manual-multiplexing", true);
    set("middleman.workers", std::size_t{0});
    set("logger.console", caf::atom("none"));
    add_error_category(caf::atom("qs"), actors::render_errc);
  }
};

/// What an actor answered, once it has.
template <class T>
using answer_of = std::shared_ptr<std::optional<result<T>>>;

struct actor_fixture {
  still_config cfg;
  caf::actor_system sys{cfg};
  caf::scheduler::test_coordinator& sched =
    dynamic_cast<caf::scheduler::test_coordinator&>(sys.scheduler());
  caf::io::network::test_multiplexer& mpx =
    dynamic_cast<caf::io::network::test_multiplexer&>(sys.middleman().backend());
  std::function<bool()> also_moves; ///< the simulated network: true when it did something

  /// The scheduler's clock as ours.
  struct scheduler_clock final : qs::clock {
    explicit scheduler_clock(caf::scheduler::test_coordinator& s) : sched{s} {}
    [[nodiscard]] wall_time wall() const override { return wall_time{std::chrono::hours{24 * 365 * 50}} + boot(); }
    [[nodiscard]] boot_time boot() const override {
      return std::chrono::duration_cast<boot_time>(sched.clock().current_time.time_since_epoch());
    }
    caf::scheduler::test_coordinator& sched;
  } time{sched};

  actor_fixture() { sched.clock().current_time += std::chrono::hours(1); } // time 0 means "unset" to CAF

  /// Until nothing moves any more.
  void run() {
    for (bool more = true; more;) {
      more = sched.run() > 0;
      while (mpx.try_exec_runnable() || mpx.read_data()) more = true;
      if (also_moves && also_moves()) more = true;
    }
  }
  /// In steps, so that what a timer starts has its own timers in time.
  void advance(std::chrono::milliseconds by, std::chrono::milliseconds step = std::chrono::milliseconds{50}) {
    run();
    while (by.count() > 0) {
      auto now = std::min(by, step);
      sched.clock().advance_time(now);
      by -= now;
      run();
    }
  }
  /// Asks and comes back; the answer is in what it returns after a run().
  template <class T, class Handle, class... A>
  answer_of<T> ask(const Handle& whom, A... message) {
    auto out = std::make_shared<std::optional<result<T>>>();
    sys.spawn(
      [=](caf::event_based_actor* p, int) {
        p->request(whom, caf::infinite, message...)
          .then([out](const T& value) { out->emplace(value); },
                [out](caf::error& e) { out->emplace(actors::from_caf(e)); });
      },
      0);
    return out;
  }
};

/// Sockets for zdb_connection: dials wait until the test accepts or refuses them, bytes go to scripted servers.
class simulated_network : public actors::socket_source {
public:
  struct call {
    net::address where;
    std::function<void(result<unique_fd>)> done;
  };
  explicit simulated_network(actor_fixture& f) : fixture_{f} {
    f.also_moves = [this] { return exchange(); };
  }
  ~simulated_network() override { fixture_.also_moves = nullptr; }

  void dial(const net::address& where, std::chrono::milliseconds, std::function<void(result<unique_fd>)> done) override {
    dials.push_back({where, std::move(done)});
  }
  std::int64_t adopt(caf::io::abstract_broker& broker, unique_fd) override {
    auto number = next_++;
    auto hdl = caf::io::connection_handle::from_int(number);
    fixture_.mpx.provide_scribe("sim", static_cast<std::uint16_t>(number), hdl);
    auto made = broker.add_tcp_scribe("sim", static_cast<std::uint16_t>(number));
    QS_ASSERT(made);
    links_.emplace_back(hdl, accepted_.front());
    accepted_.pop_front();
    links_.back().second->connected();
    return number;
  }

  /// The oldest dial reaches this server.
  void accept(scripted_zdb& server) {
    auto c = take();
    accepted_.push_back(&server);
    c.done(unique_fd{::open("/dev/null", O_RDWR | O_CLOEXEC)});
    fixture_.run();
  }
  void refuse() {
    take().done(error{errc::unreachable, "connect: refused"});
    fixture_.run();
  }
  /// The server's side of every connection to it goes away.
  void cut(scripted_zdb& server) {
    for (auto& [hdl, s] : links_)
      if (s == &server && !fixture_.mpx.stopped_reading(hdl))
        fixture_.mpx.impl_ptr(hdl)->io_failure(&fixture_.mpx, caf::io::network::operation::read);
    std::erase_if(links_, [&](auto& l) { return l.second == &server; });
    fixture_.run();
  }
  /// What a server has to say without being asked, or had held back.
  void say(scripted_zdb& server, std::string_view bytes) {
    for (auto& [hdl, s] : links_)
      if (s == &server) fixture_.mpx.virtual_send(hdl, {bytes.begin(), bytes.end()});
    fixture_.run();
  }
  /// The kernel took so many bytes of what is sent to it; so many are left.
  void pretend_sent(scripted_zdb& server, std::size_t bytes, std::size_t left) {
    for (auto& [hdl, s] : links_)
      if (s == &server) fixture_.mpx.impl_ptr(hdl)->data_transferred(&fixture_.mpx, bytes, left);
    fixture_.run();
  }
  void release(scripted_zdb& server) { say(server, server.release()); }
  [[nodiscard]] bool is_open(const scripted_zdb& server) const {
    for (auto& [hdl, s] : links_)
      if (s == &server && !fixture_.mpx.stopped_reading(hdl)) return true;
    return false;
  }

  std::deque<call> dials;
  std::size_t split = 0; ///< not 0: replies arrive in pieces of so many bytes

private:
  call take() {
    QS_ASSERT(!dials.empty());
    auto c = std::move(dials.front());
    dials.pop_front();
    return c;
  }
  bool exchange() {
    bool moved = false;
    auto links = links_;
    for (auto& [hdl, server] : links) {
      auto& out = fixture_.mpx.output_buffer(hdl);
      if (out.empty()) continue;
      moved = true;
      std::string bytes(out.begin(), out.end());
      out.clear();
      fixture_.mpx.impl_ptr(hdl)->data_transferred(&fixture_.mpx, bytes.size(), 0);
      auto reply = server->feed(bytes);
      auto piece = split == 0 ? std::max<std::size_t>(reply.size(), 1) : split;
      for (std::size_t at = 0; at < reply.size(); at += piece) {
        auto part = reply.substr(at, piece);
        fixture_.mpx.virtual_send(hdl, {part.begin(), part.end()});
      }
    }
    return moved;
  }

  actor_fixture& fixture_;
  std::int64_t next_ = 1;
  std::deque<scripted_zdb*> accepted_;
  std::vector<std::pair<caf::io::connection_handle, scripted_zdb*>> links_;
};

} // namespace qs::test
