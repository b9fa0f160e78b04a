// Compaction: what it frees, what it keeps, and that the process may end at any of its steps.
#include "support/zdb_store.hpp"

#include <fstream>
#include <sys/mount.h>

#include "base/random.hpp"
#include "zdb/compactor.hpp"

namespace qs::zdb {
namespace {

namespace fs = std::filesystem;

/// Runs the compactor's jobs one by one, on this thread.
struct driver {
  explicit driver(compaction_options o = {0, 50, 1}) : c{o, environment()} {}
  compaction_environment environment() {
    compaction_environment env;
    env.disk = [this](std::function<void()> work, std::function<void()> then) {
      jobs.push_back([work = std::move(work), then = std::move(then)] {
        work();
        then();
      });
    };
    env.after = [this](std::chrono::milliseconds wait, std::function<void()> then) {
      waited += wait;
      jobs.push_back(std::move(then));
    };
    return env;
  }
  bool step() {
    if (jobs.empty()) return false;
    auto job = std::move(jobs.front());
    jobs.pop_front();
    job();
    return true;
  }
  /// Whole passes until nothing is worth one.
  int run(const std::shared_ptr<name_space>& ns, bool anyway = false) {
    int passes = 0;
    while (passes < 100 && c.consider(ns, anyway, [this](const status& s) { last = s; })) {
      while (step()) {
      }
      ++passes;
    }
    return passes;
  }

  std::deque<std::function<void()>> jobs;
  std::chrono::milliseconds waited{0};
  status last;
  compactor c;
};

struct sample {
  std::map<std::string, std::string> live;
  std::vector<std::string> order; ///< keys as they were written last
};

/// Writes and overwrites so that most of what is in the files is dead; all of it synced.
sample fill(storage& s, int keys, int rounds) {
  sample out;
  auto& ns = s.space();
  for (int r = 0; r < rounds; ++r)
    for (int i = 0; i < keys; ++i) {
      if (r > 0 && i % 5 == 0) continue; // a few stay where they were first
      auto key = fmt::format("key{}", i);
      auto value = fmt::format("{} {} {}", key, r, std::string(static_cast<std::size_t>(i % 700), 'x'));
      REQUIRE(put(ns, key, value) == write_answer::stored);
      out.live[key] = value;
      std::erase(out.order, key);
      out.order.push_back(key);
    }
  REQUIRE(ns.jump().ok());
  sync_all(ns);
  return out;
}

void check(name_space& ns, const sample& want) {
  CHECK(ns.entries() == want.live.size());
  for (auto& [key, value] : want.live) REQUIRE(value_of(ns, key) == value);
  CHECK(keys_of(ns, scan_order::oldest_first) == want.order);
  auto backwards = want.order;
  std::reverse(backwards.begin(), backwards.end());
  CHECK(keys_of(ns, scan_order::newest_first) == backwards);
}

std::uint64_t bytes_in(const fs::path& directory) {
  std::uint64_t n = 0;
  for (auto& e : fs::directory_iterator{directory})
    if (e.path().extension() == ".data") n += e.file_size();
  return n;
}

TEST_CASE("space comes back, values, order and cursors stay, file ids are not used again") {
  quiet no_log;
  storage s{64 << 10};
  auto want = fill(s, 200, 6);
  auto& ns = s.space();
  auto before = ns.usage();
  REQUIRE(before.dead > before.live);
  auto last_id = ns.active_file();
  std::map<std::string, std::string> cursors;
  for (auto& key : want.order) REQUIRE(ns.cursor_of(as_bytes(key), cursors[key]) == read_answer::found);
  key_version version;
  REQUIRE(ns.history(as_bytes("key1"), {}, version) == history_answer::found);
  auto reference = version.previous;
  CHECK(reference.valid());

  driver d;
  CHECK(d.run(s.shared(), true) > 0);
  CHECK(d.last.ok());
  auto after = ns.usage();
  CHECK(after.live == before.live);
  CHECK(after.dead < before.live / 10);
  CHECK(after.disk == bytes_in(ns.directory()));
  CHECK(d.c.stats().bytes_freed >= before.disk - after.disk);
  check(ns, want);
  for (std::size_t i = 0; i < want.order.size(); i += 7) {
    CAPTURE(i);
    auto& cursor = cursors[want.order[i]];
    auto at = static_cast<std::ptrdiff_t>(i);
    CHECK(keys_of(ns, scan_order::oldest_first, cursor) ==
          std::vector<std::string>(want.order.begin() + at + 1, want.order.end()));
    std::vector<std::string> back(want.order.begin(), want.order.begin() + at);
    std::reverse(back.begin(), back.end());
    CHECK(keys_of(ns, scan_order::newest_first, cursor) == back);
  }
  CHECK(ns.history(as_bytes("key1"), reference, version) == history_answer::no_more);
  REQUIRE(ns.history(as_bytes("key1"), {}, version) == history_answer::found);
  CHECK(!version.previous.valid());
  // A cursor whose own item is gone from the disk: what follows it.
  REQUIRE(ns.erase(as_bytes(want.order[3]), 1) == write_answer::stored);
  auto rest = std::vector<std::string>(want.order.begin() + 4, want.order.end());
  CHECK(keys_of(ns, scan_order::oldest_first, cursors[want.order[3]]) == rest);
  REQUIRE(ns.jump().ok());
  sync_all(ns);
  d.run(s.shared(), true);
  CHECK(keys_of(ns, scan_order::oldest_first, cursors[want.order[3]]) == rest);
  want.live.erase(want.order[3]);
  want.order.erase(want.order.begin() + 3);
  s.reopen();
  check(s.space(), want);
  REQUIRE(put(s.space(), "new", "1") == write_answer::stored);
  REQUIRE(s.space().jump().ok());
  CHECK(s.space().active_file() > last_id + 1);
}

TEST_CASE("the process ends at any step of a pass, with writes going on: nothing is lost or back") {
  quiet no_log;
  for (bool sequential : {false, true}) {
    CAPTURE(sequential);
    storage s{32 << 10, sequential};
    s.options.id_frames = 2; // so that the index of ids pages all the time
    s.reopen();
    auto& ns = s.space();
    seeded_random random{sequential ? 5U : 6U};
    std::map<std::string, std::string> model;
    std::vector<std::string> ids;
    auto write = [&] {
      std::string key;
      if (!sequential)
        key = fmt::format("k{}", random.below(150));
      else if (!ids.empty() && random.below(2) == 0)
        key = ids[random.below(ids.size())];
      if (!key.empty() && random.below(4) == 0) {
        auto answer = ns.erase(as_bytes(key), 1);
        REQUIRE(answer == (model.contains(key) ? write_answer::stored : write_answer::missing));
        model.erase(key);
        if (sequential) std::erase(ids, key);
        return;
      }
      auto value = fmt::format("{}{}", random.next_u64(), std::string(random.below(900), 'v'));
      std::string id;
      REQUIRE(ns.set(as_bytes(key), as_bytes(value), 1, false, id) == write_answer::stored);
      if (key.empty()) ids.push_back(id);
      model[id] = value;
    };
    auto verify = [&](name_space& it) {
      REQUIRE(it.entries() == model.size());
      for (auto& [key, value] : model) REQUIRE(value_of(it, key) == value);
      auto keys = keys_of(it, scan_order::oldest_first);
      REQUIRE(std::set<std::string>(keys.begin(), keys.end()).size() == keys.size());
      REQUIRE(keys.size() == model.size());
      auto back = keys_of(it, scan_order::newest_first);
      std::reverse(back.begin(), back.end());
      REQUIRE(back == keys);
      if (sequential) REQUIRE(it.next_id() == ns.next_id());
      auto u = it.usage();
      REQUIRE(u.disk == 64 * u.files + u.live + u.dead + u.tombstones);
    };
    driver d{{0, 20, 1}};
    int ends = 0;
    for (int pass = 0; pass < 12; ++pass) {
      for (int i = 0; i < 250; ++i) write();
      sync_all(ns);
      if (!d.c.consider(s.shared(), pass % 3 == 0)) continue;
      do {
        write();
        write();
        // What is on the disk now, as after SIGKILL, opened as another store.
        temporary_directory copy;
        fs::copy(s.options.data, copy.path / "data", fs::copy_options::recursive);
        store_options o = s.options;
        o.data = copy.path / "data";
        auto other = store::open(o);
        REQUIRE(other.ok());
        CAPTURE(pass);
        verify(*(*other)->find("default"));
        verify(ns);
        ++ends;
      } while (d.step());
    }
    CHECK(ends > 30);
    CHECK(d.c.stats().passes >= 5);
    CHECK(d.c.stats().failures == 0);
    s.reopen();
    REQUIRE(s.space().entries() == model.size());
    for (auto& [key, value] : model) REQUIRE(value_of(s.space(), key) == value);
  }
}

TEST_CASE("tombstones go when nothing is left for them to hide") {
  quiet no_log;
  for (bool sequential : {false, true}) {
    storage s{64 << 10, sequential};
    auto& ns = s.space();
    std::vector<std::string> keys;
    for (int i = 0; i < 2000; ++i) {
      std::string id;
      auto key = sequential ? std::string{} : fmt::format("key{}", i);
      REQUIRE(ns.set(as_bytes(key), as_bytes(std::string(200, 'v')), 1, false, id) ==
              write_answer::stored);
      keys.push_back(id);
    }
    for (auto& k : keys) REQUIRE(ns.erase(as_bytes(k), 1) == write_answer::stored);
    REQUIRE(ns.jump().ok());
    sync_all(ns);
    driver d;
    d.run(s.shared(), true);
    auto u = ns.usage();
    CHECK(u.live == 0);
    CHECK(u.disk < 1000);
    CHECK(u.files <= 3);
    s.reopen();
    CHECK(s.space().entries() == 0);
    if (sequential) CHECK(s.space().next_id() == 2000); // ids are not used again either
  }
}

TEST_CASE("never in a worm namespace; not for little; what is written to is left first") {
  storage s{64 << 10};
  auto& ns = s.space();
  driver d;
  CHECK(!d.c.consider(s.shared(), true)); // nothing there
  fill(s, 100, 4);
  auto settings = ns.settings();
  settings.worm = true;
  ns.set_settings(settings);
  CHECK(!d.c.consider(s.shared(), true));
  settings.worm = false;
  ns.set_settings(settings);
  driver picky{{0, 50, 1 << 30}};
  CHECK(!picky.c.consider(s.shared()));
  CHECK(d.c.consider(s.shared()));
  CHECK(!d.c.consider(s.shared())); // one at a time
  CHECK(d.c.working_on() == s.shared());
  CHECK(ns.reload().err().code == errc::busy);
  while (d.step()) {
  }
  CHECK(!d.c.working_on());
  CHECK(ns.reload().ok());

  // What is still written to is left first, if there is enough to free in it.
  storage one{64 << 20};
  for (int i = 0; i < 1000; ++i)
    REQUIRE(put(one.space(), "k", fmt::format("{}", i)) == write_answer::stored);
  driver e;
  CHECK(e.run(one.shared()) == 0); // too small for that
  CHECK(one.space().usage().files == 1);
  CHECK(e.run(one.shared(), true) == 1);
  CHECK(value_of(one.space(), "k") == "999");
  CHECK(one.space().usage().dead == 0);
  CHECK(!one.space().dirty()); // what overwrote was synced before what it overwrote went
  std::string big(1 << 20, 'b');
  for (int i = 0; i < 5; ++i)
    REQUIRE(put(one.space(), "k", big + fmt::format("{}", i)) == write_answer::stored);
  CHECK(e.run(one.shared()) == 1);
  CHECK(value_of(one.space(), "k") == big + "4");
  CHECK(one.space().usage().disk < 2 << 20);
}

TEST_CASE("a flush or the end of the namespace in the middle of a pass wins") {
  quiet no_log;
  for (int steps = 1; steps < 12; ++steps) {
    CAPTURE(steps);
    storage s{64 << 10};
    fill(s, 100, 4);
    auto& ns = s.space();
    driver d;
    REQUIRE(d.c.consider(s.shared(), true, [&](const status& r) { d.last = r; }));
    bool alive = true;
    for (int i = 0; i < steps && alive; ++i) alive = d.step();
    auto old = ns.flush();
    REQUIRE(old.ok());
    REQUIRE(put(ns, "after", "1") == write_answer::stored);
    while (d.step()) {
    }
    CHECK(!ns.compacting());
    CHECK(ns.entries() == 1);
    sync_all(ns);
    for (auto& p : *old) fs::remove(p);
    s.reopen();
    CHECK(s.space().entries() == 1);
    CHECK(value_of(s.space(), "after") == "1");
    CHECK(s.space().usage().files == 1);
  }
}

TEST_CASE("a damaged record stops the pass; nothing else is lost and the file stays") {
  quiet no_log;
  storage s{64 << 10};
  auto want = fill(s, 100, 4);
  auto path = data_file_path(s.space().directory(), 1);
  // key95 of the first round is still alive, in the first file or the second.
  std::string cursor;
  REQUIRE(s.space().cursor_of(as_bytes("key95"), cursor) == read_answer::found);
  auto id = load_le<std::uint32_t>(as_bytes(cursor).data() + 1);
  auto offset = load_le<std::uint32_t>(as_bytes(cursor).data() + 9);
  path = data_file_path(s.space().directory(), id);
  auto bytes = *read_file(path);
  bytes[offset + 32 + 5 + 3] ^= 1; // its payload
  REQUIRE(write_file_atomic(path, as_bytes(bytes)).ok());
  s.reopen();
  driver d;
  d.run(s.shared(), true);
  CHECK(d.c.stats().failures > 0);
  CHECK(fs::exists(path));
  CHECK(!value_of(s.space(), "key95"));
  want.live.erase("key95");
  for (auto& [key, value] : want.live) REQUIRE(value_of(s.space(), key) == value);
  s.reopen();
  for (auto& [key, value] : want.live) REQUIRE(value_of(s.space(), key) == value);
  for (auto& e : fs::directory_iterator{s.space().directory()}) CHECK(e.path().extension() != ".packing");
}

TEST_CASE("a full disk stops the pass, leaves nothing behind, and everything goes on") {
  quiet no_log;
  temporary_directory dir;
  if (::mount("tmpfs", dir.path.c_str(), "tmpfs", 0, "size=2m") != 0) {
    MESSAGE("skipped: cannot mount a small tmpfs here");
    return;
  }
  {
    storage s{1 << 20};
    s.options.data = dir.path / "data";
    s.reopen();
    auto& ns = s.space();
    std::string value(20'000, 'v');
    for (int i = 0; i < 80; ++i) REQUIRE(put(ns, fmt::format("k{}", i), value) == write_answer::stored);
    auto erase = [&](int from, int to) {
      for (int i = from; i < to; ++i) REQUIRE(ns.erase(as_bytes(fmt::format("k{}", i)), 1) == write_answer::stored);
    };
    erase(0, 4);
    REQUIRE(ns.jump().ok());
    sync_all(ns);
    driver d;
    CHECK(!d.c.consider(s.shared(), true, [&](const status& r) { d.last = r; })); // it would not fit
    erase(4, 40);
    REQUIRE(d.c.consider(s.shared(), true, [&](const status& r) { d.last = r; }));
    {
      std::ofstream filler{dir.path / "filler"}; // somebody else is quicker
      for (int i = 0; i < 2048 && filler; ++i) filler << std::string(1024, 'f') << std::flush;
    }
    while (d.step()) {
    }
    REQUIRE(!d.last.ok());
    CHECK(d.last.err().code == errc::no_space);
    CHECK(!d.c.consider(s.shared(), true)); // not again at once
    for (int i = 40; i < 80; ++i) REQUIRE(value_of(ns, fmt::format("k{}", i)) == value);
    fs::remove(dir.path / "filler");
    CHECK(eventually([&] { return put(ns, "small", "s") == write_answer::stored; }));
    for (auto& e : fs::directory_iterator{ns.directory()}) CHECK(e.path().extension() != ".packing");
    s.all.reset();
  }
  CHECK(::umount2(dir.path.c_str(), MNT_DETACH) == 0);
}

TEST_CASE("no faster than it may") {
  quiet no_log;
  storage s{256 << 10};
  fill(s, 200, 6);
  auto moved = s.space().usage().live;
  driver d{{100'000, 20, 1}};
  d.run(s.shared(), true);
  // Every byte kept is read and written once.
  CHECK(d.waited.count() >= static_cast<std::int64_t>(moved * 2 * 1000 / 100'000) * 9 / 10);
}

} // namespace
} // namespace qs::zdb
