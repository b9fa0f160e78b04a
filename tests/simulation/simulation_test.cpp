// The whole controller from seeds (control.md, 7): nodes die, answers get lost or come late, the engine is cut at any commit or
// between any two messages, actors are killed, calendar time jumps, the power of its machine is cut. What must hold the
// whole time is asserted by the simulated grid; at the end everything converges and every answered byte reads back from the
// nodes (after a power cut: what was synced, and a first part of the rest).
// QS_SIM_SEED=n runs one seed and tells what happens; QS_SIM_SEEDS=n says how many.
#include <doctest/doctest.h>

#include <cstdlib>
#include <map>

#include <fmt/format.h>

#include "base/log.hpp"
#include "power.hpp"
#include "support/simulation.hpp"
#include "workload.hpp"

namespace {

using namespace qs;
using namespace qs::test;
using namespace std::chrono_literals;

std::map<std::string, long> totals;
const bool talkative = std::getenv("QS_SIM_SEED") != nullptr;

struct shape {
  int data, parity, nodes;
};

class run {
public:
  explicit run(std::uint64_t seed) : sim_{{.seed = seed, .name = "sim"}}, load_{sim_} {}

  /// Empty: all is well.
  std::string go() {
    choose();
    sim_.start();
    if (auto code = sim_.apply(text()); code != 0) return fmt::format("apply: exit {}", code);
    if (auto bad = faults(); !bad.empty()) return bad;
    calm();
    if (!sim_.run_until([&] { return sim_.whole() || !sim_.violations().empty(); }, 20min)) return "does not converge: " + describe_now();
    if (auto bad = broken(); !bad.empty()) return bad;
    if (auto bad = ends_well(); !bad.empty()) return bad;
    count();
    return destroy_ ? destroyed() : std::string{};
  }

  /// What replays must agree in: everything that was told, without the directory's name, and where the stream of chance stands.
  std::string trace() {
    auto text = tell();
    auto directory = sim_.directory.string();
    for (auto at = text.find(directory); at != std::string::npos; at = text.find(directory)) text.replace(at, directory.size(), "…");
    return text + fmt::format("{} commits, {:x}", sim_.commits(), sim_.random.next_u64());
  }

  std::string tell() {
    std::string out;
    for (const auto& e : sim_.events()) out += fmt::format("  {} {} {} {}: {}\n", to_rfc3339(e.at), e.level, e.kind, e.subject, e.message);
    return out;
  }

private:
  void choose() {
    static constexpr shape shapes[] = {{2, 1, 3}, {2, 2, 4}, {4, 2, 6}, {4, 2, 8}, {3, 2, 6}, {1, 2, 3}, {2, 2, 6}};
    auto& r = sim_.random;
    shape_ = shapes[r.below(std::size(shapes))];
    sim_.parity = static_cast<std::size_t>(shape_.parity);
    capacity_ = r.below(2) == 0 ? "1GiB" : "3GiB";
    destroy_ = r.below(3) == 0;
    if (destroy_) more_ += "  protect: false\n";
    if (r.below(3) == 0) more_ += "  locations: [{country: Belgium, nodes: 1}]\n";
    auto& f = sim_.grid->faults;
    if (r.below(2) == 0) f.refuse = static_cast<unsigned>(r.below(20));
    if (r.below(2) == 0) f.pending = static_cast<unsigned>(r.below(40));
    if (r.below(2) == 0) f.lost_request = static_cast<unsigned>(r.below(30));
    if (r.below(2) == 0) f.lost_answer = static_cast<unsigned>(r.below(40));
    if (r.below(2) == 0) f.late_request = static_cast<unsigned>(r.below(30));
    if (r.below(2) == 0) f.unknown_query = static_cast<unsigned>(r.below(30));
    if (r.below(2) == 0) sim_.links.lost_answer = static_cast<unsigned>(r.below(10));
    if (r.below(2) == 0) sim_.links.slow = static_cast<unsigned>(r.below(10));
    cuts_ = r.below(2) == 0;
  }

  std::string faults() {
    auto& r = sim_.random;
    auto rounds = 20 + r.below(40);
    for (std::uint64_t i = 0; i < rounds; ++i) {
      if (cuts_ && r.below(4) == 0) sim_.cut_at_commit = sim_.commits() + 1 + r.below(15);
      for (auto n = r.below(4); n > 0; --n) load_.one();
      if (r.below(3) == 0) one_fault();
      sim_.run_for(std::chrono::milliseconds{r.below(6000)});
      if (auto bad = broken(); !bad.empty()) return bad;
    }
    return {};
  }

  /// As many nodes may lose their data as the volume can stand now: what is not whole again yet counts.
  bool may_lose() {
    // What the controller has not noticed yet counts, too: two such faults in one second would be more than parity carries.
    for (auto* n : sim_.grid->nodes())
      if (n->tombstone || n->data_gone) return false;
    auto s = sim_.stats();
    return sim_.whole() && s.redundancy_left_min == sim_.parity;
  }

  void one_fault() {
    auto& r = sim_.random;
    auto nodes = sim_.grid->nodes();
    if (nodes.empty()) return;
    auto& n = *nodes[r.below(nodes.size())];
    auto kind = r.below(15);
    if (talkative) fmt::print("{} fault {} ({})\n", to_rfc3339(sim_.time.wall()), kind, to_string(n.node));
    switch (kind) {
    case 0: return sim_.grid->stop_process(n);
    case 1: return sim_.grid->power_cut(n);
    case 2:
    case 3:
      if (!may_lose()) return;
      for (auto left = 1 + r.below(sim_.parity); left > 0; --left) {
        auto all = sim_.grid->nodes();
        auto& victim = *all[r.below(all.size())];
        if (r.below(3) == 0)
          sim_.grid->delete_files(victim);
        else
          sim_.grid->kill_for_good(victim, r.below(2) == 0);
      }
      return;
    case 4: return silence(1 + r.below(sim_.parity), 1s + std::chrono::seconds{r.below(40)});
    case 5: return silence(nodes.size() - r.below(2), 1s + std::chrono::seconds{r.below(90)});
    case 6: sim_.kill_actor("monitor"); return;
    case 7: sim_.kill_actor("reservation"); return;
    case 8: sim_.kill_actor("connection"); return;
    case 9: sim_.kill_actor(r.below(2) == 0 ? "repair" : "mount"); return;
    case 10:
      ++sim_.grid->counters["calendar jumps"];
      return sim_.time.jump_wall(std::chrono::minutes{static_cast<std::int64_t>(r.below(600)) - 300});
    case 11:
      ++sim_.grid->counters["engine killed between messages"];
      sim_.crash();
      return sim_.start();
    case 12: return grow();
    case 13: return power_cut();
    case 14: {
      static constexpr const char* vital[] = {"payment", "dispersal", "blocking"};
      sim_.kill_actor(vital[r.below(std::size(vital))]);
      return;
    }
    }
  }

  /// Of this machine. What was synced is there, and of the rest the first part (volume.md, invariant 7).
  void power_cut() {
    sim_.crash();
    disk_.cut(sim_.random);
    sim_.start();
    if (!load_.began()) return;
    if (!sim_.run_until([&] { return sim_.files() != nullptr; }, 5min)) return sim_.violations().push_back("not mounted five minutes after a power cut");
    if (sim_.stats().read_only) sim_.violations().push_back("read-only after a power cut");
    if (auto bad = load_.after_power_cut(); !bad.empty()) sim_.violations().push_back(bad);
  }

  /// More nodes, more room, or both, in the middle of everything.
  void grow() {
    if (grown_ == 2) return;
    auto nodes = shape_.nodes;
    auto capacity = capacity_;
    if (sim_.random.below(2) == 0) ++shape_.nodes;
    if (sim_.random.below(2) == 0) capacity_ = "6GiB";
    if (sim_.apply(text()) == 0) {
      ++grown_;
      ++sim_.grid->counters["grown"];
    } else { // a plan that is refused for now changes nothing
      ++sim_.grid->counters["growth refused"];
      shape_.nodes = nodes;
      capacity_ = capacity;
    }
  }

  std::string text() const { return small_spec(shape_.data, shape_.parity, shape_.nodes, capacity_, more_); }

  /// The end of everything, with faults again: nothing is left reserved.
  std::string destroyed() {
    auto& f = sim_.grid->faults;
    f.lost_answer = static_cast<unsigned>(sim_.random.below(30));
    f.lost_request = static_cast<unsigned>(sim_.random.below(30));
    f.unknown_query = static_cast<unsigned>(sim_.random.below(30));
    if (sim_.random.below(2) == 0) sim_.cut_at_commit = sim_.commits() + 1 + sim_.random.below(25);
    if (auto code = sim_.destroy(); code != 0) return fmt::format("destroy: exit {}", code);
    if (!sim_.run_until([&] { return sim_.ended == 0; }, 10min)) return "destroy does not end: " + describe_now();
    if (!sim_.grid->nodes().empty()) return fmt::format("{} reservations are left after destroy", sim_.grid->nodes().size());
    ++totals["destroyed"];
    return broken();
  }

  /// SIGSTOP, and later SIGCONT. While more than m are stopped nothing may be begun (four of six, control.md, 5).
  void silence(std::uint64_t count, std::chrono::milliseconds how_long) {
    std::vector<std::string> stopped;
    for (auto* n : sim_.grid->nodes())
      if (stopped.size() < count && n->answers() && !n->data_gone) {
        n->silent = true;
        stopped.push_back(n->name);
      }
    ++sim_.grid->counters[stopped.size() > sim_.parity ? "many silent" : "few silent"];
    auto settled = std::min<std::chrono::milliseconds>(how_long, 15s);
    sim_.run_for(settled);
    auto all_in_groups = shape_.nodes == shape_.data + shape_.parity && sim_.recorded().volume.created;
    if (stopped.size() > sim_.parity && all_in_groups && how_long > settled && still_silent(stopped) > sim_.parity) {
      sim_.nothing_may_change = fmt::format("{} nodes are silent", stopped.size());
      ++sim_.grid->counters["held still"];
    }
    for (auto i = 0; i < 3; ++i) load_.one(); // what is asked now is answered in bounded time, too
    sim_.run_for(how_long - settled);
    sim_.nothing_may_change.clear();
    for (const auto& name : stopped)
      if (auto* n = sim_.grid->find(name)) n->silent = false;
  }

  std::size_t still_silent(const std::vector<std::string>& names) {
    std::size_t count = 0;
    for (const auto& name : names)
      if (auto* n = sim_.grid->find(name); n != nullptr && n->silent && n->running) ++count;
    return count;
  }

  void calm() {
    sim_.grid->faults = {};
    sim_.links = {};
    sim_.cut_at_commit = 0;
    for (auto* n : sim_.grid->nodes()) n->silent = false;
    for (auto i = 0; i < 5; ++i) load_.one();
  }

  std::string broken() {
    return sim_.violations().empty() ? std::string{} : sim_.violations().front();
  }

  std::string ends_well() {
    auto r = sim_.recorded();
    std::size_t live = 0;
    for (const auto& row : r.nodes) {
      auto* n = sim_.grid->find(row.id);
      if (row.state == model::node_state::gone && n != nullptr) return fmt::format("{} is gone and reserved: leaked", to_string(row.id));
      if (row.state != model::node_state::gone) ++live;
    }
    if (live != static_cast<std::size_t>(shape_.nodes)) return fmt::format("{} nodes instead of {}", live, shape_.nodes);
    if (sim_.grid->nodes().size() != live) return fmt::format("{} reservations for {} nodes", sim_.grid->nodes().size(), live);
    if (auto bad = load_.verify(); !bad.empty()) return bad;
    auto dropped = sim_.command("cache_drop");
    if (dropped.status != 200) return "cache drop: " + dropped.body;
    if (auto bad = load_.verify(); !bad.empty()) return "from the nodes: " + bad;
    return broken();
  }

  std::string describe_now() {
    auto s = sim_.stats();
    auto text = fmt::format("state {}, at risk {}, redundancy {}, pending {}, read-only {}; ", sim_.state(), s.bytes_at_risk, s.redundancy_left_min, s.rebuild_pending, s.read_only);
    for (const auto& n : sim_.recorded().nodes) text += fmt::format("{}={}({}) ", to_string(n.id), to_string(n.state), n.reason);
    return text + sim_.command("status").body;
  }

  void count() {
    for (const auto& [what, n] : sim_.grid->counters) totals[what] += n;
    for (const auto& [what, n] : disk_.counters) totals[what] += n;
    totals["fsyncs"] += load_.synced;
    totals["operations lost in power cuts"] += load_.lost;
    totals["bytes verified"] += static_cast<long>(load_.bytes());
    totals["writes"] += load_.written;
    totals["writes refused"] += load_.refused;
    totals["reads"] += load_.reads;
    totals["ms of the longest read"] = std::max<long>(totals["ms of the longest read"], load_.longest_read);
    totals["caches dropped"] += load_.caches_dropped;
    totals["reads that failed"] += load_.read_errors;
    totals["unlinks"] += load_.unlinked;
    totals["commits"] += static_cast<long>(sim_.commits());
    for (const auto& n : sim_.recorded().nodes) totals["nodes replaced"] += n.replaced_by ? 1 : 0;
  }

  simulation sim_;
  simulated_disk disk_{sim_.directory};
  workload load_;
  shape shape_{};
  std::string capacity_, more_;
  bool cuts_ = false;
  bool destroy_ = false;
  int grown_ = 0;
};

/// From the first line that differs, a few of each.
std::string difference(const std::string& a, const std::string& b) {
  auto at = static_cast<std::size_t>(std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin());
  auto line = at == 0 ? 0 : a.rfind('\n', at - 1) + 1;
  return a.substr(line, 600) + "\n-- and the other time --\n" + b.substr(line, 600);
}

std::uint64_t number(const char* name, std::uint64_t otherwise) {
  const auto* text = std::getenv(name);
  return text != nullptr ? std::strtoull(text, nullptr, 10) : otherwise;
}

TEST_CASE("a seed replays: the same happens twice") {
  log::options quiet;
  quiet.least = log::level::off;
  log::configure(quiet);
  auto first = number("QS_SIM_SEED", number("QS_SIM_FIRST", 1));
  for (auto seed = first; seed < first + number("QS_SIM_TWICE", 5); ++seed) {
    std::string once, again;
    for (auto* told : {&once, &again}) {
      run r{seed};
      *told = r.go() + r.trace();
    }
    CHECK_MESSAGE(once == again, "seed ", seed, ":\n", difference(once, again));
  }
}

TEST_CASE("every seed converges, nothing is reserved or paid twice, no answered byte is lost") {
  if (!talkative) {
    log::options quiet;
    quiet.least = log::level::off;
    log::configure(quiet);
  }
  auto first = number("QS_SIM_SEED", number("QS_SIM_FIRST", 1));
  auto count = talkative ? 1 : number("QS_SIM_SEEDS", 200);
  for (auto seed = first; seed < first + count; ++seed) {
    run r{seed};
    auto bad = r.go();
    INFO("replay: QS_SIM_SEED=", seed, " test_simulation");
    CHECK_MESSAGE(bad.empty(), "seed ", seed, ": ", bad, "\n", r.tell());
    if (talkative) fmt::print("{}", r.tell());
  }
  for (const auto& [what, n] : totals) fmt::print("{:>12} {}\n", n, what);
}

} // namespace
