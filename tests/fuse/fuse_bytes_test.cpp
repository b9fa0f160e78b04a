// Bytes through a real mount: writes, appends, holes, mmap, late and failing reads, and a tree
// copied and compared.
#include <linux/falloc.h>
#include <sys/file.h>
#include <sys/mman.h>

#include "fuse_fixture.hpp"

using namespace qs;
using namespace qs::test;

namespace {

std::string pattern(std::size_t size, unsigned seed) {
  std::string out(size, '\0');
  for (std::size_t i = 0; i < size; ++i)
    out[i] = static_cast<char>((i * 31 + seed + (i >> 12)) & 0xff);
  return out;
}

} // namespace

TEST_CASE_FIXTURE(mounted_fixture, "fuse: what is written is read, across sizes and offsets") {
  QS_NEEDS_FUSE();
  auto text = pattern(5 << 20, 3);
  spill(root / "f", text);
  CHECK(slurp(root / "f") == text);
  unique_fd fd{::open((root / "f").c_str(), O_RDWR | O_CLOEXEC)};
  std::string patch = "patch";
  CHECK(::pwrite(fd.get(), patch.data(), patch.size(), 1'234'567) == 5);
  text.replace(1'234'567, 5, patch);
  CHECK(::ftruncate(fd.get(), 2'000'000) == 0);
  text.resize(2'000'000);
  CHECK(::fsync(fd.get()) == 0);
  CHECK(files.fsyncs == 1);
  CHECK(mount.drop_page_cache().ok());
  CHECK(slurp(root / "f") == text);
  spill(root / "f", "short"); // O_TRUNC
  CHECK(slurp(root / "f") == "short");
  unique_fd dir{::open(root.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
  CHECK(::fsync(dir.get()) == 0);
  CHECK(files.fsyncs == 2);
}

TEST_CASE_FIXTURE(
    mounted_fixture,
    "fuse: small writes are one message each, without a question for privileges before") {
  QS_NEEDS_FUSE();
  unique_fd fd{::open((root / "f").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644)};
  for (int i = 0; i < 100; ++i) CHECK(::pwrite(fd.get(), "x", 1, i * 10'000) == 1);
  CHECK(files.getxattrs <=
        2); // 100 where FUSE_HANDLE_KILLPRIV_V2 was not agreed on (before Linux 5.11)
}

TEST_CASE_FIXTURE(mounted_fixture, "fuse: eight threads append, no line is lost or torn") {
  QS_NEEDS_FUSE();
  constexpr int threads = 8;
  constexpr int lines = 200;
  std::vector<std::thread> writers;
  for (int t = 0; t < threads; ++t)
    writers.emplace_back([&, t] {
      unique_fd fd{::open((root / "log").c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644)};
      for (int i = 0; i < lines; ++i) {
        std::string line(31, static_cast<char>('a' + t));
        line += '\n';
        if (::write(fd.get(), line.data(), line.size()) != 32) return;
      }
    });
  for (auto& w : writers) w.join();
  auto text = slurp(root / "log");
  CHECK(text.size() == threads * lines * 32);
  std::vector<int> count(threads);
  for (std::size_t at = 0; at + 32 <= text.size(); at += 32) {
    auto line = text.substr(at, 32);
    CHECK(line == std::string(31, line[0]) + '\n');
    ++count[static_cast<std::size_t>(line[0] - 'a')];
  }
  for (int c : count) CHECK(c == lines);
}

TEST_CASE_FIXTURE(mounted_fixture, "fuse: sparse files, SEEK_HOLE, punched and zeroed ranges") {
  QS_NEEDS_FUSE();
  unique_fd fd{::open((root / "f").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644)};
  CHECK(write_all(fd.get(), as_bytes(std::string(8192, 'x'))).ok());
  CHECK(::ftruncate(fd.get(), 1 << 30) == 0);
  CHECK(::lseek(fd.get(), 0, SEEK_HOLE) == 8192);
  CHECK(::lseek(fd.get(), 0, SEEK_DATA) == 0);
  CHECK(::lseek(fd.get(), 8192, SEEK_DATA) == -1);
  CHECK(errno == ENXIO);
  CHECK(::fallocate(fd.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4096, 4096) == 0);
  char c = 'y';
  CHECK(::pread(fd.get(), &c, 1, 4096) == 1);
  CHECK(c == 0);
  CHECK(::pread(fd.get(), &c, 1, 4095) == 1);
  CHECK(c == 'x');
  CHECK(::fallocate(fd.get(), 0, 0, 2LL << 30) == 0);
  struct stat st {};
  CHECK(::fstat(fd.get(), &st) == 0);
  CHECK(st.st_size == 2LL << 30);
  CHECK(::fallocate(fd.get(), FALLOC_FL_COLLAPSE_RANGE, 0, 4096) == -1);
  CHECK(errno == EOPNOTSUPP);
}

TEST_CASE_FIXTURE(mounted_fixture, "fuse: a shared mapping writes through") {
  QS_NEEDS_FUSE();
  unique_fd fd{::open((root / "m").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644)};
  CHECK(::ftruncate(fd.get(), 8192) == 0);
  void* at = ::mmap(nullptr, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
  REQUIRE(at != MAP_FAILED);
  std::memcpy(at, "mapped", 6);
  CHECK(::msync(at, 8192, MS_SYNC) == 0);
  ::munmap(at, 8192);
  CHECK(mount.drop_page_cache().ok());
  CHECK(slurp(root / "m").substr(0, 7) == std::string("mapped\0", 7));
}

TEST_CASE_FIXTURE(mounted_fixture, "fuse: O_DIRECT, copy_file_range and locks") {
  QS_NEEDS_FUSE();
  auto text = pattern(3 << 20, 5);
  spill(root / "f", text);
  {
    unique_fd fd{::open((root / "f").c_str(), O_RDWR | O_DIRECT | O_CLOEXEC)};
    REQUIRE(fd.valid());
    void* at = nullptr;
    REQUIRE(::posix_memalign(&at, 4096, 2 << 20) == 0);
    CHECK(::pread(fd.get(), at, 2 << 20, 4096) == 2 << 20);
    CHECK(std::memcmp(at, text.data() + 4096, 2 << 20) == 0);
    std::memset(at, 'd', 8192);
    CHECK(::pwrite(fd.get(), at, 8192, 1 << 20) == 8192);
    std::free(at);
    text.replace(1 << 20, 8192, 8192, 'd');
  }
  CHECK(slurp(root / "f") == text);
  unique_fd in{::open((root / "f").c_str(), O_RDONLY | O_CLOEXEC)};
  unique_fd out{::open((root / "g").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644)};
  std::size_t copied = 0;
  while (copied < text.size()) {
    auto n = ::copy_file_range(in.get(), nullptr, out.get(), nullptr, text.size() - copied, 0);
    if (n <= 0) break;
    copied += static_cast<std::size_t>(n);
  }
  CHECK(copied == text.size());
  CHECK(slurp(root / "g") == text);
  unique_fd other{::open((root / "g").c_str(), O_RDWR | O_CLOEXEC)};
  CHECK(::flock(out.get(), LOCK_EX | LOCK_NB) == 0);
  CHECK(::flock(other.get(), LOCK_EX | LOCK_NB) == -1);
  struct flock range {};
  range.l_type = F_WRLCK;
  CHECK(::fcntl(out.get(), F_OFD_SETLK, &range) == 0);
  CHECK(::fcntl(other.get(), F_OFD_SETLK, &range) == -1);
}

TEST_CASE_FIXTURE(mounted_fixture, "fuse: pages stay cached over opens until they are dropped") {
  QS_NEEDS_FUSE();
  spill(root / "f", pattern(100'000, 1));
  CHECK(mount.drop_page_cache().ok());
  CHECK(slurp(root / "f") == pattern(100'000, 1));
  auto reads = files.reads.load();
  CHECK(reads > 0);
  CHECK(slurp(root / "f") == pattern(100'000, 1));
  CHECK(files.reads == reads);
  CHECK(mount.drop_page_cache().ok());
  CHECK(slurp(root / "f") == pattern(100'000, 1));
  CHECK(files.reads > reads);
}

TEST_CASE_FIXTURE(mounted_fixture, "fuse: reads that wait for nodes hold up nobody else") {
  QS_NEEDS_FUSE();
  constexpr int readers = 40; // more than there are serving threads
  for (int i = 0; i < readers; ++i) spill(root / std::to_string(i), "late");
  CHECK(mount.drop_page_cache().ok());
  files.late_reads = true;
  std::atomic<int> good{0};
  std::vector<std::thread> waiting;
  for (int i = 0; i < readers; ++i)
    waiting.emplace_back([&, i] {
      if (auto text = read_file(root / std::to_string(i)); text.ok() && *text == "late") ++good;
    });
  CHECK(eventually([&] { return files.reads == readers; }));
  CHECK(fs::exists(root / "0")); // names are answered meanwhile
  spill(root / "meanwhile", "written");
  CHECK(fs::file_size(root / "meanwhile") == 7);
  files.late_reads = false;
  CHECK(files.answer_late_reads() == readers);
  for (auto& w : waiting) w.join();
  CHECK(good == readers);
}

TEST_CASE_FIXTURE(mounted_fixture, "fuse: a read that fails is EIO, and the next one may work") {
  QS_NEEDS_FUSE();
  spill(root / "f", "text");
  CHECK(mount.drop_page_cache().ok());
  files.fail_reads = true;
  unique_fd fd{::open((root / "f").c_str(), O_RDONLY | O_CLOEXEC)};
  char c = 0;
  CHECK(::pread(fd.get(), &c, 1, 0) == -1);
  CHECK(errno == EIO);
  files.fail_reads = false;
  CHECK(::pread(fd.get(), &c, 1, 0) == 1);
  CHECK(c == 't');
}

TEST_CASE_FIXTURE(mounted_fixture, "fuse: a full volume says ENOSPC at write, and unlink works") {
  QS_NEEDS_FUSE();
  spill(root / "f", "text");
  unique_fd fd{::open((root / "f").c_str(), O_WRONLY | O_CLOEXEC)};
  files.core.full = true;
  CHECK(::write(fd.get(), "more", 4) == -1);
  CHECK(errno == ENOSPC);
  CHECK(::unlink((root / "f").c_str()) == 0);
  files.core.full = false;
}

TEST_CASE_FIXTURE(mounted_fixture,
                  "fuse: a copied tree is the same tree, before and after the caches are dropped") {
  QS_NEEDS_FUSE();
  auto source = place.path / "source";
  fs::create_directories(source / "deep/er");
  for (int i = 0; i < 200; ++i)
    spill(source / "deep" / ("f" + std::to_string(i)),
          pattern(static_cast<std::size_t>(i) * 997, 9));
  fs::create_symlink("../nowhere", source / "deep/er/dangling");
  fs::create_hard_link(source / "deep/f1", source / "deep/er/hard");
  spill(source / "deep/er/exec", "#!/bin/sh\nexit 7\n");
  fs::permissions(source / "deep/er/exec", fs::perms::owner_all);
  CHECK(run_shell("cp -a " + source.string() + " " + root.string()) == 0);
  auto compare = "diff -r --no-dereference " + source.string() + " " + (root / "source").string();
  CHECK(run_shell(compare) == 0);
  CHECK(mount.drop_page_cache().ok());
  CHECK(run_shell(compare) == 0);
  CHECK(run_shell("cmp " + (root / "source/deep/f1").string() + " " +
                  (root / "source/deep/er/hard").string()) == 0);
  CHECK(fs::hard_link_count(root / "source/deep/f1") == 2);
  CHECK(run_shell((root / "source/deep/er/exec").string()) == 7);
  CHECK(run_shell("rm -r " + (root / "source").string()) == 0);
  CHECK(eventually([&] { return files.core.inodes == 1; }));
}
