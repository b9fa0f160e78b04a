// Nodes for tests of the volume: real maps behind the shard port, with faults by script, an executor that is run by hand, and
// everything one needs to open a volume over them. Checks invariant 2 on the way: one name, one byte string, for ever.
#pragma once

#include <algorithm>
#include <deque>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <stdexcept>
#include <string>
#include <unistd.h>
#include <vector>

#include "base/clock.hpp"
#include "base/random.hpp"
#include "codec/checksum.hpp"
#include "volume/volume.hpp"

namespace qs::test {

/// Jobs wait until they are run. Thread-safe, in case some are run by a thread.
class manual_executor final : public volume::executor {
public:
  void post(std::function<void()> job) override {
    std::lock_guard lock{mutex_};
    jobs_.push_back(std::move(job));
  }
  bool run_one() {
    std::function<void()> job;
    {
      std::lock_guard lock{mutex_};
      if (jobs_.empty()) return false;
      job = std::move(jobs_.front());
      jobs_.pop_front();
    }
    job();
    return true;
  }
  /// What was posted last comes first: another thread was slower.
  bool run_newest() {
    {
      std::lock_guard lock{mutex_};
      if (jobs_.empty()) return false;
      jobs_.push_front(std::move(jobs_.back()));
      jobs_.pop_back();
    }
    return run_one();
  }
  std::size_t run() {
    std::size_t n = 0;
    while (run_one())
      if (++n > 10'000'000) throw std::runtime_error{"jobs never end"};
    return n;
  }
  void clear() {
    std::lock_guard lock{mutex_};
    jobs_.clear();
  }
  [[nodiscard]] std::size_t size() {
    std::lock_guard lock{mutex_};
    return jobs_.size();
  }

private:
  std::mutex mutex_;
  std::deque<std::function<void()>> jobs_;
};

struct memory_node {
  std::map<model::object_name, buffer_ptr> objects;
  /// Bytes that rotted under an index that still knows the right checksum: a SET of the right ones changes nothing ("identical",
  /// and a GET that differs), until the object is deleted.
  std::set<model::object_name> rotten;
  bool reachable = true;   ///< false: nothing is sent
  bool silent = false;     ///< takes and never answers: outcome unknown
  bool full = false;
  bool refuses = false;
  bool checks_bytes = false; ///< CHECK reads them: false for rotten ones
  bool slow = false;       ///< takes, and says nothing before answer_slow()
  bool confirms = true;    ///< false: acknowledged only, until confirm_all()
  std::uint64_t sets = 0, gets = 0, removed = 0;
};

/// The volume's calls may come from many threads; a test looks and meddles when none is under way.
class memory_nodes final : public volume::shard_port {
public:
  explicit memory_nodes(unsigned count) {
    for (unsigned i = 1; i <= count; ++i) nodes[{i}] = {};
  }

  std::map<model::node_id, memory_node> nodes;
  /// Asynchronous: answers wait in a queue until deliver().
  bool deferred = false;
  /// Bytes that came under a name before: a retry must send the same (invariant 2).
  bool same_bytes = true;
  struct asked_for {
    bool background = false;
    boot_time until{0};
  };
  std::vector<asked_for> asked;
  std::vector<std::pair<model::segment_ref, std::uint8_t>> hurried;
  std::size_t asked_when_hurried = 0; ///< size of `asked` at the last hurry
  std::function<void()> before_fetch; ///< called by the next fetch, once, before it is known here
  std::function<void(model::segment_ref)> before_store; ///< called by every store
  bool hold_fetches = false; ///< fetches get no answer before release_fetches()
  std::string violation; ///< empty while all is well

  memory_node& operator[](unsigned n) { return nodes.at({n}); }
  void wipe(unsigned n) { nodes.at({n}).objects.clear(); }
  /// One bit of every object turns over. `rotten`: and the node notices nothing when the right bytes come again.
  void damage(unsigned n, bool rotten = false) {
    auto& node = nodes.at({n});
    for (auto& [name, value] : node.objects) {
      auto bad = *value;
      bad[bad.size() / 2] ^= std::byte{1};
      value = share(std::move(bad));
      if (rotten) node.rotten.insert(name);
    }
  }
  void forget_waiting() { waiting_.clear(); unconfirmed_.clear(); slow_.clear(); }
  void answer_slow() {
    auto list = std::exchange(slow_, {});
    for (auto& job : list) job();
  }

  void deliver() {
    while (!waiting_.empty()) {
      auto job = std::move(waiting_.front());
      waiting_.pop_front();
      job();
    }
  }
  void confirm_all() {
    auto list = std::move(unconfirmed_);
    unconfirmed_.clear();
    for (auto& job : list) job();
  }
  /// The held ones are answered with a time-out.
  void release_fetches() {
    hold_fetches = false;
    auto list = std::move(held_);
    held_.clear();
    for (auto& h : list) h.second(error{errc::timed_out, "no answer"});
  }
  /// The oldest of the held ones is answered as if it came now.
  void give_one() {
    auto h = std::move(held_.front());
    held_.pop_front();
    bool hold = std::exchange(hold_fetches, false);
    fetch(std::move(h.first), std::move(h.second));
    hold_fetches = hold;
  }
  [[nodiscard]] std::size_t held() const { return held_.size(); }
  [[nodiscard]] std::uint64_t objects() const {
    std::uint64_t n = 0;
    for (const auto& [id, node] : nodes) n += node.objects.size();
    return n;
  }

  void store(volume::store_request request, volume::store_progress progress) override {
    using volume::shard_outcome;
    if (before_store) before_store(request.segment);
    std::lock_guard lock{mutex_};
    for (auto& s : request.shards) {
      auto& node = nodes.at(s.node);
      auto tell = [this, progress, index = s.index, id = s.node, slow = node.slow](shard_outcome o) {
        if (slow) slow_.push_back([progress, index, id, o] { progress(index, id, o); });
        else answer([progress, index, id, o] { progress(index, id, o); });
      };
      if (!node.reachable) {
        tell(shard_outcome::unreachable);
        continue;
      }
      if (node.refuses) {
        tell(shard_outcome::refused);
        continue;
      }
      if (node.full) {
        tell(shard_outcome::full);
        continue;
      }
      auto sum = codec::checksum64(*s.value);
      auto [it, fresh] = names_.emplace(s.name, sum);
      if (!fresh && it->second != sum) violation = "a name was written with two byte strings";
      if (s.value->size() > mib) violation = "a value is over 1 MiB (invariant 14)";
      ++node.sets;
      if (node.rotten.contains(s.name)) {
        tell(shard_outcome::unknown);
        continue;
      }
      node.objects[s.name] = s.value;
      if (node.silent) {
        tell(shard_outcome::unknown);
        continue;
      }
      tell(shard_outcome::acknowledged);
      if (node.confirms) tell(shard_outcome::confirmed);
      else unconfirmed_.push_back([progress, index = s.index, id = s.node] { progress(index, id, shard_outcome::confirmed); });
    }
  }

  void fetch(volume::fetch_request request, volume::fetch_done done) override {
    if (auto first = std::exchange(before_fetch, nullptr)) first();
    std::lock_guard lock{mutex_};
    asked.push_back({request.background, request.until});
    if (hold_fetches) {
      held_.emplace_back(std::move(request), std::move(done));
      return;
    }
    std::vector<volume::fetched_shard> got;
    std::set<std::uint8_t> indices;
    bool missing = false, away = false;
    for (const auto& s : request.sources) {
      auto& node = nodes.at(s.node);
      if (indices.contains(s.index)) continue;
      if (!node.reachable || node.silent) {
        away = true;
        continue;
      }
      auto it = node.objects.find(s.name);
      if (it == node.objects.end()) {
        missing = true;
        continue;
      }
      ++node.gets;
      got.push_back({s.index, s.node, it->second});
      indices.insert(s.index);
      if (static_cast<int>(s.index) == request.wanted && got.size() == 1) break;
      if (got.size() >= request.needed) break;
    }
    bool enough = got.size() >= request.needed || (request.wanted >= 0 && indices.contains(static_cast<std::uint8_t>(request.wanted)));
    auto outcome = enough ? result<std::vector<volume::fetched_shard>>{std::move(got)}
                 : away   ? result<std::vector<volume::fetched_shard>>{error{errc::unreachable, "too few nodes answered"}}
                          : result<std::vector<volume::fetched_shard>>{error{errc::not_found, missing ? "not there" : "no sources"}};
    auto shared = std::make_shared<result<std::vector<volume::fetched_shard>>>(std::move(outcome));
    answer([done, shared] { done(std::move(*shared)); });
  }

  void hurry(model::segment_ref segment, std::uint8_t wanted) override {
    std::lock_guard lock{mutex_};
    hurried.emplace_back(segment, wanted);
    asked_when_hurried = asked.size();
  }

  void remove(model::node_id id, std::vector<model::object_name> names, std::function<void(status)> done) override {
    std::lock_guard lock{mutex_};
    auto& node = nodes.at(id);
    if (!node.reachable) return answer([done] { done(error{errc::unreachable, "away"}); });
    for (const auto& name : names) {
      node.removed += node.objects.erase(name);
      node.rotten.erase(name);
    }
    answer([done] { done({}); });
  }

  void check(model::node_id id, model::object_name name, std::function<void(result<bool>)> done) override {
    std::lock_guard lock{mutex_};
    auto& node = nodes.at(id);
    if (!node.reachable) return answer([done] { done(error{errc::unreachable, "away"}); });
    bool there = node.objects.contains(name) && !(node.checks_bytes && node.rotten.contains(name));
    answer([done, there] { done(there); });
  }

private:
  void answer(std::function<void()> job) {
    if (deferred) waiting_.push_back(std::move(job));
    else job();
  }
  std::recursive_mutex mutex_; ///< an answer may ask for the next
  std::deque<std::function<void()>> waiting_;
  std::vector<std::function<void()>> unconfirmed_;
  std::vector<std::function<void()>> slow_;
  std::map<model::object_name, std::uint64_t> names_;
  std::deque<std::pair<volume::fetch_request, volume::fetch_done>> held_;
};

/// A temporary directory that goes away.
class scratch_directory {
public:
  scratch_directory() {
    auto text = (std::filesystem::temp_directory_path() / "qs-volume-XXXXXX").string();
    if (::mkdtemp(text.data()) == nullptr) throw std::runtime_error{"mkdtemp"};
    path_ = text;
  }
  ~scratch_directory() {
    std::error_code ec;
    std::filesystem::remove_all(path_, ec);
  }
  scratch_directory(const scratch_directory&) = delete;
  scratch_directory& operator=(const scratch_directory&) = delete;
  [[nodiscard]] const std::filesystem::path& path() const noexcept { return path_; }

private:
  std::filesystem::path path_;
};

/// A volume over memory nodes, everything under the test's hand.
struct volume_fixture {
  explicit volume_fixture(unsigned k = 4, unsigned m = 2, unsigned node_count = 6, bool disk_cache = true) : ports{node_count} {
    std::array<std::byte, 32> root;
    root.fill(std::byte{7});
    options.name = "test";
    options.root = root_secret{root};
    options.state_directory = directory.path() / "state";
    if (disk_cache) options.cache_directory = directory.path() / "cache";
    options.cache_bytes = 64 * mib;
    options.staging_bytes = 256 * mib;
    options.data_shards = static_cast<std::uint8_t>(k);
    options.parity_shards = static_cast<std::uint8_t>(m);
    options.capacity = gib;
    options.free_disk_bytes = 0;
    for (unsigned g = 0; g < 4; ++g) {
      model::group group{{g}, 1, {}};
      for (unsigned i = 0; i < k + m; ++i) group.slots.push_back({(g + i) % node_count + 1});
      groups.push_back(group);
    }
  }
  ~volume_fixture() {
    opened.reset();
    work.clear();
  }

  volume::volume_environment env() {
    volume::volume_environment e;
    e.time = &time;
    e.random = &system_random();
    e.port = &ports;
    e.work = &work;
    e.free_disk = free_disk;
    e.note = [this](std::string_view level, std::string_view kind, std::string_view text) {
      std::lock_guard lock{notes_mutex};
      notes.push_back(std::string{level} + " " + std::string{kind} + ": " + std::string{text});
    };
    return e;
  }
  status create() { return volume::create_volume(options, env()); }
  status open() {
    auto v = volume::open_volume(options, env());
    if (!v.ok()) return std::move(v).err();
    opened = std::move(*v);
    if (opened->stats().read_only) return {};
    QS_TRY(opened->set_groups(groups));
    see_nodes();
    return {};
  }
  /// Made and opened, or the test cannot go on.
  void begin() {
    if (!create().ok() || !open().ok()) throw std::runtime_error{"no volume"};
  }
  /// A file whose bytes are safe, and on the nodes alone: neither log nor cache has any of it.
  volume::inode_number stored_file(const std::string& name, byte_span data) {
    auto inode = make_file(name);
    if (!inode.ok() || !write(*inode, 0, data).ok() || !drain() || !opened->drop_caches().ok())
      throw std::runtime_error{"the file " + name + " could not be stored"};
    return *inode;
  }
  /// Whether these bytes can be read there.
  bool holds(volume::inode_number inode, std::uint64_t offset, byte_span data) {
    auto got = read(inode, offset, data.size());
    return got.ok() && std::equal(data.begin(), data.end(), got->begin(), got->end());
  }
  /// As kill -9 would: nothing is flushed, jobs and answers on the way are lost.
  void crash() {
    opened.reset();
    work.clear();
    ports.forget_waiting();
  }
  void see_nodes() {
    std::vector<volume::volume::node_view> views;
    for (auto& [id, n] : ports.nodes)
      views.push_back({id, n.reachable && !n.silent, !lost.contains(id) && !(replaced.contains(id) && !n.reachable), node_limit,
                       n.objects.size() * 530'000, !lost.contains(id)});
    opened->set_nodes(views);
  }
  /// Time passes and everything that may run runs.
  void pass(std::chrono::milliseconds by = std::chrono::milliseconds{100}) {
    for (std::chrono::milliseconds t{0}; t < by; t += std::chrono::milliseconds{100}) {
      time.advance(std::chrono::milliseconds{100});
      opened->tick();
      settle();
    }
  }
  void settle() {
    do {
      work.run();
      ports.deliver();
    } while (work.size() > 0);
  }
  /// Until nothing is at risk, or false.
  bool drain(std::chrono::milliseconds deadline = std::chrono::seconds{30}) {
    std::optional<status> outcome;
    opened->drain(deadline, [&](status s) { outcome = std::move(s); });
    for (int i = 0; i < 1000 && !outcome; ++i) pass();
    return outcome && outcome->ok();
  }
  bool repair_all() {
    for (int i = 0; i < 2000; ++i) {
      see_nodes();
      opened->repair(8);
      pass();
      if (opened->stats().rebuild_pending == 0) return true;
    }
    return false;
  }

  /// How often the volume noted something of this kind.
  std::size_t told(std::string_view kind) {
    auto mark = " " + std::string{kind} + ":";
    std::lock_guard lock{notes_mutex};
    return static_cast<std::size_t>(std::count_if(notes.begin(), notes.end(), [&](const auto& n) { return n.find(mark) != n.npos; }));
  }

  volume::filesystem& fs() { return opened->files(); }
  result<volume::inode_number> make_file(const std::string& name) {
    QS_TRY_ASSIGN(auto a, fs().mknod(volume::root_inode, name, 0100644, 0, {}));
    return a.inode;
  }
  result<std::size_t> write(volume::inode_number inode, std::uint64_t offset, byte_span data, bool append = false) {
    std::optional<result<std::size_t>> got;
    fs().write(inode, offset, data, append, false, [&](result<std::size_t> r) { got = std::move(r); });
    for (int i = 0; i < 100 && !got; ++i) pass();
    if (!got) return error{errc::timed_out, "no answer to a write"};
    return std::move(*got);
  }
  result<buffer> read(volume::inode_number inode, std::uint64_t offset, std::size_t length) {
    std::optional<result<buffer>> got;
    fs().read(inode, offset, length, [&](result<buffer> r) {
      if (got) ports.violation = "a read was answered twice";
      got = std::move(r);
    });
    if (!got) settle();
    if (!got) return error{errc::timed_out, "no answer to a read"};
    return std::move(*got);
  }

  scratch_directory directory;
  manual_clock time;
  manual_executor work;
  memory_nodes ports;
  volume::volume_options options;
  std::vector<model::group> groups;
  std::set<model::node_id> lost;
  std::set<model::node_id> replaced; ///< another has its slots, or will: while away it does not count, and may come back
  byte_count node_limit = 0;
  std::function<result<byte_count>(const std::filesystem::path&)> free_disk; ///< null: what the disk here has
  std::mutex notes_mutex; ///< threads of the volume's store note things, too
  std::vector<std::string> notes;
  std::unique_ptr<volume::volume> opened;
};

/// Bytes that do not compress, the same for the same seed.
inline buffer noise(std::uint64_t seed, std::size_t size) {
  buffer out(size);
  seeded_random random{seed};
  random.fill(out);
  return out;
}

} // namespace qs::test
