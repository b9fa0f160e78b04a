// Random operations on names against a tree in memory, with and without colliding hashes.
#include <doctest/doctest.h>

#include "names_model.hpp"
#include "support/memory_core.hpp"

using namespace qs;

namespace {

void walk(std::uint64_t seed, volume::names::hash_function hash) {
  CAPTURE(seed);
  test::memory_core core;
  volume::names files{core, std::move(hash)};
  test::tree_model model;
  test::tree_walker walker{files, model, seed};
  for (int i = 0; i < 1500; ++i) {
    auto difference = walker.step();
    REQUIRE_MESSAGE(difference.empty(), difference);
    if (i % 100 != 99) continue;
    REQUIRE(test::tree_lines(files) == model.lines());
    if (i % 500 == 499) core.reap_all_orphans();
  }
  core.reap_all_orphans();
  // Take the tree down: nothing may be left but the root.
  auto prefix = volume::kind_prefix(volume::row_kind::dirent);
  for (bool more = true; more;) {
    more = false;
    std::vector<std::pair<volume::inode_number, std::string>> entries;
    REQUIRE(core.scan(prefix, volume::prefix_end(prefix),
                      [&](std::string_view key, byte_span value) {
                        auto row = volume::decode_dirent(value);
                        if (row->inode != 0)
                          entries.emplace_back(volume::parse_dirent_key(key)->parent, row->name);
                        return true;
                      })
                .ok());
    for (const auto& [parent, name] : entries) {
      more = true;
      if (!files.unlink(parent, name).ok()) (void)files.rmdir(parent, name);
    }
    core.reap_all_orphans();
  }
  CHECK(core.rows.size() == 1);
  CHECK(core.inodes == 1);
  CHECK(files.getattr(volume::root_inode)->nlink == 2);
}

} // namespace

TEST_CASE("names: random operations agree with a tree in memory") {
  for (std::uint64_t seed = 1; seed <= 12; ++seed) walk(seed, {});
}

TEST_CASE("names: the same when hashes collide") {
  for (std::uint64_t seed = 100; seed < 112; ++seed)
    walk(seed, [](std::string_view name) {
      return std::uint64_t{1} + static_cast<unsigned char>(name[0]) % 2;
    });
}
