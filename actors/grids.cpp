#include "actors/grids.hpp"

#include <algorithm>
#include <future>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "codec/seal.hpp"
#include "controller/placement.hpp"

namespace qs::actors {
namespace {

using nlohmann::json;

codec::seal_place place(const codec::volume_keys& keys) {
  return {codec::seal_kind::local_secret, keys.id(), {}, 1}; // 0: the references
}

} // namespace

// -- the set --------------------------------------------------------------------------------------

void provider_set::put(const std::string& name, std::shared_ptr<grid::provider> made) {
  std::lock_guard lock{mutex_};
  made_[name] = std::move(made);
  used_.insert(name);
}

void provider_set::offer(const std::string& name, maker make) {
  std::lock_guard lock{mutex_};
  offered_[name] = std::move(make);
}

void provider_set::use(std::set<std::string> names) {
  std::lock_guard lock{mutex_};
  for (const auto& [name, made] : made_)
    if (!offered_.contains(name)) names.insert(name); // was put
  used_ = std::move(names);
}

bool provider_set::knows(const std::string& name) const {
  std::lock_guard lock{mutex_};
  return made_.contains(name) || offered_.contains(name);
}

result<std::shared_ptr<grid::provider>> provider_set::get(const std::string& name) {
  std::lock_guard lock{mutex_};
  if (auto there = made_.find(name); there != made_.end()) return there->second;
  auto offer = offered_.find(name);
  if (offer == offered_.end())
    return error{errc::not_found, fmt::format("this engine knows no grid '{}'", name)};
  QS_TRY_ASSIGN(auto fresh, offer->second());
  made_[name] = fresh;
  return fresh;
}

grid::provider* provider_set::find(const std::string& name) {
  auto there = get(name);
  return there ? there->get() : nullptr;
}

std::vector<named_provider> provider_set::in_use(status* trouble) {
  std::lock_guard lock{mutex_};
  std::vector<named_provider> out;
  for (const auto& name : used_) {
    auto there = get(name);
    if (there)
      out.emplace_back(name, std::move(*there));
    else if (trouble != nullptr && trouble->ok())
      *trouble = std::move(there).err();
  }
  return out;
}

std::set<std::string> grids_of(const spec::storage_spec* desired, const model::recorded& recorded) {
  std::set<std::string> out;
  if (desired != nullptr)
    for (auto& name : controller::provider_names(*desired)) out.insert(std::move(name));
  for (const auto& r : recorded.nodes)
    if (r.state != model::node_state::gone) out.insert(r.provider);
  return out;
}

// -- the machines of grid hosts -------------------------------------------------------------------

std::vector<grid::hosts_machine> machines_of(const spec::storage_spec& desired) {
  std::vector<grid::hosts_machine> out;
  for (const auto& source : desired.grids) {
    const auto* hosts = std::get_if<spec::hosts_grid>(&source);
    if (hosts == nullptr) continue;
    for (const auto& h : hosts->hosts) {
      grid::hosts_machine m;
      m.name = h.name;
      m.address = h.address.value;
      m.place = {h.farm, h.country, {}};
      m.capacity = h.capacity;
      if (h.password) m.password = secret_string{h.password->value};
      m.insecure = h.insecure;
      out.push_back(std::move(m));
    }
  }
  return out;
}

std::vector<grid::hosts_machine> with_former(std::vector<grid::hosts_machine> now,
                                             const std::vector<grid::hosts_machine>& before) {
  for (const auto& old : before) {
    auto there =
        std::any_of(now.begin(), now.end(), [&](const auto& m) { return m.name == old.name; });
    if (there) continue;
    now.push_back(old);
    now.back().offered = false;
  }
  return now;
}

std::vector<grid::hosts_machine> without_unused(std::vector<grid::hosts_machine> all,
                                                const model::recorded& recorded) {
  std::erase_if(all, [&](const grid::hosts_machine& m) {
    return !m.offered && std::none_of(recorded.nodes.begin(), recorded.nodes.end(),
                                      [&](const model::recorded_node& r) {
                                        return r.state != model::node_state::gone &&
                                               r.provider == "hosts" && r.host == m.name;
                                      });
  });
  return all;
}

std::string seal_machines(const codec::volume_keys& keys,
                          const std::vector<grid::hosts_machine>& machines, random_source& random) {
  auto list = json::array();
  for (const auto& m : machines)
    list.push_back({{"name", m.name},
                    {"address", m.address},
                    {"farm", m.place.farm},
                    {"country", m.place.country},
                    {"capacity", m.capacity ? json(*m.capacity) : json{}},
                    {"password", m.password.text()},
                    {"insecure", m.insecure}});
  auto text = list.dump(-1, ' ', false, json::error_handler_t::replace);
  return to_hex(codec::seal(keys.local_secrets(), place(keys), as_bytes(text), random));
}

std::vector<grid::hosts_machine> open_machines(const codec::volume_keys& keys,
                                               const std::string& sealed) {
  std::vector<grid::hosts_machine> out;
  auto bytes = from_hex(sealed);
  if (!bytes || bytes->empty()) return out;
  auto plain = codec::open(keys.local_secrets(), place(keys), *bytes);
  if (!plain.ok()) return out;
  auto list = json::parse(to_string(byte_span{*plain}), nullptr, false);
  if (!list.is_array()) return out;
  try {
    for (const auto& j : list) {
      grid::hosts_machine m;
      m.name = j.at("name").get<std::string>();
      m.address = j.at("address").get<std::string>();
      m.place = {j.at("farm").get<std::string>(), j.at("country").get<std::string>(), {}};
      if (!j.at("capacity").is_null()) m.capacity = j.at("capacity").get<byte_count>();
      m.password = secret_string{j.at("password").get<std::string>()};
      m.insecure = j.at("insecure").get<bool>();
      out.push_back(std::move(m));
    }
  } catch (const json::exception&) {
    return {}; // written by another version: the accepted spec has those that matter most
  }
  return out;
}

// -- looking --------------------------------------------------------------------------------------

namespace {

struct one_look {
  result<std::vector<model::host>> hosts;
  result<std::vector<model::stray_node>> ours;
  result<model::wallet_view> money;
};

one_look look_at(grid::provider& p) {
  // At the same time: each may take as long as a call may take.
  auto listed = std::async(std::launch::async, [&p] { return p.list_ours(); });
  auto hosts = p.hosts();
  auto ours = listed.get();
  auto money = p.charges() ? p.wallet() : error{errc::unsupported, "costs nothing"};
  return {std::move(hosts), std::move(ours), std::move(money)};
}

bool is_recorded(const model::stray_node& s, const codec::volume_keys& keys,
                 const model::recorded& recorded) {
  return std::any_of(recorded.nodes.begin(), recorded.nodes.end(),
                     [&](const model::recorded_node& r) {
                       return r.state != model::node_state::gone && r.provider == s.provider &&
                              keys.node_name(r.id, r.incarnation) == s.reservation;
                     });
}

} // namespace

grid_look look_at_grids(const std::vector<named_provider>& providers,
                        const codec::volume_keys& keys, const model::recorded& recorded) {
  std::vector<std::future<one_look>> asked;
  asked.reserve(providers.size());
  for (const auto& p : providers)
    asked.push_back(std::async(std::launch::async, [&p] { return look_at(*p.second); }));
  grid_look out;
  auto note = [&](const std::string& name, const error& e) {
    if (out.trouble.empty()) out.trouble = fmt::format("grid {}: {}", name, describe(e));
  };
  for (std::size_t i = 0; i < providers.size(); ++i) {
    const auto& name = providers[i].first;
    auto seen = asked[i].get();
    if (seen.hosts) {
      out.hosts[name] = std::move(*seen.hosts);
    } else {
      out.hosts_known = false;
      note(name, seen.hosts.err());
    }
    if (seen.ours) {
      for (auto& s : *seen.ours)
        if (!is_recorded(s, keys, recorded)) out.strays.push_back(std::move(s));
    } else {
      out.strays_known = false;
      note(name, seen.ours.err());
    }
    if (seen.money) {
      out.money.known = true;
      out.money.balance += seen.money->balance;
      out.money.per_month += seen.money->per_month;
    }
  }
  return out;
}

grid_look look_for_plan(provider_set& providers, const codec::volume_keys& keys,
                        const spec::storage_spec* desired,
                        const std::vector<grid::hosts_machine>& former,
                        const model::recorded& recorded, std::chrono::milliseconds deadline,
                        std::chrono::milliseconds call_deadline) {
  std::vector<named_provider> asked;
  status broken;
  for (const auto& name : grids_of(desired, recorded)) {
    if (name == "hosts" && desired != nullptr) {
      grid::hosts_options options{.keys = keys, .machines = {}, .after_step = {}};
      options.machines = without_unused(with_former(machines_of(*desired), former), recorded);
      options.deadline = deadline;
      options.call_deadline = call_deadline;
      options.read_only = true;
      asked.emplace_back(name, grid::make_hosts(std::move(options)));
      continue;
    }
    auto there = providers.get(name);
    if (there)
      asked.emplace_back(name, std::move(*there));
    else if (broken.ok())
      broken = std::move(there).err();
  }
  auto out = look_at_grids(asked, keys, recorded);
  if (broken.ok()) return out;
  out.hosts_known = out.strays_known = false;
  out.trouble = describe(broken.err());
  return out;
}

} // namespace qs::actors
