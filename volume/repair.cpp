// Making lost shards anew and moving those whose node was replaced: from any k, byte for byte, committed only if neither the
// segment nor its group moved on meanwhile (volume.md 3). Also: groups, and what must be checked again.
#include <algorithm>
#include <bit>
#include <fmt/format.h>

#include "volume/engine.hpp"

namespace qs::volume {

namespace {
constexpr std::uint64_t bit(unsigned i) { return std::uint64_t{1} << i; }
}

struct engine::repair_job {
  model::segment_ref ref;
  codec::segment_id id;
  segment_entry entry;
  std::vector<model::node_id> old_slots;
  model::group target;
  std::vector<std::uint64_t> unconfirmed; ///< how often each of its nodes was, when this began
  std::uint64_t wanted = 0; ///< shards to be put on the target's slots
  bool check_all = false;   ///< an earlier attempt may have left shards there
  std::mutex mutex;
  std::uint64_t purge = 0;   ///< what the target's slots may hold under these names is wrong: deleted before the SET
  std::uint64_t done = 0;    ///< confirmed on the target's slots
  std::uint64_t pending = 0; ///< asked or sent, not final
  std::uint64_t sent = 0;    ///< may be on the target's slots, whatever was answered
};

std::size_t engine::repair(std::size_t most) {
  if (closed_ || read_only_) return 0;
  auto running = [&] {
    std::lock_guard lock{queue_mutex_};
    return repairing_.size();
  };
  auto begin_some = [&](const std::vector<std::pair<segment_table::work_key, segment_entry>>& some) {
    for (const auto& [key, e] : some) {
      auto ref = key.second;
      if (is_under_way(ref)) continue;
      {
        std::lock_guard lock{queue_mutex_};
        if (repairing_.size() >= most) return;
        if (repairing_.contains(ref) || removing_.contains(ref)) continue;
        if (auto it = repair_after_.find(ref); it != repair_after_.end() && now() < it->second) continue;
        repairing_.insert(ref);
      }
      if (start_repair(ref, e)) continue;
      std::lock_guard lock{queue_mutex_};
      repairing_.erase(ref);
    }
  };
  if (running() >= most) return running();
  begin_some(table_.work({}, 256));
  // Behind the most urgent, which perhaps nothing can be done for now, the others in turn.
  if (running() < most) {
    auto some = table_.work(repair_cursor_, 256);
    if (some.empty()) repair_cursor_.reset();
    else repair_cursor_ = some.back().first;
    begin_some(some);
  }
  return running();
}

bool engine::start_repair(model::segment_ref ref, const segment_entry& e) {
  auto newest = table_.newest(e.group);
  auto old = table_.slots(e.group, e.group_generation);
  auto id = segment_id_of(ref);
  if (!newest || !old || !id.ok() || newest->slots.size() != old->size()) return false;
  auto job = std::make_shared<repair_job>();
  job->ref = ref;
  job->id = *id;
  job->entry = e;
  job->old_slots = *old;
  job->target = *newest;
  for (auto node : newest->slots) job->unconfirmed.push_back(times_unconfirmed(node));
  bool moves = false;
  for (unsigned i = 0; i < old->size(); ++i) {
    if ((e.required >> i & 1) == 0) continue;
    auto node = newest->slots[i];
    bool same = node == (*old)[i];
    moves = moves || !same;
    if (same && (e.confirmed >> i & 1) != 0) continue;
    if (table_.live(node) && table_.reachable(node)) job->wanted |= bit(i);
  }
  if (job->wanted == 0) {
    if (moves || newest->generation == e.group_generation) return false;
    post([job](engine& self) { self.commit_repair(job); }); // nothing of it lies elsewhere in the new generation
    return true;
  }
  {
    std::lock_guard lock{queue_mutex_};
    job->check_all = repair_after_.contains(ref);
  }
  // The node's own word counts for nothing where its bytes failed verification: its checksum fits them.
  for (unsigned i = 0; i < old->size(); ++i)
    if ((e.damaged >> i & 1) != 0 && (*old)[i] == newest->slots[i]) job->purge |= bit(i) & job->wanted;
  check_first(job);
  return true;
}

void engine::check_first(const std::shared_ptr<repair_job>& job) {
  // Perhaps the shard is where it should be and only the word for it is missing: asking costs less than making.
  std::vector<unsigned> ask;
  for (unsigned i = 0; i < job->target.slots.size(); ++i)
    if ((job->wanted & ~job->purge & bit(i)) != 0 && (job->check_all || job->target.slots[i] == job->old_slots[i]))
      ask.push_back(i);
  if (ask.empty()) return fetch_sources(job);
  for (auto i : ask) job->pending |= bit(i);
  for (auto i : ask)
    env_.port->check(job->target.slots[i], ring_->volume().shard_name(job->id, i),
                     [weak = weak_from_this(), job, i](result<bool> there) {
                       auto e = weak.lock();
                       if (!e) return;
                       bool last = false;
                       {
                         std::lock_guard lock{job->mutex};
                         if (there.ok()) (*there ? job->done : job->purge) |= bit(i);
                         job->pending &= ~bit(i);
                         last = job->pending == 0;
                       }
                       if (last) e->post([job](engine& self) { self.fetch_sources(job); });
                     });
}

void engine::fetch_sources(const std::shared_ptr<repair_job>& job) {
  auto left = job->wanted & ~job->done;
  if (left == 0) return commit_repair(job);
  fetch_request request;
  request.segment = job->ref;
  request.background = true;
  request.needed = job->entry.used_shards;
  if (std::popcount(left) == 1) {
    auto i = static_cast<unsigned>(std::countr_zero(left));
    // A move of one shard copies it if its old node still answers.
    if ((job->entry.confirmed >> i & 1) != 0 && table_.reachable(job->old_slots[i])) request.wanted = static_cast<int>(i);
  }
  request.sources = sources_of(job->entry, job->id, request.wanted);
  std::erase_if(request.sources, [&](const shard_source& s) {
    return (left >> s.index & 1) != 0 && s.node == job->target.slots[s.index];
  });
  env_.port->fetch(std::move(request), [weak = weak_from_this(), job](result<std::vector<fetched_shard>> got) {
    auto e = weak.lock();
    if (!e) return;
    auto shared = std::make_shared<result<std::vector<fetched_shard>>>(std::move(got));
    e->post([job, shared](engine& self) {
      if (!shared->ok()) return job->done != 0 ? self.commit_repair(job) : self.finish_repair(job, false); // what CHECK found counts
      self.rebuild(job, std::move(**shared));
    });
  });
}

void engine::rebuild(const std::shared_ptr<repair_job>& job, std::vector<fetched_shard> got) {
  auto left = job->wanted & ~job->done;
  std::vector<codec::shard> good;
  for (auto& f : got) {
    node_read_bytes_ += f.value ? f.value->size() : 0;
    if (std::any_of(good.begin(), good.end(), [&](const auto& g) { return g.header.index == f.index; })) continue;
    auto opened = f.value ? codec::open_shard(*ring_, f.value, codec::shard_check::body, codec::shard_address{job->id, f.index})
                          : result<codec::shard>{error{errc::corrupt, "no value"}};
    if (opened.ok()) good.push_back(std::move(*opened));
    else mark_missing(job->ref, f.index, f.node, true, describe(opened.err()));
  }
  std::vector<unsigned> make;
  std::vector<shard_to_store> out;
  auto add = [&](unsigned i, buffer_ptr value) {
    out.push_back({static_cast<std::uint8_t>(i), job->target.slots[i], ring_->volume().shard_name(job->id, i), std::move(value)});
  };
  for (unsigned i = 0; i < job->target.slots.size(); ++i) {
    if ((left >> i & 1) == 0) continue;
    auto it = std::find_if(good.begin(), good.end(), [&](const auto& g) { return g.header.index == i; });
    if (it != good.end()) add(i, it->value);
    else make.push_back(i);
  }
  if (!make.empty()) {
    if (good.size() < job->entry.used_shards) return finish_repair(job, false);
    auto made = codec::rebuild_shards(*ring_, good, make);
    if (!made.ok()) {
      note("error", "RebuildFailed", fmt::format("segment {}: {}", model::to_string(job->ref), describe(made.err())));
      return finish_repair(job, false);
    }
    for (std::size_t n = 0; n < make.size(); ++n)
      if ((*made)[n]) {
        decoded_bytes_ += (*made)[n]->size() - codec::shard_header_bytes;
        add(make[n], (*made)[n]);
      }
  }
  purge_first(job, std::move(out));
}

void engine::purge_first(const std::shared_ptr<repair_job>& job, std::vector<shard_to_store> shards) {
  // A node whose index still knows the right checksum takes the right bytes for those it has ("identical") and writes nothing.
  std::vector<shard_to_store> first;
  for (const auto& s : shards)
    if ((job->purge >> s.index & 1) != 0) first.push_back(s);
  if (first.empty()) return store_rebuilt(job, std::move(shards));
  struct waiting {
    std::mutex mutex;
    std::size_t left = 0;
    std::uint64_t failed = 0;
    std::vector<shard_to_store> shards;
  };
  auto all = std::make_shared<waiting>();
  all->left = first.size();
  all->shards = std::move(shards);
  for (const auto& s : first)
    env_.port->remove(s.node, {s.name}, [weak = weak_from_this(), job, all, i = s.index](const status& gone) {
      {
        std::lock_guard lock{all->mutex};
        if (!gone.ok()) all->failed |= bit(i);
        if (--all->left != 0) return;
      }
      if (auto e = weak.lock())
        e->post([job, all](engine& self) {
          std::erase_if(all->shards, [&](const shard_to_store& x) { return (all->failed >> x.index & 1) != 0; });
          self.store_rebuilt(job, std::move(all->shards));
        });
    });
}

void engine::store_rebuilt(const std::shared_ptr<repair_job>& job, std::vector<shard_to_store> shards) {
  if (shards.empty()) return job->done != 0 ? commit_repair(job) : finish_repair(job, false);
  store_request request;
  request.segment = job->ref;
  request.sync_soon = true;
  request.background = true;
  {
    std::lock_guard lock{job->mutex};
    for (const auto& s : shards) job->pending |= bit(s.index);
    job->sent = job->pending;
  }
  request.shards = std::move(shards);
  env_.port->store(std::move(request), [weak = weak_from_this(), job](std::uint8_t index, model::node_id node, shard_outcome outcome) {
    auto e = weak.lock();
    if (!e || outcome == shard_outcome::acknowledged) return;
    if (outcome == shard_outcome::full) e->table_.mark_full(node);
    bool last = false;
    {
      std::lock_guard lock{job->mutex};
      if ((job->pending >> index & 1) == 0) return;
      job->pending &= ~bit(index);
      if (outcome == shard_outcome::confirmed) job->done |= bit(index);
      last = job->pending == 0;
    }
    if (last) e->post([job](engine& self) { self.commit_repair(job); });
  });
}

void engine::note_left(engine_operation& op, const repair_job& job, const std::optional<segment_row>& row) {
  // What lies on a slot that the segment never came to, or came away from: if it does come to it, the note is dropped.
  auto places = row && row->group == job.entry.group ? table_.slots(row->group, row->group_generation) : std::nullopt;
  for (unsigned i = 0; i < job.target.slots.size(); ++i) {
    if (((job.sent | job.done) >> i & 1) == 0) continue;
    if (places && i < places->size() && (*places)[i] == job.target.slots[i]) continue;
    note_stale(op, {job.target.slots[i], job.ref, static_cast<std::uint8_t>(i)});
  }
}

void engine::commit_repair(const std::shared_ptr<repair_job>& job) {
  std::vector<stale_shard> stale;
  std::uint64_t anew = 0;
  auto done = [&]() -> result<bool> {
    QS_TRY_ASSIGN(auto op, begin_internal());
    QS_TRY_ASSIGN(auto row, segment_row_in(*op, job->ref));
    auto newest = row ? table_.newest(row->group) : std::nullopt;
    if (!row || row->state != segment_state::stored || !newest || row->group != job->entry.group ||
        row->group_generation != job->entry.group_generation || newest->generation != job->target.generation) {
      note_left(*op, *job, row);
      QS_TRY(op->commit());
      return false; // the world moved on: look again
    }
    std::uint64_t confirmed = 0;
    bool advance = true;
    for (unsigned i = 0; i < newest->slots.size(); ++i) {
      if ((row->required() >> i & 1) == 0) continue;
      bool was = (row->confirmed >> i & 1) != 0;
      bool is = (job->done >> i & 1) != 0 && times_unconfirmed(newest->slots[i]) == job->unconfirmed[i];
      if (newest->slots[i] == job->old_slots[i]) {
        // Found damaged after this job had asked the node: that word is worth nothing now.
        if (is && (row->damaged >> i & 1) != 0) {
          is = (job->purge >> i & 1) != 0;
          if (is) anew |= bit(i);
        }
        if (was || is) confirmed |= bit(i);
        continue;
      }
      if (is) confirmed |= bit(i);
      else if (was && table_.may_return(job->old_slots[i])) advance = false; // the only sound copy would be forgotten
      if (is && was && table_.live(job->old_slots[i])) // who is replaced and silent is cancelled as a whole
        stale.push_back({job->old_slots[i], job->ref, static_cast<std::uint8_t>(i)});
    }
    row->damaged &= ~anew;
    if (advance) {
      for (unsigned i = 0; i < newest->slots.size(); ++i)
        if (newest->slots[i] != job->old_slots[i]) row->damaged &= ~bit(i); // stays behind with the old node
      row->group_generation = newest->generation;
      row->confirmed = confirmed;
    } else {
      stale.clear();
      for (unsigned i = 0; i < newest->slots.size(); ++i)
        if (newest->slots[i] == job->old_slots[i]) row->confirmed |= confirmed & bit(i);
      note_left(*op, *job, row);
    }
    row->confirmed_ms = wall_ms();
    op->put(segment_key(job->ref), encode(*row));
    for (const auto& s : stale) note_stale(*op, s);
    QS_TRY(op->commit());
    return advance && (row->required() & ~row->confirmed) == 0;
  }();
  if (!done.ok() && !closed_) note("warning", "RepairNotWritten", describe(done.err()));
  if (done.ok() && anew != 0)
    note("info", "ShardMadeAnew", fmt::format("{} damaged shards of segment {} were written anew in their places",
                                              std::popcount(anew), model::to_string(job->ref)));
  finish_repair(job, done.ok() && *done);
}

void engine::finish_repair(const std::shared_ptr<repair_job>& job, bool moved) {
  std::uint64_t done = 0;
  if (moved) {
    ++repaired_;
    if (table_.work({}, 1).empty()) done = repaired_.exchange(0);
  }
  if (done > 0) note("info", "Rebuilt", fmt::format("{} segments were rebuilt or moved; every shard is where it should be", done));
  std::lock_guard lock{queue_mutex_};
  repairing_.erase(job->ref);
  if (moved) repair_after_.erase(job->ref);
  else repair_after_[job->ref] = now() + std::chrono::seconds{2};
  if (repair_after_.size() > 100'000) repair_after_.clear();
}

status engine::set_groups(const std::vector<model::group>& groups) {
  std::vector<model::group> fresh;
  QS_TRY_ASSIGN(auto op, begin_internal());
  for (const auto& g : groups) {
    if (g.slots.size() != std::size_t{options_.data_shards} + options_.parity_shards)
      return error{errc::invalid_argument, fmt::format("group {} has {} slots", model::to_string(g.id), g.slots.size())};
    auto newest = table_.newest(g.id.number);
    if (auto known = table_.slots(g.id.number, g.generation)) {
      if (*known != g.slots)
        return error{errc::refused, fmt::format("group {} would change without a new generation", model::to_string(g.id))};
      continue;
    }
    if (newest && newest->generation > g.generation) continue; // an older one that is over and forgotten
    op->put(group_key(g.id, g.generation), encode_slots(g.slots));
    fresh.push_back(g);
  }
  if (fresh.empty()) return {};
  QS_TRY(op->commit());
  table_.add_groups(fresh);
  return {};
}

void engine::set_nodes(const std::vector<volume::node_view>& nodes) {
  auto back = table_.set_nodes(nodes);
  judge_flying();
  if (!back) return;
  // Somebody is back: what waited for its next try need not.
  {
    std::shared_lock view{view_mutex_};
    for (const auto& [ref, segment] : segments_) {
      std::lock_guard lock{segment->mutex};
      segment->next_try = {};
    }
  }
  std::lock_guard lock{queue_mutex_};
  for (auto& [ref, after] : repair_after_) after = {};
  next_round_ = {};
}

std::uint64_t engine::times_unconfirmed(model::node_id node) const {
  std::lock_guard lock{queue_mutex_};
  auto it = unconfirmed_.find(node);
  return it == unconfirmed_.end() ? 0 : it->second;
}

void engine::unconfirm(model::node_id node, wall_time since) {
  auto since_ms = static_cast<std::uint64_t>(std::max<std::int64_t>(0, since.time_since_epoch().count()));
  post([node, since_ms](engine& e) {
    // All of it under the operation lock: what is being confirmed is in its row before this looks, or finds its bits gone.
    auto op = e.begin_internal();
    if (!op.ok()) return;
    {
      std::lock_guard lock{e.queue_mutex_};
      ++e.unconfirmed_[node];
    }
    // Those in the log are sent again, whenever they were confirmed: their bits are in memory only.
    {
      std::shared_lock view{e.view_mutex_};
      for (const auto& [ref, segment] : e.segments_) {
        auto entry = e.table_.find(ref);
        auto slots = entry ? e.table_.slots(entry->group, entry->group_generation) : std::nullopt;
        std::lock_guard lock{segment->mutex};
        for (unsigned s = 0; slots && s < slots->size(); ++s)
          if ((*slots)[s] == node) {
            segment->confirmed &= ~bit(s);
            segment->acked &= ~bit(s);
            segment->distrusted |= segment->waiting & bit(s);
          }
      }
    }
    auto refs = e.table_.confirmed_on(node, since_ms);
    for (std::size_t at = 0; at < refs.size(); at += 256) {
      if (at > 0) {
        op = e.begin_internal();
        if (!op.ok()) return;
      }
      for (auto i = at; i < std::min(refs.size(), at + 256); ++i) {
        auto row = segment_row_in(**op, refs[i]);
        if (!row.ok() || !*row) continue;
        auto slots = e.table_.slots((*row)->group, (*row)->group_generation);
        if (!slots) continue;
        std::uint64_t mask = 0;
        for (unsigned s = 0; s < slots->size(); ++s)
          if ((*slots)[s] == node) mask |= bit(s);
        (*row)->confirmed &= ~mask;
        (*op)->put(segment_key(refs[i]), encode(**row));
        (*op)->effect([&e, ref = refs[i], mask](log_position) {
          if (auto it = e.segments_.find(ref); it != e.segments_.end()) {
            std::lock_guard lock{it->second->mutex};
            it->second->confirmed &= ~mask;
            it->second->acked &= ~mask;
            it->second->distrusted |= it->second->waiting & mask;
          }
        });
      }
      if (auto done = (*op)->commit(); !done.ok()) {
        e.note("warning", "RowNotWritten", describe(done.err()));
        return;
      }
    }
    if (!refs.empty())
      e.note("info", "ShardsUnconfirmed", fmt::format("{} segments on {} are checked again", refs.size(), model::to_string(node)));
  });
}

} // namespace qs::volume
