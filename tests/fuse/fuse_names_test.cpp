// Directories, links, attributes and xattrs through a real mount.
#include <set>

#include <dirent.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>

#include "fuse_fixture.hpp"

using namespace qs;
using namespace qs::test;

namespace {
#define QS_NEEDS_ROOT()                                                                            \
  if (::geteuid() != 0) {                                                                          \
    MESSAGE("skipped: needs root to be somebody else");                                            \
    return;                                                                                        \
  }

/// Mounted again with allow_other, its root and the way to it open to all.
void open_to_everybody(mounted_fixture& f) {
  (void)f.mount.stop(std::chrono::seconds{5});
  auto everybody = f.settings();
  everybody.allow_other = true;
  REQUIRE(f.mount.start(f.files, everybody, {}).ok());
  fs::permissions(f.place.path, fs::perms::all);
  volume::attribute_changes open_root;
  open_root.mode = 0777;
  REQUIRE(f.files.setattr(volume::root_inode, open_root).ok());
}

int as_nobody(const std::string& command) {
  return run_shell("setpriv --reuid 65534 --regid 65534 --clear-groups sh -c '" + command + "' > /dev/null 2>&1");
}
} // namespace

TEST_CASE_FIXTURE(mounted_fixture, "fuse: create, rename, exchange, unlink") {
  QS_NEEDS_FUSE();
  spill(root / "a", "one");
  spill(root / "b", "two");
  CHECK(::renameat2(AT_FDCWD, (root / "a").c_str(), AT_FDCWD, (root / "b").c_str(),
                    RENAME_NOREPLACE) == -1);
  CHECK(errno == EEXIST);
  CHECK(::renameat2(AT_FDCWD, (root / "a").c_str(), AT_FDCWD, (root / "b").c_str(),
                    RENAME_EXCHANGE) == 0);
  CHECK(slurp(root / "a") == "two");
  CHECK(slurp(root / "b") == "one");
  CHECK(::renameat2(AT_FDCWD, (root / "a").c_str(), AT_FDCWD, (root / "c").c_str(),
                    RENAME_WHITEOUT) == -1);
  CHECK(errno == EINVAL);
  CHECK(::rename((root / "a").c_str(), (root / "b").c_str()) == 0);
  CHECK(slurp(root / "b") == "two");
  CHECK(!fs::exists(root / "a"));
  CHECK(::open(root.c_str(), O_TMPFILE | O_RDWR, 0600) == -1);
  CHECK(errno == EOPNOTSUPP);
  CHECK(::unlink((root / "b").c_str()) == 0);
  CHECK(fs::is_empty(root));
}

TEST_CASE_FIXTURE(mounted_fixture,
                  "fuse: an unlinked file is readable and writable while open, and gone after") {
  QS_NEEDS_FUSE();
  {
    unique_fd fd{::open((root / "f").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600)};
    REQUIRE(fd.valid());
    CHECK(write_all(fd.get(), as_bytes("still here")).ok());
    CHECK(::unlink((root / "f").c_str()) == 0);
    struct stat st {};
    CHECK(::fstat(fd.get(), &st) == 0);
    CHECK(st.st_nlink == 0);
    buffer back(10);
    CHECK(::pread(fd.get(), back.data(), 10, 0) == 10);
    CHECK(as_text(back) == "still here");
    CHECK(::pwrite(fd.get(), "!", 1, 10) == 1);
    CHECK(files.core.inodes == 2);
  }
  CHECK(eventually([&] { return files.core.inodes == 1; }));
}

TEST_CASE_FIXTURE(mounted_fixture,
                  "fuse: readdir of 10,000 entries, each once, also when started in the middle") {
  QS_NEEDS_FUSE();
  for (int i = 0; i < 10'000; ++i) {
    auto made =
        files.mknod(volume::root_inode, "entry-" + std::to_string(i), S_IFREG | 0644, 0, {});
    REQUIRE(made.ok());
  }
  std::set<std::string> seen;
  DIR* dir = ::opendir(root.c_str());
  REQUIRE(dir != nullptr);
  long middle = 0;
  std::set<std::string> after_middle;
  while (auto* entry = ::readdir(dir)) {
    CHECK(seen.insert(entry->d_name).second);
    if (seen.size() == 5000) middle = ::telldir(dir);
    if (seen.size() > 5000) after_middle.insert(entry->d_name);
  }
  CHECK(seen.size() == 10'002);
  ::seekdir(dir, middle);
  std::set<std::string> again;
  while (auto* entry = ::readdir(dir)) again.insert(entry->d_name);
  CHECK(again == after_middle);
  ::closedir(dir);
}

TEST_CASE_FIXTURE(mounted_fixture,
                  "fuse: attributes: modes, owners, nanoseconds, setgid, suid after a write") {
  QS_NEEDS_FUSE();
  auto f = root / "f";
  spill(f, "x");
  timespec times[2] = {{1'000'000'000, 123'456'789}, {2'000'000'000, 987'654'321}};
  CHECK(::utimensat(AT_FDCWD, f.c_str(), times, 0) == 0);
  CHECK(::chmod(f.c_str(), 0640) == 0);
  struct stat st {};
  CHECK(::stat(f.c_str(), &st) == 0);
  CHECK(st.st_mode == (S_IFREG | 0640));
  CHECK(st.st_atim.tv_nsec == 123'456'789);
  CHECK(st.st_mtim.tv_sec == 2'000'000'000);
  CHECK(st.st_mtim.tv_nsec == 987'654'321);
  if (::geteuid() == 0) {
    CHECK(::chown(f.c_str(), 4'000'000'000U, 123) == 0);
    CHECK(::stat(f.c_str(), &st) == 0);
    CHECK(st.st_uid == 4'000'000'000U);
    CHECK(::mkdir((root / "d").c_str(), 0755) == 0);
    CHECK(::chown((root / "d").c_str(), 0, 77) == 0);
    CHECK(::chmod((root / "d").c_str(), 02775) == 0);
    spill(root / "d/inside", "");
    CHECK(::stat((root / "d/inside").c_str(), &st) == 0);
    CHECK(st.st_gid == 77);
    // chown takes suid away even from root; a write by root keeps it, as on any Linux file system.
    CHECK(::chmod(f.c_str(), 06755) == 0);
    CHECK(::chown(f.c_str(), 1, 1) == 0);
    CHECK(::stat(f.c_str(), &st) == 0);
    CHECK((st.st_mode & 06000) == 0);
  }
  CHECK(::truncate(f.c_str(), 1'000'000'000'000) == 0);
  CHECK(::stat(f.c_str(), &st) == 0);
  CHECK(st.st_size == 1'000'000'000'000);
}

TEST_CASE_FIXTURE(mounted_fixture, "fuse: access and every call that needs a permission are judged by mode and owner") {
  QS_NEEDS_FUSE();
  QS_NEEDS_ROOT();
  open_to_everybody(*this);
  auto file = root / "f";
  auto dir = root / "d";
  spill(file, "x");
  CHECK(::mkdir(dir.c_str(), 0755) == 0);
  spill(dir / "inside", "y");
  auto may = [&](const char* what, const fs::path& path) { return as_nobody("test " + std::string{what} + " " + path.string()) == 0; };
  for (auto mode : {0640U, 0644U, 0646U, 0645U}) {
    CAPTURE(mode);
    CHECK(::chmod(file.c_str(), mode) == 0);
    CHECK(may("-r", file) == ((mode & 4) != 0));
    CHECK(may("-w", file) == ((mode & 2) != 0));
    CHECK(may("-x", file) == ((mode & 1) != 0));
    CHECK((as_nobody("cat " + file.string()) == 0) == ((mode & 4) != 0));
    CHECK((as_nobody("true >> " + file.string()) == 0) == ((mode & 2) != 0));
  }
  CHECK(::chown(file.c_str(), 65534, 65534) == 0); // now the owner's bits count
  CHECK(::chmod(file.c_str(), 0407) == 0);
  CHECK(may("-r", file));
  CHECK_FALSE(may("-w", file));
  CHECK(as_nobody("cat " + (dir / "inside").string()) == 0);
  CHECK_FALSE(as_nobody("rm -f " + (dir / "inside").string()) == 0); // the directory's
  CHECK(::chmod(dir.c_str(), 0750) == 0);
  CHECK_FALSE(may("-e", dir / "inside"));
  CHECK(::access((root / "nothing").c_str(), F_OK) == -1);
  CHECK(errno == ENOENT);
  CHECK(::access(file.c_str(), R_OK | W_OK) == 0); // root's
}

TEST_CASE_FIXTURE(mounted_fixture,
                  "fuse: suid goes when somebody without privilege writes or truncates") {
  QS_NEEDS_FUSE();
  QS_NEEDS_ROOT();
  open_to_everybody(*this);
  for (auto command : {"printf x >> ", "truncate -s 0 "}) {
    auto f = root / "f";
    spill(f, "x");
    CHECK(::chown(f.c_str(), 65534, 65534) == 0);
    CHECK(::chmod(f.c_str(), 06777) == 0);
    CHECK(as_nobody(command + f.string()) == 0);
    struct stat st {};
    CHECK(::stat(f.c_str(), &st) == 0);
    CHECK_MESSAGE((st.st_mode & 06000) == 0, command);
  }
}

TEST_CASE_FIXTURE(mounted_fixture, "fuse: symlinks, hard links, fifos") {
  QS_NEEDS_FUSE();
  spill(root / "f", "text");
  CHECK(::symlink("f", (root / "s").c_str()) == 0);
  CHECK(fs::read_symlink(root / "s") == "f");
  CHECK(slurp(root / "s") == "text");
  CHECK(::link((root / "f").c_str(), (root / "l").c_str()) == 0);
  CHECK(fs::hard_link_count(root / "f") == 2);
  CHECK(::mkfifo((root / "p").c_str(), 0600) == 0);
  CHECK(fs::is_fifo(root / "p"));
  CHECK(fs::exists(root / "nothing") == false);
  spill(root / "nothing", "now it is"); // the kernel's memory of "no such name" is corrected
  CHECK(slurp(root / "nothing") == "now it is");
}

TEST_CASE_FIXTURE(mounted_fixture, "fuse: extended attributes") {
  QS_NEEDS_FUSE();
  auto f = root / "f";
  spill(f, "x");
  CHECK(::setxattr(f.c_str(), "user.a", "value", 5, XATTR_CREATE) == 0);
  CHECK(::setxattr(f.c_str(), "user.a", "value", 5, XATTR_CREATE) == -1);
  CHECK(errno == EEXIST);
  CHECK(::setxattr(f.c_str(), "user.none", "value", 5, XATTR_REPLACE) == -1);
  CHECK(errno == ENODATA);
  CHECK(::getxattr(f.c_str(), "user.a", nullptr, 0) == 5);
  char small[3];
  CHECK(::getxattr(f.c_str(), "user.a", small, sizeof small) == -1);
  CHECK(errno == ERANGE);
  std::string big(65536, 'b');
  CHECK(::setxattr(f.c_str(), "user.b", big.data(), big.size(), 0) == 0);
  std::string back(65536, ' ');
  CHECK(::getxattr(f.c_str(), "user.b", back.data(), back.size()) == 65536);
  CHECK(back == big);
  char list[64];
  auto size = ::listxattr(f.c_str(), list, sizeof list);
  CHECK(std::string(list, static_cast<std::size_t>(size)) == std::string("user.a\0user.b\0", 14));
  CHECK(::removexattr(f.c_str(), "user.a") == 0);
  CHECK(::getxattr(f.c_str(), "user.a", nullptr, 0) == -1);
  CHECK(errno == ENODATA);
  CHECK(::setxattr(f.c_str(), "system.posix_acl_access", "\2\0\0\0", 4, 0) == -1);
}

TEST_CASE_FIXTURE(mounted_fixture, "fuse: statfs is the volume's") {
  QS_NEEDS_FUSE();
  struct statvfs st {};
  CHECK(::statvfs(root.c_str(), &st) == 0);
  CHECK(st.f_blocks * st.f_frsize == 1U << 30);
  CHECK(st.f_bavail * st.f_frsize == 1U << 29);
  CHECK(st.f_namemax == 255);
}
