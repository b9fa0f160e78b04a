// The storage engine below the commands: versions, cursors, walks both ways, ranges, raw records.
#include "support/zdb_store.hpp"

#include <fcntl.h>
#include <fstream>
#include <sys/stat.h>
#include <unistd.h>

#include "base/random.hpp"

namespace qs::zdb {
namespace {

TEST_CASE("every version of a key, back to the first; not across a deletion") {
  storage s;
  auto& ns = s.space();
  for (auto* v : {"one", "two", "three"}) REQUIRE(put(ns, "k", v) == write_answer::stored);
  key_version v;
  REQUIRE(ns.history(as_bytes("k"), {}, v) == history_answer::found);
  CHECK(to_string(v.payload.bytes()) == "three");
  auto reference = encode_reference(v.previous);
  CHECK(decode_reference(as_bytes(reference)) == v.previous);
  CHECK(!decode_reference(as_bytes("1234567")));
  CHECK(ns.history(as_bytes("other"), v.previous, v) == history_answer::other_key);
  REQUIRE(ns.history(as_bytes("k"), v.previous, v) == history_answer::found);
  CHECK(to_string(v.payload.bytes()) == "two");
  REQUIRE(ns.history(as_bytes("k"), v.previous, v) == history_answer::found);
  CHECK(to_string(v.payload.bytes()) == "one");
  CHECK(!v.previous.valid());
  CHECK(ns.history(as_bytes("k"), record_place{1, 65}, v) == history_answer::bad_reference);
  CHECK(ns.history(as_bytes("k"), record_place{9, 64}, v) == history_answer::bad_reference);
  CHECK(ns.history(as_bytes("k"), record_place{1, 4'000'000'000}, v) ==
        history_answer::bad_reference);
  CHECK(ns.history(as_bytes("none"), {}, v) == history_answer::missing);
  REQUIRE(ns.erase(as_bytes("k"), 1) == write_answer::stored);
  CHECK(ns.history(as_bytes("k"), {}, v) == history_answer::missing);
}

TEST_CASE("scan and reverse scan give every live key once, in order, from any cursor") {
  for (bool sequential : {false, true}) {
    CAPTURE(sequential);
    storage s{512 << 10, sequential};
    auto& ns = s.space();
    std::vector<std::string> order;
    std::string filler(3000, 'f');
    for (int i = 0; i < 1000; ++i) {
      std::string id;
      auto key = sequential ? std::string{} : fmt::format("key{}", i);
      REQUIRE(ns.set(as_bytes(key), as_bytes(filler), 1, false, id) == write_answer::stored);
      order.push_back(id);
    }
    for (int i = 0; i < 1000; i += 3) {
      REQUIRE(ns.erase(as_bytes(order[static_cast<std::size_t>(i)]), 1) == write_answer::stored);
      order[static_cast<std::size_t>(i)].clear();
    }
    std::erase(order, "");
    CHECK(ns.usage().files > 5);
    CHECK(keys_of(ns, scan_order::oldest_first) == order);
    auto backwards = order;
    std::reverse(backwards.begin(), backwards.end());
    CHECK(keys_of(ns, scan_order::newest_first) == backwards);
    for (std::size_t i = 0; i < order.size(); i += 37) {
      CAPTURE(i);
      std::string cursor;
      REQUIRE(ns.cursor_of(as_bytes(order[i]), cursor) == read_answer::found);
      CHECK(cursor.size() == 17);
      auto at = static_cast<std::ptrdiff_t>(i);
      CHECK(keys_of(ns, scan_order::oldest_first, cursor) ==
            std::vector<std::string>(order.begin() + at + 1, order.end()));
      CHECK(keys_of(ns, scan_order::newest_first, cursor) ==
            std::vector<std::string>(backwards.end() - at, backwards.end()));
    }
    std::string cursor;
    CHECK(ns.cursor_of(as_bytes("nobody"), cursor) == read_answer::missing);
  }
}

TEST_CASE("what is not a cursor of here is refused") {
  storage s;
  auto& ns = s.space();
  REQUIRE(put(ns, "a", "1") == write_answer::stored);
  std::string good;
  REQUIRE(ns.cursor_of(as_bytes("a"), good) == read_answer::found);
  auto empty = ns.scan(as_bytes(good));
  REQUIRE(empty.ok());
  CHECK((empty->items.empty() && empty->cursor.empty()));
  for (auto order : {scan_order::oldest_first, scan_order::newest_first})
    for (std::size_t i = 0; i < good.size(); ++i) {
      CAPTURE(i);
      auto bad = good;
      bad[i] = static_cast<char>(bad[i] ^ 0x11);
      CHECK(ns.scan(as_bytes(bad), order).err().code == errc::invalid_argument);
      CHECK(ns.scan(as_bytes(good.substr(0, i)), order).ok() == (i == 0));
    }
}

TEST_CASE("keys by their beginning") {
  storage s;
  auto& ns = s.space();
  for (auto* k : {"apple", "apricot", "pear", "ap", "plum"})
    REQUIRE(put(ns, k, "x") == write_answer::stored);
  auto page = ns.scan_prefix(as_bytes("ap"), {});
  REQUIRE(page.ok());
  REQUIRE(page->items.size() == 3);
  CHECK(page->items[1].key == "apricot");
  CHECK(ns.scan_prefix(as_bytes("x"), {})->items.empty());
  CHECK(ns.scan_prefix({}, {})->items.size() == 5);
}

TEST_CASE("ranges of a payload") {
  storage s;
  auto& ns = s.space();
  std::string value;
  for (int i = 0; i < 100'000; ++i) value += static_cast<char>(i * 7);
  REQUIRE(put(ns, "k", value) == write_answer::stored);
  struct {
    std::uint64_t offset, length;
  } cases[] = {{0, 1}, {0, 100'000}, {65'536, 65'536}, {99'999, 5}, {100'000, 1}, {~0ULL, ~0ULL},
               {5, 0}, {0, ~0ULL}};
  for (auto& c : cases) {
    CAPTURE(c.offset);
    value_block out;
    REQUIRE(ns.get_range(as_bytes("k"), c.offset, c.length, out) == read_answer::found);
    CHECK(to_string(out.bytes()) == value.substr(std::min<std::size_t>(c.offset, value.size()),
                                                 static_cast<std::size_t>(c.length)));
  }
  value_block out;
  CHECK(ns.get_range(as_bytes("none"), 0, 1, out) == read_answer::missing);
}

TEST_CASE("raw records, one after the other") {
  storage s;
  auto& ns = s.space();
  REQUIRE(put(ns, "a", "1") == write_answer::stored);
  REQUIRE(put(ns, "b", "22") == write_answer::stored);
  REQUIRE(ns.erase(as_bytes("a"), 7) == write_answer::stored);
  raw_record r;
  std::vector<std::string> seen;
  for (std::uint64_t at = 0;; at = r.next) {
    auto answer = ns.raw(1, at, r);
    if (answer == raw_answer::end_of_file) break;
    REQUIRE(answer == raw_answer::found);
    seen.push_back(r.key + "=" + to_string(r.payload.bytes()) +
                   (r.header.kind == record_kind::erase ? "-" : ""));
  }
  CHECK(seen == std::vector<std::string>{"a=1", "b=22", "a=-"});
  CHECK(r.header.timestamp == 7);
  CHECK(r.header.previous == record_place{1, 64});
  CHECK(ns.raw(1, 66, r) == raw_answer::bad_request);
  CHECK(ns.raw(2, 0, r) == raw_answer::bad_request);
  CHECK(ns.raw(1, 1ULL << 40, r) == raw_answer::end_of_file);
}

TEST_CASE("jump, changed files, usage, and all of it again after a reload") {
  storage s;
  auto& ns = s.space();
  CHECK(ns.jump().ok());
  CHECK(ns.usage().files == 0); // nothing to leave
  REQUIRE(put(ns, "a", "1") == write_answer::stored);
  REQUIRE(ns.jump().ok());
  REQUIRE(ns.jump().ok()); // the new one has nothing yet
  CHECK(ns.active_file() == 2);
  REQUIRE(put(ns, "a", "22") == write_answer::stored);
  REQUIRE(put(ns, "b", "3") == write_answer::stored);
  REQUIRE(ns.erase(as_bytes("b"), 1) == write_answer::stored);
  CHECK(ns.changed_files() == std::vector<std::uint32_t>{1, 2});
  ns.forget_changed_files();
  CHECK(ns.changed_files().empty());
  auto before = ns.usage();
  CHECK(before.live_payload == 2);
  CHECK(before.live == 32 + 1 + 2);
  CHECK(before.dead == (32 + 1 + 1) * 2);
  CHECK(before.tombstones == 32 + 1);
  CHECK(before.disk == 64 * 2 + before.live + before.dead + before.tombstones);
  REQUIRE(ns.reload().ok());
  auto after = ns.usage();
  CHECK(after.live == before.live);
  CHECK(after.dead == before.dead);
  CHECK(after.tombstones == before.tombstones);
  CHECK(value_of(ns, "a") == "22");
  CHECK(!value_of(ns, "b"));
  CHECK(ns.entries() == 1);
  REQUIRE(put(ns, "c", "4") == write_answer::stored);
  CHECK(ns.active_file() == 2);
}

TEST_CASE("a data file takes the space of what is in it, and no more") {
  storage s; // --datasize is 256 MiB
  auto& ns = s.space();
  std::uint64_t values = 0;
  for (std::size_t size : {10UL, 100'000UL, 1'000'000UL}) {
    REQUIRE(put(ns, std::to_string(size), std::string(size, 'v')) == write_answer::stored);
    values += size;
    sync_all(ns);
    struct stat st {};
    REQUIRE(::stat(data_file_path(ns.directory(), 1).c_str(), &st) == 0);
    CHECK(static_cast<std::uint64_t>(st.st_size) == ns.disk_bytes());
    CHECK(ns.disk_bytes() < values + 1000);
    // File systems add to that: blocks, and some (XFS) room for what may follow.
    CHECK(static_cast<std::uint64_t>(st.st_blocks) * 512 < 4 * values + (1 << 20));
  }
}

TEST_CASE("a flush is complete or not there, wherever the process ends") {
  storage s;
  {
    auto& ns = s.space();
    for (int i = 0; i < 10; ++i) {
      REQUIRE(put(ns, fmt::format("k{}", i), "v") == write_answer::stored);
      REQUIRE(ns.jump().ok());
    }
    auto old = ns.flush();
    REQUIRE(old.ok());
    CHECK(old->size() == 11); // none of them deleted yet: as if it ended here
    CHECK(ns.entries() == 0);
    CHECK(ns.usage().live_payload == 0);
    CHECK(keys_of(ns, scan_order::oldest_first).empty());
  }
  s.reopen();
  CHECK(s.space().entries() == 0);
  CHECK(s.space().usage().files == 1);
  REQUIRE(put(s.space(), "new", "v") == write_answer::stored);
  s.reopen();
  CHECK(s.space().entries() == 1);
}

TEST_CASE("after a flush the new file is compacted like others, once the old ones are gone") {
  storage s;
  auto& ns = s.space();
  REQUIRE(put(ns, "old", "v") == write_answer::stored);
  auto old = ns.flush();
  REQUIRE(old.ok());
  for (int round = 0; round < 2; ++round)
    for (int i = 0; i < 10; ++i)
      REQUIRE(put(ns, fmt::format("k{}", i), fmt::format("value {}", round)) == write_answer::stored);
  CHECK_FALSE(ns.plan_compaction(50, 0, true)); // it hides what is still there
  for (auto& path : *old) std::filesystem::remove(path);
  ns.flushed();
  CHECK(ns.plan_compaction(50, 0, true));
}

TEST_CASE("keys of any length that meet a hash by chance are other keys") {
  storage s;
  auto& ns = s.space();
  constexpr int many = 1 << 17;
  for (int i = 0; i < many; ++i)
    REQUIRE(put(ns, fmt::format("k{}", i), "v") == write_answer::stored);
  // One in 2^15 of these has the hash of one of those.
  record_header header;
  value_block value;
  std::string key(300, 'x');
  for (int i = 0; i < many; ++i) {
    fmt::format_to(key.begin(), "{:06}", i);
    REQUIRE(ns.look(as_bytes(key), header) == read_answer::missing);
    REQUIRE(ns.get(as_bytes(key), value) == read_answer::missing);
  }
}

TEST_CASE("a quota without end") {
  storage s;
  auto& ns = s.space();
  auto settings = ns.settings();
  settings.maxsize = ~std::uint64_t{0};
  ns.set_settings(settings);
  REQUIRE(put(ns, "a", "12345") == write_answer::stored);
  CHECK(put(ns, "a", "99999") == write_answer::stored);
}

TEST_CASE("a record whose key is damaged is damaged, not absent") {
  quiet no_log;
  storage s;
  auto place = [&] { // of the last record's key
    auto dir = s.space().directory();
    for (auto& entry : std::filesystem::directory_iterator{dir})
      if (entry.path().extension() == ".data") return entry.path();
    return std::filesystem::path{};
  };
  REQUIRE(put(s.space(), "key", "value") == write_answer::stored);
  auto path = place();
  auto bytes = *read_file(path);
  auto at = bytes.rfind("keyvalue");
  REQUIRE(at != std::string::npos);
  {
    std::fstream file{path, std::ios::in | std::ios::out | std::ios::binary};
    file.seekp(static_cast<std::streamoff>(at));
    file.put('x');
  }
  value_block out;
  CHECK(s.space().get(as_bytes("key"), out) == read_answer::damaged);
  CHECK(s.space().exists(as_bytes("key")) == read_answer::damaged);
  CHECK(s.space().get(as_bytes("other"), out) == read_answer::missing);
  std::string id;
  CHECK(s.space().set(as_bytes("key"), as_bytes("new"), 1, true, id) == write_answer::exists);
  CHECK(s.space().set(as_bytes("key"), as_bytes("new"), 1, false, id) == write_answer::stored);
  CHECK(value_of(s.space(), "key") == "new");
}

TEST_CASE("reverse and forward walks step over damage") {
  quiet no_log;
  storage s;
  std::string value(1000, 'v');
  for (int i = 0; i < 600; ++i)
    REQUIRE(put(s.space(), fmt::format("k{:03}", i), value) == write_answer::stored);
  sync_all(s.space());
  std::string cursor;
  REQUIRE(s.space().cursor_of(as_bytes("k300"), cursor) == read_answer::found);
  auto offset = load_le<std::uint32_t>(as_bytes(cursor).data() + 9);
  auto path = data_file_path(s.space().directory(), 1);
  auto bytes = *read_file(path);
  bytes[offset + 5] = static_cast<char>(bytes[offset + 5] ^ 1);
  REQUIRE(write_file_atomic(path, as_bytes(bytes)).ok());
  s.reopen();
  CHECK(s.space().entries() == 599);
  CHECK(keys_of(s.space(), scan_order::oldest_first).size() == 599);
}

TEST_CASE("many namespaces share few descriptors, and none forgets") {
  quiet no_log;
  storage s;
  constexpr int many = 300;
  for (int i = 0; i < many; ++i) {
    auto name = fmt::format("tenant{}", i);
    auto made = s.all->begin_new(name);
    REQUIRE(s.all->finish_new(made, name_space::create(made.directory, made.settings)).ok());
    REQUIRE(put(*s.all->find(name), "k", name) == write_answer::stored);
  }
  CHECK(s.all->files().open_files() <= 256);
  for (int start = 0; start < 2; ++start) {
    for (int i = 0; i < many; ++i) {
      auto name = fmt::format("tenant{}", i);
      REQUIRE(value_of(*s.all->find(name), "k") == name);
    }
    CHECK(s.all->files().open_files() <= 256);
    s.reopen();
  }
}

TEST_CASE("a sync that could not begin leaves the directory's sync to the next one") {
  quiet no_log;
  temporary_directory dir;
  auto at = dir.path / "one";
  namespace_settings settings;
  settings.name = "one";
  REQUIRE(name_space::create(at, settings).ok());
  file_pool pool{1};
  auto ns = name_space::open(pool, at, {});
  REQUIRE(ns.ok());
  REQUIRE(put(**ns, "a", "1") == write_answer::stored);
  REQUIRE((*ns)->jump().ok());
  REQUIRE(put(**ns, "b", "2") == write_answer::stored); // the first file's descriptor is closed
  auto first = data_file_path(at, 1);
  std::filesystem::rename(first, dir.path / "away");
  REQUIRE(!(*ns)->make_sync_job().ok());
  std::filesystem::rename(dir.path / "away", first);
  auto job = (*ns)->make_sync_job();
  REQUIRE(job.ok());
  CHECK(job->names_changed);
  CHECK(job->run().ok());
}

TEST_CASE("a new namespace that cannot be opened leaves nothing behind: the next try and start are good") {
  quiet no_log;
  storage s;
  auto made = s.all->begin_new("n");
  auto created = name_space::create(made.directory, made.settings);
  REQUIRE(created.ok());
  REQUIRE(write_file_atomic(made.directory / "namespace", as_bytes("damaged")).ok());
  CHECK(!s.all->finish_new(made, created).ok());
  CHECK(!std::filesystem::exists(made.directory));
  CHECK(!s.all->is_taken("n"));
  auto again = s.all->begin_new("n");
  REQUIRE(s.all->finish_new(again, name_space::create(again.directory, again.settings)).ok());
  s.reopen();
  CHECK(s.all->find("n"));
}

TEST_CASE("a reload that fails takes nothing away") {
  quiet no_log;
  storage s;
  auto& ns = s.space();
  REQUIRE(put(ns, "a", "1") == write_answer::stored);
  ns.deleting_files = 1;
  REQUIRE(!ns.reload().ok());
  CHECK(ns.reload().err().code == errc::busy);
  ns.deleting_files = 0;
  std::filesystem::create_directory(data_file_path(ns.directory(), 2)); // cannot be opened
  auto failed = ns.reload();
  REQUIRE(!failed.ok());
  CHECK(failed.err().code != errc::busy);
  CHECK(value_of(ns, "a") == "1");
  CHECK(ns.entries() == 1);
  CHECK(put(ns, "b", "2") == write_answer::failed);
}

TEST_CASE("the quota of default is what the command line says, each time; others have their own") {
  storage s;
  CHECK(s.space().settings().maxsize == 0);
  s.options.maxsize = 1000;
  s.reopen();
  CHECK(s.space().settings().maxsize == 1000);
  CHECK(put(s.space(), "a", std::string(1000, 'x')) == write_answer::stored);
  CHECK(put(s.space(), "b", "x") == write_answer::no_space);
  CHECK(s.all->begin_new("other").settings.maxsize == 0);
  s.options.maxsize = 0;
  s.reopen();
  CHECK(put(s.space(), "b", "x") == write_answer::stored);
}

TEST_CASE("both walks step over a damaged record") {
  quiet no_log;
  storage s;
  auto& ns = s.space();
  for (auto* key : {"a", "b", "c"}) REQUIRE(put(ns, key, "1") == write_answer::stored);
  auto fd = open_file(data_file_path(ns.directory(), 1), O_RDWR);
  REQUIRE(fd.ok());
  char junk = 0x55;
  REQUIRE(::pwrite(fd->get(), &junk, 1, 64 + 34 + 7) == 1); // in the header of b
  CHECK(keys_of(ns, scan_order::oldest_first) == std::vector<std::string>{"a", "c"});
  CHECK(keys_of(ns, scan_order::newest_first) == std::vector<std::string>{"c", "a"});
}

} // namespace
} // namespace qs::zdb
