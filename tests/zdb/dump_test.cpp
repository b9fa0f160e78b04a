// `qs zdb --dump` looks, and changes nothing: not what a start would mend, not what a start would
// make. import_test.cpp has the directory of a 0-db.
#include "support/disk_snapshot.hpp"
#include "support/zdb_store.hpp"

namespace qs::zdb {
namespace {

namespace fs = std::filesystem;

result<std::unique_ptr<store>> look(const fs::path& data) {
  store_options o;
  o.data = data;
  o.read_only = true;
  return store::open(o);
}

void append(const fs::path& path, std::string_view bytes) {
  auto text = path.empty() || !fs::exists(path) ? std::string{} : *read_file(path);
  text += bytes;
  REQUIRE(write_file_atomic(path, as_bytes(text)).ok());
}

int dump(const fs::path& data) {
  server_options o;
  o.data = data;
  o.dump = true;
  server_process process{o};
  auto code = process.wait();
  fs::remove(data.string() + ".log");
  return code;
}

TEST_CASE("a dump leaves everything as it was, also what the next start mends") {
  quiet no_log;
  storage s{512 << 10};
  std::string filler(100'000, 'f');
  for (int i = 0; i < 12; ++i)
    REQUIRE(put(s.space(), fmt::format("k{}", i % 8), filler + std::to_string(i)) ==
            write_answer::stored);
  auto made = s.all->begin_new("ids");
  made.settings.sequential = true;
  REQUIRE(s.all->finish_new(made, name_space::create(made.directory, made.settings)).ok());
  std::string id;
  for (int i = 0; i < 2000; ++i)
    REQUIRE(s.all->find("ids")->set({}, as_bytes("value"), 1, false, id) == write_answer::stored);
  auto files = s.space().usage().files;
  CHECK(files > 2);
  auto directory = s.space().directory();
  auto ids = s.all->find("ids")->directory();
  s.all.reset();

  auto& data = s.options.data;
  auto spaces = data / "namespaces";
  // A torn tail, a file that was being made, a compaction that did not end, directories half made
  // and half deleted, one that cannot be opened, names that are wrong.
  append(data_file_path(directory, static_cast<std::uint32_t>(files)), "torn");
  append(data_file_path(ids, 9), std::string(10, '\0'));
  append(directory / "000000ff.packing", "begun");
  append(directory / ".namespace.abcdef", "begun");
  fs::create_directories(spaces / "00000077.new");
  append(spaces / "00000077.new" / "namespace", "x");
  fs::create_directories(spaces / "00000078.gone");
  append(spaces / "00000078.gone" / "00000001.data", "x");
  fs::create_directories(spaces / "00000079");
  append(spaces / "00000079" / "namespace", "damaged");
  append(spaces / "names", "not a line\n");
  append(data / "endpoint", "127.0.0.1:1\n");

  auto before = disk_snapshot(data);
  {
    auto looked = look(data);
    REQUIRE_MESSAGE(looked.ok(), (looked.ok() ? "" : describe(looked.err())));
    auto ns = (*looked)->find("default");
    REQUIRE(ns);
    CHECK(ns->entries() == 8);
    CHECK(value_of(*ns, "k3") == filler + "11");
    CHECK((*looked)->find("ids")->entries() == 2000);
    CHECK((*looked)->failed() == 1);
    CHECK(look(data).ok()); // others may look, too
    auto served = store::open(s.options);
    REQUIRE(!served.ok());
    CHECK(served.err().code == errc::busy);
  }
  CHECK(disk_snapshot(data) == before);
  CHECK(dump(data) == 0);
  before.erase((data / "endpoint").string()); // server_process removes it
  auto after = disk_snapshot(data);
  before.erase(data.string()); // the endpoint has gone from it
  after.erase(data.string());
  CHECK(after == before);

  s.reopen(); // and here it is mended
  CHECK(s.space().entries() == 8);
  CHECK(!fs::exists(spaces / "00000078.gone"));
  auto busy = look(data);
  REQUIRE(!busy.ok());
  CHECK(busy.err().code == errc::busy);
  CHECK(dump(data) == 5);
}

TEST_CASE("a dump of files that replace others which are still there counts them once") {
  quiet no_log;
  storage s;
  REQUIRE(put(s.space(), "gone", "value") == write_answer::stored);
  auto old = s.space().flush(); // its files are deleted by who asked for it: here, nobody
  REQUIRE(old.ok());
  REQUIRE(!old->empty());
  REQUIRE(put(s.space(), "there", "value") == write_answer::stored);
  s.all.reset();
  auto before = disk_snapshot(s.options.data);
  {
    auto looked = look(s.options.data);
    REQUIRE(looked.ok());
    CHECK((*looked)->find("default")->entries() == 1);
  }
  CHECK(disk_snapshot(s.options.data) == before);
  CHECK(fs::exists(old->front()));
}

TEST_CASE("a dump of nothing says so and makes nothing") {
  quiet no_log;
  temporary_directory dir;
  for (auto& data : {dir.path, dir.path / "none"}) {
    CAPTURE(data.string());
    auto before = disk_snapshot(dir.path);
    auto looked = look(data);
    REQUIRE(!looked.ok());
    CHECK(looked.err().code == errc::not_found);
    CHECK(describe(looked.err()).find(data.string()) != std::string::npos);
    CHECK(disk_snapshot(dir.path) == before);
  }
}

} // namespace
} // namespace qs::zdb
