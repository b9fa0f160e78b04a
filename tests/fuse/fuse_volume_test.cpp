// A real volume, mounted: log, rows, segments and erasure coding below the kernel; only the nodes
// are in memory.
#include "fuse_fixture.hpp"
#include "support/live_volume.hpp"

using namespace qs;
using namespace qs::test;
using namespace std::chrono_literals;

namespace {

struct volume_mount {
  temporary_directory place;
  fs::path root = place.path / "mnt";
  live_volume volume{place.path};
  fuse::mount mount;

  volume_mount() {
    fs::create_directory(root);
    if (!can_mount()) return;
    must(volume.create());
    start();
  }
  ~volume_mount() { (void)mount.stop(0s); }
  void start(bool writeback = false) {
    must(volume.start());
    must(mount.start(volume->files(), {root, "live", false, writeback}, {}));
  }
  void drop_everything() {
    must(volume.drain());
    must(volume->drop_caches());
    must(mount.drop_page_cache());
  }
  static void must(const status& s) {
    if (!s.ok()) FAIL(describe(s.err()));
  }
  std::string shell(const std::string& text) const {
    return "cd " + place.path.string() + " && " + text;
  }
};

} // namespace

TEST_CASE_FIXTURE(volume_mount,
                  "volume mounted: a real tree comes back from the nodes, two of them away") {
  QS_NEEDS_FUSE();
  CHECK(run_shell(shell(
            "mkdir source && cp -a /usr/include/linux source/ && ln -s nowhere source/dangling && "
            "head -c 3000000 /dev/urandom > source/big && ln source/big source/hard && cp -a "
            "source mnt/")) == 0);
  auto compare = shell("diff -r --no-dereference source mnt/source");
  CHECK(run_shell(compare) == 0);
  drop_everything();
  auto before = volume->stats();
  volume.nodes.set_away(1, true);
  volume.nodes.set_away(4, true);
  CHECK(run_shell(compare) == 0);
  auto after = volume->stats();
  CHECK(after.node_read_bytes - before.node_read_bytes >= after.used_bytes);
  CHECK(after.decoded_bytes > before.decoded_bytes);
  // Modes, sizes, link counts, times to the nanosecond, targets.
  CHECK(run_shell(shell("for d in source mnt/source; do (cd $d && find . ! -type d -printf '%p %m "
                        "%s %n %T@ %l\\n' -o "
                        "-printf '%p %m %n %T@\\n' | sort) > list.$(echo $d | tr -d /); done; "
                        "test -s list.source && cmp list.source list.mntsource")) == 0);
}

TEST_CASE_FIXTURE(
    volume_mount,
    "volume mounted: what was answered is there after the engine died, and work goes on") {
  QS_NEEDS_FUSE();
  for (int i = 0; i < 50; ++i)
    spill(root / ("f" + std::to_string(i)), std::string(static_cast<std::size_t>(i) * 3001, 'x'));
  unique_fd open_file_of_the_dead{::open((root / "f7").c_str(), O_RDONLY | O_CLOEXEC)};
  (void)mount.stop(0s); // the mount goes with its process
  open_file_of_the_dead.reset();
  volume.kill();
  start();
  for (int i = 0; i < 50; ++i)
    CHECK(slurp(root / ("f" + std::to_string(i))) ==
          std::string(static_cast<std::size_t>(i) * 3001, 'x'));
  CHECK(::unlink((root / "f7").c_str()) == 0);
  CHECK(fs::exists(root / "f8"));
}

TEST_CASE_FIXTURE(volume_mount, "volume mounted: eight threads write, append, rename and unlink") {
  QS_NEEDS_FUSE();
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t)
    threads.emplace_back([&, t] {
      auto dir = root / ("t" + std::to_string(t));
      std::error_code failed;
      if (!fs::create_directory(dir, failed)) ++wrong;
      for (int i = 0; i < 40; ++i) {
        auto name = dir / std::to_string(i);
        std::string text(static_cast<std::size_t>(1000 * i + t), static_cast<char>('a' + t));
        {
          unique_fd fd{::open(name.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644)};
          if (!write_all(fd.get(), as_bytes(text)).ok() || ::fsync(fd.get()) != 0) ++wrong;
        }
        unique_fd shared{
            ::open((root / "log").c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644)};
        auto line = std::string(15, static_cast<char>('a' + t)) + "\n";
        if (::write(shared.get(), line.data(), 16) != 16) ++wrong;
        auto moved = dir / (std::to_string(i) + ".done");
        if (::rename(name.c_str(), moved.c_str()) != 0) ++wrong;
        auto back = read_file(moved);
        if (!back.ok() || *back != text) ++wrong;
        if (i % 2 == 0 && ::unlink(moved.c_str()) != 0) ++wrong;
      }
    });
  for (auto& t : threads) t.join();
  CHECK(wrong == 0);
  drop_everything();
  auto text = slurp(root / "log");
  CHECK(text.size() == 8 * 40 * 16);
  for (std::size_t at = 0; at + 16 <= text.size(); at += 16)
    CHECK(text.substr(at, 16) == std::string(15, text[at]) + "\n");
  for (int t = 0; t < 8; ++t)
    for (int i = 1; i < 40; i += 2)
      CHECK(slurp(root / ("t" + std::to_string(t)) / (std::to_string(i) + ".done")) ==
            std::string(static_cast<std::size_t>(1000 * i + t), static_cast<char>('a' + t)));
  CHECK(eventually([&] { return volume->files().statfs().files == 8 * 20 + 8 + 1 + 1; }));
}

TEST_CASE_FIXTURE(
    volume_mount,
    "volume mounted: sparse files, punched holes and truncation read as zeros from the nodes") {
  QS_NEEDS_FUSE();
  auto f = root / "sparse";
  std::string expected(5'000'000, '\0');
  {
    unique_fd fd{::open(f.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644)};
    auto put = [&](std::size_t at, std::size_t size, char c) {
      std::string text(size, c);
      CHECK(::pwrite(fd.get(), text.data(), size, static_cast<off_t>(at)) ==
            static_cast<ssize_t>(size));
      expected.replace(at, size, text);
    };
    put(0, 200'000, 'a');
    put(3'000'000, 700'001, 'b');
    put(150'000, 1, 'c');
    CHECK(::fallocate(fd.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 100'000, 70'000) == 0);
    std::fill_n(expected.begin() + 100'000, 70'000, '\0');
    CHECK(::ftruncate(fd.get(), 3'200'000) == 0);
    CHECK(::ftruncate(fd.get(), 5'000'000) == 0);
    std::fill(expected.begin() + 3'200'000, expected.end(), '\0');
    CHECK(::lseek(fd.get(), 1'000'000, SEEK_DATA) >= 2'900'000);
  }
  CHECK(slurp(f) == expected);
  drop_everything();
  CHECK(slurp(f) == expected);
  struct stat st {};
  CHECK(::stat(f.c_str(), &st) == 0);
  CHECK(st.st_blocks * 512 < 1'000'000);
}

TEST_CASE_FIXTURE(volume_mount, "volume mounted with writeback: the same bytes, sizes and times") {
  QS_NEEDS_FUSE();
  must(mount.stop(5s));
  volume.kill();
  start(true);
  CHECK(run_shell(
            shell("mkdir source && cp -a /usr/include/asm-generic source/ && cp -a source mnt/ && "
                  "for i in 1 2 3 4 5 6 7 8 9; do echo line $i >> mnt/log; done && "
                  "dd if=/dev/zero of=mnt/odd bs=1000 count=77 status=none && truncate -s 12345 "
                  "mnt/odd")) == 0);
  auto compare = shell(
      "diff -r source mnt/source && test $(wc -l < mnt/log) = 9 && test $(wc -c < mnt/odd) = 12345 "
      "&& "
      "for d in source mnt/source; do (cd $d && find . -type f -printf '%p %m %s %T@\\n' | sort) > "
      "list.$(echo $d | tr -d /); done; cmp list.source list.mntsource");
  CHECK(run_shell(compare) == 0);
  CHECK(run_shell(shell("sync mnt/log")) == 0);
  drop_everything();
  CHECK(run_shell(compare) == 0);
  must(mount.stop(5s)); // what the kernel still held is written before the mount goes
  volume.kill();
  start();
  CHECK(run_shell(compare) == 0);
}
