#include <doctest/doctest.h>

#include <cerrno>
#include <set>

#include <sys/stat.h>

#include "support/memory_core.hpp"
#include "volume/names.hpp"

using namespace qs;
using namespace qs::volume;

namespace {

struct fixture {
  test::memory_core core;
  names files{core};
  creator who{1000, 100};

  inode_number file(inode_number parent, std::string_view name, std::uint32_t mode = 0644) {
    auto made = files.mknod(parent, name, S_IFREG | mode, 0, who);
    REQUIRE(made.ok());
    return made->inode;
  }
  inode_number dir(inode_number parent, std::string_view name, std::uint32_t mode = 0755) {
    auto made = files.mkdir(parent, name, mode, who);
    REQUIRE(made.ok());
    return made->inode;
  }
  attributes attr(inode_number inode) {
    auto a = files.getattr(inode);
    REQUIRE(a.ok());
    return *a;
  }
};

template <class T>
int sys(const result<T>& r) {
  return r.ok() ? 0 : r.err().sys;
}

} // namespace

TEST_CASE_FIXTURE(fixture, "names: what is made is found, with the attributes it was made with") {
  auto made = files.mknod(root_inode, "f", S_IFREG | 0640, 0, who);
  REQUIRE(made.ok());
  auto found = files.lookup(root_inode, "f");
  REQUIRE(found.ok());
  CHECK(found->inode == made->inode);
  CHECK(found->mode == (S_IFREG | 0640));
  CHECK(found->nlink == 1);
  CHECK(found->uid == 1000);
  CHECK(found->gid == 100);
  CHECK(found->mtime == found->ctime);
  CHECK(found->generation != 0);
  CHECK(sys(files.lookup(root_inode, "g")) == ENOENT);
  CHECK(sys(files.lookup(4711, "g")) == ENOENT);
  CHECK(sys(files.mknod(root_inode, "f", S_IFREG, 0, who)) == EEXIST);
  CHECK(sys(files.mknod(root_inode, std::string(256, 'n'), S_IFREG, 0, who)) == ENAMETOOLONG);
  CHECK(sys(files.mknod(root_inode, std::string(255, 'n'), S_IFREG, 0, who)) == 0);
  CHECK(sys(files.mknod(made->inode, "x", S_IFREG, 0, who)) == ENOTDIR);
  CHECK(sys(files.mknod(4711, "x", S_IFREG, 0, who)) == ENOENT);
  CHECK(sys(files.mknod(root_inode, "x/y", S_IFREG, 0, who)) == EINVAL);
  auto device = files.mknod(root_inode, "dev", S_IFCHR | 0600, 0x0103, who);
  CHECK(device->rdev == 0x0103);
  CHECK(core.inodes == 4);
}

TEST_CASE_FIXTURE(fixture, "names: each operation is one record, and a failed one none") {
  auto before = core.records.load();
  auto d = dir(root_inode, "d");
  auto f = file(d, "f");
  CHECK(files.link(f, root_inode, "l").ok());
  CHECK(files.rename(d, "f", root_inode, "l2", 0).ok());
  CHECK(files.rename(root_inode, "l", root_inode, "d", 2).ok());
  CHECK(files.unlink(root_inode, "d").ok());
  CHECK(core.records == before + 6);
  CHECK(sys(files.unlink(root_inode, "nothing")) == ENOENT);
  CHECK(sys(files.rename(root_inode, "nothing", root_inode, "d", 0)) == ENOENT);
  CHECK(core.records == before + 6);
  core.fail_commits = true;
  CHECK(sys(files.mkdir(root_inode, "e", 0755, who)) == EIO);
  core.fail_commits = false;
  CHECK(sys(files.lookup(root_inode, "e")) == ENOENT);
}

TEST_CASE_FIXTURE(fixture, "names: link counts of directories, and . and ..") {
  auto d = dir(root_inode, "d");
  CHECK(attr(root_inode).nlink == 3);
  CHECK(attr(d).nlink == 2);
  auto e = dir(d, "e");
  CHECK(attr(d).nlink == 3);
  CHECK(files.lookup(e, "..")->inode == d);
  CHECK(files.lookup(e, ".")->inode == e);
  CHECK(files.lookup(root_inode, "..")->inode == root_inode);
  CHECK(sys(files.rmdir(root_inode, "d")) == ENOTEMPTY);
  CHECK(files.rename(d, "e", root_inode, "e", 0).ok());
  CHECK(attr(d).nlink == 2);
  CHECK(attr(root_inode).nlink == 4);
  CHECK(files.lookup(e, "..")->inode == root_inode);
  CHECK(files.rmdir(root_inode, "d").ok());
  CHECK(attr(root_inode).nlink == 3);
  CHECK(sys(files.unlink(root_inode, "e")) == EISDIR);
  file(root_inode, "f");
  CHECK(sys(files.rmdir(root_inode, "f")) == ENOTDIR);
  CHECK(sys(files.rmdir(root_inode, ".")) == EINVAL);
}

TEST_CASE_FIXTURE(fixture, "names: hard links") {
  auto f = file(root_inode, "f");
  auto d = dir(root_inode, "d");
  CHECK(files.link(f, d, "g")->nlink == 2);
  CHECK(sys(files.link(d, root_inode, "d2")) == EPERM);
  CHECK(sys(files.link(f, d, "g")) == EEXIST);
  CHECK(sys(files.link(4711, d, "h")) == ENOENT);
  CHECK(files.unlink(root_inode, "f").ok());
  CHECK(attr(f).nlink == 1);
  CHECK(!core.run_reaper());
  // Two names of one file: rename does nothing, and both stay.
  CHECK(files.link(f, root_inode, "f")->nlink == 2);
  CHECK(files.rename(root_inode, "f", d, "g", 0).ok());
  CHECK(files.lookup(root_inode, "f").ok());
}

TEST_CASE_FIXTURE(fixture,
                  "names: an unlinked file lives until it is forgotten, its rows go then") {
  auto f = file(root_inode, "f");
  files.remember(f, 2);
  CHECK(files.setxattr(f, "user.a", as_bytes("1"), xattr_mode::either).ok());
  CHECK(files.unlink(root_inode, "f").ok());
  CHECK(attr(f).nlink == 0);
  CHECK(core.rows.count(orphan_key(f)) == 1);
  CHECK(sys(files.link(f, root_inode, "again")) == ENOENT);
  files.forget(f, 1);
  CHECK(!core.run_reaper());
  files.forget(f, 1);
  CHECK(core.run_reaper());
  CHECK(sys(files.getattr(f)) == ENOENT);
  CHECK(core.rows.count(orphan_key(f)) == 0);
  CHECK(core.rows.count(xattr_key(f, "user.a")) == 0);
  CHECK(core.inodes == 1);
  CHECK(core.rows.size() == 1); // the root
}

TEST_CASE_FIXTURE(
    fixture,
    "names: an orphan that nobody remembers goes at once; after a crash at the next start") {
  auto f = file(root_inode, "f");
  CHECK(files.unlink(root_inode, "f").ok());
  CHECK(core.run_reaper());
  CHECK(sys(files.getattr(f)) == ENOENT);

  auto g = file(root_inode, "g");
  files.remember(g, 1);
  CHECK(files.unlink(root_inode, "g").ok());
  names after_restart{core}; // knows of no lookups
  core.reap_all_orphans();
  CHECK(sys(after_restart.getattr(g)) == ENOENT);
  core.reap_all_orphans(); // twice does no harm
  CHECK(core.inodes == 1);
}

TEST_CASE_FIXTURE(fixture,
                  "names: rename replaces, and what it replaced is an orphan in the same record") {
  auto f = file(root_inode, "f");
  auto g = file(root_inode, "g");
  files.remember(g, 1);
  auto before = core.records.load();
  CHECK(files.rename(root_inode, "f", root_inode, "g", 0).ok());
  CHECK(core.records == before + 1);
  CHECK(files.lookup(root_inode, "g")->inode == f);
  CHECK(sys(files.lookup(root_inode, "f")) == ENOENT);
  CHECK(attr(g).nlink == 0);
  CHECK(core.rows.count(orphan_key(g)) == 1);
  files.forget(g, 1);
  CHECK(core.run_reaper());
  auto d = dir(root_inode, "d");
  auto e = dir(root_inode, "e");
  auto inside = file(e, "x");
  CHECK(inside != 0);
  CHECK(sys(files.rename(root_inode, "g", root_inode, "d", 0)) == EISDIR);
  CHECK(sys(files.rename(root_inode, "d", root_inode, "g", 0)) == ENOTDIR);
  CHECK(sys(files.rename(root_inode, "d", root_inode, "e", 0)) == ENOTEMPTY);
  CHECK(sys(files.rename(root_inode, "d", root_inode, "g", 1)) == EEXIST);
  CHECK(files.rename(root_inode, "e", root_inode, "d", 0).ok());
  CHECK(sys(files.getattr(d)) == 0); // remembered by nobody: queued
  CHECK(core.run_reaper());
  CHECK(sys(files.getattr(d)) == ENOENT);
  CHECK(attr(root_inode).nlink == 3);
}

TEST_CASE_FIXTURE(fixture, "names: no directory goes into itself, and unknown flags are refused") {
  auto a = dir(root_inode, "a");
  auto b = dir(a, "b");
  auto c = dir(b, "c");
  CHECK(sys(files.rename(root_inode, "a", c, "a", 0)) == EINVAL);
  CHECK(sys(files.rename(root_inode, "a", a, "a", 0)) == EINVAL);
  CHECK(sys(files.rename(root_inode, "a", b, "c", 2)) == EINVAL);
  CHECK(sys(files.rename(b, "c", root_inode, "a", 2)) == EINVAL);
  CHECK(sys(files.rename(b, "c", root_inode, "a", 0)) == ENOTEMPTY);
  CHECK(sys(files.rename(root_inode, "a", root_inode, "z", 4)) == EINVAL); // RENAME_WHITEOUT
  CHECK(sys(files.rename(root_inode, "a", root_inode, "z", 3)) == EINVAL);
  CHECK(files.rename(root_inode, "a", root_inode, "a", 0).ok());
  CHECK(sys(files.rename(root_inode, "a", root_inode, "a", 1)) == EEXIST);
}

TEST_CASE_FIXTURE(fixture, "names: exchange swaps, also a file and a directory of two parents") {
  auto a = dir(root_inode, "a");
  auto b = dir(root_inode, "b");
  auto f = file(a, "f");
  auto d = dir(b, "d");
  CHECK(files.rename(a, "f", b, "d", 2).ok());
  CHECK(files.lookup(a, "f")->inode == d);
  CHECK(files.lookup(b, "d")->inode == f);
  CHECK(files.lookup(d, "..")->inode == a);
  CHECK(attr(a).nlink == 3);
  CHECK(attr(b).nlink == 2);
  CHECK(S_ISDIR(files.readdir(a, 2, 10, false)->at(0).type));
  CHECK(sys(files.rename(a, "f", b, "nothing", 2)) == ENOENT);
}

TEST_CASE_FIXTURE(fixture, "names: setgid directories hand on group and bit") {
  auto d = dir(root_inode, "d");
  attribute_changes changes;
  changes.mode = 02775;
  changes.gid = 55;
  CHECK(files.setattr(d, changes)->gid == 55);
  CHECK(attr(file(d, "f")).gid == 55);
  auto e = attr(dir(d, "e"));
  CHECK(e.gid == 55);
  CHECK((e.mode & S_ISGID) != 0);
  CHECK((attr(file(d, "g")).mode & S_ISGID) == 0);
}

TEST_CASE_FIXTURE(fixture,
                  "names: setattr changes what it names; suid and sgid go with the owner") {
  auto f = file(root_inode, "f", 06755);
  attribute_changes owner;
  owner.uid = 7;
  CHECK(files.setattr(f, owner)->mode == (S_IFREG | 0755));
  attribute_changes mode;
  mode.mode = 06711;
  CHECK(files.setattr(f, mode)->mode == (S_IFREG | 06711));
  attribute_changes kill;
  kill.kill_privileges = true;
  kill.size = 5;
  auto after = *files.setattr(f, kill);
  CHECK(after.mode == (S_IFREG | 0711));
  CHECK(after.size == 5);
  attribute_changes locking;
  locking.mode = 02644; // sgid without group execute is mandatory locking, not a privilege
  CHECK(files.setattr(f, locking).ok());
  CHECK(files.setattr(f, owner)->mode == (S_IFREG | 02644));
  attribute_changes times;
  times.atime = file_time{std::chrono::nanoseconds{123'456'789'012'345'678}};
  times.mtime = file_time{std::chrono::nanoseconds{-5}};
  after = *files.setattr(f, times);
  CHECK(after.atime == *times.atime);
  CHECK(after.mtime == *times.mtime);
  CHECK(after.ctime > after.mtime);
  attribute_changes size;
  size.size = 1;
  CHECK(sys(files.setattr(root_inode, size)) == EISDIR);
  size.size = ~0ULL;
  CHECK(sys(files.setattr(f, size)) == EFBIG);
  CHECK(sys(files.setattr(4711, mode)) == ENOENT);
}

TEST_CASE_FIXTURE(fixture, "names: truncate downwards drops data, upwards does not") {
  auto f = file(root_inode, "f");
  std::vector<std::uint64_t> drops;
  core.drop = [&](inode_number, std::uint64_t from, std::uint64_t) { drops.push_back(from); };
  attribute_changes size;
  size.size = 1000;
  CHECK(files.setattr(f, size)->size == 1000);
  CHECK(drops.empty());
  size.size = 10;
  auto before = attr(f).mtime;
  CHECK(files.setattr(f, size)->mtime >= before);
  CHECK(drops == std::vector<std::uint64_t>{10});
}

TEST_CASE_FIXTURE(fixture, "names: symlinks") {
  auto made = files.symlink(root_inode, "s", "target/of it", who);
  REQUIRE(made.ok());
  CHECK(made->size == 12);
  CHECK(made->mode == (S_IFLNK | 0777));
  CHECK(*files.readlink(made->inode) == "target/of it");
  CHECK(sys(files.readlink(root_inode)) == EINVAL);
  CHECK(files.symlink(root_inode, "long", std::string(4095, 'x'), who).ok());
  CHECK(sys(files.symlink(root_inode, "longer", std::string(4096, 'x'), who)) == ENAMETOOLONG);
  CHECK(sys(files.symlink(root_inode, "none", "", who)) == ENOENT);
}

TEST_CASE_FIXTURE(fixture, "names: extended attributes and their limits") {
  auto f = file(root_inode, "f");
  CHECK(sys(files.getxattr(f, "user.a")) == ENODATA);
  CHECK(sys(files.setxattr(f, "user.a", as_bytes("1"), xattr_mode::replace)) == ENODATA);
  CHECK(files.setxattr(f, "user.a", as_bytes("1"), xattr_mode::create).ok());
  CHECK(sys(files.setxattr(f, "user.a", as_bytes("2"), xattr_mode::create)) == EEXIST);
  CHECK(files.setxattr(f, "user.a", as_bytes("22"), xattr_mode::replace).ok());
  CHECK(files.setxattr(f, "user.empty", {}, xattr_mode::either).ok());
  CHECK(to_string(*files.getxattr(f, "user.a")) == "22");
  CHECK(files.getxattr(f, "user.empty")->empty());
  CHECK(*files.listxattr(f) == std::vector<std::string>{"user.a", "user.empty"});
  CHECK(files.setxattr(f, "user.big", buffer(65536), xattr_mode::either).ok());
  CHECK(sys(files.setxattr(f, "user.big", buffer(65537), xattr_mode::either)) == E2BIG);
  CHECK(sys(files.setxattr(f, std::string(256, 'n'), {}, xattr_mode::either)) == ERANGE);
  CHECK(sys(files.setxattr(4711, "user.a", {}, xattr_mode::either)) == ENOENT);
  CHECK(files.removexattr(f, "user.a").ok());
  CHECK(sys(files.removexattr(f, "user.a")) == ENODATA);
  CHECK(files.removexattr(f, "user.empty").ok());
  CHECK(files.removexattr(f, "user.big").ok());
  CHECK(files.listxattr(f)->empty());
  std::size_t set = 0;
  while (files
             .setxattr(f, "user." + std::string(240, 'x') + std::to_string(1000 + set), {},
                       xattr_mode::either)
             .ok())
    ++set;
  CHECK(set == 65536 / 250);
  CHECK(
      files.setxattr(f, "user." + std::string(240, 'x') + "1000", as_bytes("v"), xattr_mode::either)
          .ok());
}

TEST_CASE_FIXTURE(
    fixture,
    "names: unlink, rmdir, truncate and removexattr work on a full volume (invariant 15)") {
  auto f = file(root_inode, "f");
  dir(root_inode, "d");
  attribute_changes size;
  size.size = 100;
  CHECK(files.setattr(f, size).ok());
  CHECK(files.setxattr(f, "user.a", {}, xattr_mode::either).ok());
  core.full = true;
  CHECK(sys(files.mkdir(root_inode, "e", 0755, who)) == ENOSPC);
  size.size = 10;
  CHECK(files.setattr(f, size).ok());
  CHECK(files.removexattr(f, "user.a").ok());
  CHECK(files.rmdir(root_inode, "d").ok());
  CHECK(files.unlink(root_inode, "f").ok());
}

TEST_CASE_FIXTURE(fixture, "names: readdir goes on where it was, while entries come and go") {
  std::set<std::string> stay;
  for (int i = 0; i < 500; ++i) {
    file(root_inode, "stay" + std::to_string(i));
    stay.insert("stay" + std::to_string(i));
    file(root_inode, "go" + std::to_string(i));
  }
  std::set<std::string> seen;
  std::uint64_t cookie = 0;
  int step = 0;
  for (;;) {
    auto page = files.readdir(root_inode, cookie, 7, true);
    REQUIRE(page.ok());
    if (page->empty()) break;
    CHECK(page->size() <= 7);
    for (const auto& entry : *page) {
      CHECK(entry.cookie > cookie);
      cookie = entry.cookie;
      if (entry.name.starts_with("stay")) CHECK(entry.attr->inode == entry.inode);
      CHECK(seen.insert(entry.name).second);
    }
    if (step < 500) CHECK(files.unlink(root_inode, "go" + std::to_string(step)).ok());
    file(root_inode, "new" + std::to_string(step));
    ++step;
  }
  CHECK(seen.contains("."));
  CHECK(seen.contains(".."));
  for (const auto& name : stay) CHECK(seen.contains(name));
  CHECK(cookie < (std::uint64_t{1} << 63));
  CHECK(sys(files.readdir(file(root_inode, "plain"), 0, 10, false)) == ENOTDIR);
}

TEST_CASE("names: colliding hashes stay apart, their cookies stable, and ENOSPC after 256") {
  test::memory_core core;
  names files{core, [](std::string_view) { return std::uint64_t{5}; }};
  creator who;
  auto cookie_of = [&](std::string_view name) -> std::uint64_t {
    auto page = files.readdir(root_inode, 2, 1000, false);
    for (const auto& entry : *page)
      if (entry.name == name) return entry.cookie;
    return 0;
  };
  for (auto name : {"a", "b", "c"}) CHECK(files.mknod(root_inode, name, S_IFREG, 0, who).ok());
  auto b = cookie_of("b");
  auto c = cookie_of("c");
  CHECK(files.unlink(root_inode, "a").ok()); // heads the chain
  CHECK(cookie_of("b") == b);
  CHECK(files.lookup(root_inode, "c").ok());
  CHECK(files.lookup(root_inode, "a").err().sys == ENOENT);
  CHECK(files.rename(root_inode, "b", root_inode, "d", 0).ok()); // takes the vacant head
  CHECK(cookie_of("d") == codec::dirent_cookie(5, 0));
  CHECK(cookie_of("c") == c);
  CHECK(files.rename(root_inode, "d", root_inode, "c", 0)
            .ok()); // the head goes, the other is replaced in place
  CHECK(cookie_of("c") == c);
  CHECK(files.readdir(root_inode, 2, 10, false)->size() == 1);
  CHECK(files.unlink(root_inode, "c").ok());
  core.reap_all_orphans();
  CHECK(core.rows.size() == 1); // no vacant entry is left behind
  for (int i = 0; i < 256; ++i)
    CHECK(files.mknod(root_inode, std::to_string(i), S_IFREG, 0, who).ok());
  CHECK(files.mknod(root_inode, "one more", S_IFREG, 0, who).err().sys == ENOSPC);
  CHECK(files.unlink(root_inode, "0").ok());
  CHECK(files.mkdir(root_inode, "one more", 0755, who).ok());
  auto inside = files.lookup(root_inode, "one more")->inode;
  CHECK(files.mknod(inside, "x", S_IFREG, 0, who).ok());
  CHECK(files.mknod(inside, "y", S_IFREG, 0, who).ok());
  CHECK(files.unlink(inside, "x").ok());
  CHECK(files.rmdir(root_inode, "one more").err().sys == ENOTEMPTY);
  CHECK(files.unlink(inside, "y").ok());
  CHECK(files.rmdir(root_inode, "one more").ok());
}
