#include "support/simulated_grid.hpp"

#include <algorithm>
#include <charconv>

#include <fmt/format.h>

namespace qs::test {
namespace {

using grid::answer;
using grid::inspection;
using grid::outcome;
using namespace std::chrono_literals;

model::money price_for(byte_count size) {
  return {static_cast<std::int64_t>(size / gib + 1) * model::units_per_tft / 10};
}

} // namespace

simulated_grid::simulated_grid(const codec::volume_keys& keys, random_source& random, const clock& time)
    : keys_{keys}, random_{random}, time_{time} {
  static const char* countries[] = {"Belgium", "France", "Egypt", "Austria", "Spain"};
  for (unsigned i = 1; i <= 24; ++i) {
    model::host h;
    h.id = fmt::format("h{}", i);
    h.place = {fmt::format("farm{}", i % 12), countries[i % 5], i % 5 == 2 ? "Africa" : "Europe"};
    h.capacity = h.free = 1 * tib;
    h.price_per_gib_month = {model::units_per_tft / 10};
    hosts.push_back(h);
  }
}

simulated_grid::order simulated_grid::parse(const std::string& request) {
  std::vector<std::string> parts;
  for (std::size_t at = 0; at <= request.size();) {
    auto end = std::min(request.find(' ', at), request.size());
    parts.push_back(request.substr(at, end - at));
    at = end + 1;
  }
  QS_ASSERT(parts.size() == 5);
  order o;
  o.node = {static_cast<std::uint32_t>(std::stoul(parts[0]))};
  o.incarnation = static_cast<std::uint32_t>(std::stoul(parts[1]));
  o.host = parts[2];
  o.size = std::stoull(parts[3]);
  o.limit = {std::stoll(parts[4])};
  return o;
}

simulated_node* simulated_grid::find(const std::string& name) {
  auto found = nodes_.find(name);
  return found == nodes_.end() ? nullptr : &found->second;
}

simulated_node* simulated_grid::find(model::node_id node) {
  for (auto& [name, n] : nodes_)
    if (n.node == node) return &n;
  return nullptr;
}

std::vector<simulated_node*> simulated_grid::nodes() {
  std::vector<simulated_node*> out;
  for (auto& [name, n] : nodes_) out.push_back(&n);
  std::sort(out.begin(), out.end(), [](auto* a, auto* b) { return a->node < b->node; });
  return out;
}

void simulated_grid::tick() {
  for (auto it = late_.begin(); it != late_.end();) {
    if (it->second.at > time_.boot()) {
      ++it;
      continue;
    }
    auto what = it->second;
    it = late_.erase(it);
    if (what.real) {
      ++counters["late request arrived"];
      make(what.request);
    }
  }
}

answer simulated_grid::standing(const simulated_node& n) const {
  return {outcome::done, {}, {"sim", n.port, n.name}, n.price};
}

answer simulated_grid::make(const std::string& request) {
  auto o = parse(request);
  auto name = name_of(o);
  if (auto* n = find(name)) return standing(*n);
  for (auto& [other, n] : nodes_)
    if (n.node == o.node)
      violations.push_back(fmt::format("two live reservations for n{}: incarnations {} and {}", o.node.number, n.incarnation, o.incarnation));
  auto key = std::pair{o.node.number, o.incarnation};
  if (++made[key] > 1) violations.push_back(fmt::format("n{} incarnation {} was reserved twice", key.first, key.second));
  if (++charged[key] > 1) violations.push_back(fmt::format("n{} incarnation {} was paid twice", key.first, key.second));
  simulated_node n;
  n.name = name;
  n.node = o.node;
  n.incarnation = o.incarnation;
  n.host = o.host;
  n.size = o.size;
  n.port = next_port_++;
  n.price = price_for(o.size);
  balance = balance - model::money{n.price.units / 30};
  return standing(nodes_[name] = std::move(n));
}

answer simulated_grid::submit(const std::string& request) {
  auto o = parse(request);
  auto name = name_of(o);
  ++counters["submit"];
  if (!submitted_.insert(name).second)
    violations.push_back(fmt::format("n{} incarnation {} was submitted twice", o.node.number, o.incarnation));
  for (const auto& [other, n] : nodes_)
    if (n.host == o.host && n.node != o.node)
      violations.push_back(fmt::format("n{} was reserved on {}, where {} is", o.node.number, o.host, other));
  if (chance(faults.refuse)) {
    ++counters["submit refused"];
    return {outcome::refused, "the host is full", {}, {}};
  }
  if (chance(faults.pending)) {
    ++counters["submit pending"];
    late_[name] = {time_.boot() + 1s + std::chrono::seconds{random_.below(20)}, true, request};
    return {outcome::pending, "being worked on", {}, {}};
  }
  if (chance(faults.lost_request)) {
    ++counters["submit lost"];
    late_[name] = {time_.boot() + std::chrono::seconds{random_.below(30)}, false, request};
    return {outcome::unknown, "no answer", {}, {}};
  }
  if (chance(faults.late_request)) {
    ++counters["submit late"];
    late_[name] = {time_.boot() + std::chrono::seconds{random_.below(30)}, true, request};
    return {outcome::unknown, "no answer", {}, {}};
  }
  auto a = make(request);
  if (chance(faults.lost_answer)) {
    ++counters["submit answer lost"];
    return {outcome::unknown, "no answer", {}, {}};
  }
  return a;
}

answer simulated_grid::resolve(const std::string& request) {
  ++counters["resolve"];
  tick();
  auto name = name_of(parse(request));
  if (chance(faults.unknown_query)) {
    ++counters["resolve unknown"];
    return {outcome::unknown, "no answer", {}, {}};
  }
  if (dead_hosts.contains(parse(request).host)) return {outcome::unknown, "no answer", {}, {}};
  if (auto* n = find(name)) return standing(*n);
  if (late_.contains(name)) return {outcome::unknown, "it may still come", {}, {}};
  ++counters["resolve absent"];
  return {outcome::absent, "there is no such reservation", {}, {}};
}

void simulated_grid::remove(const std::string& name) {
  auto* n = find(name);
  if (n == nullptr) return;
  if (before_cancel) before_cancel(*n);
  nodes_.erase(name);
}

answer simulated_grid::cancel(const std::string& request) {
  ++counters["cancel"];
  auto name = name_of(parse(request));
  if (late_.contains(name)) violations.push_back(fmt::format("{} was cancelled while nobody knew whether it is there", request));
  if (chance(faults.lost_request)) {
    ++counters["cancel lost"];
    return {outcome::unknown, "no answer", {}, {}};
  }
  if (dead_hosts.contains(parse(request).host)) return {outcome::unknown, "no answer", {}, {}};
  auto was = find(name) != nullptr;
  remove(name);
  if (chance(faults.lost_answer)) {
    ++counters["cancel answer lost"];
    return {outcome::unknown, "no answer", {}, {}};
  }
  return {was ? outcome::done : outcome::absent, {}, {}, {}};
}

answer simulated_grid::resize(const std::string& request, byte_count size) {
  ++counters["resize"];
  auto* n = find(name_of(parse(request)));
  if (n == nullptr) return {outcome::absent, "there is no such reservation", {}, {}};
  n->size = size;
  n->price = price_for(size);
  if (chance(faults.lost_answer)) return {outcome::unknown, "no answer", {}, {}};
  return standing(*n);
}

answer simulated_grid::restart(const std::string& request) {
  ++counters["restart"];
  auto* n = find(name_of(parse(request)));
  if (n == nullptr) return {outcome::absent, "there is no such reservation", {}, {}};
  if (n->tombstone || n->data_gone) return {outcome::refused, "its data is gone", {}, {}};
  if (chance(faults.refuse_restart)) return {outcome::unknown, "no answer", {}, {}};
  if (!n->running) {
    n->running = true;
    ++n->life;
    n->port = next_port_++;
  }
  return standing(*n);
}

inspection simulated_grid::inspect(const std::string& request) {
  ++counters["inspect"];
  if (chance(faults.unknown_query)) return {};
  auto* n = find(name_of(parse(request)));
  if (n == nullptr) return {inspection::state::gone, "ContractGone", "no such reservation", {}};
  if (n->tombstone) return {inspection::state::gone, "Tombstone", "killed on purpose", {}};
  if (n->data_gone) return {inspection::state::gone, "DataGone", "its files are deleted", {}};
  if (!n->running) return {inspection::state::stopped, {}, "its process is down", {}};
  return {inspection::state::running, {}, {}, {"sim", n->port, n->name}};
}

status simulated_grid::write_identity(const model::recorded_node& row) {
  auto* n = find(row.where.ns);
  if (n == nullptr || !n->answers() || n->port != row.where.port) return error{errc::unreachable, "no connection"};
  auto key = keys_.identity_name(row.id, row.incarnation);
  auto [at, fresh] = n->objects.try_emplace(key, row.identity);
  if (n->data_gone) return error{errc::unreachable, "data files are gone"};
  if (!fresh && at->second != row.identity) {
    violations.push_back(fmt::format("another identity was written to n{}", row.id.number));
    return error{errc::data_lost, "another identity is there"};
  }
  return {};
}

void simulated_grid::stop_process(simulated_node& n) {
  ++counters["process stopped"];
  n.running = false;
  n.silent = false;
}

void simulated_grid::kill_for_good(simulated_node& n, bool wipe) {
  ++counters["node killed"];
  n.running = false;
  n.silent = false;
  n.tombstone = true;
  if (n.lost_at == boot_time{}) n.lost_at = time_.boot();
  if (wipe) lose(n);
}

void simulated_grid::delete_files(simulated_node& n) {
  ++counters["files deleted"];
  lose(n);
}

void simulated_grid::lose(simulated_node& n) {
  if (n.lost_at == boot_time{}) n.lost_at = time_.boot();
  n.data_gone = true;
  for (const auto& [object, value] : n.objects) n.lost.insert(object);
  n.objects.clear();
}

void simulated_grid::power_cut(simulated_node& n) {
  ++counters["node power cut"];
  for (const auto& name : n.unsynced) n.objects.erase(name);
  n.unsynced.clear();
  stop_process(n);
}

// -- the door --------------------------------------------------------------------------------------------------------

class simulated_provider final : public grid::provider {
public:
  simulated_provider(simulated_grid& g, std::shared_ptr<bool> alive) : grid_{g}, alive_{std::move(alive)} {}

  std::string name() const override { return "local"; }
  result<grid::request> prepare(const grid::node_order& o) const override {
    return fmt::format("{} {} {} {} {}", o.node.number, o.incarnation, o.host, o.size, o.price_limit.units);
  }
  answer submit(const grid::request& r) override { return *alive_ ? grid_.submit(r) : answer{}; }
  answer resolve(const grid::request& r) override { return *alive_ ? grid_.resolve(r) : answer{}; }
  answer cancel(const grid::request& r) override { return *alive_ ? grid_.cancel(r) : answer{}; }
  answer restart(const grid::request& r) override { return *alive_ ? grid_.restart(r) : answer{}; }
  answer resize(const grid::request& r, byte_count size) override { return *alive_ ? grid_.resize(r, size) : answer{}; }
  inspection inspect(const grid::request& r) override { return *alive_ ? grid_.inspect(r) : inspection{}; }

  result<std::vector<model::host>> hosts() override {
    ++grid_.counters["hosts listed"];
    if (deaf()) return error{errc::unreachable, "no answer"};
    auto list = grid_.hosts;
    for (auto& h : list)
      for (auto* n : grid_.nodes())
        if (n->host == h.id) h.free -= std::min(h.free, n->size);
    return list;
  }
  result<std::vector<model::stray_node>> list_ours() override {
    if (deaf()) return error{errc::unreachable, "no answer"};
    std::vector<model::stray_node> out;
    for (auto* n : grid_.nodes()) out.push_back({"local", n->name, n->host, n->size});
    return out;
  }
  result<model::money> price(const std::string&, byte_count size) override { return price_for(size); }
  result<model::wallet_view> wallet() override {
    if (deaf()) return error{errc::unreachable, "no answer"};
    model::wallet_view v{true, grid_.balance, {}};
    for (auto* n : grid_.nodes()) v.per_month += n->price;
    return v;
  }
  result<model::money> top_up(model::money amount) override {
    if (!*alive_) return error{errc::unreachable, "no answer"};
    return grid_.balance += amount;
  }
  result<std::vector<grid::ledger_entry>> ledger(std::size_t) override { return std::vector<grid::ledger_entry>{}; }

private:
  bool deaf() { return !*alive_ || grid_.chance(grid_.faults.unknown_query); }
  simulated_grid& grid_;
  std::shared_ptr<bool> alive_;
};

std::shared_ptr<grid::provider> simulated_grid::door(std::shared_ptr<bool> alive) {
  return std::make_shared<simulated_provider>(*this, std::move(alive));
}

} // namespace qs::test
