// Names on a real volume that is killed again and again: what was answered is there, in every row
// (invariants 6, 7, 13).
#include <doctest/doctest.h>

#include <set>

#include "names_model.hpp"
#include "support/memory_nodes.hpp"

using namespace qs;
using namespace qs::test;

namespace {

/// Walks on whatever volume is open now.
struct current_files {
  volume_fixture& f;
  using inode_number = volume::inode_number;
  auto& fs() { return f.fs(); }
  auto lookup(inode_number p, std::string_view n) { return fs().lookup(p, n); }
  auto mknod(inode_number p, std::string_view n, std::uint32_t m, std::uint32_t r,
             volume::creator w) {
    auto made = fs().mknod(p, n, m, r, w);
    if (made.ok() && !inodes.insert(made->inode).second) reused = true;
    return made;
  }
  auto mkdir(inode_number p, std::string_view n, std::uint32_t m, volume::creator w) {
    auto made = fs().mkdir(p, n, m, w);
    if (made.ok() && !inodes.insert(made->inode).second) reused = true;
    return made;
  }
  auto link(inode_number i, inode_number p, std::string_view n) { return fs().link(i, p, n); }
  auto unlink(inode_number p, std::string_view n) { return fs().unlink(p, n); }
  auto rmdir(inode_number p, std::string_view n) { return fs().rmdir(p, n); }
  auto rename(inode_number p, std::string_view n, inode_number np, std::string_view nn,
              unsigned flags) {
    return fs().rename(p, n, np, nn, flags);
  }
  auto setattr(inode_number i, const volume::attribute_changes& c) { return fs().setattr(i, c); }
  auto setxattr(inode_number i, std::string_view n, byte_span v, volume::xattr_mode m) {
    return fs().setxattr(i, n, v, m);
  }
  auto getxattr(inode_number i, std::string_view n) { return fs().getxattr(i, n); }
  auto listxattr(inode_number i) { return fs().listxattr(i); }
  auto readdir(inode_number i, std::uint64_t c, std::size_t most, bool attr) {
    return fs().readdir(i, c, most, attr);
  }
  std::set<inode_number> inodes;
  bool reused = false;
};

std::uint64_t files_of_lines(const std::vector<std::string>& lines, volume::filesystem& fs) {
  // Names of one file count once: by inode.
  std::set<volume::inode_number> seen{volume::root_inode};
  for (const auto& line : lines) {
    auto path = line.substr(0, line.find(' '));
    auto inode = volume::root_inode;
    for (std::size_t at = 1; at < path.size();) {
      auto end = std::min(path.find('/', at), path.size());
      auto found = fs.lookup(inode, path.substr(at, end - at));
      if (!found.ok()) return 0;
      inode = found->inode;
      at = end + 1;
    }
    seen.insert(inode);
  }
  return seen.size();
}

} // namespace

TEST_CASE(
    "names: kill -9 between any operations loses no answered one, and reuses no inode number") {
  for (std::uint64_t seed = 1; seed <= 3; ++seed) {
    CAPTURE(seed);
    volume_fixture f;
    REQUIRE(f.create().ok());
    REQUIRE(f.open().ok());
    current_files files{f, {}, false};
    tree_model model;
    tree_walker walker{files, model, seed};
    seeded_random random{seed + 1000};
    for (int life = 0; life < 8; ++life) {
      for (auto steps = 20 + random.below(150); steps > 0; --steps) {
        auto difference = walker.step();
        REQUIRE_MESSAGE(difference.empty(), difference);
        if (random.below(40) == 0) f.pass();
      }
      if (random.below(3) == 0) {
        REQUIRE(f.opened->close().ok());
      }
      f.crash();
      REQUIRE(f.open().ok());
      auto lines = tree_lines(files);
      REQUIRE(lines == model.lines());
      f.settle(); // orphans of the last life are reaped
      CHECK(f.fs().statfs().files == files_of_lines(lines, f.fs()));
    }
    CHECK(!files.reused);
    CHECK(f.opened->stats().read_only == false);
  }
}

TEST_CASE("names: an unlinked file that is still held keeps its bytes, and gives them back when it "
          "is forgotten") {
  volume_fixture f;
  REQUIRE(f.create().ok());
  REQUIRE(f.open().ok());
  auto data = noise(4, 200'000);
  auto inode = f.make_file("held");
  REQUIRE(inode.ok());
  f.fs().remember(*inode, 1);
  REQUIRE(f.write(*inode, 0, data).ok());
  REQUIRE(f.drain());
  REQUIRE(f.fs().unlink(volume::root_inode, "held").ok());
  f.pass(std::chrono::seconds{2});
  auto got = f.read(*inode, 0, data.size());
  REQUIRE(got.ok());
  CHECK(*got == data);
  REQUIRE(f.write(*inode, data.size(), as_bytes("more")).ok());
  CHECK(f.fs().getattr(*inode)->size == data.size() + 4);
  CHECK(f.fs().statfs().files == 2);
  f.fs().forget(*inode, 1);
  f.pass(std::chrono::seconds{2});
  CHECK(f.fs().getattr(*inode).err().sys == ENOENT);
  CHECK(f.fs().statfs().files == 1);
  REQUIRE(f.drain());
  CHECK(f.opened->stats().used_bytes == 0);
}

TEST_CASE("names: truncate makes zeros of what it cut, also when the file grows again and over a "
          "restart (invariant 12)") {
  volume_fixture f;
  REQUIRE(f.create().ok());
  REQUIRE(f.open().ok());
  auto data = noise(5, 300'000);
  auto inode = f.make_file("f");
  REQUIRE(inode.ok());
  REQUIRE(f.write(*inode, 0, data).ok());
  volume::attribute_changes size;
  size.size = 100'000;
  REQUIRE(f.fs().setattr(*inode, size).ok());
  size.size = 300'000;
  REQUIRE(f.fs().setattr(*inode, size).ok());
  auto expected = data;
  std::fill(expected.begin() + 100'000, expected.end(), std::byte{});
  CHECK(*f.read(*inode, 0, 400'000) == expected);
  f.crash();
  REQUIRE(f.open().ok());
  CHECK(*f.read(*inode, 0, 400'000) == expected);
  REQUIRE(f.drain());
  REQUIRE(f.opened->drop_caches().ok());
  CHECK(*f.read(*inode, 0, 400'000) == expected);
}
