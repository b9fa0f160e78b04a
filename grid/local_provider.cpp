#include "grid/local_provider.hpp"

#include <algorithm>
#include <csignal>

#include <fmt/format.h>

#include "base/limits.hpp"
#include "base/log.hpp"
#include "grid/catalogue.hpp"
#include "grid/identity.hpp"
#include "grid/local_provider_impl.hpp"

namespace qs::grid {

// -- the world ------------------------------------------------------------------------------------

status local_provider::start() {
  if (read_only()) return {};
  QS_TRY(make_directories(grid_.nodes()));
  if (auto hosts = load_catalogue(grid_.root); !hosts) {
    // A slip in editing must not stop the engine that keeps the nodes there are; hosts() says it
    // again.
    if (hosts.err().code != errc::invalid_argument) return std::move(hosts).err();
    log::warning("grid", "{}", hosts.err().message);
  }
  QS_TRY(finish_removals(grid_, {}));
  auto world = take_look();
  if (!world) return std::move(world).err();
  return {};
}

result<local_provider::look> local_provider::take_look(bool charge) {
  std::unique_lock here{mutex_};
  if (read_only()) {
    auto there = list_reservations(grid_);
    if (!there && there.err().sys != ENOENT) return std::move(there).err();
    look out{std::move(here),
             {},
             there ? std::move(*there) : std::vector<placed_node>{},
             {},
             options_.time->wall()};
    out.paid = charged_nodes(out.all, options_.wallet);
    QS_TRY(ledger_.peek(options_.wallet));
    return out;
  }
  QS_TRY_ASSIGN(auto lock, file_lock::take(grid_.lock(), node_lock_deadline));
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
    return error{errc::invalid_argument,
                 fmt::format("reserve {}: {}", model::to_string(order.node), why)};
  };
  if (!order.node.valid()) return wrong("no node id");
  if (order.host.empty()) return wrong("no host");
  if (order.size == 0 || order.size > node_size_max)
    return wrong("the size must be between 1 byte and 1 PiB");
  if (order.price_limit.units < 0) return wrong("a negative price limit");
  return encode_order({options_.keys.node_name(order.node, order.incarnation), tag_, order.node,
                       order.incarnation, order.host, order.size, order.price_limit});
}

result<std::vector<model::host>> local_provider::hosts() {
  QS_TRY_ASSIGN(auto world, take_look());
  return hosts_with_free(grid_, world.all, !read_only());
}

result<model::money> local_provider::price(const std::string& host, byte_count size) {
  QS_TRY_ASSIGN(auto hosts, load_catalogue(grid_.root, !read_only()));
  for (const auto& h : hosts)
    if (h.id == host) return monthly_price(h.price_per_gib_month, size);
  return error{errc::not_found, fmt::format("the local grid has no host {}", host)};
}

result<std::vector<model::stray_node>> local_provider::list_ours() {
  QS_TRY_ASSIGN(auto world, take_look());
  std::vector<model::stray_node> out;
  for (const auto& n : world.all)
    if (n.contract.order.tag == tag_)
      out.push_back({name(), n.contract.order.name, n.contract.order.host, n.contract.size});
  return out;
}

inspection local_provider::inspect(const request& r) {
  auto order = ours(r);
  if (!order) return {inspection::state::unknown, "Unreadable", order.err().message, {}};
  return inspect_node(grid_, order->name);
}

// -- a node that was made -------------------------------------------------------------------------

/// Starts a stopped node and makes sure that its namespace is still in it.
result<model::endpoint> local_provider::start_made(const node_paths& node,
                                                   const reservation& contract) {
  const auto& ns = contract.order.name;
  QS_TRY_ASSIGN(auto where, start_node(options_.program, node, ns, options_.start_deadline,
                                       options_.after_step));
  QS_TRY_ASSIGN(auto client, admin(where, ns));
  auto there = client->nsinfo(ns);
  if (!there && there.err().code == errc::not_found) {
    // Emptied behind our back. An empty node that answers must not be taken for a healthy one.
    QS_TRY(write_tombstone(node, {options_.time->wall(), "DataGone"}));
    QS_TRY(stop_node(node, node.data(), SIGKILL, std::chrono::milliseconds{5000}));
    return error{errc::data_lost,
                 fmt::format("the namespace of {} is gone from {}", ns, node.data().string())};
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
  if (read_only()) return say(outcome::refused, only_looking);
  auto order = ours(r);
  if (!order) return say(outcome::refused, order.err().message);
  auto node = grid_.node(order->name);
  auto lock = lock_node(node.directory, node_lock_deadline);
  if (!lock && lock.err().code == errc::not_found) return say(outcome::absent, lock.err().message);
  if (!lock) return say(outcome::unknown, lock.err().message);
  auto found = inspect_node(grid_, order->name);
  if (found.what == inspection::state::gone)
    return say(found.reason == "ReservationGone" ? outcome::absent : outcome::refused,
               found.reason);
  auto contract = read_reservation(node);
  if (!contract) return say(outcome::unknown, contract.err().message);
  if (!contract->made) return say(outcome::pending, "half made: resolve() finishes it");
  if (found.what == inspection::state::running) return made(*contract, found.detail, found.where);
  if (found.what == inspection::state::unknown && found.reason != "Starting")
    return say(outcome::unknown, found.detail);
  auto where = start_made(node, *contract);
  if (where) return made(*contract, {}, *where);
  auto lost = where.err().code == errc::data_lost || where.err().code == errc::refused;
  return say(lost ? outcome::refused : outcome::pending, where.err().message);
}

answer local_provider::resize(const request& r, byte_count size) {
  if (read_only()) return say(outcome::refused, only_looking);
  auto order = ours(r);
  if (!order) return say(outcome::refused, order.err().message);
  if (size == 0 || size > node_size_max)
    return say(outcome::refused, "the size must be between 1 byte and 1 PiB");
  auto node = grid_.node(order->name);
  auto lock = lock_node(node.directory, node_lock_deadline);
  if (!lock && lock.err().code == errc::not_found) return say(outcome::absent, lock.err().message);
  if (!lock) return say(outcome::unknown, lock.err().message);
  auto contract = read_reservation(node);
  if (!contract) return say(outcome::unknown, contract.err().message);
  if (!contract->made) return say(outcome::pending, "half made: resolve() finishes it");
  auto found = inspect_node(grid_, order->name);
  if (found.what == inspection::state::gone) return say(outcome::refused, found.reason);
  // First the server, so that nothing is recorded that it would not do.
  auto runs = found.what == inspection::state::running;
  auto where = runs ? result<model::endpoint>{found.where} : start_made(node, *contract);
  if (!where) return say(outcome::pending, where.err().message);
  auto client = admin(*where, order->name);
  if (!client) return say(outcome::pending, client.err().message);
  auto info = (*client)->nsinfo(order->name);
  if (!info) return say(outcome::pending, info.err().message);
  if (info->data_size_bytes > size)
    return say(outcome::refused,
               fmt::format("{} holds {}, more than {}", model::to_string(order->node),
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
        return say(outcome::refused,
                   fmt::format("host {} has {} free, {} more are needed", order->host,
                               format_bytes(free), format_bytes(size - contract->size)));
      auto left = ledger_.balance(options_.wallet, world->paid, world->now);
      if (left.units <= 0 && contract->price_per_gib_month.units > 0)
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

// -- the wallet -----------------------------------------------------------------------------------

result<model::wallet_view> local_provider::wallet() {
  QS_TRY_ASSIGN(auto world, take_look());
  model::wallet_view out{true, ledger_.balance(options_.wallet, world.paid, world.now), {}};
  for (const auto& n : world.paid)
    if (n.until == wall_time{}) out.per_month += n.rate;
  return out;
}

result<model::money> local_provider::top_up(model::money amount) {
  if (read_only()) return error{errc::refused, only_looking};
  QS_TRY_ASSIGN(auto world, take_look());
  QS_TRY(ledger_.settle(options_.wallet, world.paid, world.now));
  QS_TRY(ledger_.credit(options_.wallet, amount, "topup", world.now));
  return ledger_.balance(options_.wallet, world.paid, world.now);
}

result<std::vector<ledger_entry>> local_provider::ledger(std::size_t most) {
  QS_TRY_ASSIGN(auto world, take_look());
  return ledger_.newest(options_.wallet, most);
}

namespace {

bool valid_wallet(std::string_view id) {
  return !id.empty() && id.size() <= 64 && std::all_of(id.begin(), id.end(), [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || c == '-';
  });
}

} // namespace

result<std::unique_ptr<provider>> make_local(local_options options) {
  if (!valid_wallet(options.wallet))
    return error{errc::invalid_argument,
                 fmt::format("'{}' is no wallet id: a-z 0-9 - and at most 64", options.wallet)};
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
