#include <algorithm>

#include <fmt/format.h>

#include "base/limits.hpp"
#include "grid/catalogue.hpp"
#include "grid/identity.hpp"
#include "grid/local_provider_impl.hpp"

namespace qs::grid {

// -- reserving ------------------------------------------------------------------------------------

std::optional<std::string> local_provider::objection(const order_document& order, const look& world,
                                                     model::money& price_per_gib) const {
  auto hosts = hosts_with_free(grid_, world.all);
  if (!hosts) return hosts.err().message;
  auto host =
      std::find_if(hosts->begin(), hosts->end(), [&](const auto& h) { return h.id == order.host; });
  if (host == hosts->end()) return fmt::format("the local grid has no host {}", order.host);
  if (!host->available) return fmt::format("host {} takes no new node", order.host);
  if (host->free < order.size)
    return fmt::format("host {} has {} free of {}, the node needs {}", order.host,
                       format_bytes(host->free), format_bytes(host->capacity),
                       format_bytes(order.size));
  price_per_gib = host->price_per_gib_month;
  auto price = monthly_price(price_per_gib, order.size);
  if (order.price_limit.units > 0 && price > order.price_limit)
    return fmt::format("host {} costs {} a month, agreed were at most {}", order.host,
                       model::format_money(price), model::format_money(order.price_limit));
  if (price.units > 0 && ledger_.balance(options_.wallet, world.paid, world.now).units <= 0)
    return "the wallet is empty; qs wallet topup AMOUNT";
  return {};
}

/// Everything is made beside and appears by one rename: there is a reservation, or there is none.
status local_provider::place(const request& r, const order_document& order,
                             model::money price_per_gib, wall_time now) {
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
  QS_TRY(write_file_atomic(fresh.admin(),
                           as_bytes(options_.keys.derived_password("admin", order.name) + "\n")));
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
  if (read_only()) return say(outcome::refused, only_looking);
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
        return say(outcome::unknown,
                   fmt::format("the reservation {} is there and cannot be read", order->name));
      model::money price_per_gib;
      if (auto why = objection(*order, *world, price_per_gib)) return say(outcome::refused, *why);
      auto placed = place(r, *order, price_per_gib, world->now);
      if (!placed) return say(outcome::unknown, placed.err().message);
    } else if (there->contract.order.host != order->host ||
               there->contract.order.size != order->size) {
      return say(outcome::refused,
                 fmt::format("{} is reserved already, on host {} with {}", order->name,
                             there->contract.order.host, format_bytes(there->contract.size)));
    }
  }
  return finish(*order, true);
}

answer local_provider::resolve(const request& r) {
  if (read_only()) return say(outcome::unknown, only_looking);
  auto order = ours(r);
  if (!order) return say(outcome::unknown, order.err().message);
  {
    auto world = take_look(false);
    if (!world) return say(outcome::unknown, world.err().message);
    auto contract = read_reservation(grid_.node(order->name));
    if (!contract) {
      if (contract.err().code != errc::not_found)
        return say(outcome::unknown, contract.err().message);
      std::error_code failed;
      if (std::filesystem::exists(grid_.node(order->name).directory, failed) || failed)
        return say(outcome::unknown,
                   fmt::format("the reservation {} is there and cannot be read", order->name));
      // Under the grid's lock: nobody is about to make it. What a cut submit prepared goes.
      auto swept = remove_tree(grid_.fresh(order->name));
      if (!swept) return say(outcome::unknown, swept.err().message);
      return say(outcome::absent, fmt::format("there is no reservation {}", order->name));
    }
    if (contract->order.host != order->host)
      return say(outcome::absent, fmt::format("{} is reserved on host {} by another request",
                                              order->name, contract->order.host));
  }
  return finish(*order, false);
}

answer local_provider::made(const reservation& contract, std::string detail,
                            model::endpoint where) const {
  if (!where.valid()) where = {"127.0.0.1", contract.port, contract.order.name};
  return {outcome::done, std::move(detail), std::move(where),
          monthly_price(contract.price_per_gib_month, contract.size)};
}

/// From a reservation that stands to a node that answers. `roll_back`: a server that cannot be
/// started ends the reservation.
answer local_provider::finish(const order_document& order, bool roll_back) {
  auto node = grid_.node(order.name);
  auto remove_as = [&](outcome what, const std::string& why) {
    auto removed = remove(order.name);
    return removed ? say(what, why)
                   : say(outcome::unknown, fmt::format("{}; {}", why, removed.err().message));
  };
  auto lock = lock_node(node.directory, node_lock_deadline);
  if (!lock) return say(outcome::unknown, lock.err().message);
  auto contract = read_reservation(node);
  if (!contract) return say(outcome::unknown, contract.err().message);
  auto found = inspect_node(grid_, order.name);
  if (found.what == inspection::state::gone) {
    if (contract->made) return made(*contract, found.reason, {});
    return remove_as(outcome::absent, fmt::format("it was half made, then {}", found.reason));
  }
  if (found.what == inspection::state::unknown && found.reason != "Starting")
    return say(outcome::unknown, found.detail);
  if (contract->made && found.what == inspection::state::running)
    return made(*contract, {}, found.where);
  if (contract->made) {
    auto where = start_made(node, *contract);
    return where ? made(*contract, {}, *where) : made(*contract, where.err().message, {});
  }
  auto where =
      start_node(options_.program, node, order.name, options_.start_deadline, options_.after_step);
  if (!where) {
    auto hopeless =
        where.err().code == errc::refused || where.err().sys == ENOENT || where.err().sys == EACCES;
    if (roll_back && hopeless) return remove_as(outcome::refused, where.err().message);
    return say(outcome::pending, where.err().message);
  }
  auto done = provision(*where, *contract);
  if (!done) {
    auto foreign = done.err().code == errc::access_denied;
    return say(foreign ? outcome::unknown : outcome::pending, done.err().message);
  }
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
  return zdb::blocking_client::connect(stream_address(where), std::move(options),
                                       limits::node_connect_deadline);
}

/// The namespace as it should be, whatever of it is there. A namespace with another password or
/// with entries and no password is not ours: access_denied.
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
    auto opened = zdb::blocking_client::connect(stream_address(where), std::move(options),
                                                limits::node_connect_deadline);
    if (!opened) return std::move(opened).err();
  } else if (there->entries > 0) {
    return error{errc::access_denied,
                 fmt::format("namespace {} has entries and no password: it is not ours", ns)};
  }
  QS_TRY(client->nsset(ns, "password", password));
  step("password");
  QS_TRY(client->nsset(ns, "public", "0"));
  step("private");
  QS_TRY(client->nsset(ns, "maxsize", std::to_string(contract.size)));
  step("maxsize");
  return {};
}

// -- ending ---------------------------------------------------------------------------------------

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
  if (read_only()) return say(outcome::refused, only_looking);
  auto order = ours(r);
  if (!order) return say(outcome::refused, order.err().message);
  // Whoever starts or resizes it right now ends first, so that no server is born into a directory
  // that is being deleted.
  auto lock = lock_node(grid_.node(order->name).directory, node_lock_deadline);
  if (!lock && lock.err().code != errc::not_found) return say(outcome::unknown, lock.err().message);
  auto removed = remove(order->name);
  if (!removed) return say(outcome::unknown, removed.err().message);
  if (*removed) return say(outcome::done, "");
  return say(outcome::absent, fmt::format("there is no reservation {}", order->name));
}

} // namespace qs::grid
