#include "actors/assemble.hpp"

#include <fmt/format.h>
#include <sodium.h>

#include "codec/seal.hpp"
#include "grid/identity.hpp"
#include "grid/local_provider.hpp"

namespace qs::actors {

std::string wallet_public_id(const root_secret& root) {
  auto seed = codec::wallet_key(root);
  std::array<std::byte, crypto_sign_PUBLICKEYBYTES> public_key{};
  secret<crypto_sign_SECRETKEYBYTES> secret_key;
  crypto_sign_seed_keypair(uchars(mutable_byte_span{public_key}), uchars(secret_key.bytes()),
                           uchars(seed.bytes()));
  return to_hex(byte_span{public_key}.first(8));
}

status phrase_fits(const std::string& noted, const std::string& id,
                   const std::filesystem::path& state_directory) {
  if (noted == id) return {};
  return error{
      errc::refused,
      fmt::format(
          "the 24 words do not belong to this volume's recorded state in {}; nothing was changed. "
          "Use the words the volume was made with (QS_PHRASE_FILE), or another --state-dir",
          state_directory.string())};
}

model::recorded with_first_lineage(model::recorded recorded, const std::string& volume_id) {
  if (recorded.serial == 0) recorded.lineage = volume_id;
  return recorded;
}

void note_failures(model::observed& world, const model::recorded& recorded) {
  world.failed_hosts = recorded.refused_hosts;
  for (const auto& r : recorded.nodes) {
    auto over = r.state == model::node_state::replaced || r.state == model::node_state::gone;
    if (!over || !r.replaced_by) continue;
    if (r.reason.starts_with(replaced_unreachable) && world.at - r.since < std::chrono::hours{24})
      ++world.unreachable_replaced_today;
    // Moved or drained by a person's word: its host did not fail. That of one that a person gave up ("Abandoned" behind the
    // reason) did: it never answered again.
    if (r.reason != "Moved" && !r.reason.ends_with("Asked"))
      if (auto& last = world.failed_hosts[{r.provider, r.host}]; last < r.since) last = r.since;
  }
}

std::string state_is_missing(const std::filesystem::path& state_directory) {
  return fmt::format("its recorded state (state.db) is missing in {}. Put back a copy of that "
                     "directory, or choose another name for a new volume; nothing was changed",
                     state_directory.string());
}

result<world_ptr> assemble_world(const engine_options& options, bool read_only) {
  auto w =
      std::make_shared<world>(options, codec::volume_keys::derive(options.root, options.volume));
  grid::local_options local{.directory = options.grid_directory,
                            .keys = w->keys,
                            .wallet = wallet_public_id(options.root),
                            .after_step = {}};
  local.program = options.program;
  local.read_only = read_only;
  w->providers.offer("local", [local]() -> result<std::shared_ptr<grid::provider>> {
    QS_TRY_ASSIGN(auto made, grid::make_local(local));
    return std::shared_ptr<grid::provider>{std::move(made)};
  });
  grid::hosts_options hosts{.keys = w->keys, .machines = {}, .after_step = {}};
  hosts.read_only = read_only;
  w->hosts = grid::make_hosts(std::move(hosts));
  w->providers.offer("hosts", [made = w->hosts]() -> result<std::shared_ptr<grid::provider>> {
    return std::shared_ptr<grid::provider>{made};
  });
  w->write_identity = [raw = w.get()](const model::recorded_node& row) -> status {
    return grid::write_identity(
        row.where, raw->keys.node_password(raw->keys.node_name(row.id, row.incarnation)),
        raw->keys.identity_name(row.id, row.incarnation), row.identity,
        limits::node_request_deadline, raw->may_send_plain(row));
  };
  return w;
}

} // namespace qs::actors
