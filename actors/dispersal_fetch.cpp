// Reads: the wanted shard first; when it is late or fails, as many others as are needed, the
// quickest first.
#include <cstdint>

#include <caf/all.hpp>

#include <algorithm>
#include <set>
#include <tuple>
#include <utility>

#include <fmt/format.h>

#include "actors/caf_error.hpp"
#include "actors/dispersal_state.hpp"

namespace qs::actors {

namespace {

constexpr std::chrono::seconds read_backstop{30};
/// A rebuild is in no hurry: it hedges only on what is really stuck.
constexpr std::chrono::milliseconds background_hedge_least{1'000};
/// A read that only waits for a window, behind others that do get their answers, is given more
/// time, up to this if the request does not say otherwise.
constexpr std::chrono::seconds queued_most{120};
constexpr std::chrono::seconds queued_step{5};
/// Nodes whose latencies differ by less are equally quick; then the volume's order decides.
constexpr std::int64_t rank_step_us = 5'000;

} // namespace

using volume::fetched_shard;

void dispersal_state::start_fetch(const fetch_job_ptr& job) {
  if (stopping) return; // the job says so as it goes
  auto f = std::make_shared<fetch>();
  f->job = job;
  f->sources.resize(job->request.sources.size());
  f->expanded = job->request.wanted < 0;
  f->started = now();
  auto& req = job->request;
  f->deadline = req.until.count() > 0 ? req.until : f->started + cfg.fetch_deadline;
  f->latest = req.latest.count() > 0 ? req.latest : f->started + queued_most;
  if (!req.background) shorten_if_out_of_reach(*f);
  if (req.background && req.wanted >= 0) unhurried[{req.segment, req.wanted}] = f;
  ++fetches;
  advance(f);
  arm();
}

/// The kernel asks again, for the page whose read-ahead failed and for what was read beside it, and
/// the program for what it did not get: not the whole wait each time.
void dispersal_state::shorten_if_out_of_reach(fetch& f) const {
  if (is_out_of_reach(f)) f.deadline = std::min(f.deadline, now() + cfg.silent_fetch_deadline);
}

/// From the background's queues to the front's, with the deadline of a read that begins now.
void dispersal_state::hurry(model::segment_ref segment, std::uint8_t wanted) {
  auto it = unhurried.find({segment, wanted});
  if (it == unhurried.end()) return;
  auto f = it->second;
  unhurried.erase(it);
  f->job->request.background = false;
  f->deadline = now() + cfg.fetch_deadline;
  shorten_if_out_of_reach(*f);
  for (std::size_t i = 0; i < f->sources.size() && !f->finished; ++i) {
    auto& s = f->sources[i];
    if (s.state == source::stage::asked)
      s.hedge_at = std::min(s.hedge_at, s.asked_at + hedge_after(*s.to, false));
    if (s.state != source::stage::queued || s.lane != traffic::background) continue;
    s.lane = traffic::read;
    enqueue(s.to, traffic::read, {nullptr, f, i, read_charge});
  }
  advance(f);
  arm();
}

/// Starts what is missing, answers when there is enough or nothing left to try, else sets the
/// timer. Safe to call any time.
void dispersal_state::advance(const fetch_ptr& f) {
  using stage = source::stage;
  if (f->finished || settle_if_enough(f)) return;
  auto& req = f->job->request;
  auto on_the_way = [](const source& s) {
    return (s.state == stage::queued || s.state == stage::asked) && !s.slow;
  };
  if (!f->expanded) {
    auto wanted_coming = false;
    for (std::size_t i = 0; i < f->sources.size(); ++i)
      wanted_coming =
          wanted_coming || (req.sources[i].index == req.wanted && on_the_way(f->sources[i]));
    while (!wanted_coming) {
      auto next = best_idle(*f, true);
      if (!next) {
        f->expanded = true;
        break;
      }
      ask_source(f, *next);
      if (f->finished) return;
      auto& s = f->sources[*next];
      wanted_coming = on_the_way(s);
      // The node is late with others already: do not wait to find that out again.
      if (wanted_coming && s.to->suspect) {
        s.slow = f->expanded = true;
        break;
      }
    }
  }
  while (f->expanded) {
    std::set<std::uint8_t> indices; // here or on the way
    for (auto& g : f->got) indices.insert(g.index);
    for (std::size_t i = 0; i < f->sources.size(); ++i)
      if (on_the_way(f->sources[i])) indices.insert(req.sources[i].index);
    if (indices.size() >= req.needed) break;
    auto next = best_idle(*f, false);
    if (!next) break;
    ask_source(f, *next);
    if (f->finished) return;
  }
  auto outstanding = std::any_of(f->sources.begin(), f->sources.end(), [](const source& s) {
    return s.state == stage::queued || s.state == stage::asked;
  });
  if (!outstanding) return give_up(f, false);
  set_timer(f);
}

bool dispersal_state::settle_if_enough(const fetch_ptr& f) {
  auto& req = f->job->request;
  auto has_wanted = std::any_of(f->got.begin(), f->got.end(),
                                [&](const fetched_shard& g) { return g.index == req.wanted; });
  if (!has_wanted && f->got.size() < req.needed) return false;
  finish(f, std::exchange(f->got, {}));
  return true;
}

/// The most promising source not yet asked: of the wanted index, or of one that is neither here nor
/// on the way.
std::optional<std::size_t> dispersal_state::best_idle(const fetch& f, bool only_wanted) const {
  using stage = source::stage;
  auto& req = f.job->request;
  std::optional<std::size_t> best;
  std::tuple<bool, bool, std::int64_t> best_rank;
  for (std::size_t i = 0; i < f.sources.size(); ++i) {
    if (f.sources[i].state != stage::idle) continue;
    auto index = req.sources[i].index;
    if (only_wanted && index != req.wanted) continue;
    auto covered = false, late_elsewhere = false;
    for (auto& g : f.got) covered = covered || g.index == index;
    for (std::size_t j = 0; j < f.sources.size() && !covered; ++j) {
      if (req.sources[j].index != index) continue;
      auto& s = f.sources[j];
      auto pending = s.state == stage::queued || s.state == stage::asked;
      covered = pending && !s.slow;
      late_elsewhere = late_elsewhere || (pending && s.slow);
    }
    if (covered) continue;
    auto to = find(req.sources[i].node);
    auto queue = to ? static_cast<std::int64_t>(to->lanes[0].waiting.size()) / 8 : 0;
    auto expected = to ? to->reads.mean().count() / rank_step_us * (1 + queue) + queue : 0;
    auto rank = std::tuple{!to || to->suspect, late_elsewhere, expected};
    if (best && best_rank <= rank) continue;
    best = i;
    best_rank = rank;
  }
  return best;
}

void dispersal_state::ask_source(const fetch_ptr& f, std::size_t at) {
  auto& req = f->job->request;
  auto& s = f->sources[at];
  s.to = find(req.sources[at].node);
  if (!s.to) {
    s.state = source::stage::failed;
    s.why = {errc::unreachable, "not connected"};
    return;
  }
  s.state = source::stage::queued;
  s.lane = req.background ? traffic::background : traffic::read;
  enqueue(s.to, s.lane, {nullptr, f, at, read_charge});
}

void dispersal_state::send_read(const link_ptr& to, traffic kind, operation what) {
  auto& f = what.read;
  auto& s = f->sources[what.at];
  s.state = source::stage::asked;
  s.asked_at = now();
  s.hedge_at = s.asked_at + hedge_after(*to, f->job->request.background);
  // Its turn came because others were answered: it is as good as new. When their time was over, so
  // is its own soon.
  if (!std::exchange(f->ever_asked, true) && s.asked_at > f->started && is_moving(*to))
    f->deadline = std::max(f->deadline, std::min(s.asked_at + cfg.fetch_deadline, f->latest));
  set_timer(f);
  self->request(to->connection, read_backstop, read_atom_v, f->job->request.sources[what.at].name)
      .then(
          [this, to, kind, f, at = what.at, cost = what.cost](const buffer_ptr& value) {
            answered(f, at, to, value);
            release(to, kind, cost);
            end_if_idle();
          },
          [this, to, kind, f, at = what.at, cost = what.cost](const caf::error& e) {
            answered(f, at, to, from_caf(e));
            release(to, kind, cost);
            end_if_idle();
          });
  arm();
}

std::chrono::milliseconds dispersal_state::hedge_after(const link& to, bool background) const {
  auto least = background ? background_hedge_least : cfg.hedge_least;
  return std::max(least, std::chrono::ceil<std::chrono::milliseconds>(to.reads.p90()));
}

/// Too few of its nodes are left when those that have been late for long are not counted.
bool dispersal_state::is_out_of_reach(const fetch& f) const {
  auto& req = f.job->request;
  std::set<std::uint8_t> indices;
  for (auto& s : req.sources) {
    auto to = find(s.node);
    auto silent =
        !to || (to->suspect && to->suspect_since + cfg.fetch_deadline * 2 / 3 <= now());
    if (silent) continue;
    if (s.index == req.wanted) return false;
    indices.insert(s.index);
  }
  return indices.size() < req.needed;
}

bool dispersal_state::is_moving(const link& to) const { return to.last_answer + queued_step > now(); }

void dispersal_state::answered(const fetch_ptr& f, std::size_t at, const link_ptr& to,
                               result<buffer_ptr> r) {
  auto& s = f->sources[at];
  auto t = now();
  if (r.ok() || r.err().code == errc::not_found) {
    to->last_answer = t;
    to->suspect = false;
    if (r.ok() && s.state == source::stage::asked) to->reads.add(t - s.asked_at);
  }
  if (f->finished) return; // a late answer: it only taught us how slow the node is
  if (!r.ok()) {
    s.state = source::stage::failed;
    s.why = std::move(r).err();
    return advance(f);
  }
  s.state = source::stage::got;
  auto& from = f->job->request.sources[at];
  auto have = std::any_of(f->got.begin(), f->got.end(),
                          [&](const fetched_shard& g) { return g.index == from.index; });
  if (!have) f->got.push_back({from.index, from.node, std::move(*r)});
  advance(f);
}

/// The node is late: whoever only waits in its queue need not find out one by one.
void dispersal_state::suspect(const link_ptr& to) {
  if (std::exchange(to->suspect, true)) return;
  to->suspect_since = now();
  std::vector<fetch_ptr> affected;
  for (auto& op : to->lanes[static_cast<std::size_t>(traffic::read)].waiting) {
    if (!op.read || op.read->finished) continue;
    op.read->sources[op.at].slow = op.read->expanded = true;
    affected.push_back(op.read);
  }
  for (auto& f : affected) advance(f);
}

void dispersal_state::on_timer(const fetch_ptr& f) {
  if (f->finished) return;
  auto t = now();
  if (t >= f->deadline) {
    auto moving = std::any_of(f->sources.begin(), f->sources.end(), [&](const source& s) {
      return s.state == source::stage::queued && is_moving(*s.to);
    });
    if (f->ever_asked || !moving || t >= f->latest) return give_up(f, true);
    f->deadline = std::min(t + queued_step, f->latest);
  }
  std::vector<link_ptr> late;
  for (auto& s : f->sources)
    if (s.state == source::stage::asked && !s.slow && s.hedge_at <= t) {
      s.slow = f->expanded = true;
      late.push_back(s.to);
    }
  if (!late.empty()) ++hedges;
  for (auto& l : late) suspect(l);
  advance(f);
}

void dispersal_state::set_timer(const fetch_ptr& f) {
  if (f->finished) return;
  auto at = f->deadline;
  for (auto& s : f->sources)
    if (s.state == source::stage::asked && !s.slow) at = std::min(at, s.hedge_at);
  if (f->timer) {
    if ((*f->timer)->first == at) return;
    due.erase(*f->timer);
  }
  f->timer = due.emplace(at, f);
}

/// Nothing is left to try, or the time is over: what each node said, and what follows from it.
void dispersal_state::give_up(const fetch_ptr& f, bool late) {
  using stage = source::stage;
  auto& req = f->job->request;
  std::string said;
  std::set<std::uint8_t> possible; // indices that may still exist somewhere
  for (auto& g : f->got) possible.insert(g.index);
  for (std::size_t i = 0; i < f->sources.size(); ++i) {
    auto& s = f->sources[i];
    auto& from = req.sources[i];
    if (s.state == stage::got) continue;
    if (s.state == stage::idle) {
      possible.insert(from.index);
      continue;
    }
    auto absent = s.state == stage::failed && s.why.code == errc::not_found;
    if (!absent) possible.insert(from.index);
    if (!said.empty()) said += "; ";
    said += fmt::format("shard {} on {}: {}", from.index, model::to_string(from.node),
                        absent                     ? "not there"
                        : s.state == stage::failed ? describe(s.why)
                        : s.state == stage::asked  ? "no answer in time"
                                                   : "busy");
  }
  auto enough =
      possible.size() >= req.needed ||
      std::any_of(possible.begin(), possible.end(), [&](auto i) { return i == req.wanted; });
  auto code = !enough ? errc::not_found : late ? errc::timed_out : errc::unreachable;
  finish(f,
         error{code, fmt::format("segment {}: {} of {} shards: {}", model::to_string(req.segment),
                                 f->got.size(), req.needed, said.empty() ? "no source" : said)});
}

void dispersal_state::finish(const fetch_ptr& f, result<std::vector<fetched_shard>> r) {
  QS_ASSERT(!f->finished);
  f->finished = true;
  f->got.clear();
  for (auto& s : f->sources) s.to.reset(); // a link's queue may still hold this fetch: no circle
  if (f->timer) due.erase(*std::exchange(f->timer, std::nullopt));
  auto& req = f->job->request;
  if (auto it = unhurried.find({req.segment, req.wanted}); it != unhurried.end() && it->second == f)
    unhurried.erase(it);
  --fetches;
  f->job->answer(std::move(r));
  end_if_idle();
}

} // namespace qs::actors
