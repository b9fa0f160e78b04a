// The state behind a zdb_connection: for zdb_connection.cpp (handshake, losing, time), connection_bytes.cpp (the socket) and connection_requests.cpp alone.
// Every socket event and every request goes through here and ends in settle(). The session calls
// back from within its own functions, so callbacks only note what they learned (judge); settle()
// acts on it afterwards.
//
//   disconnected --connect_now--> connecting --on_dialed--> greeting --serve--> ready
//        ^------------------------ lost ---------------------------------'
//   greeting/ready --judge, lost--> data_lost | access_denied --half a minute, or move_to--> connecting
//   any --end--> stopped
//
// A verdict stands, and is what is reported, until the node was asked once more and said otherwise:
// a password that somebody reset for a minute, a disk that was not mounted yet.
#pragma once

#include <cstdint>

#include <caf/error.hpp>
#include <caf/io/connection_handle.hpp>
#include <caf/io/system_messages.hpp>
#include <caf/io/typed_broker.hpp>
#include <caf/result.hpp>
#include <caf/typed_actor.hpp>
#include <caf/typed_response_promise.hpp>

#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "actors/latency.hpp"
#include "actors/outgoing_watch.hpp"
#include "actors/zdb_connection.hpp"
#include "base/posix.hpp"
#include "zdb/session.hpp"

namespace qs::actors {

/// What the connector gave, on its way into the actor.
struct dialed_socket {
  explicit dialed_socket(result<unique_fd> r) : outcome{std::move(r)} {}
  result<unique_fd> outcome;
};

/// The public protocol and what only the socket, the connector and the clock say.
using connection_broker =
    connection_actor::extend<caf::reacts_to<caf::io::new_data_msg>,
                             caf::reacts_to<caf::io::connection_closed_msg>,
                             caf::reacts_to<caf::io::data_transferred_msg>,
                             caf::reacts_to<dialed_atom, std::uint64_t, dialed_socket_ptr>,
                             caf::reacts_to<alarm_atom, std::uint64_t>>;

inline std::string key_of(const model::object_name& object) { return std::string{as_text(object)}; }

struct connection_state {
  static inline const char* name = "qs.zdb_connection";
  using barrier_answer = caf::typed_response_promise<std::uint64_t>;
  struct settling_barrier {
    barrier_answer answer;
    boot_time since;
    std::uint64_t life;
  };

  void start(connection_broker::broker_pointer me, connection_config config);
  connection_broker::behavior_type make_behavior();

  void connect_now();
  void on_dialed(std::uint64_t number, dialed_socket& dialed);
  void greeted(const status& s);
  void identified(const result<buffer_ptr>& r);
  void serve();
  void take_figures(const zdb::namespace_info& info);
  void note_refusal(const error& e);

  void judge(link_state next, error why);
  void lost(error why, link_state next);
  void fail_barriers(const std::optional<error>& also_settling);
  void settle();
  void enter(link_state next, std::string why);
  link_report report() const;
  void tell(bool restarted);
  void end(caf::error reason);

  void pump();
  void write_directly();
  void given(std::size_t bytes); ///< drops so many bytes from `outgoing`
  void on_data(const caf::io::new_data_msg& m);
  void on_sent(const caf::io::data_transferred_msg& m);
  void look_at_queue();
  void on_closed(const caf::io::connection_closed_msg& m);
  void arm();
  boot_time oldest_asked() const;
  boot_time sign_of_life() const;
  boot_time next_look() const;
  boot_time progress_limit() const;
  bool may_stall() const { return state == link_state::ready && !stalled && !stopping; }
  void alive();
  void on_alarm(std::uint64_t number);

  std::optional<caf::error> refuse(std::size_t cost) const;
  caf::error passed_on(const error& e);
  caf::result<std::uint64_t> store(const model::object_name& object, const buffer_ptr& value);
  void compare(const model::object_name& object, buffer_ptr value, std::size_t cost,
               caf::typed_response_promise<std::uint64_t> answer);
  caf::result<buffer_ptr> read(const model::object_name& object);
  caf::result<caf::ok_atom> del(const object_names_ptr& names);
  caf::result<bool> check(const model::object_name& object);
  caf::result<std::uint64_t> barrier();
  void send_sync();
  caf::result<caf::ok_atom> ping();
  void move_to(model::endpoint where);
  caf::result<caf::ok_atom> stop();

  connection_broker::broker_pointer self = nullptr;
  connection_config cfg;
  link_state state = link_state::disconnected;
  std::string detail;

  // the socket
  std::uint64_t attempt = 0; ///< of connecting; answers to older ones are dropped
  bool loopback = false;
  caf::io::connection_handle hdl;
  unique_fd direct; ///< the same socket: what the kernel takes at once is not copied into CAF's buffer first
  std::unique_ptr<zdb::session> session;
  std::deque<zdb::piece> outgoing; ///< taken from the session, not yet given to CAF or the kernel
  std::size_t front_given = 0;     ///< of the first of them
  std::size_t handed = 0;          ///< given to CAF, not yet to the kernel
  bool backed_up = false;          ///< the kernel did not take all of it last time
  boot_time progress{0};           ///< when bytes last came, or the node took some
  boot_time received{0};           ///< when bytes last came
  std::uint64_t in_kernel = 0;     ///< bytes given to the kernel on this connection
  outgoing_watch watch;            ///< over what of it is still in its queue
  boot_time looked_at{0};          ///< at that
  bool stalled = false;            ///< said to be, in a report
  std::optional<std::pair<link_state, error>> verdict;
  std::uint32_t failures = 0;
  std::optional<boot_time> retry_at;
  std::optional<std::pair<link_state, std::string>> standing; ///< the verdict while it is asked again

  // the node
  std::uint64_t life = 0;
  std::string instance;
  std::int64_t boot = 0;
  bool has_sync = false;
  wall_time last_seen{};
  byte_count used = 0;
  byte_count limit = 0;
  byte_count disk_free = 0;
  boot_time figures_at{0};
  std::string trouble; ///< locked or full, while it is; what `detail` says of a node that is ready
  latency_estimate latency;

  // requests
  std::size_t charged = 0;             ///< bytes of stores and expected bytes of reads in flight
  std::vector<barrier_answer> syncing; ///< behind the SYNC under way
  boot_time sync_sent{0};              ///< when that went out
  std::vector<barrier_answer> next_barriers; ///< came after it was sent
  std::deque<settling_barrier> settling;     ///< servers without SYNC: waiting for time to pass

  std::optional<boot_time> alarm_at;
  std::uint64_t alarm_number = 0;
  bool was_late = false; ///< the last alarm
  bool stopping = false;
  bool ended = false;
  boot_time stop_by{0};
  std::vector<caf::typed_response_promise<caf::ok_atom>> stops;
};

} // namespace qs::actors
