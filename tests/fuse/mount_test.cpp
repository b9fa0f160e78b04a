// Mount points and the life of a mount: what is refused and how it is said, ends by us and by
// others.
#include <csignal>

#include <sys/mount.h>
#include <sys/statvfs.h>
#include <sys/wait.h>

#include "fuse_fixture.hpp"

using namespace qs;
using namespace qs::test;
using namespace std::chrono_literals;

TEST_CASE("mountinfo: lines parse, octal escapes too; broken lines are left out") {
  auto table = fuse::parse_mountinfo("22 28 0:21 / /proc rw,nosuid - proc proc rw\n"
                                     "36 35 0:47 / /mnt/my\\040photos rw,relatime shared:1 "
                                     "master:2 - fuse.qs qs:family rw,user_id=0\n"
                                     "garbage\n"
                                     "1 2 0:1 / /short rw\n"
                                     "37 35 0:48 / /mnt/my\\040photos rw - tmpfs none\n"
                                     "38 35 0:49 / /mnt/x rw - fuse.qs qs:other rw");
  REQUIRE(table.size() == 3 + 1);
  CHECK(table[1] == fuse::mount_entry{"0:47", "/mnt/my photos", "fuse.qs", "qs:family"});
  CHECK(fuse::is_ours(table[1], "family"));
  CHECK(!fuse::is_ours(table[1], "fam"));
  CHECK(!fuse::is_ours(table[3], "family"));
  CHECK(fuse::topmost_mount(table, "/mnt/my photos")->device == "0:48"); // the one on top
  CHECK(!fuse::topmost_mount(table, "/mnt"));
  CHECK(fuse::parse_mountinfo("").empty());
}

TEST_CASE("mount points: each thing that is wrong has its own message") {
  temporary_directory place;
  auto at = [&](std::string_view name) {
    return actors::mount_settings{place.path / name, "test", false, false};
  };
  fuse::mount mount;
  CHECK(mount.check(at("missing")).err().code == errc::not_found);
  CHECK(describe(mount.check(at("missing")).err()).find("mkdir -p") != std::string::npos);
  CHECK(mount.check(at("missing/below")).err().code == errc::not_found);
  spill(place.path / "file", "");
  CHECK(mount.check(at("file")).err().code == errc::invalid_argument);
  fs::create_directory(place.path / "full");
  spill(place.path / "full/x", "");
  auto full = mount.check(at("full"));
  CHECK(full.err().code == errc::refused);
  CHECK(describe(full.err()).find("is not empty") != std::string::npos);
  auto busy = mount.check({"/proc", "test", false, false});
  CHECK(busy.err().code == errc::busy);
  CHECK(describe(busy.err()).find("(proc) is mounted there") != std::string::npos);
  fs::create_directory(place.path / "good");
  QS_NEEDS_FUSE();
  CHECK(mount.check(at("good")).ok());
  fs::create_directory_symlink(place.path / "good", place.path / "link");
  CHECK(mount.check(at("link")).ok());
}

TEST_CASE_FIXTURE(
    mounted_fixture,
    "mount: visible when start returns, with name and type; a second one is refused") {
  QS_NEEDS_FUSE();
  auto entry = fuse::mount_at(root);
  REQUIRE(entry.ok());
  REQUIRE(*entry);
  CHECK((*entry)->type == "fuse.qs");
  CHECK((*entry)->source == "qs:test");
  CHECK(mount.mounted());
  CHECK(mount.start(files, settings(), {}).err().code == errc::busy);
  fuse::mount second;
  CHECK(second.start(files, settings(), {}).err().code == errc::busy);
  CHECK(mount.stop(5s).ok());
  CHECK(!mount.mounted());
  CHECK(!*fuse::mount_at(root));
  CHECK(mount.stop(5s).ok());
  CHECK(mount.drop_page_cache().ok());
  CHECK(gone == 0);
  CHECK(mount.start(files, settings(), {}).ok());
  spill(root / "again", "works");
  CHECK(slurp(root / "again") == "works");
}

TEST_CASE_FIXTURE(mounted_fixture, "mount: busy at the deadline is unmounted lazily, and says so") {
  QS_NEEDS_FUSE();
  spill(root / "f", "text");
  unique_fd fd{::open((root / "f").c_str(), O_RDONLY | O_CLOEXEC)};
  auto stopped = mount.stop(100ms);
  REQUIRE(!stopped.ok());
  CHECK(stopped.err().code == errc::busy);
  CHECK(describe(stopped.err()).find("lazily") != std::string::npos);
  CHECK(!mount.mounted());
  CHECK(!*fuse::mount_at(root));
  struct stat st {};
  CHECK(::fstat(fd.get(), &st) == -1);
  CHECK(gone == 0);
  fd.reset();
  CHECK(mount.start(files, settings(), {}).ok());
  CHECK(fs::exists(root / "f"));
}

TEST_CASE_FIXTURE(mounted_fixture,
                  "mount: a busy mount that becomes free before the deadline ends in order") {
  QS_NEEDS_FUSE();
  spill(root / "f", "text");
  auto fd = ::open((root / "f").c_str(), O_RDONLY | O_CLOEXEC);
  std::thread closer{[&] {
    std::this_thread::yield(); // before or after the first attempt: the end must be orderly either
                               // way
    ::close(fd);
  }};
  CHECK(mount.stop(10s).ok());
  closer.join();
  CHECK(!*fuse::mount_at(root));
}

TEST_CASE_FIXTURE(mounted_fixture,
                  "mount: when somebody else unmounts we are told, once, and can mount again") {
  QS_NEEDS_FUSE();
  CHECK(fuse::unmount(root, false).ok());
  CHECK(eventually([&] { return gone == 1; }));
  CHECK(eventually([&] { return !mount.mounted(); }));
  CHECK(mount.start(files, settings(), {}).ok());
  spill(root / "again", "works");
  CHECK(mount.stop(5s).ok());
  CHECK(gone == 1);
}

TEST_CASE_FIXTURE(mounted_fixture, "mount: stop waits for reads that are under way") {
  QS_NEEDS_FUSE();
  spill(root / "f", "text");
  CHECK(mount.drop_page_cache().ok());
  files.late_reads = true;
  std::thread reader{[&] { (void)read_file(root / "f"); }};
  CHECK(eventually([&] { return files.reads == 1; }));
  std::thread answerer{[&] {
    eventually([&] { return !mount.mounted(); });
    files.answer_late_reads();
  }};
  CHECK(mount.stop(0ms).err().code == errc::busy); // the reader has the file open
  reader.join();
  answerer.join();
}

TEST_CASE("mount: a dead mount of ours is taken away, one of somebody else is named") {
  QS_NEEDS_FUSE();
  temporary_directory place;
  auto root = place.path / "mnt";
  fs::create_directory(root);
  actors::mount_settings ours{root, "test", false, false};
  int ready[2];
  REQUIRE(::pipe(ready) == 0);
  auto child = ::fork(); // an engine that is killed
  REQUIRE(child >= 0);
  if (child == 0) {
    memory_files files;
    fuse::mount mount;
    char byte = mount.start(files, ours, {}).ok() ? '1' : '0';
    (void)!::write(ready[1], &byte, 1);
    for (;;) ::pause();
  }
  char byte = 0;
  REQUIRE(::read(ready[0], &byte, 1) == 1);
  CHECK(byte == '1');
  ::close(ready[0]);
  ::close(ready[1]);
  CHECK(fs::exists(root));
  ::kill(child, SIGKILL);
  REQUIRE(::waitpid(child, nullptr, 0) == child);
  struct statvfs st {};
  CHECK(eventually([&] { return ::statvfs(root.c_str(), &st) == -1 && errno == ENOTCONN; }));

  fuse::mount mount;
  auto other = ours;
  other.volume_name = "other";
  auto foreign = mount.check(other);
  REQUIRE(!foreign.ok());
  CHECK(foreign.err().code == errc::busy);
  CHECK(foreign.err().sys == ENOTCONN);
  CHECK(describe(foreign.err()).find("not ours") != std::string::npos);
  CHECK(mount.check(ours).ok()); // only a look: it is still there afterwards
  CHECK(::statvfs(root.c_str(), &st) == -1);
  CHECK(errno == ENOTCONN);
  memory_files files;
  CHECK(mount.start(files, ours, {}).ok());
  spill(root / "f", "back");
  CHECK(slurp(root / "f") == "back");
}
