#include "spec/bind.hpp"

#include <algorithm>

namespace qs::spec {
namespace {

/// Reads below one path; what is not there leaves its target as it is.
class scope {
public:
  scope(const fields_read& read, std::string path) : read_{read}, path_{std::move(path)} {}

  [[nodiscard]] scope under(std::string_view key) const { return {read_, at(key)}; }
  [[nodiscard]] scope item(std::string_view key, std::size_t i) const {
    return {read_, item_path(at(key), i)};
  }
  [[nodiscard]] std::size_t count(std::string_view key) const { return read_.count(at(key)); }
  [[nodiscard]] bool given(std::string_view key) const { return read_.given(at(key)); }

  void number(std::string_view key, int& target) const {
    if (auto* v = read_.get<std::int64_t>(at(key)))
      target = static_cast<int>(std::clamp<std::int64_t>(*v, -1'000'000, 1'000'000));
  }
  template <class T>
  void value(std::string_view key, T& target) const {
    if (auto* v = read_.get<T>(at(key))) target = *v;
  }
  template <class T>
  void value(std::string_view key, std::optional<T>& target) const {
    if (auto* v = read_.get<T>(at(key))) target = *v;
  }
  void words(std::string_view key, std::vector<std::string>& target) const {
    for (std::size_t i = 0; i < count(key); ++i)
      if (auto* v = read_.get<std::string>(item_path(at(key), i))) target.push_back(*v);
  }
  [[nodiscard]] std::string text(std::string_view key) const {
    std::string out;
    value(key, out);
    return out;
  }

private:
  [[nodiscard]] std::string at(std::string_view key) const {
    return path_.empty() ? std::string{key} : path_ + "." + std::string{key};
  }
  const fields_read& read_;
  std::string path_;
};

hosts_grid bind_hosts(const scope& s) {
  hosts_grid out;
  for (std::size_t i = 0; i < s.count("hosts"); ++i) {
    auto in = s.item("hosts", i);
    host_entry host;
    in.value("name", host.name);
    in.value("address", host.address);
    host.farm = host.name;
    in.value("farm", host.farm);
    in.value("country", host.country);
    in.value("capacity", host.capacity);
    in.value("password", host.password);
    in.value("insecure", host.insecure);
    out.hosts.push_back(std::move(host));
  }
  return out;
}

std::vector<grid_source> bind_grids(const scope& root) {
  std::vector<grid_source> out;
  for (std::size_t i = 0; i < root.count("grid"); ++i) {
    auto in = root.item("grid", i);
    if (in.given("hosts")) {
      out.emplace_back(bind_hosts(in));
    } else if (in.given("threefold")) {
      threefold_grid grid;
      in.under("threefold").value("network", grid.network);
      out.emplace_back(std::move(grid));
    } else {
      out.emplace_back(local_grid{});
    }
  }
  if (out.empty()) out.emplace_back(local_grid{});
  return out;
}

storage_section bind_storage(const scope& in) {
  storage_section out;
  in.value("capacity", out.capacity);
  in.under("redundancy").number("data", out.data_shards);
  in.under("redundancy").number("parity", out.parity_shards);
  out.nodes = out.data_shards + out.parity_shards;
  in.number("nodes", out.nodes);
  for (std::size_t i = 0; i < in.count("locations"); ++i) {
    auto entry = in.item("locations", i);
    location_rule rule;
    entry.value("country", rule.country);
    entry.value("farm", rule.farm);
    entry.value("region", rule.region);
    entry.number("nodes", rule.nodes);
    out.locations.push_back(std::move(rule));
  }
  auto spread = in.under("spread");
  spread.number("host", out.spread.host);
  out.spread.farm = std::max(1, out.parity_shards);
  spread.number("farm", out.spread.farm);
  if (int country = 0; spread.number("country", country), country > 0) out.spread.country = country;
  auto exclude = in.under("exclude");
  exclude.words("hosts", out.exclude.hosts);
  exclude.words("farms", out.exclude.farms);
  exclude.words("countries", out.exclude.countries);
  in.value("protect", out.protect);
  return out;
}

mount_section bind_mount(const scope& in) {
  mount_section out;
  in.value("path", out.path);
  in.under("cache").value("size", out.cache.size);
  in.under("cache").value("path", out.cache.path);
  in.under("staging").value("size", out.staging.size);
  in.under("staging").value("path", out.staging.path);
  if (in.text("fsync") == "grid") out.fsync = fsync_mode::grid;
  in.under("options").value("allow_other", out.options.allow_other);
  in.under("options").value("writeback", out.options.writeback);
  return out;
}

std::optional<notify_target> bind_notify(const scope& in) {
  if (in.given("webhook")) {
    webhook_target out;
    in.value("webhook", out.url);
    return out;
  }
  if (in.given("email")) {
    email_target out;
    in.value("email", out.to);
    in.value("smtp", out.smtp);
    return out;
  }
  if (!in.given("telegram")) return std::nullopt;
  telegram_target out;
  in.under("telegram").value("chat", out.chat);
  in.under("telegram").value("token", out.token);
  return out;
}

} // namespace

storage_spec bind(const fields_read& read) {
  scope root{read, ""};
  storage_spec out;
  root.number("version", out.version);
  root.value("name", out.name);
  out.grids = bind_grids(root);
  out.storage = bind_storage(root.under("storage"));
  if (root.given("mount")) out.mount = bind_mount(root.under("mount"));
  auto payment = root.under("payment");
  payment.value("runway", out.payment.runway);
  payment.value("top_up_below", out.payment.top_up_below);
  payment.value("max_per_month", out.payment.max_per_month);
  if (payment.text("confirm") == "connect") out.payment.confirm = confirm_mode::connect;
  payment.value("public_url", out.payment.public_url);
  auto monitor = root.under("monitor");
  monitor.value("interval", out.monitor.interval);
  monitor.value("failed_after", out.monitor.failed_after);
  monitor.value("replace_after", out.monitor.replace_after);
  monitor.value("scrub_every", out.monitor.scrub_every);
  for (std::size_t i = 0; i < root.count("notify"); ++i)
    if (auto target = bind_notify(root.item("notify", i))) out.notify.push_back(std::move(*target));
  if (root.given("status")) {
    out.status.emplace();
    root.under("status").value("listen", out.status->listen);
  }
  return out;
}

} // namespace qs::spec
