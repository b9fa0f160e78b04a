// The index of sequential mode: pages in memory and in a file, and what is when the file fails.
#include "support/zdb_store.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/random.hpp"

namespace qs::zdb {
namespace {

index_entry entry_of(std::uint64_t id) {
  return {{static_cast<std::uint32_t>(id % 1000 + 1), static_cast<std::uint32_t>(id)}, 7};
}

std::string key_of(std::uint64_t id) {
  std::string key(8, '\0');
  store_le(reinterpret_cast<std::byte*>(key.data()), id);
  return key;
}

/// The next bytes written to the file go nowhere: it is full.
void make_full(const id_pages& pages) {
  unique_fd full{::open("/dev/full", O_RDWR)};
  REQUIRE(::dup2(full.get(), pages.descriptor()) >= 0);
}

TEST_CASE("sequential ids stay, deleted ones are holes") {
  id_pages pages;
  sequential_index ids{pages};
  REQUIRE(ids.put(0, {{1, 64}, 3}).ok());
  REQUIRE(ids.put(2, {{1, 99}, 3}).ok());
  CHECK(ids.size() == 2);
  CHECK(ids.next_id() == 3);
  CHECK(!ids.find(1)->place.valid());
  REQUIRE(ids.erase(2).ok());
  REQUIRE(ids.erase(2).ok());
  REQUIRE(ids.erase(99).ok());
  CHECK(ids.size() == 1);
  CHECK(ids.next_id() == 3);
  CHECK(!ids.find(2)->place.valid());
}

TEST_CASE("several indexes share few pages in memory, and each keeps its own") {
  temporary_directory dir;
  id_pages pages{dir.path, 4};
  seeded_random random{7};
  std::vector<sequential_index> all;
  std::vector<std::map<std::uint64_t, index_entry>> want(3);
  for (std::size_t i = 0; i < want.size(); ++i) all.emplace_back(pages);
  for (int step = 0; step < 60'000; ++step) {
    auto which = random.below(want.size());
    auto& ids = all[which];
    auto& model = want[which];
    auto id = random.below(3) == 0 ? ids.next_id() : random.below(ids.next_id() + 1);
    if (step % 20'000 == 19'999) { // emptied, as by FLUSH
      ids = sequential_index{pages};
      model.clear();
    } else if (random.below(5) == 0) {
      REQUIRE(ids.erase(id).ok());
      model.erase(id);
    } else if (random.below(500) == 0) {
      ids.skip_to(ids.next_id() + random.below(1000));
    } else {
      auto entry = entry_of(random.next_u64() % 100'000);
      REQUIRE(ids.put(id, entry).ok());
      model[id] = entry;
    }
    REQUIRE(ids.size() == model.size());
    auto look = random.below(ids.next_id() + 1);
    auto found = ids.find(look);
    REQUIRE(found.ok());
    auto it = model.find(look);
    REQUIRE(found->place == (it == model.end() ? record_place{} : it->second.place));
  }
  CHECK(pages.memory_bytes() <= 4 * 4300);
  for (std::size_t i = 0; i < want.size(); ++i)
    for (std::uint64_t id = 0; id < all[i].next_id(); ++id) {
      auto it = want[i].find(id);
      REQUIRE(all[i].find(id)->place == (it == want[i].end() ? record_place{} : it->second.place));
    }
  CHECK(pages.file_bytes() > 0);
  all.clear();
  CHECK(pages.file_bytes() == 0);
  CHECK(pages.memory_bytes() == 0);
  struct stat st {};
  REQUIRE(::fstat(pages.descriptor(), &st) == 0);
  CHECK(st.st_size == 0);
  CHECK(std::filesystem::is_empty(dir.path)); // it has no name
}

TEST_CASE("memory: next to nothing an id, and little where there are few") {
  temporary_directory dir;
  id_pages pages{dir.path};
  sequential_index ids{pages};
  CHECK(ids.memory_bytes() == 0);
  REQUIRE(ids.put(0, entry_of(0)).ok());
  CHECK(ids.memory_bytes() <= 24);
  constexpr std::uint64_t many = 3'000'000;
  for (std::uint64_t i = 1; i < many; ++i) REQUIRE(ids.put(i, entry_of(i)).ok());
  CHECK(pages.memory_bytes() <= 2'200'000);
  CHECK(ids.memory_bytes() <= many / 15);
  for (std::uint64_t i = 0; i < many; i += 10'007) CHECK(ids.find(i)->place == entry_of(i).place);
  // Ids that were never used take nothing, wherever the next one is.
  sequential_index far{pages};
  far.skip_to(1'000'000'000);
  REQUIRE(far.put(1'000'000'000, entry_of(1)).ok());
  CHECK(far.size() == 1);
  CHECK(!far.find(5)->place.valid());
  CHECK(pages.file_bytes() <= many * 13);
}

TEST_CASE("what cannot be written stays in memory, and goes when there is room again") {
  quiet no_log;
  temporary_directory dir;
  auto at = dir.path / "later";
  id_pages pages{at, 4};
  sequential_index ids{pages};
  constexpr std::uint64_t many = 20'000;
  for (std::uint64_t i = 0; i < many; ++i) REQUIRE(ids.put(i, entry_of(i)).ok());
  CHECK(pages.failing());
  CHECK(pages.file_bytes() == 0);
  for (std::uint64_t i = 0; i < many; ++i) REQUIRE(ids.find(i)->place == entry_of(i).place);
  std::filesystem::create_directory(at);
  std::uint64_t next = many;
  CHECK(eventually([&] { // it is tried again every second
    for (int i = 0; i < 400; ++i, ++next) REQUIRE(ids.put(next, entry_of(next)).ok());
    return !pages.failing() && pages.memory_bytes() <= 4 * 4300;
  }));
  for (std::uint64_t i = 0; i < next; ++i) REQUIRE(ids.find(i)->place == entry_of(i).place);
}

TEST_CASE("a page that cannot be read, or is not what was written, is never an answer") {
  quiet no_log;
  temporary_directory dir;
  for (bool stale : {false, true}) {
    CAPTURE(stale);
    id_pages pages{dir.path, 4};
    sequential_index ids{pages};
    for (std::uint64_t i = 0; i < 20'000; ++i) REQUIRE(ids.put(i, entry_of(i)).ok());
    if (stale) { // what the kernel could not write back and dropped: an earlier version
      std::string other(4096, '\0');
      REQUIRE(::pread(pages.descriptor(), other.data(), 4096, 4096) == 4096);
      REQUIRE(::pwrite(pages.descriptor(), other.data(), 4096, 0) == 4096);
    } else {
      REQUIRE(::ftruncate(pages.descriptor(), 0) == 0);
    }
    constexpr auto first = id_pages::ids_in_page; // of the page that was let go first
    auto bad = ids.find(first);
    REQUIRE(!bad.ok());
    CHECK(bad.err().code == errc::corrupt);
    CHECK(!ids.put(first, entry_of(1)).ok());
    CHECK(!ids.erase(first).ok());
    CHECK(ids.find(19'999)->place == entry_of(19'999).place); // the others
    CHECK(ids.size() == 20'000);
  }
}

TEST_CASE("sequential namespace: a page of the index that is gone is an error until RELOAD") {
  quiet no_log;
  storage s{256 << 20, true};
  auto& ns = s.space();
  constexpr std::uint64_t many = (id_pages::frames_usual + 20) * id_pages::ids_in_page;
  for (std::uint64_t i = 0; i < many; ++i) {
    std::string id;
    REQUIRE(ns.set({}, as_bytes("v"), 1, false, id) == write_answer::stored);
    REQUIRE(id == key_of(i));
  }
  REQUIRE(s.all->files().ids.descriptor() >= 0);
  REQUIRE(value_of(ns, key_of(many - 1)) == "v");
  REQUIRE(::ftruncate(s.all->files().ids.descriptor(), 0) == 0);
  value_block out;
  record_header header;
  auto first = key_of(id_pages::ids_in_page); // of a page that was let go
  std::string id;
  auto files = ns.usage().disk;
  CHECK(ns.get(as_bytes(first), out) == read_answer::unreadable);
  CHECK(ns.look(as_bytes(first), header) == read_answer::unreadable);
  CHECK(ns.exists(as_bytes(first)) == read_answer::unreadable);
  CHECK(ns.get_range(as_bytes(first), 0, 1, out) == read_answer::unreadable);
  CHECK(ns.set(as_bytes(first), as_bytes("w"), 1, false, id) == write_answer::failed);
  CHECK(ns.erase(as_bytes(first), 1) == write_answer::failed);
  CHECK(ns.usage().disk == files); // nothing was written that the index does not know
  std::string cursor; // never a page without it
  for (bool more = true; more;) {
    auto page = ns.scan(as_bytes(cursor));
    more = page.ok();
    if (more) REQUIRE(!page->cursor.empty());
    if (more) cursor = page->cursor;
  }
  key_version version;
  CHECK(ns.history(as_bytes(first), {}, version) == history_answer::failed);
  CHECK(ns.set({}, as_bytes("new"), 1, false, id) == write_answer::stored);
  REQUIRE(ns.reload().ok());
  CHECK(value_of(ns, first) == "v");
  CHECK(value_of(ns, key_of(many)) == "new");
  CHECK(ns.entries() == many + 1);
}

TEST_CASE("sequential namespace: a full disk for the index costs memory, not answers") {
  quiet no_log;
  storage s{256 << 20, true};
  auto& ns = s.space();
  constexpr std::uint64_t many = (id_pages::frames_usual + 40) * id_pages::ids_in_page;
  std::string id;
  for (std::uint64_t i = 0; i < many; ++i) {
    REQUIRE(ns.set({}, as_bytes("v"), 1, false, id) == write_answer::stored);
    if (i == many - 10'000) make_full(s.all->files().ids);
  }
  CHECK(s.all->files().ids.failing());
  CHECK(value_of(ns, key_of(many - 1)) == "v");
  CHECK(value_of(ns, key_of(many - 9'000)) == "v");
  // What went to the file before is read from the device in its place: an error, as it must be.
  CHECK(!value_of(ns, key_of(id_pages::ids_in_page)));
  s.reopen();
  for (std::uint64_t i = 0; i < many; i += 1001) REQUIRE(value_of(s.space(), key_of(i)) == "v");
}

TEST_CASE("sequential namespace: the next start pages as well") {
  quiet no_log;
  storage s{1 << 20, true};
  s.options.id_frames = 3;
  s.reopen();
  auto& ns = s.space();
  constexpr std::uint64_t many = 30'000;
  std::string id;
  for (std::uint64_t i = 0; i < many; ++i)
    REQUIRE(ns.set({}, as_bytes(std::to_string(i)), 1, false, id) == write_answer::stored);
  for (std::uint64_t i = 0; i < many; i += 2)
    REQUIRE(ns.set(as_bytes(key_of(i)), as_bytes("new"), 1, false, id) == write_answer::stored);
  for (std::uint64_t i = 0; i < many; i += 3)
    REQUIRE(ns.erase(as_bytes(key_of(i)), 1) == write_answer::stored);
  auto check = [&](name_space& it) {
    REQUIRE(it.entries() == many - many / 3);
    REQUIRE(it.next_id() == many);
    for (std::uint64_t i = 0; i < many; ++i) {
      auto value = value_of(it, key_of(i));
      REQUIRE(value.has_value() == (i % 3 != 0));
      if (value) REQUIRE(*value == (i % 2 == 0 ? "new" : std::to_string(i)));
    }
  };
  check(ns);
  sync_all(ns);
  s.reopen();
  check(s.space());
}

} // namespace
} // namespace qs::zdb
