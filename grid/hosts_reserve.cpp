// One namespace on one machine: made, found again, resized, deleted.
#include <algorithm>
#include <chrono>
#include <poll.h>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "grid/hosts_provider_impl.hpp"
#include "net/address.hpp"

namespace qs::grid {
namespace {

using nlohmann::json;

constexpr int order_version = 1;
constexpr byte_count size_max = 1024 * tib;
constexpr const char* only_looking = "this view of grid hosts is read-only";
/// So often, and so far apart, "no such namespace" must be said again to be believed.
constexpr int more_looks = 2;
constexpr int look_pause_ms = 60;

answer say(outcome what, std::string detail) { return {what, std::move(detail), {}, {}}; }

/// It was sent, and whether it was done nobody knows. Everything else the server said itself.
bool open_outcome(const error& e) {
  switch (e.code) {
  case errc::maybe_delivered:
  case errc::timed_out:
  case errc::unreachable:
  case errc::protocol:
  case errc::io:   // "Could not create namespace": half of it may be there
  case errc::busy: // "Try again": it is being made or deleted
    return true;
  default:
    return false;
  }
}

/// What a submit ends with that has sent nothing yet. Where the name itself is at work something of
/// it may come to be all the same.
outcome not_sent(const error& why) {
  return why.code == errc::busy ? outcome::unknown : outcome::refused;
}

} // namespace

request encode_hosts_order(const hosts_order& order) {
  json out{{"version", order_version},
           {"provider", "hosts"},
           {"name", order.name},
           {"volume", order.tag},
           {"node", model::to_string(order.node)},
           {"incarnation", order.incarnation},
           {"host", order.host},
           {"address", order.address},
           {"size", order.size}};
  return out.dump(-1, ' ', false, json::error_handler_t::replace);
}

result<hosts_order> decode_hosts_order(const request& text) {
  auto wrong = [](std::string_view why) {
    return error{errc::invalid_argument, fmt::format("not a request of grid hosts: {}", why)};
  };
  try {
    auto in = json::parse(text);
    if (in.at("version") != order_version)
      return error{errc::version_mismatch,
                   "this request for grid hosts was made by a newer version"};
    if (in.at("provider") != "hosts") return wrong("another provider's");
    hosts_order out;
    out.name = in.at("name").get<std::string>();
    out.tag = in.at("volume").get<std::string>();
    auto node = model::parse_node_id(in.at("node").get<std::string>());
    if (!node || !node->valid()) return wrong("no node id");
    out.node = *node;
    out.incarnation = in.at("incarnation").get<std::uint32_t>();
    out.host = in.at("host").get<std::string>();
    out.address = in.at("address").get<std::string>();
    out.size = in.at("size").get<byte_count>();
    return out;
  } catch (const json::exception& e) {
    return wrong(e.what());
  }
}

result<hosts_order> hosts_grid_provider::ours(const request& r) const {
  auto order = decode_hosts_order(r);
  if (!order) return order;
  if (order->tag != tag_ || order->name != options_.keys.node_name(order->node, order->incarnation))
    return error{errc::invalid_argument, fmt::format("the request for {} is another volume's",
                                                     model::to_string(order->node))};
  return order;
}

result<request> hosts_grid_provider::prepare(const node_order& order) const {
  auto wrong = [&](std::string_view why) {
    return error{errc::invalid_argument,
                 fmt::format("reserve {}: {}", model::to_string(order.node), why)};
  };
  if (!order.node.valid()) return wrong("no node id");
  if (order.size == 0 || order.size > size_max)
    return wrong("the size must be between 1 byte and 1 PiB");
  auto m = machine(order.host);
  if (!m) return wrong(fmt::format("grid hosts has no machine {}", order.host));
  return encode_hosts_order({options_.keys.node_name(order.node, order.incarnation), tag_,
                             order.node, order.incarnation, order.host, m->address, order.size});
}

// -- looking --------------------------------------------------------------------------------------

/// Where the namespace of an order can be: where the machine is said to be now, and where it was
/// when the order was sent.
std::vector<hosts_machine> hosts_grid_provider::candidates(const hosts_order& order) const {
  std::vector<hosts_machine> out;
  if (auto m = machine(order.host)) out.push_back(std::move(*m));
  if (!out.empty() && out.front().address == order.address) return out;
  auto then = out.empty() ? hosts_machine{} : out.front();
  then.name = order.host;
  then.address = order.address;
  out.push_back(std::move(then));
  return out;
}

/// `sure`: absent is believed only when it is said again. What an earlier connection of ours left
/// unread at the server is read by it before that: it serves every socket that has something
/// before it waits again, and what had not arrived there went with the connection (a client that
/// gives up resets it).
hosts_grid_provider::found hosts_grid_provider::look_for(const hosts_machine& m,
                                                         const std::string& ns, bool sure,
                                                         call_end end) const {
  found out;
  out.machine = m;
  auto client = connect_admin(m, end);
  out.admin = client.ok();
  if (!client && client.err().code == errc::access_denied) {
    out.why = client.err();
    client = connect(m, {}, end);
  }
  if (!client) {
    out.why = std::move(client).err();
    return out;
  }
  out.client = std::move(*client);
  auto info = out.client->nsinfo(ns);
  for (int look = 0; sure && look < more_looks; ++look) {
    if (info || info.err().code != errc::not_found) break;
    ::poll(nullptr, 0, look_pause_ms); // for what is still under way on the network
    info = out.client->nsinfo(ns);
  }
  auto is = [&](found::state what, error why) {
    out.what = what;
    out.why = std::move(why);
    return std::move(out);
  };
  if (!info && info.err().code == errc::not_found) {
    // A server may hide namespaces from those who cannot open them; an administrator sees all.
    if (out.admin) return is(found::state::absent, {});
    auto opened = opens(m, ns, end);
    if (opened) return is(found::state::ours, {});
    if (opened.err().code == errc::access_denied) return is(found::state::foreign, opened.err());
    return is(found::state::unknown, out.why);
  }
  if (!info) return is(found::state::unknown, info.err());
  out.info = std::move(*info);
  if (!out.info.has_password) {
    if (out.info.entries == 0) return is(found::state::half, {});
    return is(found::state::foreign,
              {errc::access_denied,
               fmt::format("namespace {} on {} has entries and no password: it is not ours", ns,
                           m.name)});
  }
  auto opened = opens(m, ns, end);
  if (opened) return is(found::state::ours, {});
  auto refused = opened.err().code == errc::access_denied;
  return is(refused ? found::state::foreign : found::state::unknown, opened.err());
}

/// The first place where it is ours; else unknown if one of them did not say; else foreign, absent.
hosts_grid_provider::found hosts_grid_provider::look_everywhere(const hosts_order& order,
                                                                bool sure,
                                                                call_end end) const {
  std::optional<found> best;
  auto rank = [](const found& f) {
    switch (f.what) {
    case found::state::ours:
      return 4;
    case found::state::half:
      return 3;
    case found::state::unknown:
      return 2;
    case found::state::foreign:
      return 1;
    case found::state::absent:
      break;
    }
    return 0;
  };
  for (const auto& m : candidates(order)) {
    auto there = look_for(m, order.name, sure, end);
    if (!best || rank(there) > rank(*best)) best = std::move(there);
    if (best->what == found::state::ours) break;
  }
  return std::move(*best);
}

// -- making ---------------------------------------------------------------------------------------

answer hosts_grid_provider::made(const hosts_order& order, const hosts_machine& m) const {
  answer out{outcome::done, {}, {}, {}};
  auto where = net::parse_address(m.address);
  if (!where) return say(outcome::unknown, where.err().message);
  out.where.address = where->host; // of a unix socket the path, which says so by its first '/'
  if (where->is_unix && !where->host.starts_with('/')) out.where.address = "unix:" + where->host;
  out.where.port = where->port;
  out.where.ns = order.name;
  return out;
}

answer hosts_grid_provider::submit(const request& r) {
  if (options_.read_only) return say(outcome::refused, only_looking);
  auto order = ours(r);
  if (!order) return say(outcome::refused, order.err().message);
  auto m = machine(order->host);
  if (!m) return say(outcome::refused, fmt::format("grid hosts has no machine {}", order->host));
  m->address = order->address; // what was written down is what is sent
  // Until NSNEW is sent nothing can come of it: what goes wrong before is a refusal.
  auto end = ends();
  auto there = look_for(*m, order->name, false, end);
  if (!there.admin) return say(not_sent(there.why), describe(there.why));
  switch (there.what) {
  case found::state::ours:
  case found::state::half:
    return finish(*order, there, false, end);
  case found::state::foreign:
    return say(outcome::refused, describe(there.why));
  case found::state::unknown:
    return say(not_sent(there.why), describe(there.why));
  case found::state::absent:
    break;
  }
  return make(*order, there, end);
}

answer hosts_grid_provider::make(const hosts_order& order, found& at, call_end end) {
  auto load = load_of(*at.client);
  if (!load) return say(not_sent(load.err()), describe(load.err()));
  if (auto free = free_on(at.machine, *load); free < order.size)
    return say(outcome::refused, fmt::format("host {} has {} free, the node needs {}", order.host,
                                             format_bytes(free), format_bytes(order.size)));
  if (std::chrono::steady_clock::now() >= end)
    return say(outcome::refused,
               fmt::format("host {} is too slow: nothing was sent in time", order.host));
  auto fresh = at.client->nsnew(order.name);
  step("namespace");
  if (!fresh && fresh.err().code != errc::already_exists)
    return say(open_outcome(fresh.err()) ? outcome::unknown : outcome::refused,
               describe(fresh.err()));
  auto info = at.client->nsinfo(order.name);
  if (!info) return say(outcome::unknown, describe(info.err()));
  at.info = std::move(*info);
  if (!fresh && (at.info.has_password || at.info.entries > 0)) // since we looked
    return say(outcome::unknown, describe(fresh.err()));
  return finish(order, at, fresh.ok(), end);
}

/// The namespace as it should be, whatever of it is there. The quota comes first, so that one with
/// our password always has one: what it is then is what resize made it. `undo`: what a server
/// refuses to finish is taken away again.
answer hosts_grid_provider::finish(const hosts_order& order, found& at, bool undo, call_end end) {
  const auto& ns = order.name;
  auto finished = [&]() -> status {
    if (at.info.mode == "sequential") {
      QS_TRY(at.client->nsset(ns, "mode", "user"));
      step("mode");
    }
    if (at.info.data_limits_bytes == 0) {
      QS_TRY(at.client->nsset(ns, "maxsize", std::to_string(order.size)));
      step("maxsize");
    }
    if (!at.info.has_password) {
      QS_TRY(at.client->nsset(ns, "password", options_.keys.node_password(ns)));
      step("password");
    }
    if (at.info.is_public || !at.info.has_password) {
      QS_TRY(at.client->nsset(ns, "public", "0"));
      step("private");
    }
    return opens(at.machine, ns, end);
  }();
  if (finished) return made(order, at.machine);
  auto why = fmt::format("finish {} on {}: {}", ns, order.host, describe(finished.err()));
  if (open_outcome(finished.err())) return say(outcome::unknown, why);
  if (!undo) return say(outcome::pending, why);
  auto undone = at.client->nsdel(ns);
  step("undone");
  return undone ? say(outcome::refused, why)
                : say(outcome::unknown, fmt::format("{}; {}", why, describe(undone.err())));
}

answer hosts_grid_provider::resolve(const request& r) {
  auto order = ours(r);
  if (!order) return say(outcome::unknown, order.err().message);
  auto end = ends();
  auto there = look_everywhere(*order, true, end);
  switch (there.what) {
  case found::state::ours:
  case found::state::half: {
    auto whole = there.what == found::state::ours && !there.info.is_public &&
                 there.info.data_limits_bytes != 0;
    // What we can open and not administer is there all the same.
    if (whole || (there.what == found::state::ours && !there.admin))
      return made(*order, there.machine);
    if (options_.read_only) return say(outcome::pending, only_looking);
    if (!there.admin) return say(outcome::pending, describe(there.why));
    return finish(*order, there, false, end);
  }
  case found::state::foreign:
    return say(outcome::absent, describe(there.why));
  case found::state::absent:
    return say(outcome::absent,
               fmt::format("there is no namespace {} on {}", order->name, order->host));
  case found::state::unknown:
    break;
  }
  return say(outcome::unknown, describe(there.why));
}

// -- what was made --------------------------------------------------------------------------------

inspection hosts_grid_provider::inspect(const request& r) {
  auto order = ours(r);
  if (!order) return {inspection::state::unknown, "Unreadable", order.err().message, {}};
  auto there = look_everywhere(*order, true, ends());
  switch (there.what) {
  case found::state::ours:
    return {inspection::state::running, there.info.locked ? "Locked" : "",
            there.info.locked ? "the namespace is locked or frozen by its administrator" : "",
            made(*order, there.machine).where};
  case found::state::half: // emptied, or made anew by somebody: nothing of ours is in it
  case found::state::absent:
    return {
        inspection::state::gone,
        "NamespaceGone",
        fmt::format("there is no namespace {} with our password on {}", order->name, order->host),
        {}};
  case found::state::foreign:
    return {inspection::state::gone, "AccessDenied", describe(there.why), {}};
  case found::state::unknown:
    break;
  }
  return {inspection::state::unknown, "Unreachable", describe(there.why), {}};
}

answer hosts_grid_provider::restart(const request& r) {
  auto order = ours(r);
  if (!order) return say(outcome::refused, order.err().message);
  return say(outcome::refused,
             fmt::format("the server on {} is not ours to start: start it there", order->host));
}

answer hosts_grid_provider::resize(const request& r, byte_count size) {
  if (options_.read_only) return say(outcome::refused, only_looking);
  auto order = ours(r);
  if (!order) return say(outcome::refused, order.err().message);
  if (size == 0 || size > size_max)
    return say(outcome::refused, "the size must be between 1 byte and 1 PiB");
  auto there = look_everywhere(*order, false, ends());
  if (there.what == found::state::absent) return say(outcome::absent, "its namespace is gone");
  if (there.what != found::state::ours) return say(outcome::unknown, describe(there.why));
  if (!there.admin) return say(outcome::unknown, describe(there.why));
  const auto& now = there.info;
  if (now.data_limits_bytes == size) return made(*order, there.machine);
  if (now.data_size_bytes > size)
    return say(outcome::refused,
               fmt::format("{} holds {}, more than {}", model::to_string(order->node),
                           format_bytes(now.data_size_bytes), format_bytes(size)));
  if (size > now.data_limits_bytes) {
    auto load = load_of(*there.client);
    if (!load) return say(outcome::unknown, describe(load.err()));
    auto more = size - now.data_limits_bytes;
    if (auto free = free_on(there.machine, *load); free < more)
      return say(outcome::refused,
                 fmt::format("host {} has {} free, {} more are needed", order->host,
                             format_bytes(free), format_bytes(more)));
  }
  auto limited = there.client->nsset(order->name, "maxsize", std::to_string(size));
  step("limited");
  if (!limited)
    return say(open_outcome(limited.err()) ? outcome::unknown : outcome::refused,
               describe(limited.err()));
  return made(*order, there.machine);
}

answer hosts_grid_provider::cancel(const request& r) {
  if (options_.read_only) return say(outcome::refused, only_looking);
  auto order = ours(r);
  if (!order) return say(outcome::refused, order.err().message);
  auto there = look_everywhere(*order, true, ends());
  switch (there.what) {
  case found::state::absent:
    return say(outcome::absent,
               fmt::format("there is no namespace {} on {}", order->name, order->host));
  case found::state::foreign: // not ours to delete, and nothing of ours is left to end
    return say(outcome::absent, describe(there.why));
  case found::state::unknown:
    return say(outcome::unknown, describe(there.why));
  case found::state::ours:
  case found::state::half:
    break;
  }
  if (!there.admin) return say(outcome::unknown, describe(there.why));
  auto deleted = there.client->nsdel(order->name);
  step("deleted");
  if (deleted) return say(outcome::done, "");
  if (deleted.err().code == errc::not_found) return say(outcome::absent, describe(deleted.err()));
  return say(outcome::unknown, describe(deleted.err()));
}

} // namespace qs::grid
