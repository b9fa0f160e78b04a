#include "workload.hpp"

#include <memory>

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
  auto dice = sim_.random.below(10);
  if (files_.empty() || dice < 3) return make();
  if (dice == 3) return unlink();
  if (dice < 6) return read();
  auto at = files_.begin();
  std::advance(at, static_cast<std::ptrdiff_t>(sim_.random.below(files_.size())));
  if (!at->second.gone && at->second.certain) write(at->second, sim_.random.below(4));
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
  write(f, 0);
}

void workload::write(file& f, std::uint64_t index) {
  auto length = 1 + sim_.random.below(sim_.random.below(3) == 0 ? chunk_bytes : 6000);
  buffer bytes(length);
  seeded_random content{sim_.random.next_u64()};
  content.fill(bytes);
  auto& c = f.chunks[index];
  if (c.bytes.size() > bytes.size()) bytes.resize(c.bytes.size(), std::byte{0x5a}); // a chunk never gets shorter
  c.perhaps = bytes;
  auto answer = std::make_shared<std::optional<bool>>();
  sim_.files()->write(f.inode, index * chunk_bytes, bytes, false, false, [answer](result<std::size_t> r) { *answer = r.ok(); });
  wait([&] { return answer->has_value(); });
  if (!answer->has_value()) return; // the engine died, or it is slow: either is possible
  if (**answer) {
    c.bytes = std::move(bytes);
    ++written;
  } else {
    ++refused;
  }
  c.perhaps.reset();
}

void workload::unlink() {
  for (auto& [name, f] : files_) {
    if (f.gone || !f.certain || sim_.random.below(3) != 0) continue;
    if (sim_.files()->unlink(volume::root_inode, name).ok()) {
      f.gone = true;
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
  sim_.files()->read(f.inode, c->first * chunk_bytes, std::max(c->second.bytes.size(), c->second.perhaps ? c->second.perhaps->size() : 0),
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
  auto got = std::move(***answer);
  auto fits = [&](const buffer& wanted) { return wanted.size() <= got.size() && std::equal(wanted.begin(), wanted.end(), got.begin()); };
  if (!fits(c->second.bytes) && !(c->second.perhaps && fits(*c->second.perhaps)))
    sim_.violations().push_back(fmt::format("{} chunk {} reads back wrong", at->first, c->first));
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
      auto length = std::max(c.bytes.size(), c.perhaps ? c.perhaps->size() : 0);
      if (length == 0) continue;
      auto answer = std::make_shared<std::optional<result<buffer>>>();
      sim_.files()->read(f.inode, index * chunk_bytes, length, [answer](result<buffer> r) { answer->emplace(std::move(r)); });
      wait([&] { return answer->has_value(); });
      if (!answer->has_value()) return fmt::format("{} chunk {}: no answer", name, index);
      if (!(*answer)->ok()) return fmt::format("{} chunk {}: {}", name, index, describe((*answer)->err()));
      auto& got = ***answer;
      auto is = [&](const buffer& wanted) { return wanted.size() <= got.size() && std::equal(wanted.begin(), wanted.end(), got.begin()); };
      if (!is(c.bytes) && !(c.perhaps && is(*c.perhaps))) return fmt::format("{} chunk {}: {} bytes, and not what was written", name, index, got.size());
    }
  }
  return {};
}

} // namespace qs::test
