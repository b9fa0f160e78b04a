// qs grid and qs zdb: the local grid's hosts and processes, and the server itself. No engine is
// needed.
#include <iostream>
#include <span>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "cli/commands.hpp"
#include "cli/exit_codes.hpp"
#include "cli/phrase_file.hpp"
#include "cli/table.hpp"
#include "cli/volume_choice.hpp"
#include "codec/keys.hpp"
#include "grid/local_grid.hpp"
#include "zdb/server.hpp"

namespace qs::cli {
namespace {

using nlohmann::json;

struct opened {
  std::optional<grid::local_grid> grid;
  std::string tag; ///< of the volume that is meant; "" = any
  int exit = 0;
};

/// The volume's tag follows from its words; without a volume or words every volume is meant.
std::string tag_of(const common_flags& o) {
  auto chosen = choose_volume(o, need::name);
  if (!chosen.ok()) return {};
  auto root = read_phrase(chosen->around, chosen->name);
  if (!root.ok()) return {};
  return grid::local_volume_tag(codec::volume_keys::derive(*root, chosen->name).id());
}

opened open_grid(const common_flags& o, terminal& t, bool for_volume) {
  opened out;
  auto around = look_around(o.state_dir);
  if (!around.ok()) {
    out.exit = t.fail(around.err());
    return out;
  }
  if (for_volume) {
    // A volume that was named must be found: what is meant for one must not hit all.
    out.tag = tag_of(o);
    if (out.tag.empty() && (!o.volume.empty() || !o.file.empty())) {
      auto chosen = choose_volume(o, need::name);
      auto why = chosen.ok() ? describe(read_phrase(chosen->around, chosen->name).err())
                             : describe(chosen.err());
      out.exit = t.fail(exit_failed, why);
      return out;
    }
  }
  auto grid = grid::local_grid::open(around->grid_dir, this_program());
  if (!grid.ok()) {
    out.exit = t.fail(grid.err());
    return out;
  }
  out.grid.emplace(std::move(*grid));
  return out;
}

std::string state_text(const grid::local_node& n) {
  switch (n.what) {
  case grid::inspection::state::running:
    return "running";
  case grid::inspection::state::stopped:
    return "stopped";
  case grid::inspection::state::gone:
    return "gone";
  case grid::inspection::state::unknown:
    break;
  }
  return "unknown";
}

json node_json(const grid::local_node& n) {
  return {{"id", model::to_string(n.node)},
          {"incarnation", n.incarnation},
          {"reservation", n.name},
          {"volume_tag", n.tag},
          {"host", n.host},
          {"state", state_text(n)},
          {"reason", n.reason},
          {"pid", n.pid},
          {"size", n.size},
          {"endpoint", n.where.valid() ? fmt::format("{}:{}", n.where.address, n.where.port) : ""}};
}

} // namespace

int command_grid_hosts(const grid_options& o, terminal& t) {
  auto g = open_grid(o.common, t, false);
  if (!g.grid) return g.exit;
  auto hosts = g.grid->hosts();
  if (!hosts.ok()) return t.fail(hosts.err());
  if (o.common.json) {
    auto list = json::array();
    for (const auto& h : *hosts)
      list.push_back({{"id", h.id},
                      {"farm", h.place.farm},
                      {"country", h.place.country},
                      {"region", h.place.region},
                      {"capacity", h.capacity},
                      {"free", h.free},
                      {"price_per_gib_month", model::to_decimal(h.price_per_gib_month)},
                      {"available", h.available}});
    t.print(json{{"format_version", 1}, {"hosts", list}}.dump(2) + "\n");
    return t.broken() ? exit_failed : exit_done;
  }
  table out{{{"HOST", false, false},
             {"FARM", false, true},
             {"COUNTRY", false, true},
             {"FREE", true, false},
             {"CAPACITY", true, false},
             {"PER GIB MONTH", true, false},
             {"", false, false}}};
  for (const auto& h : *hosts)
    out.row({h.id, h.place.farm, h.place.country, format_bytes(h.free), format_bytes(h.capacity),
             model::format_money(h.price_per_gib_month), h.available ? "" : "takes none"});
  t.print(out.render(80));
  return t.broken() ? exit_failed : exit_done;
}

int command_grid_nodes(const grid_options& o, terminal& t) {
  auto g = open_grid(o.common, t, true);
  if (!g.grid) return g.exit;
  auto nodes = g.grid->nodes(g.tag);
  if (!nodes.ok()) return t.fail(nodes.err());
  if (o.common.json) {
    auto list = json::array();
    for (const auto& n : *nodes) list.push_back(node_json(n));
    t.print(json{{"format_version", 1}, {"nodes", list}}.dump(2) + "\n");
    return t.broken() ? exit_failed : exit_done;
  }
  if (nodes->empty()) {
    t.print("no nodes\n");
    return exit_done;
  }
  table out{{{"NODE", false, false},
             {"VOLUME", false, false},
             {"HOST", false, true},
             {"STATE", false, false},
             {"PROCESS", true, false},
             {"SIZE", true, false},
             {"ENDPOINT", false, true}}};
  for (const auto& n : *nodes)
    out.row({model::to_string(n.node), n.tag, n.host, state_text(n),
             n.pid != 0 ? std::to_string(n.pid) : "-", format_bytes(n.size),
             n.where.valid() ? fmt::format("{}:{}", n.where.address, n.where.port) : "-"});
  t.print(out.render(80));
  return t.broken() ? exit_failed : exit_done;
}

int command_grid_kill(const grid_options& o, terminal& t) {
  auto id = model::parse_node_id(o.node);
  if (!id)
    return t.fail(
        exit_usage,
        fmt::format("'{}' is no node; they are called n1, n2, …: 'qs nodes' lists them", o.node));
  auto g = open_grid(o.common, t, true);
  if (!g.grid) return g.exit;
  auto killed = g.grid->kill(g.tag, *id, o.wipe);
  if (!killed.ok()) return t.fail(killed.err());
  if (o.common.json) {
    t.print(json{{"format_version", 1}, {"node", node_json(*killed)}, {"wiped", o.wipe}}.dump() +
            "\n");
    return exit_done;
  }
  t.print(fmt::format("{} on {} is dead{}\n", o.node, killed->host,
                      o.wipe ? ", its data deleted" : ""));
  return t.broken() ? exit_failed : exit_done;
}

int command_grid_up(const grid_options& o, terminal& t) {
  auto g = open_grid(o.common, t, true);
  if (!g.grid) return g.exit;
  auto n = g.grid->up(g.tag);
  if (!n.ok()) return t.fail(n.err());
  t.print(o.common.json ? json{{"format_version", 1}, {"started", *n}}.dump() + "\n"
                        : fmt::format("{} nodes started\n", *n));
  return exit_done;
}

int command_grid_down(const grid_options& o, terminal& t) {
  auto g = open_grid(o.common, t, true);
  if (!g.grid) return g.exit;
  auto n = g.grid->down(g.tag);
  if (!n.ok()) return t.fail(n.err());
  t.print(o.common.json
              ? json{{"format_version", 1}, {"stopped", *n}}.dump() + "\n"
              : fmt::format("{} nodes stopped; an engine that runs starts them again, unless its volume is suspended\n", *n));
  return exit_done;
}

int command_zdb(const std::vector<std::string>& arguments) {
  auto options = zdb::options_from_args(std::span{arguments});
  if (!options.ok()) {
    std::cerr << "error: " << describe(options.err()) << "\n";
    return exit_usage;
  }
  return zdb::run_server(*options);
}

} // namespace qs::cli
