// The machines: reaching them, what they have free, what of ours is on them.
#include "grid/hosts_provider.hpp"

#include <algorithm>
#include <atomic>
#include <thread>

#include <fmt/format.h>

#include "base/log.hpp"
#include "grid/hosts_provider_impl.hpp"
#include "grid/local_grid.hpp"
#include "net/address.hpp"

namespace qs::grid {
namespace {

/// So many servers are asked at the same time.
constexpr std::size_t asked_at_once = 32;
/// Of one server so many namespaces are looked at; one with more takes no new node.
constexpr std::size_t namespaces_max = 20'000;
constexpr std::size_t pipelined = 128;
/// Names that list_ours() knows again: of nodes and attempts up to these numbers.
constexpr std::uint32_t nodes_known = 4096;
constexpr std::uint32_t incarnations_known = 8;

byte_count less(byte_count a, byte_count b) { return a > b ? a - b : 0; }

/// `work(i)` for every i below `count`, a few at a time; returns when all are done.
template <class Work>
void at_once(std::size_t count, const Work& work) {
  std::atomic<std::size_t> next{0};
  auto run = [&] {
    for (auto i = next++; i < count; i = next++) work(i);
  };
  std::vector<std::jthread> threads;
  for (std::size_t t = 1; t < std::min(count, asked_at_once); ++t) threads.emplace_back(run);
  run();
}

error no_money() {
  return {errc::unsupported, "grid hosts costs nothing: there is no wallet to ask or to fill"};
}

} // namespace

hosts_grid_provider::hosts_grid_provider(hosts_options options)
    : options_{std::move(options)}, tag_{local_volume_tag(options_.keys.id())},
      machines_{options_.machines} {}

std::shared_ptr<hosts_provider> make_hosts(hosts_options options) {
  return std::make_shared<hosts_grid_provider>(std::move(options));
}

void hosts_grid_provider::configure(std::vector<hosts_machine> machines) {
  std::lock_guard lock{mutex_};
  machines_ = std::move(machines);
}

std::vector<hosts_machine> hosts_grid_provider::machines() const {
  std::lock_guard lock{mutex_};
  return machines_;
}

std::optional<hosts_machine> hosts_grid_provider::machine(const std::string& name) const {
  std::lock_guard lock{mutex_};
  for (const auto& m : machines_)
    if (m.name == name) return m;
  return std::nullopt;
}

bool hosts_grid_provider::may_send_plain(const std::string& host) const {
  auto m = machine(host);
  return m && m->insecure;
}

// -- reaching one ---------------------------------------------------------------------------------

result<hosts_grid_provider::client_ptr>
hosts_grid_provider::connect(const hosts_machine& m, zdb::session_options options,
                             call_end end) const {
  QS_TRY_ASSIGN(auto where, net::parse_address(m.address));
  options.allow_plain = m.insecure;
  options.discover = false;
  auto client = zdb::blocking_client::connect(net::to_string(where), std::move(options),
                                              options_.deadline, end);
  if (!client) return std::move(client).err().with(fmt::format("host {}", m.name));
  return client;
}

result<hosts_grid_provider::client_ptr>
hosts_grid_provider::connect_admin(const hosts_machine& m, call_end end) const {
  zdb::session_options options;
  options.admin_password = std::string{m.password.text()};
  return connect(m, std::move(options), end);
}

/// Whether the derived password opens the namespace. Of one without a password this says nothing:
/// ask NSINFO first.
status hosts_grid_provider::opens(const hosts_machine& m, const std::string& ns,
                                  call_end end) const {
  zdb::session_options options;
  options.name_space = ns;
  options.password = options_.keys.node_password(ns);
  QS_TRY_ASSIGN(auto client, connect(m, std::move(options), end));
  return {};
}

// -- what they have -------------------------------------------------------------------------------

/// What the quotas and contents of all namespaces come to, whoever's they are.
result<hosts_grid_provider::server_load>
hosts_grid_provider::load_of(zdb::blocking_client& client) const {
  QS_TRY_ASSIGN(auto names, client.nslist());
  if (names.size() > namespaces_max)
    return error{errc::refused, fmt::format("it has more than {} namespaces", namespaces_max)};
  server_load out;
  std::optional<error> failed;
  for (std::size_t from = 0; from < names.size(); from += pipelined) {
    auto count = std::min(pipelined, names.size() - from);
    std::size_t answered = 0;
    for (auto i = from; i < from + count; ++i)
      client.raw().nsinfo(names[i], [&](result<zdb::namespace_info> r) {
        ++answered;
        if (!r.ok()) {
          // Deleted meanwhile; anything else is no answer.
          if (r.err().code != errc::not_found && !failed) failed = r.err();
          return;
        }
        out.disk_free = r->free_bytes;
        out.promised += r->data_limits_bytes != 0 ? r->data_limits_bytes : r->data_size_bytes;
        out.unused += less(r->data_limits_bytes, r->data_size_bytes);
      });
    auto driven = client.run_until([&] { return answered == count; });
    if (!driven) client.raw().connection_lost(driven.err()); // nothing may call back any more
    if (failed) return *failed;
    QS_TRY(std::move(driven));
  }
  return out;
}

/// What the user says that the machine gives is taken at its word, and never more than its disk
/// has; otherwise what the disk has, less what was promised to the namespaces that are there.
byte_count hosts_grid_provider::free_on(const hosts_machine& m, const server_load& load) {
  if (m.capacity) return std::min(less(*m.capacity, load.promised), load.disk_free);
  return less(load.disk_free, load.unused);
}

model::host hosts_grid_provider::look_at(const hosts_machine& m, call_end end) {
  model::host out;
  out.id = m.name;
  out.place = m.place;
  out.capacity = m.capacity.value_or(0);
  auto load = [&]() -> result<server_load> {
    QS_TRY_ASSIGN(auto client, connect_admin(m, end));
    return load_of(*client);
  }();
  if (!load) {
    out.available = false;
    out.trouble = describe(load.err());
  } else {
    out.free = free_on(m, *load);
    if (!m.capacity) out.capacity = out.free + load->promised;
  }
  tell_once(m.name, out.trouble);
  return out;
}

void hosts_grid_provider::tell_once(const std::string& machine, const std::string& trouble) {
  std::lock_guard lock{mutex_};
  auto& last = troubles_[machine];
  if (last == trouble) return;
  last = trouble;
  if (trouble.empty())
    log::info("grid", "host {} answers", machine);
  else
    log::warning("grid", "host {} takes no new node: {}", machine, trouble);
}

result<std::vector<model::host>> hosts_grid_provider::hosts() {
  auto all = machines();
  std::erase_if(all, [](const auto& m) { return !m.offered; });
  std::vector<model::host> out(all.size());
  at_once(all.size(), [&, end = ends()](std::size_t i) { out[i] = look_at(all[i], end); });
  return out;
}

result<model::money> hosts_grid_provider::price(const std::string& host, byte_count) {
  if (!machine(host))
    return error{errc::not_found, fmt::format("grid hosts has no machine {}", host)};
  return model::money{};
}

result<model::wallet_view> hosts_grid_provider::wallet() { return no_money(); }
result<model::money> hosts_grid_provider::top_up(model::money) { return no_money(); }
result<std::vector<ledger_entry>> hosts_grid_provider::ledger(std::size_t) { return no_money(); }

// -- what of ours is on them ----------------------------------------------------------------------

bool hosts_grid_provider::may_be_ours(const std::string& ns) {
  if (ns.size() != 18 || !ns.starts_with("qs")) return false;
  std::lock_guard lock{mutex_};
  if (names_.empty())
    for (std::uint32_t node = 1; node <= nodes_known; ++node)
      for (std::uint32_t i = 1; i <= incarnations_known; ++i)
        names_.insert(options_.keys.node_name({node}, i));
  return names_.contains(ns);
}

result<std::vector<model::stray_node>> hosts_grid_provider::ours_on(const hosts_machine& m,
                                                                     call_end end) {
  auto client = connect_admin(m, end);
  // Without being its administrator one may still see: names are no secret on most servers.
  if (!client && client.err().code == errc::access_denied) client = connect(m, {}, end);
  if (!client) return std::move(client).err();
  auto names = (*client)->nslist();
  if (!names) return std::move(names).err().with(fmt::format("host {}", m.name));
  std::vector<model::stray_node> out;
  for (const auto& ns : *names) {
    if (!may_be_ours(ns)) continue;
    auto there = look_for(m, ns, false, end);
    if (there.what == found::state::unknown) return there.why;
    if (there.what == found::state::ours || there.what == found::state::half)
      out.push_back({name(), ns, m.name, there.info.data_limits_bytes});
  }
  return out;
}

result<std::vector<model::stray_node>> hosts_grid_provider::list_ours() {
  auto all = machines();
  std::vector<result<std::vector<model::stray_node>>> each(all.size(),
                                                           error{errc::unreachable, "not asked"});
  at_once(all.size(), [&, end = ends()](std::size_t i) { each[i] = ours_on(all[i], end); });
  std::vector<model::stray_node> out;
  std::optional<error> silent; // a list without one machine's is not the list
  for (auto& list : each) {
    if (list)
      out.insert(out.end(), list->begin(), list->end());
    else if (silent)
      silent->message += "; " + describe(list.err());
    else
      silent = std::move(list).err();
  }
  if (silent) return *silent;
  return out;
}

} // namespace qs::grid
