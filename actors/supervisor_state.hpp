// The supervisor's state, shared by the files that implement it: supervisor.cpp (children, recorded state, passes),
// supervisor_observing.cpp, supervisor_links.cpp, supervisor_telling.cpp, supervisor_steps.cpp (doing), supervisor_ending.cpp
// (the ends of nodes), supervisor_commands.cpp (answering). Included nowhere else but by a test's window into it. One actor, one thread at a time.
#pragma once

#include <cstdint>

#include <caf/all.hpp>

#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "actors/assemble.hpp"
#include "actors/monitor.hpp"
#include "actors/mount.hpp"
#include "actors/payment.hpp"
#include "actors/references.hpp"
#include "actors/repair.hpp"
#include "actors/reservation.hpp"
#include "actors/status_view.hpp"
#include "actors/supervisor.hpp"
#include "controller/decide.hpp"
#include "spec/load.hpp"

namespace qs::actors {

/// One look at the recorded state: a job's outcome on its way into the supervisor.
struct loaded_state {
  result<model::recorded> state;
  result<std::vector<model::intent>> intents;
  result<std::string> sealed;
  result<std::optional<std::string>> machines; ///< the note of grid hosts
};
loaded_state look_at_state(state::store& store);

struct supervisor_state {
  explicit supervisor_state(supervisor_actor::pointer p) : self{p} {}
  supervisor_actor::behavior_type make_behavior();

  // -- supervisor.cpp: what is known
  // ------------------------------------------------------------------------------
  void load_recorded();
  void take_state(loaded_state l); ///< what is recorded now; the engine ends if it cannot be read
  void apply_recorded(model::recorded fresh);
  void poke(); ///< a pass soon
  void pass();
  void take_round(const monitor_round& round);
  [[nodiscard]] model::observed observe() const;
  void refresh_report();
  void configure_grids(); ///< what is accepted, and what nodes still need
  void refresh_providers();
  void look_at_providers(std::function<void()> then);
  [[nodiscard]] std::size_t under_way() const; ///< steps begun and not answered, the wallet's new burn among them
  [[nodiscard]] bool ends(model::node_id node) const;  ///< it left, nothing needs it: only its reservation has still to end
  void inspect_silent();
  void update_connections();
  void tell_nodes();
  void tell_budget();
  void start_monitor();
  void start_repair();
  void child_down(const caf::down_msg& down);
  void save_summary();
  void serve_status();
  void note(std::string level, std::string kind, std::string subject, std::string message);
  void note_conditions();
  [[nodiscard]] bool all_gone() const;
  [[nodiscard]] model::recorded_node* row(model::node_id node);
  [[nodiscard]] volume::volume_options volume_options() const;
  [[nodiscard]] mount_settings mount_wish() const;
  [[nodiscard]] status_input status_of_now() const;

  // -- supervisor_steps.cpp: doing
  // --------------------------------------------------------------------------------
  void start_step(const controller::step& step);
  void reserve(model::recorded_node row);
  void order_node(model::recorded_node row, node_order_message::verb what, byte_count size = 0);
  void node_done(const node_report& report);
  void inspected(const node_report& report);
  void reload(model::node_id node);
  void put_rows(std::vector<model::recorded_node> rows, std::uint32_t next_number);
  void mark(model::node_id node, model::node_state state, const std::string& reason);
  void set_groups(const controller::step& step);
  void mount();
  void unmount();
  void close_and_forget();
  void finish_destroy();
  caf::result<done> stop(bool destroy);
  void stop_tree();
  template <class Work, class Then>
  void on_state(Work work, Then then) {
    using outcome = decltype(work());
    run_blocking<outcome>(self, config.blocking, lane::state, {}, std::chrono::seconds{60},
                          std::move(work), std::move(then),
                          [this](const error& e) { state_failed(e); });
  }
  void state_failed(const error& e);
  void fail_engine();

  // -- supervisor_ending.cpp: nodes that leave
  // --------------------------------------------------------------------------------
  void retire(model::node_id node);
  [[nodiscard]] bool leaves(const model::recorded_node& r) const; ///< only its end is still wanted of it
  [[nodiscard]] bool needed(model::node_id node) const; ///< by the volume, as everything was seen last
  std::uint32_t end_not_settled(const model::recorded_node& r, const std::string& detail);
  caf::result<control_reply> delete_node(const std::string& body);
  void abandon(model::node_id node, caf::typed_response_promise<control_reply> answer);

  // -- supervisor_opening.cpp: the volume, and rows that nothing depends on
  // --------------------------------------------------------------------------------
  void open(bool create, std::vector<model::group> groups);
  void made();
  void opened();
  void not_opened(const error& why);
  struct advisory_row {
    std::string what; ///< for people
    std::function<status(state::store&)> write;
  };
  void write_advisory(advisory_row row);
  void post_advisory(advisory_row row);
  void keep_unwritten(advisory_row row);
  void advisory_failed(const advisory_row& row, const error& why);
  void advisory_trouble(const std::string& what, const error& why);
  void retry_advisory();

  // -- supervisor_commands.cpp: answering
  // -------------------------------------------------------------------------
  caf::result<control_reply> command(const control_request& request);
  caf::result<control_reply> plan(const std::string& body);
  void finish_plan(const std::string& text, bool destroy, const spec::loaded& loaded,
                   std::string sealed, const grid_look& look,
                   caf::typed_response_promise<control_reply> answer);
  caf::result<control_reply> accept(const std::string& body);
  caf::result<control_reply> mount_command(bool wanted);
  caf::result<control_reply> drop_cache();
  caf::result<control_reply> suspend();
  caf::result<control_reply> resume();
  caf::result<control_reply> cancel();
  caf::result<control_reply> top_up(const std::string& body);
  caf::result<control_reply> wallet();
  caf::result<control_reply> node_command(const std::string& verb, const std::string& body);

  supervisor_actor::pointer self;
  supervisor_config config;
  mount_actor mount_;
  monitor_actor monitor_;
  payment_actor payment_;
  repair_actor repair_;
  std::map<model::node_id, reservation_actor> reservations;
  struct link {
    connection_actor actor;
    model::endpoint where;
    bool insecure = false;
  };
  std::map<model::node_id, link> links;

  wall_time started{};
  bool loaded = false;
  model::recorded recorded;
  std::optional<spec::storage_spec> desired; ///< the accepted spec, parsed
  spec::reference_values references;         ///< what ${…} stood for at apply; secret
  std::vector<grid::hosts_machine> machines; ///< of grid hosts, as noted at apply; secret
  std::uint64_t accepted_generation = 0;     ///< of what `desired` was parsed from
  monitor_round round;
  bool round_seen = false;
  std::map<model::node_id, grid::inspection> inspections;
  std::map<model::node_id, boot_time> inspected_at;
  std::map<std::string, std::vector<model::host>> hosts;
  bool hosts_known = false;
  std::vector<model::stray_node> strays;
  bool strays_known = false;
  std::string grid_trouble; ///< why a grid said nothing, last time
  model::wallet_view money;
  boot_time providers_at{
      std::chrono::hours{-1}}; ///< never: a machine that has just started has a young clock
  bool providers_asked = false;
  std::uint64_t node_changes = 0;  ///< orders that changed what a provider has of ours
  std::uint64_t money_changes = 0; ///< of them, those that `money` knows of
  volume_report volume;
  bool report_asked = false;
  std::vector<model::intent> open_intents;

  std::set<model::node_id> busy_nodes;
  bool volume_busy = false;
  bool mount_busy = false;
  bool state_busy = false;    ///< a transition of rows is being written
  boot_time mount_retry_at{}; // what is waited for is counted in time that never jumps
  boot_time volume_retry_at{};
  std::string spec_problem;  ///< why the accepted spec cannot be read
  std::uint32_t volume_tried = 0;     ///< in a row, without the space to open it
  std::deque<advisory_row> unwritten; ///< advisory rows that could not be written yet, oldest first
  boot_time advisory_retry_at{};
  std::string advisory_problem; ///< told, and not over
  std::string mount_problem; ///< why the mount is not there
  std::string volume_problem;
  std::string payment_problem;
  std::string listen_problem; ///< why the status page is not served
  std::string edit_waits;     ///< an edit that was followed and needs a person
  std::map<model::node_id, boot_time> node_retry_at;
  std::map<model::node_id, open_end> open_ends; ///< nodes whose end was tried and not settled

  std::optional<controller::decision> decided;
  struct condition_age {
    std::string status;
    wall_time since{};
  };
  std::map<std::string, condition_age> condition_since;
  std::map<std::string, controller::plan> plans; ///< shown and not yet accepted, by hash; a few
  std::map<std::string, std::string> plan_references;
  boot_time summary_at{std::chrono::hours{-1}};
  std::string summary_last;
  bool stopping = false;
  bool ended = false; ///< config.end was called
  std::vector<caf::typed_response_promise<done>> stops; ///< who waits for the end
  bool poked = false;
  std::vector<std::function<void()>> waiting_for_providers;
  static inline const char* name = "qs.supervisor";
};

} // namespace qs::actors
