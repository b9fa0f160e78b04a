// The jobs that carry the volume's callbacks, and the port that makes them.
#include <cstdint>

#include <caf/all.hpp>

#include "actors/dispersal.hpp"

namespace qs::actors {

namespace {
error gone() { return {errc::cancelled, "the data path is stopping"}; }
} // namespace

volume::shard_outcome outcome_of(const error& e) noexcept {
  switch (e.code) {
  case errc::unreachable:
  case errc::busy:
    return volume::shard_outcome::unreachable;
  case errc::maybe_delivered:
  case errc::timed_out:
  case errc::cancelled:
    return volume::shard_outcome::unknown;
  case errc::no_space:
    return volume::shard_outcome::full;
  default:
    return volume::shard_outcome::refused;
  }
}

// -- jobs
// ---------------------------------------------------------------------------------------------

store_job::store_job(volume::store_request r, volume::store_progress p)
    : request{std::move(r)}, progress{std::move(p)}, stages(request.shards.size(), stage::waiting) {
}

store_job::~store_job() {
  for (std::size_t i = 0; i < stages.size(); ++i) {
    switch (stages[i]) {
    case stage::waiting:
      tell(i, volume::shard_outcome::unreachable);
      break;
    case stage::sent:
      tell(i, volume::shard_outcome::unknown);
      break;
    case stage::acknowledged:
      tell(i, volume::shard_outcome::unconfirmed);
      break;
    case stage::told:
      break;
    }
  }
}

void store_job::tell(std::size_t shard, volume::shard_outcome outcome) {
  auto& s = stages[shard];
  QS_ASSERT(s != stage::told);
  s = outcome == volume::shard_outcome::acknowledged ? stage::acknowledged : stage::told;
  auto& what = request.shards[shard];
  what.value.reset(); // retries are the volume's: it has the bytes
  progress(what.index, what.node, outcome);
}

fetch_job::fetch_job(volume::fetch_request r, volume::fetch_done d)
    : request{std::move(r)}, done{std::move(d)} {}
fetch_job::~fetch_job() { answer(gone()); }
void fetch_job::answer(result<std::vector<volume::fetched_shard>> r) {
  if (auto d = std::exchange(done, nullptr)) d(std::move(r));
}

remove_job::remove_job(model::node_id n, object_names_ptr o, std::function<void(status)> d)
    : node{n}, names{std::move(o)}, done{std::move(d)} {}
remove_job::~remove_job() { answer(gone()); }
void remove_job::answer(status s) {
  if (auto d = std::exchange(done, nullptr)) d(std::move(s));
}

check_job::check_job(model::node_id n, model::object_name o, std::function<void(result<bool>)> d)
    : node{n}, name{o}, done{std::move(d)} {}
check_job::~check_job() { answer(gone()); }
void check_job::answer(result<bool> r) {
  if (auto d = std::exchange(done, nullptr)) d(std::move(r));
}

// -- the port
// -----------------------------------------------------------------------------------------

dispersal_port::dispersal_port(dispersal_actor target) : target_{std::move(target)} {}
dispersal_port::~dispersal_port() = default;

void dispersal_port::store(volume::store_request request, volume::store_progress progress) {
  caf::anon_send(target_, store_atom_v,
                 std::make_shared<store_job>(std::move(request), std::move(progress)));
}

void dispersal_port::fetch(volume::fetch_request request, volume::fetch_done done) {
  caf::anon_send(target_, fetch_atom_v,
                 std::make_shared<fetch_job>(std::move(request), std::move(done)));
}

void dispersal_port::hurry(model::segment_ref segment, std::uint8_t wanted) {
  caf::anon_send(target_, hurry_atom_v, segment.epoch, segment.counter, wanted);
}

void dispersal_port::remove(model::node_id node, std::vector<model::object_name> names,
                            std::function<void(status)> done) {
  auto shared = std::make_shared<const object_names>(std::move(names));
  caf::anon_send(target_, remove_atom_v,
                 std::make_shared<remove_job>(node, std::move(shared), std::move(done)));
}

void dispersal_port::check(model::node_id node, model::object_name name,
                           std::function<void(result<bool>)> done) {
  caf::anon_send(target_, check_atom_v, std::make_shared<check_job>(node, name, std::move(done)));
}

} // namespace qs::actors
