// What compaction needs of a namespace: which files are worth it, which records are alive, and the
// change-over of the index. compactor.hpp says how a pass goes.
//
// A tombstone hides older versions of its key. It may go when no file that stands before it can
// hold one: files that have nothing dead in them, and files that the compactor began when the
// tombstone's file was no longer written to, because they took only what was alive then.
#include <algorithm>

#include <fmt/format.h>

#include "base/log.hpp"
#include "zdb/name_space.hpp"

namespace qs::zdb {

namespace {
/// What a new file takes beside its records: header, directory, the file system's own.
constexpr std::uint64_t copy_overhead = 32 << 10;
} // namespace

bool name_space::tombstones_needless(std::uint32_t first, std::uint32_t last) const noexcept {
  if (left_aside_) return false;
  return std::all_of(order_.begin(), order_.lower_bound(first), [&](auto& before) {
    auto& f = *before.second;
    return f.dead_bytes() == 0 || (f.header().compacted && f.header().written > last);
  });
}

std::uint64_t name_space::freeable(const data_file& f) const noexcept {
  auto& h = f.header();
  auto needless = f.tombstone_bytes > 0 && tombstones_needless(h.first, h.last);
  return f.dead_bytes() + (needless ? f.tombstone_bytes : 0);
}

std::optional<compaction_plan> name_space::plan_compaction(unsigned dead_percent,
                                                           std::uint64_t least_bytes,
                                                           bool anyway) {
  settle();
  if (versions_stay() || compacting_ || failed_ || removed || changing_mode || moving_to_ != 0)
    return std::nullopt;
  auto worth = [&](const data_file& f) {
    auto n = freeable(f);
    return anyway ? n > 0 : n >= least_bytes && n * 100 >= f.size() * dead_percent;
  };
  // What is still written to is left first, if most of it is dead and it is not small.
  if (auto* f = file(active_); f != nullptr && f->dead_bytes() > 0 && worth(*f) &&
                               (anyway || f->size() >= limits_.datasize / 16))
    if (auto left = jump(); !left.ok()) return std::nullopt;
  auto rest = [&](const data_file& f) { return f.live_bytes + f.tombstone_bytes; };
  // The copy must fit beside the originals: on a full disk what is small goes first.
  auto room = pool_.space.left();
  auto sealed = [&](const data_file& f) {
    return !f.keep && f.id() != active_ && rest(f) + copy_overhead <= room;
  };
  auto start = order_.end();
  std::uint64_t best = 0;
  for (auto it = order_.begin(); it != order_.end(); ++it) {
    auto& f = *it->second;
    if (!sealed(f) || !worth(f)) continue;
    auto share = freeable(f) * 1000 / f.size();
    if (start == order_.end() || share > best) {
      start = it;
      best = share;
    }
  }
  if (start == order_.end()) return std::nullopt;
  // Its neighbours come along while all of it fits in one file: what little is left of each is not
  // to stay a file of its own.
  auto joins = [&](const data_file& f) {
    return sealed(f) && (worth(f) || f.size() < limits_.datasize / 4);
  };
  auto total = rest(*start->second);
  auto fits = [&](const data_file& f) {
    return total + rest(f) + file_header_bytes <= limits_.datasize &&
           total + rest(f) + copy_overhead <= room && joins(f);
  };
  auto end = std::next(start);
  for (; end != order_.end() && fits(*end->second); ++end) total += rest(*end->second);
  while (start != order_.begin() && fits(*std::prev(start)->second))
    total += rest(*(--start)->second);

  compaction_plan plan;
  plan.directory = directory_;
  plan.epoch = epoch_;
  plan.hash_key = limits_.hash_key;
  plan.output.sequential = settings_.sequential;
  plan.output.compacted = true;
  plan.output.first = start->second->header().first;
  plan.output.last = std::prev(end)->second->header().last;
  // What a tombstone could hide inside the run is dropped with it: only what stands before counts.
  for (auto it = start; it != end; ++it) {
    auto& f = *it->second;
    auto fd = f.descriptor();
    if (!fd.ok()) {
      note_read_error(fd.err());
      return std::nullopt;
    }
    plan.inputs.push_back({f.id(), f.size(), f.path(), *fd,
                           tombstones_needless(plan.output.first, f.header().last)});
  }
  plan.output.id = ++last_file_;
  plan.output.written = active_;
  plan.output.next_id = settings_.sequential ? ids_.next_id() : 0;
  compacting_ = true;
  return plan;
}

std::shared_ptr<void> name_space::hold_versions() {
  auto held = held_versions_.lock();
  if (!held) held_versions_ = held = std::make_shared<bool>(true);
  return held;
}

bool name_space::still_valid(const compaction_plan& plan) const noexcept {
  return compacting_ && !removed && !failed_ && epoch_ == plan.epoch;
}

status name_space::choose_live(const compaction_plan& plan, std::size_t which,
                               std::span<compaction_record> records) {
  auto& in = plan.inputs[which];
  for (auto& r : records) {
    record_place here{in.id, r.offset};
    if (r.header.kind == record_kind::erase) {
      r.keep = !in.drop_tombstones;
    } else if (settings_.sequential) {
      QS_TRY_ASSIGN(auto entry, ids_.find(r.id));
      r.keep = entry.place == here;
    } else {
      r.keep = keys_.find_hash(static_cast<std::uint32_t>(r.id), [&](record_place p) {
                      return p == here;
                    }).there();
    }
  }
  return {};
}

status name_space::adopt(const compaction_plan& plan) {
  QS_TRY_ASSIGN(auto made, data_file::open(pool_, directory_, plan.output.id));
  moving_to_ = plan.output.id;
  files_[plan.output.id] = std::move(made); // order_ keeps the inputs until all has changed over
  return {};
}

status name_space::moved(const compaction_plan& plan, std::size_t which,
                         const compaction_record& record, std::uint32_t moved_to) {
  auto& in = plan.inputs[which];
  auto* to = file(plan.output.id);
  record_place old{in.id, record.offset};
  record_place now{plan.output.id, moved_to};
  to->passed(moved_to, record.header.origin(old));
  auto bytes = record.header.record_bytes();
  if (record.header.kind == record_kind::erase) {
    to->tombstone_bytes += bytes;
    return {};
  }
  index_entry entry{now, record.header.payload_length};
  if (settings_.sequential) {
    QS_TRY_ASSIGN(auto there, ids_.find(record.id));
    if (there.place != old) return {};
    QS_TRY(ids_.put(record.id, entry));
  } else {
    auto slot = keys_.find_hash(static_cast<std::uint32_t>(record.id),
                                [&](record_place p) { return p == old; });
    if (!slot.there()) return {};
    keys_.replace(slot.slot, entry);
  }
  to->live_bytes += bytes;
  if (auto* from = file(in.id)) {
    from->live_bytes -= std::min(from->live_bytes, bytes);
    pool_.cache.drop(from->serial(), record.offset);
  }
  return {};
}

std::vector<std::filesystem::path> name_space::retire_inputs(const compaction_plan& plan) {
  std::vector<std::filesystem::path> old;
  for (auto& in : plan.inputs) {
    auto it = files_.find(in.id);
    old.push_back(it->second->path());
    order_.erase(it->second->header().first);
    changed_.erase(in.id);
    files_.erase(it);
  }
  order_[plan.output.first] = file(plan.output.id);
  moving_to_ = 0;
  return old;
}

void name_space::end_compaction(const compaction_plan& plan, bool failed) {
  compacting_ = false;
  if (!failed || epoch_ != plan.epoch) return;
  for (auto& in : plan.inputs)
    if (auto* f = file(in.id)) f->keep = true;
}

} // namespace qs::zdb
