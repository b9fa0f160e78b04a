#include "grid/local_grid.hpp"

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdlib>
#include <tuple>

#include <fmt/format.h>
#include <sodium.h>

#include "base/log.hpp"
#include "grid/catalogue.hpp"
#include "grid/node_control.hpp"

namespace qs::grid {
namespace {

constexpr std::chrono::milliseconds lock_deadline{10'000};
constexpr std::chrono::milliseconds stop_deadline{10'000};
constexpr std::chrono::milliseconds start_deadline{10'000};

local_node describe(const grid_paths& grid, const placed_node& node) {
  const auto& c = node.contract;
  auto look = inspect_node(grid, c.order.name);
  local_node out;
  out.name = c.order.name;
  out.tag = c.order.tag;
  out.wallet = c.wallet;
  out.node = c.order.node;
  out.incarnation = c.order.incarnation;
  out.host = c.order.host;
  out.size = c.size;
  out.price = monthly_price(c.price_per_gib_month, c.size);
  out.since = c.since;
  out.what = look.what;
  out.reason = look.reason;
  out.where = look.where;
  if (auto p = find_process(node.paths, node.paths.data(), false)) out.pid = p->pid;
  return out;
}

result<std::vector<placed_node>> of_volume(const grid_paths& grid, std::string_view tag) {
  auto all = list_reservations(grid);
  if (!all) return all;
  std::erase_if(*all, [&](const auto& n) { return !tag.empty() && n.contract.order.tag != tag; });
  std::sort(all->begin(), all->end(), [](const auto& a, const auto& b) {
    auto key = [](const placed_node& n) {
      return std::tuple{n.contract.order.tag, n.contract.order.node.number,
                        n.contract.order.incarnation};
    };
    return key(a) < key(b);
  });
  return all;
}

/// The newest incarnation of the node in the one volume that has it.
result<placed_node> find_node(const grid_paths& grid, std::string_view tag, model::node_id id) {
  QS_TRY_ASSIGN(auto all, of_volume(grid, tag));
  const placed_node* found = nullptr;
  std::vector<std::string> volumes;
  for (const auto& n : all) {
    if (n.contract.order.node != id) continue;
    found = &n;
    if (volumes.empty() || volumes.back() != n.contract.order.tag)
      volumes.push_back(n.contract.order.tag);
  }
  if (found == nullptr)
    return error{errc::not_found,
                 fmt::format("the local grid has no node {} of this volume; qs nodes lists them",
                             model::to_string(id))};
  if (volumes.size() > 1)
    return error{errc::invalid_argument,
                 fmt::format("{} volumes have a node {}; say which with --volume NAME",
                             volumes.size(), model::to_string(id))};
  return *found;
}

} // namespace

result<std::filesystem::path> local_grid_directory() {
  auto variable = [](const char* name) {
    const char* v = std::getenv(name);
    return std::filesystem::path{v == nullptr ? "" : v};
  };
  if (auto dir = variable("QS_GRID_DIR"); !dir.empty()) return dir;
  if (auto dir = variable("XDG_STATE_HOME"); dir.is_absolute()) return dir / "qs" / "grid-local";
  if (auto home = variable("HOME"); home.is_absolute())
    return home / ".local" / "state" / "qs" / "grid-local";
  return error{errc::invalid_argument,
               "no place for the local grid: set QS_GRID_DIR, XDG_STATE_HOME or HOME"};
}

std::string local_volume_tag(const model::volume_id& id) {
  buffer message = to_buffer("qs local grid 1");
  message.insert(message.end(), id.begin(), id.end());
  std::array<std::byte, crypto_generichash_BYTES> hash{};
  crypto_generichash(uchars(mutable_byte_span{hash}), hash.size(), uchars(byte_span{message}),
                     message.size(), nullptr, 0);
  return to_hex(byte_span{hash}.first(8));
}

result<local_grid> local_grid::open(const std::filesystem::path& directory,
                                    std::filesystem::path program) {
  std::error_code failed;
  auto whole = std::filesystem::weakly_canonical(directory, failed);
  if (failed || !std::filesystem::is_directory(whole / "nodes", failed))
    return error{
        errc::not_found,
        fmt::format("there is no local grid in {}; the first apply makes it", directory.string())};
  return local_grid{std::move(whole), std::move(program)};
}

result<std::vector<model::host>> local_grid::hosts() const {
  grid_paths grid{directory_};
  QS_TRY_ASSIGN(auto all, list_reservations(grid));
  return hosts_with_free(grid, all);
}

result<std::vector<local_node>> local_grid::nodes(std::string_view tag) const {
  grid_paths grid{directory_};
  QS_TRY_ASSIGN(auto all, of_volume(grid, tag));
  std::vector<local_node> out;
  out.reserve(all.size());
  for (const auto& n : all) out.push_back(describe(grid, n));
  return out;
}

result<local_node> local_grid::kill(std::string_view tag, model::node_id node, bool wipe) const {
  grid_paths grid{directory_};
  QS_TRY_ASSIGN(auto found, find_node(grid, tag, node));
  const auto& paths = found.paths;
  QS_TRY_ASSIGN(auto lock, lock_node(paths.directory, lock_deadline));
  // The tombstone first: an engine that sees the process gone must not start it again.
  QS_TRY_ASSIGN(auto dead, read_tombstone(paths));
  if (!dead) QS_TRY(write_tombstone(paths, {system_clock().wall(), "Tombstone"}));
  QS_TRY(stop_node(paths, paths.data(), SIGKILL, stop_deadline));
  if (wipe) QS_TRY(remove_tree(paths.data()));
  return describe(grid, found);
}

result<unsigned> local_grid::down(std::string_view tag) const {
  grid_paths grid{directory_};
  QS_TRY_ASSIGN(auto all, of_volume(grid, tag));
  std::vector<process> stopping;
  for (const auto& n : all)
    if (auto p = find_process(n.paths, n.paths.data(), true)) {
      QS_TRY_ASSIGN(auto lock, lock_node(n.paths.directory, lock_deadline));
      QS_TRY(signal_process(*p, SIGTERM)); // all are asked before any is waited for
      stopping.push_back(std::move(*p));
    }
  for (const auto& p : stopping) {
    auto ended = wait_ended(p, stop_deadline);
    if (!ended && ended.err().code == errc::timed_out)
      ended = end_process(p, SIGKILL, stop_deadline);
    if (!ended) return std::move(ended).err();
  }
  return static_cast<unsigned>(stopping.size());
}

result<unsigned> local_grid::up(std::string_view tag) const {
  grid_paths grid{directory_};
  QS_TRY_ASSIGN(auto all, of_volume(grid, tag));
  unsigned started = 0;
  for (const auto& n : all) {
    auto name = n.contract.order.name;
    if (inspect_node(grid, name).what != inspection::state::stopped) continue;
    auto lock = lock_node(n.paths.directory, lock_deadline);
    if (!lock && lock.err().code == errc::not_found) continue; // cancelled meanwhile
    if (!lock) return std::move(lock).err();
    if (inspect_node(grid, name).what != inspection::state::stopped) continue;
    auto where = start_node(program_, n.paths, name, start_deadline);
    if (!where)
      return std::move(where).err().with(
          fmt::format("start {}", model::to_string(n.contract.order.node)));
    ++started;
  }
  return started;
}

result<request> local_grid::request_of(const std::string& name) const {
  grid_paths grid{directory_};
  QS_TRY_ASSIGN(auto all, list_reservations(grid));
  for (const auto& n : all)
    if (n.contract.order.name == name) return n.contract.asked;
  return error{errc::not_found, fmt::format("the local grid has no reservation {}", name)};
}

} // namespace qs::grid
