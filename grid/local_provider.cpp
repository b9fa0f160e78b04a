#include "grid/local_provider.hpp"

#include <algorithm>
#include <csignal>
#include <mutex>

#include <fmt/format.h>

#include "base/limits.hpp"
#include "grid/catalogue.hpp"
#include "grid/identity.hpp"
#include "grid/local_grid.hpp"
#include "grid/node_control.hpp"
#include "zdb/blocking_client.hpp"

namespace qs::grid {
namespace {

constexpr std::chrono::milliseconds lock_deadline{8'000};
constexpr byte_count node_size_max = 1024 * tib;

answer say(outcome what, std::string detail) { return {what, std::move(detail), {}, {}}; }

bool valid_wallet(std::string_view id) {
  return !id.empty() && id.size() <= 64 && std::all_of(id.begin(), id.end(), [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || c == '-';
  });
}

class local_provider final : public provider {
public:
  explicit local_provider(local_options options)
      : options_{std::move(options)}, grid_{options_.directory}, ledger_{grid_.ledger()},
        tag_{local_volume_tag(options_.keys.id())} {}

  status start();

  [[nodiscard]] std::string name() const override { return "local"; }
  [[nodiscard]] result<request> prepare(const node_order& order) const override;
  answer submit(const request& r) override;
  answer resolve(const request& r) override;
  result<std::vector<model::host>> hosts() override;
  inspection inspect(const request& r) override;
  answer restart(const request& r) override;
  answer resize(const request& r, byte_count size) override;
  answer cancel(const request& r) override;
  result<std::vector<model::stray_node>> list_ours() override;
  result<model::money> price(const std::string& host, byte_count size) override;
  result<model::wallet_view> wallet() override;
  result<model::money> top_up(model::money amount) override;
  result<std::vector<ledger_entry>> ledger(std::size_t most) override;

private:
  /// What holds while the grid's lock is held: all reservations, the ledger up to date.
  struct look {
    std::unique_lock<std::mutex> here; ///< the ledger object is one for all threads
    file_lock grid;
    std::vector<placed_node> all;
    std::vector<charged_node> paid; ///< by our wallet
    wall_time now{};
  };
  result<look> take_look(bool charge = true);

  [[nodiscard]] result<order_document> ours(const request& r) const;
  [[nodiscard]] std::optional<std::string> objection(const order_document& order, const look& world,
                                                     model::money& price_per_gib) const;
  status place(const request& r, const order_document& order, model::money price_per_gib, wall_time now);
  answer finish(const order_document& order, bool roll_back);
  status provision(const model::endpoint& where, const reservation& contract);
  result<std::unique_ptr<zdb::blocking_client>> admin(const model::endpoint& where, const std::string& name) const;
  [[nodiscard]] answer made(const reservation& contract, std::string detail, model::endpoint where) const;
  result<bool> remove(const std::string& name);
  result<model::endpoint> start_made(const node_paths& node, const reservation& contract);
  void step(std::string_view name) const {
    if (options_.after_step) options_.after_step(name);
  }

  local_options options_;
  grid_paths grid_;
  grid::ledger ledger_;
  std::string tag_;
  std::mutex mutex_;
};

// -- the world ---------------------------------------------------------------------------------------------------------

status local_provider::start() {
  QS_TRY(make_directories(grid_.nodes()));
  if (auto hosts = load_catalogue(grid_.root); !hosts) return std::move(hosts).err();
  QS_TRY(finish_removals(grid_, {}));
  auto world = take_look();
  if (!world) return std::move(world).err();
  return {};
}

result<local_provider::look> local_provider::take_look(bool charge) {
  std::unique_lock here{mutex_};
  QS_TRY_ASSIGN(auto lock, file_lock::take(grid_.lock(), lock_deadline));
  QS_TRY_ASSIGN(auto all, list_reservations(grid_));
  look out{std::move(here), std::move(lock), std::move(all), {}, options_.time->wall()};
  out.paid = charged_nodes(out.all, options_.wallet);
  QS_TRY(ledger_.refresh(options_.wallet, out.now));
  if (charge) QS_TRY(ledger_.charge(options_.wallet, out.paid, out.now));
  return out;
}

result<order_document> local_provider::ours(const request& r) const {
  auto order = decode_order(r);
  if (!order) return order;
  if (order->tag != tag_ || order->name != options_.keys.node_name(order->node, order->incarnation))
    return error{errc::invalid_argument, fmt::format("the request for {} is another volume's",
                                                     model::to_string(order->node))};
  return order;
}

result<request> local_provider::prepare(const node_order& order) const {
  auto wrong = [&](std::string_view why) {
    return error{errc::invalid_argument, fmt::format("reserve {}: {}", model::to_string(order.node), why)};
  };
  if (!order.node.valid()) return wrong("no node id");
  if (order.host.empty()) return wrong("no host");
  if (order.size == 0 || order.size > node_size_max) return wrong("the size must be between 1 byte and 1 PiB");
  if (order.price_limit.units < 0) return wrong("a negative price limit");
  return encode_order({options_.keys.node_name(order.node, order.incarnation), tag_, order.node, order.incarnation,
                       order.host, order.size, order.price_limit});
}

result<std::vector<model::host>> local_provider::hosts() {
  QS_TRY_ASSIGN(auto world, take_look());
  return hosts_with_free(grid_, world.all);
}

result<model::money> local_provider::price(const std::string& host, byte_count size) {
  QS_TRY_ASSIGN(auto hosts, load_catalogue(grid_.root));
  for (const auto& h : hosts)
    if (h.id == host) return monthly_price(h.price_per_gib_month, size);
  return error{errc::not_found, fmt::format("the local grid has no host {}", host)};
}

result<std::vector<model::stray_node>> local_provider::list_ours() {
  QS_TRY_ASSIGN(auto world, take_look());
  std::vector<model::stray_node> out;
  for (const auto& n : world.all)
    if (n.contract.order.tag == tag_) out.push_back({name(), n.contract.order.name, n.contract.order.host, n.contract.size});
  return out;
}

inspection local_provider::inspect(const request& r) {
  auto order = ours(r);
  if (!order) return {inspection::state::unknown, "Unreadable", order.err().message, {}};
  return inspect_node(grid_, order->name);
}

// -- reserving ---------------------------------------------------------------------------------------------------------

std::optional<std::string> local_provider::objection(const order_document& order, const look& world,
                                                     model::money& price_per_gib) const {
  auto hosts = hosts_with_free(grid_, world.all);
  if (!hosts) return hosts.err().message;
  auto host = std::find_if(hosts->begin(), hosts->end(), [&](const auto& h) { return h.id == order.host; });
  if (host == hosts->end()) return fmt::format("the local grid has no host {}", order.host);
  if (!host->available) return fmt::format("host {} takes no new node", order.host);
  if (host->free < order.size)
    return fmt::format("host {} has {} free of {}, the node needs {}", order.host, format_bytes(host->free),
                       format_bytes(host->capacity), format_bytes(order.size));
  price_per_gib = host->price_per_gib_month;
  auto price = monthly_price(price_per_gib, order.size);
  if (order.price_limit.units > 0 && price > order.price_limit)
    return fmt::format("host {} costs {} a month, agreed were at most {}", order.host, model::format_money(price),
                       model::format_money(order.price_limit));
  if (price.units > 0 && ledger_.balance(options_.wallet, world.paid, world.now).units <= 0)
    return "the wallet is empty; qs wallet topup AMOUNT";
  return {};
}

/// Everything is made beside and appears by one rename: there is a reservation, or there is none.
status local_provider::place(const request& r, const order_document& order, model::money price_per_gib,
                             wall_time now) {
  node_paths fresh{grid_.fresh(order.name)};
  QS_TRY(remove_tree(fresh.directory));
  QS_TRY(make_directories(fresh.data()));
  reservation contract;
  contract.asked = r;
  contract.order = order;
  contract.size = order.size;
  contract.wallet = options_.wallet;
  contract.price_per_gib_month = price_per_gib;
  contract.since = contract.rate_since = now;
  auto marker = options_.random->array<16>();
  contract.marker = to_hex(marker);
  QS_TRY(write_file_atomic(fresh.marker(), as_bytes(contract.marker + "\n")));
  // The server reads its password from this file: argv and the environment can be seen by others.
  QS_TRY(write_file_atomic(fresh.admin(), as_bytes(options_.keys.derived_password("admin", order.name) + "\n")));
  QS_TRY(write_reservation(fresh, contract));
  QS_TRY(sync_directory(fresh.directory));
  step("prepared");
  std::error_code failed;
  std::filesystem::rename(fresh.directory, grid_.node(order.name).directory, failed);
  if (failed) return errno_error(fmt::format("reserve {}", order.name), failed.value());
  QS_TRY(sync_directory(grid_.nodes()));
  step("reserved");
  return {};
}

answer local_provider::submit(const request& r) {
  auto order = ours(r);
  if (!order) return say(outcome::refused, order.err().message);
  {
    auto world = take_look();
    if (!world) return say(outcome::unknown, world.err().message);
    auto there = std::find_if(world->all.begin(), world->all.end(),
                              [&](const auto& n) { return n.contract.order.name == order->name; });
    if (there == world->all.end()) {
      std::error_code failed;
      if (std::filesystem::exists(grid_.node(order->name).directory, failed) || failed)
        return say(outcome::unknown, fmt::format("the reservation {} is there and cannot be read", order->name));
      model::money price_per_gib;
      if (auto why = objection(*order, *world, price_per_gib)) return say(outcome::refused, *why);
      auto placed = place(r, *order, price_per_gib, world->now);
      if (!placed) return say(outcome::unknown, placed.err().message);
    } else if (there->contract.order.host != order->host || there->contract.order.size != order->size) {
      return say(outcome::refused, fmt::format("{} is reserved already, on host {} with {}", order->name,
                                               there->contract.order.host, format_bytes(there->contract.size)));
    }
  }
  return finish(*order, true);
}

answer local_provider::resolve(const request& r) {
  auto order = ours(r);
  if (!order) return say(outcome::unknown, order.err().message);
  {
    auto world = take_look(false);
    if (!world) return say(outcome::unknown, world.err().message);
    auto contract = read_reservation(grid_.node(order->name));
    if (!contract) {
      if (contract.err().code != errc::not_found) return say(outcome::unknown, contract.err().message);
      // Under the grid's lock: nobody is about to make it. What a cut submit prepared goes.
      auto swept = remove_tree(grid_.fresh(order->name));
      if (!swept) return say(outcome::unknown, swept.err().message);
      return say(outcome::absent, fmt::format("there is no reservation {}", order->name));
    }
    if (contract->order.host != order->host)
      return say(outcome::absent, fmt::format("{} is reserved on host {} by another request", order->name,
                                              contract->order.host));
  }
  return finish(*order, false);
}

answer local_provider::made(const reservation& contract, std::string detail, model::endpoint where) const {
  if (!where.valid()) where = {"127.0.0.1", contract.port, contract.order.name};
  return {outcome::done, std::move(detail), std::move(where),
          monthly_price(contract.price_per_gib_month, contract.size)};
}

/// From a reservation that stands to a node that answers. `roll_back`: a server that cannot be started ends the reservation.
answer local_provider::finish(const order_document& order, bool roll_back) {
  auto node = grid_.node(order.name);
  auto remove_as = [&](outcome what, const std::string& why) {
    auto removed = remove(order.name);
    return removed ? say(what, why) : say(outcome::unknown, fmt::format("{}; {}", why, removed.err().message));
  };
  auto lock = lock_node(node.directory, lock_deadline);
  if (!lock) return say(outcome::unknown, lock.err().message);
  auto contract = read_reservation(node);
  if (!contract) return say(outcome::unknown, contract.err().message);
  auto found = inspect_node(grid_, order.name);
  if (found.what == inspection::state::gone) {
    if (contract->made) return made(*contract, found.reason, {});
    return remove_as(outcome::absent, fmt::format("it was half made, then {}", found.reason));
  }
  if (found.what == inspection::state::unknown && found.reason != "Starting") return say(outcome::unknown, found.detail);
  if (contract->made && found.what == inspection::state::running) return made(*contract, {}, found.where);
  if (contract->made) {
    auto where = start_made(node, *contract);
    return where ? made(*contract, {}, *where) : made(*contract, where.err().message, {});
  }
  auto where = start_node(options_.program, node, order.name, options_.start_deadline, options_.after_step);
  if (!where) {
    auto hopeless = where.err().code == errc::refused || where.err().sys == ENOENT || where.err().sys == EACCES;
    if (roll_back && hopeless) return remove_as(outcome::refused, where.err().message);
    return say(outcome::pending, where.err().message);
  }
  auto done = provision(*where, *contract);
  if (!done) return say(done.err().code == errc::access_denied ? outcome::unknown : outcome::pending, done.err().message);
  contract->made = true;
  contract->port = where->port;
  auto written = write_reservation(node, *contract);
  if (!written) return say(outcome::pending, written.err().message);
  step("made");
  return made(*contract, {}, *where);
}

result<std::unique_ptr<zdb::blocking_client>> local_provider::admin(const model::endpoint& where,
                                                                    const std::string& name) const {
  zdb::session_options options;
  options.admin_password = options_.keys.derived_password("admin", name);
  options.discover = false;
  return zdb::blocking_client::connect(stream_address(where), std::move(options), limits::node_connect_deadline);
}

/// The namespace as it should be, whatever of it is there. A namespace with another password or with entries and no
/// password is not ours: access_denied.
status local_provider::provision(const model::endpoint& where, const reservation& contract) {
  const auto& ns = contract.order.name;
  auto password = options_.keys.node_password(ns);
  QS_TRY_ASSIGN(auto client, admin(where, ns));
  auto there = client->nsinfo(ns);
  if (!there && there.err().code == errc::not_found) {
    QS_TRY(client->nsnew(ns));
    step("namespace");
  } else if (!there) {
    return std::move(there).err();
  } else if (there->has_password) {
    zdb::session_options options;
    options.name_space = ns;
    options.password = password;
    auto opened = zdb::blocking_client::connect(stream_address(where), std::move(options), limits::node_connect_deadline);
    if (!opened) return std::move(opened).err();
  } else if (there->entries > 0) {
    return error{errc::access_denied, fmt::format("namespace {} has entries and no password: it is not ours", ns)};
  }
  QS_TRY(client->nsset(ns, "password", password));
  step("password");
  QS_TRY(client->nsset(ns, "public", "0"));
  step("private");
  QS_TRY(client->nsset(ns, "maxsize", std::to_string(contract.size)));
  step("maxsize");
  return {};
}

// -- a node that was made ----------------------------------------------------------------------------------------------

/// Starts a stopped node and makes sure that its namespace is still in it.
result<model::endpoint> local_provider::start_made(const node_paths& node, const reservation& contract) {
  const auto& ns = contract.order.name;
  QS_TRY_ASSIGN(auto where, start_node(options_.program, node, ns, options_.start_deadline, options_.after_step));
  QS_TRY_ASSIGN(auto client, admin(where, ns));
  auto there = client->nsinfo(ns);
  if (!there && there.err().code == errc::not_found) {
    // Emptied behind our back. An empty node that answers must not be taken for a healthy one.
    QS_TRY(write_tombstone(node, {options_.time->wall(), "DataGone"}));
    QS_TRY(stop_node(node, node.data(), SIGKILL, std::chrono::milliseconds{5000}));
    return error{errc::data_lost, fmt::format("the namespace of {} is gone from {}", ns, node.data().string())};
  }
  if (!there) return std::move(there).err();
  if (there->data_limits_bytes != contract.size)
    QS_TRY(client->nsset(ns, "maxsize", std::to_string(contract.size))); // a resize that was cut
  if (contract.port != where.port) {
    auto seen = contract;
    seen.port = where.port;
    QS_TRY(write_reservation(node, seen));
  }
  return where;
}

answer local_provider::restart(const request& r) {
  auto order = ours(r);
  if (!order) return say(outcome::refused, order.err().message);
  auto node = grid_.node(order->name);
  auto lock = lock_node(node.directory, lock_deadline);
  if (!lock && lock.err().code == errc::not_found) return say(outcome::absent, lock.err().message);
  if (!lock) return say(outcome::unknown, lock.err().message);
  auto found = inspect_node(grid_, order->name);
  if (found.what == inspection::state::gone)
    return say(found.reason == "ReservationGone" ? outcome::absent : outcome::refused, found.reason);
  auto contract = read_reservation(node);
  if (!contract) return say(outcome::unknown, contract.err().message);
  if (!contract->made) return say(outcome::pending, "half made: resolve() finishes it");
  if (found.what == inspection::state::running) return made(*contract, found.detail, found.where);
  if (found.what == inspection::state::unknown && found.reason != "Starting") return say(outcome::unknown, found.detail);
  auto where = start_made(node, *contract);
  if (where) return made(*contract, {}, *where);
  auto lost = where.err().code == errc::data_lost || where.err().code == errc::refused;
  return say(lost ? outcome::refused : outcome::pending, where.err().message);
}

answer local_provider::resize(const request& r, byte_count size) {
  auto order = ours(r);
  if (!order) return say(outcome::refused, order.err().message);
  if (size == 0 || size > node_size_max) return say(outcome::refused, "the size must be between 1 byte and 1 PiB");
  auto node = grid_.node(order->name);
  auto lock = lock_node(node.directory, lock_deadline);
  if (!lock && lock.err().code == errc::not_found) return say(outcome::absent, lock.err().message);
  if (!lock) return say(outcome::unknown, lock.err().message);
  auto contract = read_reservation(node);
  if (!contract) return say(outcome::unknown, contract.err().message);
  if (!contract->made) return say(outcome::pending, "half made: resolve() finishes it");
  auto found = inspect_node(grid_, order->name);
  if (found.what == inspection::state::gone) return say(outcome::refused, found.reason);
  // First the server, so that nothing is recorded that it would not do.
  auto where = found.what == inspection::state::running ? result<model::endpoint>{found.where} : start_made(node, *contract);
  if (!where) return say(outcome::pending, where.err().message);
  auto client = admin(*where, order->name);
  if (!client) return say(outcome::pending, client.err().message);
  auto info = (*client)->nsinfo(order->name);
  if (!info) return say(outcome::pending, info.err().message);
  if (info->data_size_bytes > size)
    return say(outcome::refused, fmt::format("{} holds {}, more than {}", model::to_string(order->node),
                                             format_bytes(info->data_size_bytes), format_bytes(size)));
  if (size != contract->size) {
    auto world = take_look();
    if (!world) return say(outcome::unknown, world.err().message);
    auto hosts = hosts_with_free(grid_, world->all);
    if (!hosts) return say(outcome::unknown, hosts.err().message);
    if (size > contract->size) {
      byte_count free = 0;
      for (const auto& h : *hosts)
        if (h.id == order->host) free = h.free;
      if (free < size - contract->size)
        return say(outcome::refused, fmt::format("host {} has {} free, {} more are needed", order->host,
                                                 format_bytes(free), format_bytes(size - contract->size)));
      if (ledger_.balance(options_.wallet, world->paid, world->now).units <= 0 && contract->price_per_gib_month.units > 0)
        return say(outcome::refused, "the wallet is empty; qs wallet topup AMOUNT");
    }
    auto settled = ledger_.settle(options_.wallet, world->paid, world->now);
    if (!settled) return say(outcome::unknown, settled.err().message);
    step("settled");
    contract->size = size;
    contract->rate_since = world->now;
    auto written = write_reservation(node, *contract);
    if (!written) return say(outcome::unknown, written.err().message);
    step("recorded");
  }
  auto limited = (*client)->nsset(order->name, "maxsize", std::to_string(size));
  if (!limited) return say(outcome::pending, limited.err().message);
  step("limited");
  return made(*contract, {}, *where);
}

// -- ending ------------------------------------------------------------------------------------------------------------

/// True: it was there. The node's lock may be held, by us or by nobody: the rename decides.
result<bool> local_provider::remove(const std::string& name) {
  std::optional<node_paths> taken;
  {
    QS_TRY_ASSIGN(auto world, take_look());
    QS_TRY(remove_tree(grid_.fresh(name)));
    std::error_code failed;
    if (std::filesystem::exists(grid_.node(name).directory, failed)) {
      std::vector<charged_node> paid;
      for (const auto& n : world.paid)
        if (n.name == name) paid.push_back(n);
      QS_TRY(ledger_.settle(options_.wallet, paid, world.now));
      step("settled");
      QS_TRY_ASSIGN(taken, begin_removal(grid_, name, options_.random->next_u64()));
      step("taken");
    } else if (failed) {
      return errno_error(fmt::format("look for {}", name), failed.value());
    }
  }
  if (taken) QS_TRY(finish_removal(grid_, *taken, options_.after_step));
  QS_TRY(finish_removals(grid_, name));
  return taken.has_value();
}

answer local_provider::cancel(const request& r) {
  auto order = ours(r);
  if (!order) return say(outcome::refused, order.err().message);
  // Whoever starts or resizes it right now ends first, so that no server is born into a directory that is being deleted.
  auto lock = lock_node(grid_.node(order->name).directory, lock_deadline);
  if (!lock && lock.err().code != errc::not_found) return say(outcome::unknown, lock.err().message);
  auto removed = remove(order->name);
  if (!removed) return say(outcome::unknown, removed.err().message);
  return *removed ? say(outcome::done, "") : say(outcome::absent, fmt::format("there is no reservation {}", order->name));
}

// -- the wallet --------------------------------------------------------------------------------------------------------

result<model::wallet_view> local_provider::wallet() {
  QS_TRY_ASSIGN(auto world, take_look());
  model::wallet_view out{true, ledger_.balance(options_.wallet, world.paid, world.now), {}};
  for (const auto& n : world.paid)
    if (n.until == wall_time{}) out.per_month += n.rate;
  return out;
}

result<model::money> local_provider::top_up(model::money amount) {
  QS_TRY_ASSIGN(auto world, take_look());
  QS_TRY(ledger_.settle(options_.wallet, world.paid, world.now));
  QS_TRY(ledger_.credit(options_.wallet, amount, "topup", world.now));
  return ledger_.balance(options_.wallet, world.paid, world.now);
}

result<std::vector<ledger_entry>> local_provider::ledger(std::size_t most) {
  QS_TRY_ASSIGN(auto world, take_look());
  return ledger_.newest(options_.wallet, most);
}

} // namespace

result<std::unique_ptr<provider>> make_local(local_options options) {
  if (!valid_wallet(options.wallet))
    return error{errc::invalid_argument, fmt::format("'{}' is no wallet id: a-z 0-9 - and at most 64", options.wallet)};
  std::error_code failed;
  options.directory = std::filesystem::weakly_canonical(options.directory, failed);
  if (failed || options.directory.empty())
    return error{errc::invalid_argument, fmt::format("{} cannot be the local grid's directory: {}",
                                                     options.directory.string(), failed.message())};
  auto made = std::make_unique<local_provider>(std::move(options));
  auto started = made->start();
  if (!started) return std::move(started).err().with("local grid");
  return std::unique_ptr<provider>{std::move(made)};
}

} // namespace qs::grid
