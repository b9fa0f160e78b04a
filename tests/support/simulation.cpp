#include "support/simulation.hpp"

#include <cstdint>

#include <caf/all.hpp>
#include <caf/scheduler/test_coordinator.hpp>

#include <algorithm>

#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include "actors/caf_error.hpp"
#include "actors/dispersal.hpp"
#include "actors/supervisor_state.hpp"
#include "support/simulation_link.hpp"

namespace qs::test {
namespace {

using namespace std::chrono_literals;
using nlohmann::json;

struct coordinator_config : caf::actor_system_config {
  coordinator_config() {
    set("scheduler.policy", caf::atom("testing"));
    set("logger.console", caf::atom("none"));
    add_error_category(caf::atom("qs"), actors::render_errc);
  }
};

/// Jobs of the volume, in an order of the seed's choosing.
struct seeded_executor final : volume::executor {
  explicit seeded_executor(random_source& r) : random{r} {}
  void post(std::function<void()> job) override {
    if (!dead) jobs.push_back(std::move(job));
  }
  void run_one() {
    auto at = random.below(jobs.size());
    auto job = std::move(jobs[at]);
    jobs.erase(jobs.begin() + static_cast<std::ptrdiff_t>(at));
    job();
  }
  random_source& random;
  std::vector<std::function<void()>> jobs;
  bool dead = false;
};

/// A mount without a kernel.
struct simulated_mount final : actors::mount_port {
  status check(const actors::mount_settings&) override { return {}; }
  status start(volume::filesystem& f, const actors::mount_settings&, std::function<void()>) override {
    files = &f;
    return {};
  }
  status stop(std::chrono::milliseconds) override {
    files = nullptr;
    return {};
  }
  status drop_page_cache() override { return {}; }
  bool mounted() const override { return files != nullptr; }
  volume::filesystem* files = nullptr;
};

/// The real store behind a door that closes when the engine is dead.
struct guarded_store final : state::store {
  guarded_store(std::unique_ptr<state::store> s, std::shared_ptr<bool> a) : inner{std::move(s)}, alive{std::move(a)} {}
  static error dead() { return {errc::cancelled, "the process is gone"}; }
  result<model::recorded> load() override { return *alive ? inner->load() : result<model::recorded>{dead()}; }
  result<std::uint64_t> accept(const acceptance& a) override { return *alive ? inner->accept(a) : result<std::uint64_t>{dead()}; }
  result<std::optional<model::recorded_node>> node(model::node_id id) override {
    return *alive ? inner->node(id) : result<std::optional<model::recorded_node>>{dead()};
  }
  status put_node(const model::recorded_node& n) override { return *alive ? inner->put_node(n) : status{dead()}; }
  status put_nodes(const std::vector<model::recorded_node>& n, std::uint32_t next) override {
    return *alive ? inner->put_nodes(n, next) : status{dead()};
  }
  status put_summary(const model::volume_summary& s) override { return writable("summary") ? inner->put_summary(s) : why_not(); }
  status set_flag(std::string_view f, bool on) override { return *alive ? inner->set_flag(f, on) : status{dead()}; }
  status put_refusal(std::string_view p, std::string_view h) override { return writable("refusal") ? inner->put_refusal(p, h) : why_not(); }
  status put_note(std::string_view k, std::string_view v) override { return *alive ? inner->put_note(k, v) : status{dead()}; }
  result<std::optional<std::string>> note(std::string_view k) override { return inner->note(k); }
  result<std::string> sealed_references() override { return *alive ? inner->sealed_references() : result<std::string>{dead()}; }
  result<model::intent> add_intent(model::intent draft) override {
    if (!*alive) return dead();
    if (watch) watch(draft);
    return inner->add_intent(std::move(draft));
  }
  status put_intent(const model::intent& i) override { return *alive ? inner->put_intent(i) : status{dead()}; }
  result<std::vector<model::intent>> open_intents() override {
    return *alive ? inner->open_intents() : result<std::vector<model::intent>>{dead()};
  }
  result<std::optional<model::intent>> reservation_of(model::node_id n, std::uint32_t i) override {
    return *alive ? inner->reservation_of(n, i) : result<std::optional<model::intent>>{dead()};
  }
  status add_event(const model::event& e) override { return writable("event") ? inner->add_event(e) : why_not(); }
  result<std::vector<model::event>> events(std::uint64_t after, std::size_t most) override { return inner->events(after, most); }
  bool writable(const std::string& what) const { return *alive && (full_for == nullptr || !full_for->contains(what)); }
  status why_not() const { return *alive ? error{errc::no_space, "no space left to write state.db"} : dead(); }
  std::unique_ptr<state::store> inner;
  std::shared_ptr<bool> alive;
  const std::set<std::string>* full_for = nullptr;
  std::function<void(const model::intent&)> watch;
};

/// So long it may take until a node's loss is seen, and counted in what the volume tells.
constexpr auto noticed_within = 30s;

root_secret simulated_root() { return root_secret{byte_span{buffer(32, std::byte{42})}}; }

} // namespace

struct simulation::engine {
  coordinator_config config;
  std::unique_ptr<caf::actor_system> system = std::make_unique<caf::actor_system>(config);
  caf::scheduler::test_coordinator& scheduler = dynamic_cast<caf::scheduler::test_coordinator&>(system->scheduler());
  std::shared_ptr<bool> alive = std::make_shared<bool>(true);
  std::shared_ptr<simulated_mount> mount = std::make_shared<simulated_mount>();
  actors::world_ptr world;
  seeded_executor work;
  std::shared_ptr<actors::event_feed> feed = std::make_shared<actors::event_feed>();
  std::unique_ptr<volume::shard_port> port;
  actors::blocking_actor blocking;
  actors::dispersal_actor dispersal;
  actors::supervisor_actor supervisor;
  std::vector<caf::weak_actor_ptr> links; ///< all that were ever made: one that is being let go is in nobody's list any more

  explicit engine(random_source& r) : work{r} { scheduler.clock().current_time += 1h; } // 0 means "unset" to CAF

  actors::supervisor_state& peek() {
    auto* raw = caf::actor_cast<caf::abstract_actor*>(supervisor);
    auto* typed = dynamic_cast<actors::supervisor_actor::stateful_pointer<actors::supervisor_state>>(raw);
    QS_ASSERT(typed != nullptr);
    return typed->state;
  }

  /// Nothing that is still on its way has an effect: doors are closed first.
  void kill() {
    // All by name: a request under way makes a circle of those two, which nobody breaks when both just disappear.
    auto& s = peek();
    for (auto& [n, r] : s.reservations) caf::anon_send_exit(r, caf::exit_reason::kill);
    for (auto& l : links)
      if (auto there = l.lock()) caf::anon_send_exit(caf::actor_cast<caf::actor>(there), caf::exit_reason::kill);
    caf::anon_send_exit(s.mount_, caf::exit_reason::kill);
    caf::anon_send_exit(s.monitor_, caf::exit_reason::kill);
    caf::anon_send_exit(s.payment_, caf::exit_reason::kill);
    caf::anon_send_exit(s.repair_, caf::exit_reason::kill);
    *alive = false;
    work.dead = true;
    mount->files = nullptr;
    scheduler.clock().cancel_all();
    work.jobs.clear();
    caf::anon_send_exit(supervisor, caf::exit_reason::kill);
    caf::anon_send_exit(dispersal, caf::exit_reason::kill);
    caf::anon_send_exit(blocking, caf::exit_reason::kill);
    supervisor = actors::supervisor_actor{};
    dispersal = actors::dispersal_actor{};
    blocking = actors::blocking_actor{};
    for (auto i = 0; i < 10'000 && scheduler.try_run_once(); ++i) scheduler.clock().cancel_all();
    work.jobs.clear();
    port.reset();
    for (auto i = 0; i < 10'000 && scheduler.try_run_once(); ++i) scheduler.clock().cancel_all();
    QS_ASSERT(system->registry().running() == 0);
    system->await_actors_before_shutdown(false);
    system.reset();
    work.jobs.clear();
  }
};

simulation::simulation(simulation_options options)
    : random{options.seed}, options_{std::move(options)}, book_{std::make_unique<shard_book>()} {
  auto name = fmt::format("/dev/shm/qs-sim-{}-{}-XXXXXX", ::getpid(), options_.seed);
  if (::access("/dev/shm", W_OK) != 0) name = fmt::format("{}/qs-sim-XXXXXX", std::filesystem::temp_directory_path().string());
  QS_ASSERT(::mkdtemp(name.data()) != nullptr);
  directory = name;
  keys_ = std::make_unique<codec::volume_keys>(codec::volume_keys::derive(simulated_root(), options_.name));
  grid = std::make_unique<simulated_grid>(*keys_, random, time);
  grid->before_cancel = [this](const simulated_node& n) {
    // The rule is about data (control.md, 5): shards of a dead segment may go with their node. That it is dead is the volume's
    // word, at the latest when the cancel was decided on; the counter-check: at the end everything reads back from the nodes.
    if (auto v = volume_.lock()) book_->look(*v);
    for (const auto& [ref, s] : book_->segments) {
      if (s.deleted || !s.was_safe || shard_book::intact(s, *grid, nullptr) < s.needed) continue;
      if (shard_book::intact(s, *grid, &n) >= s.needed || engine_->peek().recorded.destroying) continue;
      if (s.dead)
        ++grid->counters["cancelled with the last of a dead segment"];
      else
        violations().push_back(fmt::format("n{} was cancelled with the last {} shards of {}", n.node.number, s.needed, model::to_string(ref)));
    }
  };
}

simulation::~simulation() {
  if (engine_) engine_->kill();
  engine_.reset();
  std::error_code ignored;
  std::filesystem::remove_all(directory, ignored);
}

void simulation::start() {
  QS_ASSERT(!engine_);
  ended.reset();
  cut_ = false;
  ++lives_;
  engine_ = std::make_unique<engine>(random);
  auto& e = *engine_;
  actors::engine_options o;
  o.volume = options_.name;
  o.root = simulated_root();
  o.state_directory = directory;
  o.cache_directory = directory / "cache";
  o.mount = e.mount;
  e.world = std::make_shared<actors::world>(o, *keys_);
  e.world->time = &time;
  e.world->random = &random;
  e.world->detached = false;
  e.world->log_file_bytes = 128 << 10; // many, so that power cuts find files begun and not synced
  e.world->providers.put("local", grid->door(e.alive));
  e.world->write_identity = [this, alive = e.alive](const model::recorded_node& row) -> status {
    if (!*alive) return error{errc::unreachable, "the process is gone"};
    return grid->write_identity(row);
  };
  auto opened = state::open_store(directory / "state.db", random, time);
  QS_ASSERT(opened.ok());
  (*opened)->after_commit = [this, alive = e.alive](std::uint64_t) {
    if (++commits_ != cut_at_commit || !*alive) return;
    cut_ = true;
    *alive = false;
    ++grid->counters["cut at a commit"]; // every door is closed from here on; the engine goes after this message
  };
  auto guarded = std::make_unique<guarded_store>(std::move(*opened), e.alive);
  e.world->volume_opened = [this](const std::shared_ptr<volume::volume>& v) { volume_ = v; };
  guarded->full_for = &disk_full_for;
  guarded->watch = [this](const model::intent& i) {
    if (i.what == model::intent::verb::cancel) judge_cancel(i.node);
    if (!nothing_may_change.empty() && i.what != model::intent::verb::resize)
      violations().push_back(fmt::format("{} of n{} begun while {}", i.what == model::intent::verb::reserve ? "reserve" : "cancel", i.node.number, nothing_may_change));
  };
  e.world->store = std::move(guarded);
  e.blocking = actors::make_blocking(*e.system, {.detached = false});
  actors::dispersal_config d;
  d.time = &time;
  e.dispersal = actors::spawn_dispersal(*e.system, d);
  e.port = std::make_unique<recording_port>(
    std::make_unique<actors::dispersal_port>(e.dispersal), *book_, *grid, &parity,
    [this] {
      if (auto v = volume_.lock()) book_->look(*v);
    },
    [this] { return time.boot() - noticed_within; });
  actors::supervisor_config s;
  s.shared = e.world;
  s.blocking = e.blocking;
  s.dispersal = e.dispersal;
  s.port = e.port.get();
  s.work = &e.work;
  s.feed = e.feed;
  s.connect = [this, &e](caf::actor_system& system, actors::connection_config c) {
    auto made = simulated_connection(system, std::move(c), *this);
    e.links.emplace_back(made->ctrl());
    return made;
  };
  s.end = [this](int code) { ended = code; };
  e.supervisor = actors::make_supervisor(*e.system, std::move(s));
  ++grid->counters["engine started"];
}

/// Before a node is given up on our own action everything has its full redundancy without it (control.md, 3): decided when the
/// intent is written. What happened to other nodes in the last seconds nobody may know yet.
void simulation::judge_cancel(model::node_id node) {
  auto v = volume_.lock();
  if (!v || recorded().destroying) return; // as a person wants it
  book_->look(*v);
  if (v->stats().bytes_at_risk != 0) { // what has its copy here needs no node yet, and which segments these are is not told
    ++grid->counters["cancel decided with bytes that are only here"];
    return;
  }
  ++grid->counters["cancel decided with all bytes on nodes"];
  for (const auto& [ref, s] : book_->segments) {
    if (s.deleted || s.dead || !s.was_safe) continue;
    std::size_t lacking = 0;
    for (const auto& [index, object] : s.names) lacking += shard_book::elsewhere(object, *grid, node, time.boot() - noticed_within) ? 0 : 1;
    if (lacking == 0) continue;
    violations().push_back(fmt::format("{} is given up while {} of {} shards of {} are nowhere else", model::to_string(node), lacking, s.names.size(),
                                       model::to_string(ref)));
  }
}

bool simulation::up() const { return engine_ != nullptr; }
std::uint64_t simulation::commits() const { return commits_; }
std::uint64_t simulation::lives() const { return lives_; }

void simulation::crash() {
  if (!engine_) return;
  for (auto& e : engine_->feed->after(0, 0ms)) events_.push_back(std::move(e));
  engine_->kill();
  engine_.reset();
  cut_ = false;
}

void simulation::start_anew() {
  ++grid->counters["engine cut"];
  crash();
  if (restart) start();
}

/// One message or one job; which one the seed says.
bool simulation::step() {
  auto& e = *engine_;
  auto& jobs = e.scheduler.jobs;
  if (jobs.empty() && e.work.jobs.empty()) return false;
  if (jobs.empty() || (!e.work.jobs.empty() && random.below(4) == 0)) {
    e.work.run_one();
  } else {
    if (jobs.size() > 1) std::swap(jobs.front(), jobs[random.below(jobs.size())]);
    e.scheduler.run_once();
  }
  after_step();
  return true;
}

void simulation::after_step() {
  if (cut_ || (ended && *ended != 0)) {
    if (!cut_) ++grid->counters["engine failed"];
    start_anew();
  }
}

void simulation::settle() {
  for (std::size_t i = 0; engine_ && !(ended && *ended == 0) && step(); ++i) QS_ASSERT(i < 2'000'000); // a message that breeds itself
}

void simulation::run_for(std::chrono::milliseconds duration) {
  settle();
  for (auto left = duration; left.count() > 0;) {
    auto now = std::min<std::chrono::milliseconds>(left, 50ms);
    left -= now;
    time.advance(now);
    grid->tick();
    if (engine_) engine_->scheduler.clock().advance_time(now);
    settle();
  }
}

bool simulation::run_until(const std::function<bool()>& condition, std::chrono::milliseconds at_most) {
  settle();
  for (std::chrono::milliseconds waited{0}; waited < at_most; waited += 100ms) {
    if (condition()) return true;
    run_for(100ms);
  }
  return condition();
}

command_reply simulation::command(const std::string& verb, const std::string& body) {
  if (!engine_) return {};
  auto answer = std::make_shared<std::optional<command_reply>>();
  auto* asked = engine_.get();
  engine_->system->spawn(
    [answer, verb, body, to = engine_->supervisor](caf::event_based_actor* self, int) {
      self->request(to, caf::infinite, actors::control_request{verb, body})
        .then([answer](const actors::control_reply& r) { *answer = command_reply{r.status, r.body}; },
              [answer](caf::error& e) { *answer = command_reply{500, describe(actors::from_caf(e))}; });
    },
    0);
  run_until([&] { return answer->has_value() || engine_.get() != asked; }, 200s);
  return answer->value_or(command_reply{});
}

int simulation::apply(const std::string& text) {
  for (auto tries = 0; tries < 50; ++tries) {
    auto reply = command("plan", json{{"text", text}}.dump());
    auto plan = json::parse(reply.body, nullptr, false);
    if (reply.status == 0 || reply.status == 503 || reply.status == 500) {
      run_for(1s);
      continue;
    }
    if (reply.status != 200) {
      fmt::print(stderr, "apply: {}\n", reply.body);
      return plan.value("exit", 1);
    }
    if (auto exit = plan.value("exit", 0); exit == 5) {
      run_for(1s);
      continue;
    } else if (exit != 0) {
      if (plan["errors"].dump().find("try again") == std::string::npos) {
        fmt::print(stderr, "apply: {}\n", plan["errors"].dump());
        return exit;
      }
      run_for(1s);
      continue;
    }
    if (plan.value("empty", false)) return 0;
    auto accepted = command("accept", json{{"plan_hash", plan["plan_hash"]}}.dump());
    if (accepted.status == 200) return 0;
    run_for(1s);
  }
  return 5;
}

int simulation::destroy() {
  for (auto tries = 0; tries < 50; ++tries) {
    if (ended == 0) return 0; // the one before was heard
    auto reply = command("plan", json{{"destroy", true}}.dump());
    auto plan = json::parse(reply.body, nullptr, false);
    if (reply.status == 200 && plan.value("exit", 0) == 3) return 3;
    if (reply.status == 200 && plan.value("exit", 0) == 0 && plan.contains("plan_hash") &&
        command("accept", json{{"plan_hash", plan["plan_hash"]}}.dump()).status == 200)
      return 0;
    run_for(1s);
  }
  return 5;
}

std::vector<model::event> simulation::events() const {
  auto all = events_;
  if (engine_)
    for (auto& e : engine_->feed->after(0, 0ms)) all.push_back(std::move(e));
  return all;
}

volume::filesystem* simulation::files() { return engine_ ? engine_->mount->files : nullptr; }

bool simulation::kill_actor(const std::string& which) {
  if (!engine_) return false;
  auto& s = engine_->peek();
  auto kill = [](const auto& a) {
    caf::anon_send_exit(a, caf::exit_reason::kill);
    return true;
  };
  auto done = false;
  if (which == "monitor") done = kill(s.monitor_);
  if (which == "repair") done = kill(s.repair_);
  if (which == "mount") done = kill(s.mount_);
  if (which == "payment") done = kill(s.payment_);
  if (which == "dispersal") done = kill(engine_->dispersal);
  if (which == "blocking") done = kill(engine_->blocking);
  if (which == "reservation" && !s.reservations.empty()) {
    auto at = s.reservations.begin();
    std::advance(at, static_cast<std::ptrdiff_t>(random.below(s.reservations.size())));
    done = kill(at->second);
  }
  if (which == "connection" && !s.links.empty()) {
    auto at = s.links.begin();
    std::advance(at, static_cast<std::ptrdiff_t>(random.below(s.links.size())));
    done = kill(at->second.actor);
  }
  if (done) ++grid->counters[which + " killed"];
  return done;
}

model::recorded simulation::recorded() {
  auto r = state::read_recorded(directory / "state.db");
  QS_ASSERT(r.ok());
  return std::move(*r);
}

model::observed simulation::observed() { return engine_ ? engine_->peek().observe() : model::observed{}; }
volume::volume_stats simulation::stats() { return engine_ ? engine_->peek().volume.stats : volume::volume_stats{}; }

std::string simulation::state() {
  if (!engine_ || !engine_->peek().decided) return "Unknown";
  return engine_->peek().decided->state;
}

std::string simulation::condition(const std::string& type) {
  if (!engine_ || !engine_->peek().decided) return {};
  for (const auto& c : engine_->peek().decided->conditions)
    if (c.type == type) return c.status;
  return {};
}

bool simulation::whole() {
  if (!engine_) return false;
  auto& s = engine_->peek();
  if (!s.loaded || !s.decided || s.decided->state != "Ready" || !s.decided->steps.empty() || !s.busy_nodes.empty()) return false;
  if (!s.volume.open || !s.volume.mounted || s.volume.stats.bytes_at_risk != 0 || s.volume.stats.rebuild_pending != 0) return false;
  if (s.volume.stats.redundancy_left_min < parity || !s.open_intents.empty()) return false;
  for (const auto& n : s.recorded.nodes)
    if (n.state != model::node_state::ready && n.state != model::node_state::gone) return false;
  return true;
}

void simulation::stop() { stop_asked(1); }

std::vector<bool> simulation::stop_asked(int times) {
  if (!engine_) return {};
  auto closed = std::make_shared<std::vector<bool>>();
  auto ask = [&](auto to, auto message) {
    engine_->system->spawn(
      [=, this](caf::event_based_actor* self, int) {
        auto answered = [closed, this] { closed->push_back(volume_.expired()); };
        self->request(to, caf::infinite, message).then([answered](actors::done) { answered(); }, [answered](caf::error&) { answered(); });
      },
      0);
  };
  restart = false;
  for (int i = 0; i < times; ++i) ask(engine_->supervisor, actors::stop_all{});
  run_until([&] { return closed->size() == static_cast<std::size_t>(times) || !engine_; }, 800s);
  auto out = *closed;
  if (engine_) ask(engine_->blocking, actors::stop_all{});
  run_until([&] { return closed->size() > out.size() || !engine_; }, 800s);
  crash();
  restart = true;
  return out;
}

bool simulation::durable_look() {
  if (!engine_) return false;
  auto open = std::make_shared<std::optional<bool>>();
  engine_->system->spawn(
    [open, to = engine_->peek().mount_](caf::event_based_actor* self, int) {
      self->request(to, caf::infinite, actors::get_report{true}).then([open](const actors::volume_report& r) { *open = r.open; }, [open](caf::error&) { *open = false; });
    },
    0);
  for (int i = 0; i < 100 && !open->has_value() && engine_; ++i) settle();
  return open->value_or(false);
}

std::string small_spec(int data, int parity, int nodes, const std::string& capacity, const std::string& more, const std::string& name) {
  return fmt::format(R"(version: 1
name: {}
grid: local
storage:
  capacity: {}
  redundancy: {{data: {}, parity: {}}}
  nodes: {}
{}mount:
  path: /sim
  cache: 1GiB
  staging: 1GiB
monitor: {{interval: 1s, failed_after: 5s, replace_after: 10s}}
)",
                     name, capacity, data, parity, nodes, more);
}

} // namespace qs::test
