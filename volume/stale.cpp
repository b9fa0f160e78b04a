// Copies of shards that were moved, or whose segment is gone: deleted when their node answers, noted in local rows until then.
// The note is in the batch that moves the shard or forgets the segment, so a crash forgets none; at most `stale_max` are noted.
// What is beyond that is reclaimed when its node is cancelled (a moved shard), or keeps its segment's row (a dead segment). A copy
// whose place became the right one again is left alone.
#include "volume/engine.hpp"

namespace qs::volume {

namespace {
using namespace std::chrono_literals;
constexpr std::size_t stale_max = 100'000;
constexpr std::size_t at_once = 256;
constexpr std::string_view prefix = "stale/";

row_key stale_key(const stale_shard& s) {
  std::array<std::byte, 17> bytes{};
  store_be(bytes.data(), s.node.number);
  store_be(bytes.data() + 4, s.segment.epoch);
  store_be(bytes.data() + 8, s.segment.counter);
  bytes[16] = static_cast<std::byte>(s.index);
  return local_key(prefix).append(as_text(bytes));
}

std::optional<stale_shard> parse(std::string_view key) {
  auto head = local_key(prefix).size();
  if (key.size() != head + 17) return {};
  const auto* at = as_bytes(key).data() + head;
  return stale_shard{{load_be<std::uint32_t>(at)},
                     {load_be<std::uint32_t>(at + 4), load_be<std::uint64_t>(at + 8)},
                     static_cast<std::uint8_t>(at[16])};
}
} // namespace

bool engine::stale_room(std::size_t more) const { return stale_ + more <= stale_max; }

void engine::note_stale(engine_operation& op, const stale_shard& s) {
  if (stale_ >= stale_max) return;
  auto key = stale_key(s);
  if (auto known = op.get(key); known.ok() && *known) return;
  op.put(std::move(key), {});
  op.after([this] { ++stale_; });
}

status engine::count_stale() {
  auto from = local_key(prefix);
  std::size_t n = 0;
  QS_TRY(rows_->scan(from, prefix_end(from), [&](std::string_view, byte_span) {
    ++n;
    return true;
  }));
  stale_ = n;
  return {};
}

void engine::sweep_stale() {
  if (stale_ == 0 || now() < next_stale_ || sweeping_.exchange(true)) return;
  auto all = local_key(prefix);
  auto from = stale_cursor_.empty() ? all : stale_cursor_;
  std::vector<row_key> keys;
  auto looked = rows_->scan(from, prefix_end(all), [&](std::string_view key, byte_span) {
    keys.emplace_back(key);
    return keys.size() < at_once;
  });
  if (!looked.ok()) keys.clear();
  bool end = keys.size() < at_once;
  next_stale_ = now() + (end ? 10s : 1s);
  if (keys.empty() && stale_cursor_.empty()) stale_ = 0;
  stale_cursor_ = end ? row_key{} : keys.back() + '\0';

  struct batch {
    std::vector<row_key> keys;
    std::vector<model::object_name> names;
  };
  std::map<model::node_id, batch> by_node;
  std::vector<row_key> over;
  for (auto& key : keys) {
    auto s = parse(key);
    auto id = s ? segment_id_of(s->segment) : result<codec::segment_id>{error{errc::corrupt, {}}};
    if (!id.ok() || !table_.may_return(s->node)) { // its namespace goes as a whole
      over.push_back(std::move(key));
      continue;
    }
    bool current = false;
    bool coming = false; // its place if the segment moves there; that it will is not certain
    if (auto e = table_.find(s->segment); e && e->group != no_group) {
      auto slots = table_.slots(e->group, e->group_generation);
      auto newest = table_.newest(e->group);
      current = slots && s->index < slots->size() && (*slots)[s->index] == s->node;
      coming = newest && s->index < newest->slots.size() && newest->slots[s->index] == s->node;
    }
    if (current) {
      over.push_back(std::move(key));
    } else if (coming) {
      continue;
    } else if (table_.reachable(s->node)) {
      auto& b = by_node[s->node];
      b.names.push_back(ring_->volume().shard_name(*id, s->index));
      b.keys.push_back(std::move(key));
    }
  }
  if (!over.empty()) forget_stale(over);
  if (by_node.empty()) {
    sweeping_ = false;
    return;
  }
  // After a power cut that takes the move back, the old copies are the only ones the rows know (invariant 7).
  if (!log_->sync().ok()) {
    sweeping_ = false;
    return;
  }
  auto left = std::make_shared<std::atomic<std::size_t>>(by_node.size());
  for (auto& [node, b] : by_node)
    env_.port->remove(node, std::move(b.names), [weak = weak_from_this(), left, gone = std::move(b.keys)](const status& done) {
      auto e = weak.lock();
      if (!e) return;
      if (done.ok()) e->post([gone](engine& self) { self.forget_stale(gone); });
      if (--*left == 0) e->sweeping_ = false;
    });
}

void engine::forget_stale(const std::vector<row_key>& keys) {
  auto op = begin_internal();
  if (!op.ok()) return;
  for (const auto& key : keys) (*op)->erase(key);
  if (!(*op)->commit().ok()) return;
  auto have = stale_.load();
  while (!stale_.compare_exchange_weak(have, have - std::min(have, keys.size()))) {
  }
}

} // namespace qs::volume
