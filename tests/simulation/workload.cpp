#include "workload.hpp"

#include <algorithm>
#include <memory>
#include <utility>

#include <fmt/format.h>
#include <sys/stat.h>

namespace qs::test {
namespace {

using namespace std::chrono_literals;
constexpr std::uint64_t chunk_bytes = 64 * kib;
/// A fetch has a deadline of 15 s; the rest is for looking again when the segment moved on meanwhile.
constexpr auto read_answer_most = 20s;

} // namespace

bool workload::wait(const std::function<bool()>& done) {
  sim_.run_until([&] { return done() || sim_.files() == nullptr; }, 60s);
  return done();
}

std::size_t workload::bytes() const {
  std::size_t sum = 0;
  for (const auto& [name, f] : files_)
    for (const auto& [index, c] : f.chunks) sum += f.gone ? 0 : c.bytes.size();
  return sum;
}

void workload::one() {
  if (sim_.files() == nullptr) return;
  auto dice = sim_.random.below(11);
  if (dice == 10) return sync();
  if (files_.empty() || dice < 3) return make();
  if (dice == 3) return unlink();
  if (dice < 6) return read();
  auto at = files_.begin();
  std::advance(at, static_cast<std::ptrdiff_t>(sim_.random.below(files_.size())));
  if (!at->second.gone && at->second.certain) write(at->first, at->second, sim_.random.below(4));
}

void workload::make() {
  auto name = fmt::format("f{}", next_++);
  auto made = sim_.files()->mknod(volume::root_inode, name, S_IFREG | 0644, 0, {});
  if (!made.ok()) {
    ++refused;
    return;
  }
  auto& f = files_[name];
  f.inode = made->inode;
  unsynced_.push_back({operation::kind::make, name, 0, {}, made->mtime, {}});
  write(name, f, 0);
}

void workload::sync() {
  if (!sim_.files()->fsync().ok()) return;
  unsynced_.clear();
  for (auto& [name, f] : files_) f.dying = false;
  ++synced;
}

void workload::write(const std::string& name, file& f, std::uint64_t index) {
  sim_.run_for(1ms); // each has a time of its own: after a power cut it tells which are there
  if (sim_.files() == nullptr) return;
  auto before = sim_.files()->getattr(f.inode);
  auto length = 1 + sim_.random.below(sim_.random.below(3) == 0 ? chunk_bytes : 6000);
  buffer bytes(length);
  seeded_random content{sim_.random.next_u64()};
  content.fill(bytes);
  auto& c = f.chunks[index];
  if (c.bytes.size() > bytes.size()) bytes.resize(c.bytes.size(), std::byte{0x5a}); // a chunk never gets shorter
  auto old = c;
  c.perhaps.push_back(bytes);
  auto asked = sim_.lives();
  auto answer = std::make_shared<std::optional<bool>>();
  sim_.files()->write(f.inode, index * chunk_bytes, bytes, false, false, [answer](result<std::size_t> r) { *answer = r.ok(); });
  wait([&] { return answer->has_value(); });
  if (!answer->has_value()) { // the engine died, or it is slow: either is possible
    f.dying = true;
    return;
  }
  if (**answer) {
    c.bytes = std::move(bytes);
    c.perhaps.clear();
    unsynced_.push_back({operation::kind::write, name, index, std::move(old), {}, {}});
    auto after = sim_.files() != nullptr ? sim_.files()->getattr(f.inode) : before;
    // Nobody can tell when it died right after the answer.
    if (before.ok() && after.ok() && sim_.lives() == asked) {
      unsynced_.back().mtime_before = before->mtime;
      unsynced_.back().mtime = after->mtime;
    }
    ++written;
  } else {
    ++refused;
    c.perhaps.pop_back();
  }
}

void workload::unlink() {
  for (auto& [name, f] : files_) {
    if (f.gone || !f.certain || sim_.random.below(3) != 0) continue;
    if (sim_.files()->unlink(volume::root_inode, name).ok()) {
      f.gone = true;
      unsynced_.push_back({operation::kind::unlink, name, 0, {}, {}, {}});
      ++unlinked;
    }
    return;
  }
}

void workload::read() {
  auto at = files_.begin();
  std::advance(at, static_cast<std::ptrdiff_t>(sim_.random.below(files_.size())));
  auto& f = at->second;
  if (f.gone || f.chunks.empty()) return;
  // Else the log and the caches keep nearly every read from the nodes.
  if (sim_.random.below(2) == 0 && sim_.stats().bytes_at_risk == 0) {
    if (sim_.command("cache_drop").status == 200) ++caches_dropped;
    if (sim_.files() == nullptr) return;
  }
  auto c = f.chunks.begin();
  auto asked = sim_.lives();
  auto answer = std::make_shared<std::optional<result<buffer>>>();
  sim_.files()->read(f.inode, c->first * chunk_bytes, length_of(c->second),
                     [answer](result<buffer> r) { answer->emplace(std::move(r)); });
  auto began = sim_.time.boot();
  wait([&] { return answer->has_value() || sim_.lives() != asked; });
  longest_read = std::max(longest_read, static_cast<int>((sim_.time.boot() - began) / 1ms));
  if (!answer->has_value() || (sim_.lives() == asked && sim_.time.boot() - began > read_answer_most)) {
    // (What was asked of an engine that died meanwhile is answered by nobody: the kernel aborts it with the connection. The next
    // engine may have it mounted again before this one looks, so the mount alone does not tell.)
    if (sim_.lives() == asked && sim_.files() != nullptr)
      sim_.violations().push_back(fmt::format("a read was not answered within {} seconds", read_answer_most / 1s));
    return;
  }
  ++reads;
  if (!(*answer)->ok()) {
    ++read_errors;
    return;
  }
  if (!fits(c->second, ***answer))
    sim_.violations().push_back(fmt::format("{} chunk {} reads back wrong", at->first, c->first));
}

std::size_t workload::length_of(const chunk& c) {
  auto length = c.bytes.size();
  for (const auto& p : c.perhaps) length = std::max(length, p.size());
  return length;
}

bool workload::fits(const chunk& c, const buffer& got) {
  auto is = [&](const buffer& wanted) { return wanted.size() <= got.size() && std::equal(wanted.begin(), wanted.end(), got.begin()); };
  return is(c.bytes) || std::any_of(c.perhaps.begin(), c.perhaps.end(), is);
}

/// Whether the operation is there, by what the metadata says: that is on this machine, whatever the nodes do.
workload::seen workload::look(const std::vector<operation>& ops, std::size_t at) {
  using kind = operation::kind;
  const auto& op = ops[at];
  auto other = [&](kind what) {
    return std::any_of(ops.begin(), ops.end(), [&](const operation& o) { return o.what == what && o.name == op.name; });
  };
  auto found = sim_.files()->lookup(volume::root_inode, op.name);
  if (op.what == kind::make) return found.ok() ? seen::yes : other(kind::unlink) ? seen::unknown : seen::no;
  if (op.what == kind::unlink) return found.ok() ? seen::no : other(kind::make) ? seen::unknown : seen::yes;
  if (!found.ok() || op.mtime == op.mtime_before || files_.at(op.name).dying) return seen::unknown;
  if (found->mtime == op.mtime) return seen::yes;
  return found->mtime == op.mtime_before ? seen::no : seen::unknown;
}

void workload::undo(const operation& op, bool surely) {
  auto it = files_.find(op.name);
  if (it == files_.end()) return;
  auto& f = it->second;
  f.certain = f.certain && (surely || op.what == operation::kind::write);
  if (op.what == operation::kind::unlink) f.gone = false;
  if (op.what == operation::kind::make && surely) files_.erase(it);
  if (op.what != operation::kind::write) return;
  auto& c = f.chunks[op.index];
  auto was = std::exchange(c, op.before);
  if (surely) return;
  c.perhaps.push_back(std::move(was.bytes));
  c.perhaps.insert(c.perhaps.end(), was.perhaps.begin(), was.perhaps.end());
}

std::string workload::after_power_cut() {
  auto ops = std::exchange(unsynced_, {});
  // How many are there at least, and how many at most.
  std::size_t least = 0, most = ops.size();
  for (std::size_t i = 0; i < ops.size(); ++i) {
    auto what = look(ops, i);
    if (what == seen::yes) least = i + 1;
    if (what == seen::no) most = std::min(most, i);
  }
  if (least > most)
    return fmt::format("after a power cut operation {} of {} ({}) is there and {} ({}) is not", least, ops.size(), ops[least - 1].name,
                       most + 1, ops[most].name);
  for (auto i = ops.size(); i > least; --i) undo(ops[i - 1], i > most);
  lost += static_cast<int>(ops.size() - most);
  for (auto& [name, f] : files_)
    if (f.certain && !f.gone && !sim_.files()->lookup(volume::root_inode, name).ok())
      return fmt::format("{} was synced, and a power cut took it", name);
  return {};
}

std::string workload::verify() {
  for (auto& [name, f] : files_) {
    if (!f.certain) continue;
    auto* files = sim_.files();
    if (files == nullptr) return "not mounted";
    auto found = files->lookup(volume::root_inode, name);
    if (f.gone) {
      if (found.ok()) return fmt::format("{} was unlinked and is there", name);
      continue;
    }
    if (!found.ok()) return fmt::format("{} is not there: {}", name, describe(found.err()));
    for (auto& [index, c] : f.chunks) {
      auto length = length_of(c);
      if (length == 0) continue;
      auto answer = std::make_shared<std::optional<result<buffer>>>();
      sim_.files()->read(f.inode, index * chunk_bytes, length, [answer](result<buffer> r) { answer->emplace(std::move(r)); });
      wait([&] { return answer->has_value(); });
      if (!answer->has_value()) return fmt::format("{} chunk {}: no answer", name, index);
      if (!(*answer)->ok()) return fmt::format("{} chunk {}: {}", name, index, describe((*answer)->err()));
      if (!fits(c, ***answer)) return fmt::format("{} chunk {}: {} bytes, and not what was written", name, index, (**answer)->size());
    }
  }
  return {};
}

} // namespace qs::test
