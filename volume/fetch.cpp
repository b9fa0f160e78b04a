// Fetching one shard: from its node, or from any k others, decoded. One request per shard, however many wait for it.
#include <algorithm>
#include <cerrno>
#include <iterator>
#include <fmt/format.h>

#include "volume/engine.hpp"

namespace qs::volume {

namespace {
using namespace std::chrono_literals;
/// A read fails when the nodes it needs have been silent for so long …
constexpr auto read_silence = 15s;
/// … and one that waits behind others which do get answers, after so long.
constexpr auto read_latest = 120s;
/// What is begun late, or again because a shard was damaged, still gets this.
constexpr auto read_least = 5s;
} // namespace

/// One shard's way from the nodes.
struct engine::shard_fetch {
  shard_key key;
  bool background = true;
  boot_time until{0}, latest{0}; ///< as in fetch_request
  std::vector<std::pair<std::uint8_t, model::node_id>> bad; ///< gave something else
  unsigned attempt = 0;
};

void engine::get_shard(shard_key key, std::optional<boot_time> since, shard_done done) {
  bool begin = false, hurry = false;
  {
    std::lock_guard lock{fetch_mutex_};
    auto [it, made] = fetching_.try_emplace(key);
    auto& pending = it->second;
    if (made) {
      if (!since && fetches_ >= fetches_max_ / 2) { // reading ahead never holds up who reads
        fetching_.erase(it);
        return;
      }
      pending.number = ++fetch_number_;
      pending.since = since;
      if (fetches_ < fetches_max_) {
        ++fetches_;
        begin = true;
      } else {
        fetch_queue_.push_back(key);
      }
    } else if (since && !pending.since) {
      pending.since = since;
      hurry = pending.asked;
    }
    pending.waiters.push_back(std::move(done));
  }
  if (begin) begin_fetch(key);
  if (hurry) env_.port->hurry(key.segment, key.index);
}

void engine::begin_fetch(shard_key key) {
  shard_fetch f;
  f.key = key;
  set_times(f);
  ask_for(std::move(f));
}

/// fetch_shard(), and who came while a background one was not yet asked for hurries it: his own call had nothing to hurry.
void engine::ask_for(shard_fetch f) {
  auto key = f.key;
  bool background = f.background;
  std::uint64_t number = 0;
  {
    std::lock_guard lock{fetch_mutex_};
    number = fetching_.at(key).number;
  }
  fetch_shard(std::move(f));
  bool hurry = false;
  {
    std::lock_guard lock{fetch_mutex_};
    if (auto it = fetching_.find(key); it != fetching_.end() && it->second.number == number) {
      it->second.asked = true;
      hurry = background && it->second.since;
    }
  }
  if (hurry) env_.port->hurry(key.segment, key.index);
}

/// By who waits for it now. All attempts of one fetch share their time.
void engine::set_times(shard_fetch& f) {
  std::lock_guard lock{fetch_mutex_};
  auto it = fetching_.find(f.key);
  if (it == fetching_.end() || !it->second.since) return; // the port's own
  auto since = *it->second.since;
  auto t = now();
  if (!f.background) {
    if (f.attempt == 1) f.until = std::max(f.until, t + read_least);
    return;
  }
  f.background = false;
  f.latest = since + read_latest;
  // In its turn behind others that were answered it is as good as new.
  auto moving = last_fetched_.load() + read_least > t;
  f.until = moving ? t + read_silence : std::max(since + read_silence, t + read_least);
}

void engine::end_late_fetches() {
  std::vector<shard_done> late;
  {
    std::lock_guard lock{fetch_mutex_};
    auto t = now();
    auto patience = last_fetched_.load() + read_least > t ? read_latest : read_silence;
    while (!fetch_queue_.empty()) {
      auto it = fetching_.find(fetch_queue_.front());
      if (it != fetching_.end()) {
        if (it->second.since.value_or(t) + patience > t) break;
        std::move(it->second.waiters.begin(), it->second.waiters.end(), std::back_inserter(late));
        fetching_.erase(it);
      }
      fetch_queue_.pop_front();
    }
  }
  if (late.empty()) return;
  note("warning", "ReadFailed", fmt::format("{} reads were not begun in time: no node answers those before them", late.size()));
  for (auto& w : late) w(error{errc::timed_out, "the nodes do not answer", EIO});
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

void engine::fetch_shard(shard_fetch f) {
  auto key = f.key;
  auto entry = table_.find(key.segment);
  auto id = segment_id_of(key.segment);
  if (!entry || !id.ok() || entry->state == segment_state::open)
    return shard_arrived(key, error{errc::not_found, "the segment " + model::to_string(key.segment) + " is not there", EIO});
  fetch_request request;
  request.segment = key.segment;
  request.sources = sources_of(*entry, *id, key.index);
  std::erase_if(request.sources, [&](const shard_source& s) {
    return std::find(f.bad.begin(), f.bad.end(), std::pair{s.index, s.node}) != f.bad.end();
  });
  request.wanted = key.index;
  request.needed = entry->used_shards;
  request.background = f.background;
  request.until = f.until;
  request.latest = f.latest;
  if (request.sources.empty())
    return shard_arrived(key, error{errc::not_found, "no node has shards of " + model::to_string(key.segment), EIO});
  env_.port->fetch(std::move(request),
                   [weak = weak_from_this(), f = std::move(f)](result<std::vector<fetched_shard>> got) mutable {
    auto e = weak.lock();
    if (!e) return;
    // Checking and decoding is work for the executor, not for who brings the bytes.
    auto shared = std::make_shared<result<std::vector<fetched_shard>>>(std::move(got));
    e->post([f = std::move(f), shared](engine& self) mutable { self.fetched(std::move(f), std::move(*shared)); });
  });
}

void engine::fetched(shard_fetch f, result<std::vector<fetched_shard>> got) {
  auto key = f.key;
  if (!got.ok()) {
    bool was_background = f.background;
    set_times(f);
    if (was_background && !f.background) return ask_for(std::move(f)); // who came since begins with a whole try
    auto e = std::move(got).err();
    auto quiet = next_read_note_.load();
    if (now() >= quiet && next_read_note_.compare_exchange_strong(quiet, now() + std::chrono::seconds{1}))
      note("warning", "ReadFailed", fmt::format("shard {} of segment {}: {}", key.index, model::to_string(key.segment), describe(e)));
    return shard_arrived(key, std::move(e));
  }
  last_fetched_ = now();
  auto id = segment_id_of(key.segment);
  auto entry = table_.find(key.segment);
  if (!id.ok() || !entry) return shard_arrived(key, error{errc::not_found, "the segment is gone", EIO});
  std::vector<codec::shard> good;
  std::size_t bad_before = f.bad.size();
  buffer_ptr wanted;
  for (auto& g : *got) {
    node_read_bytes_ += g.value ? g.value->size() : 0;
    if (std::any_of(good.begin(), good.end(), [&](const auto& known) { return known.header.index == g.index; })) continue;
    auto opened = g.value ? codec::open_shard(*ring_, g.value, codec::shard_check::body, codec::shard_address{*id, g.index})
                          : result<codec::shard>{error{errc::corrupt, "no value"}};
    if (!opened.ok()) { // damaged = not there: another place or another shard, and repair (invariant 4)
      f.bad.emplace_back(g.index, g.node);
      mark_missing(key.segment, g.index, g.node, true, describe(opened.err()));
      continue;
    }
    if (g.index == key.index) wanted = g.value;
    else if (g.index < entry->data_shards) shards_.put({key.segment, g.index}, g.value);
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
  if (f.bad.size() > bad_before && f.attempt < 8) {
    ++f.attempt;
    set_times(f);
    return ask_for(std::move(f));
  }
  shard_arrived(key, error{errc::no_quorum, "too few sound shards of segment " + model::to_string(key.segment), EIO});
}

void engine::shard_arrived(shard_key key, const result<buffer_ptr>& value) {
  std::vector<shard_done> waiters;
  std::optional<shard_key> next;
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
    }
  }
  // Not from here: it may be answered at once, and the one behind it.
  if (next) post([key = *next](engine& e) { e.begin_fetch(key); });
  for (auto& w : waiters) w(value);
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
