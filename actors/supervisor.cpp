#include "actors/supervisor_state.hpp"

#include <algorithm>

#include <fmt/format.h>

#include "base/log.hpp"

namespace qs::actors {

using namespace std::chrono_literals;

supervisor_actor::behavior_type supervisor_state::make_behavior() {
  started = config.shared->time->wall();
  auto me = supervisor_actor{self};
  mount_config m;
  m.shared = config.shared;
  m.blocking = config.blocking;
  m.port = config.port;
  m.work = config.work;
  m.note = [me](note_event e) { caf::anon_send(me, std::move(e)); };
  m.unmounted = [me] {
    caf::anon_send(me, note_event{"warning", "Unmounted", "mount",
                                  "the mount was ended from outside; it is mounted again"});
  };
  mount_ = make_mount(self->system(), std::move(m));
  payment_ = make_payment(self->system(), {config.shared, config.blocking, [me](note_event e) {
                                             caf::anon_send(me, std::move(e));
                                           }});
  start_monitor();
  start_repair();
  self->set_down_handler([this](const caf::down_msg& down) { child_down(down); });
  self->monitor(mount_);
  self->monitor(payment_);
  self->monitor(config.dispersal);
  self->monitor(config.blocking);
  load_recorded();
  caf::delayed_anon_send(me, config.pass_interval, tick{});
  return {
      [this](tick) {
        poked = false;
        if (stopping) return;
        caf::delayed_anon_send(supervisor_actor{self}, config.pass_interval, tick{});
        pass();
      },
      [this](const monitor_round& r) { take_round(r); },
      [this](link_atom, const link_report& r) {
        self->send(config.dispersal, link_atom_v, r);
        self->send(monitor_, link_atom_v, r);
      },
      [this](note_event& e) { note(e.level, e.kind, e.subject, e.message); },
      [this](const control_request& r) { return command(r); },
      [this](const stop_all& order) { return stop(order.destroy); },
  };
}

void supervisor_state::start_monitor() {
  auto me = supervisor_actor{self};
  monitor_config w;
  w.shared = config.shared;
  w.report = [me](monitor_round r) { caf::anon_send(me, std::move(r)); };
  w.doubt = [mount = mount_](doubt_node d) { caf::anon_send(mount, d); };
  w.note = [me](note_event e) { caf::anon_send(me, std::move(e)); };
  const auto& directory = config.shared->options.state_directory;
  auto known = state::read_sightings(directory);
  if (known.ok())
    w.known = std::move(*known);
  else // nobody knows who was restarted meanwhile: as if nobody was, as on a first start
    note("warning", "SightingsUnreadable", "monitor", describe(known.err()));
  w.record = [directory, blocking = config.blocking](state::sightings seen) {
    auto what = std::make_shared<job>();
    what->where = lane::state;
    what->work = [directory, seen = std::move(seen)] {
      if (auto done = state::write_sightings(directory, seen); !done.ok())
        log::warning("monitor", "{}", describe(done.err()));
    };
    caf::anon_send(blocking, run_job{std::move(what)});
  };
  monitor_ = make_monitor(self->system(), std::move(w));
  self->monitor(monitor_);
  watch_pace pace;
  if (desired) {
    pace.interval = desired->monitor.interval;
    pace.quorum = static_cast<std::uint32_t>(desired->storage.data_shards);
    self->send(monitor_, pace);
  }
  for (const auto& [node, l] : links) self->send(monitor_, attach_atom_v, node, l.actor);
}

void supervisor_state::start_repair() {
  repair_ = make_repair(self->system(), {mount_});
  self->monitor(repair_);
}

/// control.md, 7: what keeps no promise to anyone is started again alone; what does ends the
/// engine, and the watcher starts it from the log and the state.
void supervisor_state::child_down(const caf::down_msg& down) {
  if (stopping) return;
  auto is = [&](const auto& actor) { return down.source == actor.address(); };
  if (is(monitor_)) {
    log::error("supervisor", "the monitor failed and is started again");
    return start_monitor();
  }
  if (is(repair_)) {
    log::error("supervisor", "repair failed and is started again");
    return start_repair();
  }
  for (auto it = reservations.begin(); it != reservations.end(); ++it)
    if (is(it->second)) {
      // Its open request answers with an error; the next order starts a new one from the intent.
      reservations.erase(it);
      return;
    }
  for (auto it = links.begin(); it != links.end(); ++it)
    if (is(it->second.actor)) {
      self->send(config.dispersal, detach_atom_v, it->first);
      self->send(monitor_, detach_atom_v, it->first);
      links.erase(it);
      return poke(); // a pass attaches a new one
    }
  if (!is(mount_) && !is(payment_) && !is(config.dispersal) && !is(config.blocking))
    return; // one that was sent away
  log::error("supervisor", "a part that must not fail has failed: the engine starts again");
  fail_engine();
}

// -- the recorded state
// ----------------------------------------------------------------------------------------------

loaded_state look_at_state(state::store& store) {
  return {store.load(), store.open_intents(), store.sealed_references(),
          store.note(machines_note)};
}

void supervisor_state::load_recorded() {
  on_state([store = config.shared->store.get()] { return look_at_state(*store); },
           [this](loaded_state l) {
             take_state(std::move(l));
             poke();
           });
}

/// Jobs on the state lane keep their order and so do their answers: what arrives here is never
/// older than what memory holds.
void supervisor_state::take_state(loaded_state l) {
  if (!l.state.ok()) return state_failed(l.state.err());
  if (!l.intents.ok()) return state_failed(l.intents.err());
  if (!l.sealed.ok()) return state_failed(l.sealed.err());
  open_intents = std::move(*l.intents);
  // Of what was given up the last order stays without an answer, and nobody waits for one.
  std::erase_if(open_intents, [&](const model::intent& i) {
    return std::any_of(l.state->nodes.begin(), l.state->nodes.end(),
                       [&](const auto& n) { return n.id == i.node && model::is_abandoned(n); });
  });
  if (!l.machines.ok()) return state_failed(l.machines.err());
  references = open_references(config.shared->keys, *l.sealed);
  machines = open_machines(config.shared->keys, l.machines->value_or(""));
  apply_recorded(std::move(*l.state));
}

void supervisor_state::apply_recorded(model::recorded fresh) {
  recorded = std::move(fresh);
  loaded = true;
  if (!recorded.accepted || (desired && accepted_generation == recorded.accepted->generation))
    return configure_grids();
  auto parsed = spec::load(recorded.accepted->text, spec::fixed_environment{references});
  if (!parsed.spec) {
    auto problem = fmt::format("the storage.yaml that was applied last cannot be read by this version ({}):\n{}", QS_VERSION,
                               render(parsed.problems, "storage.yaml", recorded.accepted->text));
    while (problem.ends_with('\n')) problem.pop_back();
    if (problem != spec_problem) note("error", "SpecUnreadable", "spec", problem);
    spec_problem = std::move(problem);
    return;
  }
  spec_problem.clear();
  accepted_generation = recorded.accepted->generation;
  desired = std::move(parsed.spec);
  configure_grids();
  providers_at = boot_time{std::chrono::hours{-1}}; // others may be asked now
  decided.reset(); // it was about the spec before, and a status must not pass it off as this one's
  watch_pace pace;
  pace.interval = desired->monitor.interval;
  pace.quorum = static_cast<std::uint32_t>(desired->storage.data_shards);
  self->send(monitor_, pace);
  self->send(mount_, change_capacity{desired->storage.capacity});
  tell_budget();
  serve_status();
}

void supervisor_state::configure_grids() {
  auto& w = *config.shared;
  w.providers.use(grids_of(desired ? &*desired : nullptr, recorded));
  if (!w.hosts) return;
  auto now = desired ? machines_of(*desired) : std::vector<grid::hosts_machine>{};
  w.hosts->configure(without_unused(with_former(std::move(now), machines), recorded));
}

void supervisor_state::serve_status() {
  if (!config.listen) return;
  auto address = desired && desired->status ? desired->status->listen : std::string{};
  run_blocking<status>(
      self, config.blocking, lane::provider, "listen", 30s,
      [listen = config.listen, address] { return listen(address); },
      [this](status how) {
        listen_problem = how.ok() ? std::string{} : describe(how.err());
        if (!how.ok()) note("warning", "StatusNotServed", "status", listen_problem);
      },
      [](const error&) {});
}

/// Disk and memory may disagree now: crash-only, the watcher starts the engine again from what is
/// recorded.
void supervisor_state::state_failed(const error& e) {
  log::error("supervisor", "the recorded state failed: {}", describe(e));
  fail_engine();
}

void supervisor_state::fail_engine() {
  stopping = true;
  if (std::exchange(ended, true)) return;
  config.end(1);
}

model::recorded_node* supervisor_state::row(model::node_id node) {
  for (auto& r : recorded.nodes)
    if (r.id == node) return &r;
  return nullptr;
}

bool supervisor_state::all_gone() const {
  return std::all_of(
      recorded.nodes.begin(), recorded.nodes.end(),
      [](const model::recorded_node& r) { return r.state == model::node_state::gone; });
}

// -- the pass
// --------------------------------------------------------------------------------------------------------

void supervisor_state::pass() {
  if (!loaded || stopping) return;
  if (recorded.destroying && !recorded.volume.created && !volume.open && all_gone())
    return finish_destroy();
  refresh_report();
  refresh_providers();
  update_connections();
  if (!desired) return inspect_silent();
  auto world = observe();
  decided = controller::next_actions(*desired, recorded, world);
  note_conditions();
  for (const auto& step : decided->steps) start_step(step);
  inspect_silent(); // after the steps: asking must not keep a node from what is decided about it
  save_summary();
}

namespace {

supervisor_actor::behavior_type
supervisor(supervisor_actor::stateful_pointer<supervisor_state> self, supervisor_config config) {
  self->state.config = std::move(config);
  return self->state.make_behavior();
}

} // namespace

supervisor_actor make_supervisor(caf::actor_system& system, supervisor_config config) {
  return system.spawn(supervisor, std::move(config));
}

} // namespace qs::actors
