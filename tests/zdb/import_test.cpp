// Taking over a 0-db directory: its golden bytes, its sequential mode, and what may be wrong.
#include "support/disk_snapshot.hpp"
#include "support/zdb_store.hpp"

#include <fcntl.h>
#include <sys/file.h>

#include "zdb/crc32c.hpp"

namespace qs::zdb {
namespace {

namespace fs = std::filesystem;

void write_hex(const fs::path& path, std::string hex) {
  std::erase_if(hex, [](char c) { return c == ' ' || c == '\n'; });
  auto bytes = from_hex(hex);
  REQUIRE(bytes.has_value());
  REQUIRE(write_file_atomic(path, *bytes).ok());
}

/// SET a 1, SET bb hello, SET a 2, DEL bb, as 0-db 2.0.7 wrote them.
constexpr auto user_data = R"(44415430 03000000 00000000000000000000000000000000 00000000
    01 01000000 00000000 b2ca88c2 00 67e5026b 61 31
    02 05000000 1c000000 79cd03df 00 68e5026b 6262 68656c6c6f
    01 01000000 30000000 4639d8d1 00 68e5026b 61 32
    02 00000000 49000000 00000000 01 68e5026b 6262)";
constexpr auto user_index_bytes = R"(49445830 04000000 00000000000000000000000000000000 00000000 00
    01 1c000000 01000000 00000000 01 00000000 67e5026b b2ca88c2 00000000 00000000 61
    02 30000000 05000000 1d000000 01 00000000 68e5026b 79cd03df 00000000 00000000 6262
    01 49000000 01000000 40000000 00 00000000 68e5026b 4639d8d1 00000000 1d000000 61)";

struct old_zdb {
  old_zdb() {
    data = dir.path / "data";
    index = dir.path / "index";
  }
  void descriptor(const std::string& name, std::uint8_t flags, std::string_view password,
                  std::uint64_t maxsize) {
    fs::create_directories(data / name);
    fs::create_directories(index / name);
    buffer out;
    byte_writer{out}
        .put(std::uint32_t{1})
        .put(static_cast<std::uint8_t>(name.size()))
        .put(static_cast<std::uint8_t>(password.size()))
        .put(maxsize)
        .put(flags);
    auto text = to_string(out) + name + std::string{password};
    REQUIRE(write_file_atomic(index / name / "zdb-namespace", as_bytes(text)).ok());
  }
  void golden(const std::string& name) {
    write_hex(data / name / "d0", user_data);
    write_hex(index / name / "i0", user_index_bytes);
  }
  result<std::unique_ptr<store>> open(bool data_alone = false) {
    store_options o;
    o.data_alone = data_alone;
    o.data = data;
    o.index = index;
    return store::open(o);
  }
  std::map<std::string, std::string> all_bytes() {
    std::map<std::string, std::string> out;
    for (auto& root : {data, index})
      for (auto& e : fs::recursive_directory_iterator{root})
        if (e.is_regular_file() && e.path().string().find("/namespaces/") == std::string::npos &&
            e.path().filename() != "lock" && e.path().filename() != "taken-over")
          out[e.path().string()] = *read_file(e.path());
    return out;
  }
  temporary_directory dir;
  fs::path data;
  fs::path index;
};

TEST_CASE("the golden bytes of 0-db are served, and its files stay as they were") {
  quiet no_log;
  old_zdb old;
  old.descriptor("default", 1, "", 0);
  old.descriptor("private", 2, "secret", 123456);
  old.golden("default");
  old.golden("private");
  auto before = old.all_bytes();
  for (int start = 0; start < 3; ++start) {
    CAPTURE(start);
    auto s = old.open();
    REQUIRE_MESSAGE(s.ok(), (s.ok() ? "" : describe(s.err())));
    CHECK((*s)->all().size() == 2);
    auto p = (*s)->find("private");
    REQUIRE(p);
    CHECK(p->settings().password == "secret");
    CHECK(p->settings().maxsize == 123456);
    CHECK(!p->settings().is_public);
    CHECK(p->settings().worm);
    auto ns = (*s)->find("default");
    REQUIRE(ns);
    CHECK(ns->settings().is_public);
    CHECK(!ns->settings().worm);
    CHECK(ns->entries() == (start == 2 ? 0 : 1));
    CHECK(!value_of(*ns, "bb"));
    if (start < 2) {
      CHECK(value_of(*ns, "a") == "2");
      record_header h;
      REQUIRE(ns->look(as_bytes("a"), h) == read_answer::found);
      CHECK(h.timestamp == 0x6b02e568);
    }
    // What is deleted here does not come back from there.
    if (start == 1) REQUIRE(ns->erase(as_bytes("a"), 1) == write_answer::stored);
    CHECK(old.all_bytes() == before);
  }
}

TEST_CASE("who only looks takes nothing over, and is told when he can look") {
  quiet no_log;
  old_zdb old;
  old.descriptor("default", 1, "", 0);
  old.golden("default");
  for (auto indexed : {true, false}) {
    CAPTURE(indexed);
    store_options o;
    o.data = old.data;
    if (indexed) o.index = old.index;
    o.read_only = true;
    auto before = disk_snapshot(old.dir.path);
    auto looked = store::open(o);
    REQUIRE(!looked.ok());
    CHECK(looked.err().code == errc::refused);
    CHECK(looked.err().message.find("first start") != std::string::npos);
    CHECK(disk_snapshot(old.dir.path) == before);
  }
  REQUIRE(old.open().ok());
  store_options o;
  o.data = old.data;
  o.index = old.index;
  o.read_only = true;
  auto before = disk_snapshot(old.dir.path);
  {
    auto looked = store::open(o);
    REQUIRE(looked.ok());
    CHECK((*looked)->find("default")->entries() == 1);
  }
  CHECK(disk_snapshot(old.dir.path) == before);
}

TEST_CASE("sequential mode: ids stay, deleted and used-up ones are not given out again") {
  quiet no_log;
  old_zdb old;
  old.descriptor("seq", 1, "", 0);
  buffer data;
  byte_writer{data}.put(std::uint32_t{0x30544144}).put(std::uint32_t{3});
  data.resize(28);
  buffer index;
  byte_writer{index}.put(std::uint32_t{0x30584449}).put(std::uint32_t{4});
  index.resize(28);
  index.push_back(std::byte{1});
  auto add = [&](std::uint64_t id, std::string_view value) {
    auto offset = static_cast<std::uint32_t>(data.size());
    byte_writer{data}
        .put(std::uint8_t{8})
        .put(static_cast<std::uint32_t>(value.size()))
        .put(std::uint32_t{0})
        .put(crc32c(as_bytes(value)))
        .put(std::uint8_t{0})
        .put(std::uint32_t{7})
        .put(id);
    data.insert(data.end(), as_bytes(value).begin(), as_bytes(value).end());
    return offset;
  };
  auto item = [&](std::uint64_t id, std::uint32_t offset, std::string_view value, bool erased) {
    byte_writer{index}
        .put(std::uint8_t{8})
        .put(offset)
        .put(static_cast<std::uint32_t>(value.size()))
        .put(std::uint32_t{0})
        .put(static_cast<std::uint8_t>(erased ? 1 : 0))
        .put(std::uint32_t{0})
        .put(std::uint32_t{7})
        .put(crc32c(as_bytes(value)))
        .put(std::uint64_t{0})
        .put(erased ? std::uint64_t{0} : id);
  };
  auto one = add(0, "one");
  auto two = add(1, "two");
  auto changed = add(0, "ONE!");
  auto three = add(3, "three");
  auto four = add(4, "four");
  item(0, changed, "ONE!", false);
  item(1, two, "two", true);
  item(0, one, "one", true); // what the update of 0 left behind: it used up id 2
  item(3, three, "three", false);
  item(4, four, "four", true);
  REQUIRE(write_file_atomic(old.data / "seq" / "d0", data).ok());
  REQUIRE(write_file_atomic(old.index / "seq" / "i0", index).ok());
  for (int start = 0; start < 2; ++start) {
    auto s = old.open();
    REQUIRE_MESSAGE(s.ok(), (s.ok() ? "" : describe(s.err())));
    auto ns = (*s)->find("seq");
    REQUIRE(ns);
    CHECK(ns->settings().sequential);
    CHECK(ns->entries() == 2);
    auto id = [](std::uint64_t n) { return std::string(reinterpret_cast<char*>(&n), 8); };
    CHECK(value_of(*ns, id(0)) == "ONE!");
    CHECK(!value_of(*ns, id(1)));
    CHECK(!value_of(*ns, id(2)));
    CHECK(value_of(*ns, id(3)) == "three");
    CHECK(ns->next_id() == 5);
  }
}

TEST_CASE("damage, a missing index, a running 0-db") {
  quiet no_log;
  {
    old_zdb old;
    old.descriptor("default", 1, "", 0);
    old.golden("default");
    fs::remove(old.index / "default" / "i0");
    auto unknown = old.open(); // names or ids?
    REQUIRE_FALSE(unknown.ok());
    CHECK(unknown.err().code == errc::corrupt);
    CHECK(unknown.err().message.find("--mode user") != std::string::npos);
    auto s = old.open(true); // the data alone tells the rest
    REQUIRE(s.ok());
    CHECK(value_of(*(*s)->find("default"), "a") == "2");
    CHECK((*s)->find("default")->entries() == 1);
  }
  {
    old_zdb old;
    old.descriptor("default", 1, "", 0);
    old.golden("default");
    auto bytes = *read_file(old.data / "default" / "d0");
    bytes[0x49 + 19] ^= 1; // the live value
    REQUIRE(write_file_atomic(old.data / "default" / "d0", as_bytes(bytes)).ok());
    auto s = old.open();
    REQUIRE(s.ok());
    CHECK((*s)->find("default")->entries() == 0); // never wrong bytes
  }
  {
    old_zdb old;
    old.descriptor("default", 1, "", 0);
    old.golden("default");
    REQUIRE(write_file_atomic(old.data / ".lockfile", as_bytes("")).ok());
    auto fd = open_file(old.data / ".lockfile", O_RDWR);
    REQUIRE(fd.ok());
    REQUIRE(::flock(fd->get(), LOCK_EX) == 0);
    CHECK(old.open().err().code == errc::busy);
    fd->reset();
    CHECK(old.open().ok());
  }
  {
    old_zdb old;
    old.descriptor("private", 0, "secret", 0);
    old.golden("private");
    fs::remove(old.index / "private" / "zdb-namespace");
    CHECK(!old.open().ok()); // never without its password
    old.index.clear();
    CHECK(old.open().err().code == errc::invalid_argument);
  }
}

TEST_CASE("an index whose data is not there is refused: nothing begins empty in its place") {
  quiet no_log;
  old_zdb old;
  old.descriptor("default", 1, "", 0);
  old.golden("default");
  auto aside = old.data / "default";
  fs::rename(aside, old.dir.path / "aside"); // a disk that is not mounted
  auto refused = old.open();
  REQUIRE_FALSE(refused.ok());
  CHECK(refused.err().code == errc::corrupt);
  CHECK(refused.err().message.find("default") != std::string::npos);
  fs::rename(old.dir.path / "aside", aside);
  CHECK(old.open().ok());
  CHECK(old.open().ok()); // taken over: looked at no more
}

TEST_CASE("an index with a file missing is refused; a torn last item is left out") {
  quiet no_log;
  old_zdb old;
  old.descriptor("default", 1, "", 0);
  old.golden("default");
  auto i0 = old.index / "default" / "i0";
  auto bytes = *read_file(i0);
  REQUIRE(write_file_atomic(old.index / "default" / "i2", as_bytes(bytes)).ok());
  auto refused = old.open();
  REQUIRE(!refused.ok());
  CHECK(refused.err().code == errc::corrupt);
  CHECK(describe(refused.err()).find("i1 is missing") != std::string::npos);
  fs::remove(old.index / "default" / "i2");
  REQUIRE(write_file_atomic(i0, as_bytes(bytes + "torn")).ok());
  auto s = old.open();
  REQUIRE(s.ok());
  CHECK((*s)->find("default")->entries() == 1);
}

} // namespace
} // namespace qs::zdb
