// What can be said of a volume while no engine runs: the recorded state read-only, nodes probed
// with a deadline.
#include <algorithm>
#include <future>
#include <thread>

#include <fmt/format.h>

#include "actors/assemble.hpp"
#include "actors/engine.hpp"
#include "actors/plan_view.hpp"
#include "actors/references.hpp"
#include "actors/status_view.hpp"
#include "grid/identity.hpp"
#include "spec/load.hpp"

namespace qs::actors {
namespace {

model::observed_node probe(world& w, const model::recorded_node& row,
                           std::chrono::milliseconds deadline) {
  model::observed_node seen;
  seen.id = row.id;
  auto how = grid::check_identity(
      row.where, w.keys.node_password(w.keys.node_name(row.id, row.incarnation)),
      w.keys.identity_name(row.id, row.incarnation), row.identity, deadline,
      w.may_send_plain(row));
  if (how.ok()) {
    seen.state = model::reach::answers;
    return seen;
  }
  seen.detail = describe(how.err());
  switch (how.err().code) {
  case errc::data_lost:
    seen.state = model::reach::data_lost;
    break;
  case errc::access_denied:
    seen.state = model::reach::access_denied;
    break;
  default:
    seen.state = model::reach::silent;
    break;
  }
  return seen;
}

/// All nodes at once, so that the look is bounded by the deadline and not by their number.
std::vector<model::observed_node> probe_all(world& w, const model::recorded& recorded,
                                            std::chrono::milliseconds deadline) {
  std::vector<std::future<model::observed_node>> running;
  for (const auto& row : recorded.nodes) {
    if (row.state == model::node_state::gone || !row.where.valid()) continue;
    running.push_back(
        std::async(std::launch::async, [&w, row, deadline] { return probe(w, row, deadline); }));
  }
  std::vector<model::observed_node> out;
  out.reserve(running.size());
  for (auto& r : running) out.push_back(r.get());
  return out;
}

struct look {
  model::recorded recorded;
  model::observed world;
  std::string trouble; ///< why a grid said nothing
};

/// What is recorded, if the phrase fits it; an empty record when there is none.
result<model::recorded> recorded_of(const engine_options& options) {
  auto file = options.state_directory / "state.db";
  auto id = to_hex(codec::volume_keys::derive(options.root, options.volume).id());
  auto read = state::read_recorded(file);
  if (!read.ok() && read.err().code != errc::not_found) return read;
  auto recorded = read.ok() ? std::move(*read) : model::recorded{};
  if (read.ok()) {
    QS_TRY_ASSIGN(auto known, state::read_note(file, volume_id_note));
    if (known) QS_TRY(phrase_fits(*known, id, options.state_directory));
  }
  return with_first_lineage(std::move(recorded), id);
}

/// `desired`: whose grids are asked; null: those of the recorded nodes.
result<look> look_around(const engine_options& options, bool probing,
                         const spec::storage_spec* desired, std::chrono::milliseconds deadline) {
  QS_TRY_ASSIGN(auto recorded, recorded_of(options));
  look out;
  out.recorded = std::move(recorded);
  out.world.at = system_clock().wall();
  note_failures(out.world, out.recorded);
  if (!probing) return out;
  QS_TRY_ASSIGN(auto w, assemble_world(options, true));
  auto former = state::read_note(options.state_directory / "state.db", machines_note);
  auto machines = open_machines(w->keys, former && *former ? **former : std::string{});
  w->hosts->configure(
      with_former(desired != nullptr ? machines_of(*desired) : decltype(machines){}, machines));
  auto nodes = std::async(std::launch::async,
                          [&] { return probe_all(*w, out.recorded, deadline); });
  auto seen = look_for_plan(w->providers, w->keys, desired, machines, out.recorded, deadline,
                            3 * deadline);
  out.world.hosts = std::move(seen.hosts);
  out.world.hosts_known = seen.hosts_known;
  out.world.strays = std::move(seen.strays);
  out.world.strays_known = seen.strays_known;
  out.world.wallet = seen.money;
  out.trouble = std::move(seen.trouble);
  out.world.nodes = nodes.get();
  out.world.complete = true;
  const auto& summary = out.recorded.volume;
  out.world.volume.used_bytes = summary.used_bytes;
  out.world.volume.bytes_at_risk = summary.bytes_at_risk;
  out.world.volume.groups = summary.groups;
  out.world.volume.health = summary.health;
  return out;
}

std::string failed(int exit, const std::string& text) {
  return plan_document({}, {exit, {text}, {}});
}

} // namespace

std::string plan_without_engine(const offline_request& request) {
  spec::loaded parsed;
  if (!request.destroy) {
    auto references = parse_references(request.references);
    if (!references.ok()) return failed(1, describe(references.err()));
    parsed = spec::validate(request.spec_text, spec::fixed_environment{*references});
    if (!parsed.spec) return failed(1, render(parsed.problems, "storage.yaml", request.spec_text));
  }
  auto seen = look_around(request.options, request.probe, parsed.spec ? &*parsed.spec : nullptr,
                          request.deadline);
  if (!seen.ok())
    return failed(seen.err().code == errc::version_mismatch || seen.err().code == errc::refused ? 3
                                                                                                : 1,
                  describe(seen.err()));
  if (request.destroy)
    return plan_document(controller::diff_destroy(seen->recorded, seen->world), {});
  if (request.probe) {
    auto exists = existing_volume(seen->recorded, seen->world, request.options.state_directory,
                                  seen->trouble);
    if (exists.exit != 0) return plan_document({}, exists);
  }
  return plan_document(
      controller::diff(*parsed.spec, request.spec_text, seen->recorded, seen->world), {});
}

result<std::string> status_without_engine(const engine_options& options) {
  QS_TRY_ASSIGN(auto recorded, state::read_recorded(options.state_directory / "state.db"));
  status_input in;
  in.volume = options.volume;
  in.recorded = std::move(recorded);
  in.state = "Stopped";
  in.now = system_clock().wall();
  return status_json(in);
}

} // namespace qs::actors
