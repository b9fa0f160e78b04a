// The state behind the dispersal actor: for dispersal.cpp (links, windows, writes) and
// dispersal_fetch.cpp (reads) alone.
#pragma once

#include <cstdint>

#include <caf/result.hpp>
#include <caf/stateful_actor.hpp>
#include <caf/typed_actor.hpp>
#include <caf/typed_event_based_actor.hpp>
#include <caf/typed_response_promise.hpp>

#include <array>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

#include "actors/dispersal.hpp"
#include "actors/latency.hpp"

namespace qs::actors {

/// The public protocol and its own timers.
using dispersal_self = dispersal_actor::extend<
    // The earliest of all hedges and deadlines is due.
    caf::reacts_to<alarm_atom, std::uint64_t>,
    // Barriers are due.
    caf::reacts_to<barrier_atom>>;

struct dispersal_state {
  static inline const char* name = "qs.dispersal";

  enum class traffic : std::uint8_t { read, write, background };
  static constexpr std::size_t kinds = 3;

  struct fetch;
  using fetch_ptr = std::shared_ptr<fetch>;
  /// One SET or GET that waits for a window.
  struct operation {
    store_job_ptr store; ///< either a store's shard …
    fetch_ptr read;      ///< … or a fetch's source
    std::size_t at = 0;  ///< its position there
    std::size_t cost = 0;
  };
  struct lane {
    std::size_t in_flight = 0; ///< bytes
    std::deque<operation> waiting;
    bool starved =
        false; ///< stands in starved[kind]: has work and node window, but the total is used up
  };
  struct acknowledged {
    store_job_ptr job;
    std::size_t shard = 0;
    std::uint64_t life = 0; ///< of the server that acknowledged it
  };
  /// A node and what is under way to it. Outlives detach() as long as answers are outstanding.
  struct link {
    model::node_id node;
    connection_actor connection;
    bool attached = true;
    std::array<lane, kinds> lanes;
    latency_estimate reads;
    bool suspect = false; ///< a read was late, and nothing has come since
    boot_time suspect_since{0};
    boot_time last_answer{0};
    bool stalled = false; ///< as its connection says: no shard is sent there meanwhile
    std::vector<acknowledged> unconfirmed;
    std::size_t unconfirmed_bytes = 0;
    bool syncing = false;
    bool sync_soon = false;
  };
  using link_ptr = std::shared_ptr<link>;

  struct source {
    enum class stage : std::uint8_t { idle, queued, asked, got, failed } state = stage::idle;
    traffic lane = traffic::read; ///< where it is queued or in flight
    bool slow = false; ///< late: does not count as on its way any more, though it may still arrive
    link_ptr to;
    boot_time asked_at{0};
    boot_time hedge_at{0};
    error why;
  };
  using timers = std::multimap<boot_time, fetch_ptr>;
  struct fetch {
    fetch_job_ptr job;
    std::vector<source> sources; ///< by position in job->request.sources
    std::vector<volume::fetched_shard> got;
    bool expanded = false; ///< asks for any `needed` indices, no more for the wanted one alone
    bool finished = false;
    bool ever_asked = false;
    boot_time started{0};
    boot_time deadline{0};
    boot_time latest{0}; ///< of the deadline, however much others are answered meanwhile
    std::optional<timers::iterator> timer;
  };

  dispersal_state() = default;
  dispersal_state(const dispersal_state&) = delete;
  dispersal_state& operator=(const dispersal_state&) = delete;
  /// An actor that is killed runs no exit handler: a queue holds fetches that hold its link.
  ~dispersal_state() {
    for (auto& [node, l] : links)
      for (auto& each : l->lanes) each.waiting.clear();
  }

  void start(dispersal_self::pointer me, dispersal_config config);
  dispersal_self::behavior_type make_behavior();

  // links and windows
  void attach(model::node_id node, const connection_actor& connection);
  void detach(model::node_id node);
  void link_changed(const link_report& r);
  link_ptr find(model::node_id node) const;
  std::size_t node_window(traffic kind) const;
  std::size_t total_window(traffic kind) const;
  void enqueue(const link_ptr& to, traffic kind, operation what);
  void pump(const link_ptr& to, traffic kind);
  /// Queued and not needed any more: its fetch is over, or it was moved to another lane.
  static bool is_left_over(const operation& op, traffic kind);
  void release(const link_ptr& to, traffic kind, std::size_t cost);

  // writes
  void store(const store_job_ptr& job);
  void send_store(const link_ptr& to, traffic kind, operation what);
  void acknowledge(const link_ptr& to, const store_job_ptr& job, std::size_t shard,
                   std::uint64_t life, std::size_t bytes);
  void send_barrier(const link_ptr& to);
  void on_barriers();
  void arm_barriers();
  void remove(const remove_job_ptr& job, std::size_t from);
  void check(const check_job_ptr& job);

  // reads
  void start_fetch(const fetch_job_ptr& job);
  void hurry(model::segment_ref segment, std::uint8_t wanted);
  void advance(const fetch_ptr& f);
  bool settle_if_enough(const fetch_ptr& f);
  std::optional<std::size_t> best_idle(const fetch& f, bool only_wanted) const;
  void ask_source(const fetch_ptr& f, std::size_t at);
  void send_read(const link_ptr& to, traffic kind, operation what);
  void answered(const fetch_ptr& f, std::size_t at, const link_ptr& to, result<buffer_ptr> r);
  void suspect(const link_ptr& to);
  std::chrono::milliseconds hedge_after(const link& to, bool background) const;
  bool is_out_of_reach(const fetch& f) const;
  void shorten_if_out_of_reach(fetch& f) const;
  bool is_moving(const link& to) const; ///< it answered somebody lately
  void on_timer(const fetch_ptr& f);
  void set_timer(const fetch_ptr& f);
  void give_up(const fetch_ptr& f, bool late);
  void finish(const fetch_ptr& f, result<std::vector<volume::fetched_shard>> r);

  void arm();
  void on_alarm(std::uint64_t number);
  dispersal_report report() const;
  caf::result<caf::ok_atom> stop();
  void end_if_idle();
  void let_go();
  boot_time now() const { return cfg.time->boot(); }

  dispersal_self::pointer self = nullptr;
  dispersal_config cfg;
  std::unordered_map<model::node_id, link_ptr> links;
  std::array<std::size_t, kinds> total{};
  std::array<std::deque<link_ptr>, kinds> starved;
  timers due;
  std::map<std::pair<model::segment_ref, int>, fetch_ptr> unhurried; ///< background, by what is wanted
  std::size_t fetches = 0;
  std::size_t small_jobs = 0; ///< removes and checks under way
  std::size_t barriers = 0;   ///< under way
  std::uint64_t hedges = 0;
  bool barriers_armed = false;
  std::optional<boot_time> alarm_at;
  std::uint64_t alarm_number = 0;
  bool stopping = false;
  boot_time stop_by{0};
  std::vector<caf::typed_response_promise<caf::ok_atom>> stops;
};

} // namespace qs::actors
