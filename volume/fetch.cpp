// Fetching one shard: from its node, or from any k others, decoded. One request per shard, however many wait for it.
#include <algorithm>
#include <cerrno>
#include <fmt/format.h>

#include "volume/engine.hpp"

namespace qs::volume {

void engine::get_shard(shard_key key, bool background, shard_done done) {
  bool begin = false;
  {
    std::lock_guard lock{fetch_mutex_};
    auto [it, made] = fetching_.try_emplace(key);
    it->second.waiters.push_back(std::move(done));
    if (made) {
      it->second.background = background;
      if (background && fetches_ >= fetches_max_ / 2) { // reading ahead never holds up who reads
        fetching_.erase(it);
        return;
      }
      if (fetches_ < fetches_max_) {
        ++fetches_;
        begin = true;
      } else {
        fetch_queue_.push_back(key);
      }
    }
  }
  if (begin) fetch_shard(key, background, {}, 0);
}

std::vector<shard_source> engine::sources_of(const segment_entry& e, const codec::segment_id& id, int first) const {
  std::vector<shard_source> sources;
  auto slots = table_.slots(e.group, e.group_generation);
  auto newest = table_.newest(e.group);
  if (!slots) return sources;
  auto add = [&](unsigned i, model::node_id node) {
    sources.push_back({static_cast<std::uint8_t>(i), node, ring_->volume().shard_name(id, i)});
  };
  auto rank = [&](const shard_source& s) {
    int r = static_cast<int>(s.index) == first ? 0 : 1;
    if ((e.confirmed >> s.index & 1) == 0) r += 4;
    if (!table_.reachable(s.node)) r += 8;
    if ((e.damaged >> s.index & 1) != 0) r += 16; // the very last hope: what failed may have failed here
    return r;
  };
  for (unsigned i = 0; i < slots->size(); ++i) {
    if ((e.required >> i & 1) == 0) continue;
    add(i, (*slots)[i]);
    if (newest && newest->generation != e.group_generation && i < newest->slots.size() &&
        newest->slots[i] != (*slots)[i] && (e.confirmed >> i & 1) == 0)
      add(i, newest->slots[i]);
  }
  std::stable_sort(sources.begin(), sources.end(),
                   [&](const shard_source& a, const shard_source& b) { return rank(a) < rank(b); });
  return sources;
}

void engine::fetch_shard(shard_key key, bool background, std::vector<std::pair<std::uint8_t, model::node_id>> bad,
                         unsigned attempt) {
  auto entry = table_.find(key.segment);
  auto id = segment_id_of(key.segment);
  if (!entry || !id.ok() || entry->state == segment_state::open)
    return shard_arrived(key, error{errc::not_found, "the segment " + model::to_string(key.segment) + " is not there", EIO});
  fetch_request request;
  request.segment = key.segment;
  request.sources = sources_of(*entry, *id, key.index);
  std::erase_if(request.sources, [&](const shard_source& s) {
    return std::find(bad.begin(), bad.end(), std::pair{s.index, s.node}) != bad.end();
  });
  request.wanted = key.index;
  request.needed = entry->used_shards;
  request.background = background;
  if (request.sources.empty())
    return shard_arrived(key, error{errc::not_found, "no node has shards of " + model::to_string(key.segment), EIO});
  env_.port->fetch(std::move(request), [weak = weak_from_this(), key, background, bad = std::move(bad),
                                        attempt](result<std::vector<fetched_shard>> got) mutable {
    auto e = weak.lock();
    if (!e) return;
    // Checking and decoding is work for the executor, not for who brings the bytes.
    auto shared = std::make_shared<result<std::vector<fetched_shard>>>(std::move(got));
    e->post([key, background, bad = std::move(bad), attempt, shared](engine& self) mutable {
      self.fetched(key, background, std::move(bad), attempt, std::move(*shared));
    });
  });
}

void engine::fetched(shard_key key, bool background, std::vector<std::pair<std::uint8_t, model::node_id>> bad,
                     unsigned attempt, result<std::vector<fetched_shard>> got) {
  if (!got.ok()) {
    auto e = std::move(got).err();
    auto quiet = next_read_note_.load();
    if (now() >= quiet && next_read_note_.compare_exchange_strong(quiet, now() + std::chrono::seconds{1}))
      note("warning", "ReadFailed", fmt::format("shard {} of segment {}: {}", key.index, model::to_string(key.segment), describe(e)));
    return shard_arrived(key, std::move(e));
  }
  auto id = segment_id_of(key.segment);
  auto entry = table_.find(key.segment);
  if (!id.ok() || !entry) return shard_arrived(key, error{errc::not_found, "the segment is gone", EIO});
  std::vector<codec::shard> good;
  std::size_t bad_before = bad.size();
  buffer_ptr wanted;
  for (auto& f : *got) {
    node_read_bytes_ += f.value ? f.value->size() : 0;
    if (std::any_of(good.begin(), good.end(), [&](const auto& g) { return g.header.index == f.index; })) continue;
    auto opened = f.value ? codec::open_shard(*ring_, f.value, codec::shard_check::body, codec::shard_address{*id, f.index})
                          : result<codec::shard>{error{errc::corrupt, "no value"}};
    if (!opened.ok()) { // damaged = not there: another place or another shard, and repair (invariant 4)
      bad.emplace_back(f.index, f.node);
      mark_missing(key.segment, f.index, f.node, true, describe(opened.err()));
      continue;
    }
    if (f.index == key.index) wanted = f.value;
    else if (f.index < entry->data_shards) shards_.put({key.segment, f.index}, f.value);
    good.push_back(std::move(*opened));
  }
  if (!wanted && good.size() >= entry->used_shards) {
    std::array<unsigned, 1> which{key.index};
    auto made = codec::rebuild_shards(*ring_, good, which);
    if (!made.ok()) return shard_arrived(key, std::move(made).err());
    wanted = made->front();
    decoded_bytes_ += wanted->size() - codec::shard_header_bytes;
    if (auto slots = table_.slots(entry->group, entry->group_generation);
        slots && key.index < slots->size() && (entry->confirmed >> key.index & 1) != 0 && table_.reachable((*slots)[key.index])) {
      // Its node is up and yet others answered: slow, or is it gone?
      auto node = (*slots)[key.index];
      env_.port->check(node, ring_->volume().shard_name(*id, key.index), [weak = weak_from_this(), key, node](result<bool> there) {
        auto e = weak.lock();
        if (e && there.ok() && !*there) e->mark_missing(key.segment, key.index, node, false, "the node does not have it");
      });
    }
  }
  if (wanted) {
    shards_.remember(key, wanted);
    shard_arrived(key, wanted);
    shards_.put(key, wanted); // a file to write: after the answer
    return;
  }
  if (bad.size() > bad_before && attempt < 8) return fetch_shard(key, background, std::move(bad), attempt + 1);
  shard_arrived(key, error{errc::no_quorum, "too few sound shards of segment " + model::to_string(key.segment), EIO});
}

void engine::shard_arrived(shard_key key, const result<buffer_ptr>& value) {
  std::vector<shard_done> waiters;
  std::optional<shard_key> next;
  bool next_background = false;
  {
    std::lock_guard lock{fetch_mutex_};
    if (auto it = fetching_.find(key); it != fetching_.end()) {
      waiters = std::move(it->second.waiters);
      fetching_.erase(it);
    }
    --fetches_;
    if (!fetch_queue_.empty()) {
      next = fetch_queue_.front();
      fetch_queue_.pop_front();
      ++fetches_;
      if (auto it = fetching_.find(*next); it != fetching_.end()) next_background = it->second.background;
    }
  }
  for (auto& w : waiters) w(value);
  if (next) fetch_shard(*next, next_background, {}, 0);
}

void engine::mark_missing(model::segment_ref ref, std::uint8_t index, model::node_id node, bool damaged, std::string_view why) {
  note("warning", "ShardDamaged", fmt::format("shard {} of segment {} on {}: {}; it will be made anew", index,
                                              model::to_string(ref), model::to_string(node), why));
  post([ref, index, node, damaged](engine& e) {
    auto op = e.begin_internal();
    if (!op.ok()) return;
    auto row = segment_row_in(**op, ref);
    if (!row.ok() || !*row) return;
    auto slots = e.table_.slots((*row)->group, (*row)->group_generation);
    if (!slots || index >= slots->size() || (*slots)[index] != node) return;
    auto mask = std::uint64_t{1} << index;
    if (((*row)->confirmed & mask) == 0 && (!damaged || ((*row)->damaged & mask) != 0)) return; // known
    (*row)->confirmed &= ~mask;
    if (damaged) (*row)->damaged |= mask;
    (*op)->put(segment_key(ref), encode(**row));
    if (auto done = (*op)->commit(); !done.ok())
      e.note("warning", "RowNotWritten", describe(done.err()));
  });
}

} // namespace qs::volume
