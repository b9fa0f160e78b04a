// The common way of bytes through a volume: log, segment, nodes and back.
#include "base/posix.hpp"
#include <doctest/doctest.h>

#include <cerrno>

#include "support/memory_nodes.hpp"

using namespace qs;
using namespace qs::test;

TEST_CASE("a volume is made once, and opened by its phrase only") {
  volume_fixture f;
  REQUIRE(f.create().ok());
  auto again = f.create();
  REQUIRE(!again.ok());
  CHECK(again.err().code == errc::already_exists);
  REQUIRE(f.open().ok());
  CHECK(f.fs().getattr(volume::root_inode).ok());
  REQUIRE(f.opened->close().ok());
  f.crash();
  std::array<std::byte, 32> other;
  other.fill(std::byte{8});
  f.options.root = root_secret{other};
  auto wrong = f.open();
  REQUIRE(!wrong.ok());
  CHECK(wrong.err().code == errc::refused);
  f.options.state_directory = f.directory.path() / "elsewhere";
  auto missing = f.open();
  REQUIRE(!missing.ok());
  CHECK(missing.err().code == errc::not_found);
}

TEST_CASE("what was written reads back from the log, from the nodes, and after opening again") {
  volume_fixture f;
  f.begin();
  auto big = noise(1, 3 * mib + 12345);
  auto small = to_buffer(std::string_view{"a few bytes"});
  auto a = f.make_file("big");
  auto b = f.make_file("small");
  REQUIRE(a.ok());
  REQUIRE(b.ok());
  REQUIRE(f.write(*a, 0, big).ok());
  REQUIRE(f.write(*b, 0, small).ok());
  auto check = [&](const char* when) {
    INFO(when);
    auto x = f.read(*a, 0, big.size() + 100);
    REQUIRE_MESSAGE(x.ok(), describe(x.err()));
    CHECK(*x == big);
    auto y = f.read(*b, 0, 100);
    REQUIRE_MESSAGE(y.ok(), describe(y.err()));
    CHECK(*y == small);
  };
  check("from the log, open segments and ranges");
  CHECK(f.opened->stats().bytes_at_risk > 0);
  f.crash();
  REQUIRE(f.open().ok());
  check("after kill -9, nothing sealed");
  REQUIRE(f.drain());
  CHECK(f.opened->stats().bytes_at_risk == 0);
  check("sealed");
  REQUIRE(f.opened->drop_caches().ok());
  CHECK(f.opened->stats().log_bytes < 4096);
  auto before = f.opened->stats().node_read_bytes;
  check("from the nodes");
  CHECK(f.opened->stats().node_read_bytes - before >= big.size());
  check("from the caches");
  f.crash();
  REQUIRE(f.open().ok());
  before = f.opened->stats().node_read_bytes;
  check("after kill -9, from the disk cache");
  CHECK(f.opened->stats().node_read_bytes == before);
  REQUIRE(f.opened->close().ok());
  f.crash();
  REQUIRE(f.open().ok());
  check("after an orderly end");
  CHECK(f.ports.violation == "");
  for (const auto& n : f.notes) INFO(n);
  CHECK(f.opened->stats().read_only == false);
}

TEST_CASE("any two of six nodes may be wiped, are made anew, and then any two others (invariant 11)") {
  volume_fixture f;
  f.begin();
  std::vector<std::pair<volume::inode_number, buffer>> files;
  for (unsigned i = 0; i < 20; ++i) {
    auto inode = f.make_file("f" + std::to_string(i));
    REQUIRE(inode.ok());
    files.emplace_back(*inode, noise(i, 1000 + i * 40'000));
    REQUIRE(f.write(*inode, 0, files.back().second).ok());
  }
  REQUIRE(f.drain());
  auto all_there = [&](const char* when) {
    INFO(when);
    REQUIRE(f.opened->drop_caches().ok());
    for (auto& [inode, data] : files) {
      auto got = f.read(inode, 0, data.size());
      REQUIRE_MESSAGE(got.ok(), describe(got.err()));
      CHECK(*got == data);
    }
  };
  auto kill = [&](unsigned n) {
    f.ports.wipe(n);
    f.ports[n].reachable = false;
    f.lost.insert({n});
    f.see_nodes();
  };
  auto replace = [&](unsigned old, unsigned fresh) {
    f.ports.nodes[{fresh}] = {};
    for (auto& g : f.groups) {
      bool changed = false;
      for (auto& s : g.slots)
        if (s.number == old) {
          s = {fresh};
          changed = true;
        }
      if (changed) ++g.generation;
    }
    REQUIRE(f.opened->set_groups(f.groups).ok());
    f.see_nodes();
  };
  kill(1);
  kill(2);
  CHECK(f.opened->stats().redundancy_left_min == 0);
  CHECK(f.opened->indispensable().size() == 4);
  all_there("two away");
  CHECK(f.opened->stats().decoded_bytes > 0);
  replace(1, 7);
  replace(2, 8);
  REQUIRE(f.repair_all());
  CHECK(f.opened->stats().redundancy_left_min == 2);
  CHECK(f.opened->indispensable().empty());
  CHECK(f.opened->sources().empty());
  for (auto h : f.opened->health()) {
    CHECK(h.segments_missing_shards == 0);
    CHECK(h.segments_on_older_generation == 0);
  }
  kill(3);
  kill(4);
  all_there("two others away");
  f.crash();
  REQUIRE(f.open().ok());
  all_there("opened again");
  f.ports[5].reachable = false;
  f.lost.insert({5});
  f.see_nodes();
  REQUIRE(f.opened->drop_caches().ok());
  unsigned failed = 0; // a frame whose own node is there needs no others
  for (auto& [inode, data] : files) {
    auto got = f.read(inode, 0, data.size());
    if (got.ok()) {
      CHECK(*got == data);
      continue;
    }
    CHECK(got.err().sys == EIO);
    ++failed;
  }
  CHECK(failed > 0);
  f.ports[5].reachable = true; // it comes back with its data whole
  f.lost.erase({5});
  f.see_nodes();
  all_there("a node came back");
  CHECK(f.ports.violation == "");
}

TEST_CASE("what is left of an unfinished volume goes before a new attempt, or nothing is begun") {
  volume_fixture f;
  auto place = f.options.state_directory.parent_path() / "staging-of-a-user";
  REQUIRE(make_directories(place / "front").ok()); // neither a file to be opened nor one to be deleted
  f.options.staging_directory = place;
  REQUIRE(!f.create().ok());
  auto again = f.create();
  REQUIRE(!again.ok());
  CHECK(describe(again.err()).find("unfinished volume") != std::string::npos);
  CHECK(describe(again.err()).find(place.string()) != std::string::npos);
  f.options.staging_directory.clear();
  f.begin();
}

TEST_CASE("a staging directory is the user's: another volume's log and other files in it stay") {
  volume_fixture f;
  auto place = f.options.state_directory.parent_path() / "staging-of-a-user";
  REQUIRE(make_directories(place).ok());
  REQUIRE(write_file_atomic(place / "letter.txt", as_bytes("mine")).ok());
  f.options.staging_directory = place;
  f.begin();
  auto listing = [&] {
    std::map<std::string, std::uintmax_t> out;
    for (const auto& item : std::filesystem::directory_iterator{place}) out[item.path().filename()] = item.file_size();
    return out;
  };
  auto before = listing();
  REQUIRE(before.size() >= 2);

  auto other = f.options;
  other.name = "another";
  other.state_directory = f.options.state_directory.parent_path() / "another";
  for (int tries = 0; tries < 3; ++tries) { // the supervisor tries again, too
    auto made = create_volume(other, f.env());
    REQUIRE(!made.ok());
    CHECK(made.err().code == errc::refused);
    CHECK(describe(made.err()).find(place.string()) != std::string::npos);
  }
  REQUIRE(destroy_volume(other).ok());
  CHECK(listing() == before);

  auto again = f.options;
  again.state_directory = other.state_directory; // the same words and name, the state directory lost
  CHECK(create_volume(again, f.env()).err().code == errc::already_exists);
  CHECK(listing() == before);

  f.crash();
  REQUIRE(destroy_volume(f.options).ok());
  CHECK(listing() == std::map<std::string, std::uintmax_t>{{"letter.txt", 4}});
}
