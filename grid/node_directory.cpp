#include "grid/node_directory.hpp"

#include <algorithm>
#include <cerrno>
#include <fcntl.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/log.hpp"
#include "grid/catalogue.hpp"

namespace qs::grid {
namespace {

using nlohmann::json;

constexpr int order_version = 1;
constexpr int reservation_version = 1;
constexpr std::size_t document_max = 64 * kib;

std::int64_t millis(wall_time t) { return t.time_since_epoch().count(); }
wall_time from_millis(std::int64_t ms) { return wall_time{std::chrono::milliseconds{ms}}; }

bool valid_name(std::string_view name) {
  return name.size() == 18 && name.starts_with("qs") &&
         std::all_of(name.begin() + 2, name.end(),
                     [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

} // namespace

result<file_lock> file_lock::take(const std::filesystem::path& file,
                                  std::chrono::milliseconds deadline) {
  auto fd = open_file(file, O_RDWR | O_CREAT, 0600);
  if (!fd) {
    if (fd.err().sys == ENOENT)
      return error{errc::not_found, fmt::format("{} is not there", file.string()), ENOENT};
    return std::move(fd).err();
  }
  auto until = system_clock().boot() + deadline;
  for (;;) {
    if (::flock(fd->get(), LOCK_EX | LOCK_NB) == 0) return file_lock{std::move(*fd)};
    if (errno != EWOULDBLOCK && errno != EINTR)
      return errno_error(fmt::format("lock {}", file.string()), errno);
    if (system_clock().boot() >= until)
      return error{errc::busy,
                   fmt::format("{} is held by another program; try again", file.string())};
    ::poll(nullptr, 0, 3); // flock has no deadline of its own
  }
}

result<file_lock> lock_node(const std::filesystem::path& directory,
                            std::chrono::milliseconds deadline) {
  node_paths paths{directory};
  auto gone = [&] {
    return error{errc::not_found, fmt::format("there is no node in {}", directory.string()),
                 ENOENT};
  };
  QS_TRY_ASSIGN(auto lock, file_lock::take(paths.op_lock(), deadline));
  // While we waited the node may have been cancelled: then we hold a lock in a directory that was
  // renamed.
  struct ::stat held {};
  struct ::stat there {};
  if (::fstat(lock.fd_.get(), &held) != 0 || ::stat(paths.op_lock().c_str(), &there) != 0)
    return gone();
  if (held.st_ino != there.st_ino || held.st_dev != there.st_dev) return gone();
  return lock;
}

request encode_order(const order_document& order) {
  json out{{"version", order_version},
           {"provider", "local"},
           {"name", order.name},
           {"volume", order.tag},
           {"node", model::to_string(order.node)},
           {"incarnation", order.incarnation},
           {"host", order.host},
           {"size", order.size},
           {"price_limit", model::to_decimal(order.price_limit)}};
  return out.dump();
}

result<order_document> decode_order(const request& text) {
  auto wrong = [](std::string_view why) {
    return error{errc::invalid_argument, fmt::format("not a request of the local grid: {}", why)};
  };
  try {
    auto in = json::parse(text);
    if (in.at("version") != order_version)
      return error{errc::version_mismatch,
                   "this request for the local grid was made by a newer version"};
    if (in.at("provider") != "local") return wrong("another provider's");
    order_document out;
    out.name = in.at("name").get<std::string>();
    out.tag = in.at("volume").get<std::string>();
    auto node = model::parse_node_id(in.at("node").get<std::string>());
    out.incarnation = in.at("incarnation").get<std::uint32_t>();
    out.host = in.at("host").get<std::string>();
    out.size = in.at("size").get<byte_count>();
    QS_TRY_ASSIGN(out.price_limit, model::parse_money(in.at("price_limit").get<std::string>()));
    if (!node || !node->valid()) return wrong("no node id");
    out.node = *node;
    if (!valid_name(out.name)) return wrong("no valid name"); // it becomes a path
    return out;
  } catch (const json::exception& e) {
    return wrong(e.what());
  }
}

status write_reservation(const node_paths& node, const reservation& r) {
  json out{{"version", reservation_version},
           {"request", json::parse(r.asked, nullptr, false)},
           {"size", r.size},
           {"wallet", r.wallet},
           {"price_per_gib_month", model::to_decimal(r.price_per_gib_month)},
           {"since", to_rfc3339(r.since)},
           {"since_ms", millis(r.since)},
           {"rate_since_ms", millis(r.rate_since)},
           {"marker", r.marker},
           {"made", r.made},
           {"port", r.port}};
  return write_file_atomic(node.reservation(), as_bytes(out.dump(2) + "\n"), 0600);
}

result<reservation> read_reservation(const node_paths& node) {
  auto text = read_file(node.reservation(), document_max);
  if (!text) {
    if (text.err().sys == ENOENT || text.err().sys == ENOTDIR)
      return error{errc::not_found, fmt::format("no reservation in {}", node.directory.string()),
                   ENOENT};
    return std::move(text).err();
  }
  auto wrong = [&](std::string_view why) {
    return error{errc::corrupt, fmt::format("{}: {}", node.reservation().string(), why)};
  };
  try {
    auto in = json::parse(*text);
    if (in.at("version") != reservation_version) return wrong("made by a newer version");
    reservation r;
    r.asked = in.at("request").dump();
    auto order = decode_order(r.asked);
    if (!order) return wrong(order.err().message);
    r.order = std::move(*order);
    r.size = in.at("size").get<byte_count>();
    r.wallet = in.at("wallet").get<std::string>();
    auto price = model::parse_money(in.at("price_per_gib_month").get<std::string>());
    if (!price) return wrong(price.err().message);
    r.price_per_gib_month = *price;
    r.since = from_millis(in.at("since_ms").get<std::int64_t>());
    r.rate_since = from_millis(in.at("rate_since_ms").get<std::int64_t>());
    r.marker = in.at("marker").get<std::string>();
    r.made = in.at("made").get<bool>();
    r.port = in.at("port").get<std::uint16_t>();
    return r;
  } catch (const json::exception& e) {
    return wrong(e.what());
  }
}

status write_tombstone(const node_paths& node, const tombstone& t) {
  json out{{"at", to_rfc3339(t.at)}, {"at_ms", millis(t.at)}, {"reason", t.reason}};
  return write_file_atomic(node.tombstone(), as_bytes(out.dump() + "\n"), 0600);
}

result<std::optional<tombstone>> read_tombstone(const node_paths& node) {
  auto text = read_file(node.tombstone(), document_max);
  if (!text) {
    if (text.err().sys == ENOENT || text.err().sys == ENOTDIR) return std::optional<tombstone>{};
    return std::move(text).err();
  }
  try {
    auto in = json::parse(*text);
    return std::optional<tombstone>{
        {from_millis(in.at("at_ms").get<std::int64_t>()), in.at("reason").get<std::string>()}};
  } catch (const json::exception& e) {
    return error{errc::corrupt, fmt::format("{}: {}", node.tombstone().string(), e.what())};
  }
}

data_state look_at_data(const node_paths& node, const reservation& r) {
  auto marker = read_file(node.marker(), 4096);
  if (marker) return *marker == r.marker + "\n" ? data_state::whole : data_state::foreign;
  auto sys = marker.err().sys;
  return sys == ENOENT || sys == ENOTDIR ? data_state::gone : data_state::unknown;
}

result<std::vector<placed_node>> list_reservations(const grid_paths& grid) {
  std::vector<placed_node> out;
  std::error_code failed;
  for (std::filesystem::directory_iterator it{grid.nodes(), failed}, end; !failed && it != end;
       it.increment(failed)) {
    auto name = it->path().filename().string();
    if (!valid_name(name)) continue;
    placed_node node{{it->path()}, {}, {}};
    auto contract = read_reservation(node.paths);
    if (!contract) {
      if (contract.err().code != errc::not_found)
        log::warning("grid", "{}", contract.err().message);
      continue;
    }
    node.contract = std::move(*contract);
    auto dead = read_tombstone(node.paths);
    if (dead)
      node.dead = *dead;
    else
      log::warning("grid", "{}", dead.err().message);
    out.push_back(std::move(node));
  }
  // Missing is an error: an unmounted disk must not read as a grid without nodes.
  if (failed) return errno_error(fmt::format("list {}", grid.nodes().string()), failed.value());
  return out;
}

std::vector<charged_node> charged_nodes(const std::vector<placed_node>& all,
                                        const std::string& wallet) {
  std::vector<charged_node> out;
  for (const auto& node : all) {
    const auto& c = node.contract;
    if (c.wallet != wallet) continue;
    out.push_back({c.order.name, monthly_price(c.price_per_gib_month, c.size), c.rate_since,
                   node.dead ? node.dead->at : wall_time{}});
  }
  return out;
}

result<std::vector<model::host>>
hosts_with_free(const grid_paths& grid, const std::vector<placed_node>& all, bool make_catalogue) {
  auto hosts = load_catalogue(grid.root, make_catalogue);
  if (!hosts) return hosts;
  for (auto& host : *hosts)
    for (const auto& node : all)
      if (node.contract.order.host == host.id) host.free -= std::min(host.free, node.contract.size);
  return hosts;
}

status remove_tree(const std::filesystem::path& path) {
  std::error_code failed;
  std::filesystem::remove_all(path, failed);
  if (failed) return errno_error(fmt::format("delete {}", path.string()), failed.value());
  return {};
}

} // namespace qs::grid
