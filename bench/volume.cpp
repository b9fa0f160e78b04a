// What an operation of the volume costs without a kernel, a network or a second reader: log, rows and
// codec of a real 4+2 volume over nodes in memory, one client thread. Wall clock and processor time
// of the whole process, per operation; the second travels better between machines. Run by hand:
//   bench_volume DIRECTORY [ROUNDS]        an empty directory, which keeps the volume's files
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <future>
#include <string>
#include <vector>

#include <sys/resource.h>
#include <sys/stat.h>

#include <fmt/format.h>

#include "support/live_volume.hpp"

namespace {

using namespace qs;

double seconds(const timeval& t) { return double(t.tv_sec) + double(t.tv_usec) * 1e-6; }

double processor_seconds() {
  rusage used{};
  ::getrusage(RUSAGE_SELF, &used);
  return seconds(used.ru_utime) + seconds(used.ru_stime);
}

template <class R>
R must(R r) {
  if (r.ok()) return r;
  std::fprintf(stderr, "%s\n", describe(r.err()).c_str());
  std::exit(1);
}

/// `settle` is part of the processor's time: what an operation leaves to the background is its price.
template <class Action, class Settle>
void measure(const char* what, std::size_t count, Action&& action, Settle&& settle) {
  auto cpu = processor_seconds();
  auto begin = std::chrono::steady_clock::now();
  for (std::size_t i = 0; i < count; ++i) action(i);
  std::chrono::duration<double, std::micro> wall = std::chrono::steady_clock::now() - begin;
  settle();
  cpu = processor_seconds() - cpu;
  std::printf("%-24s %9.1f us %9.1f us processor\n", what, wall.count() / double(count),
              cpu * 1e6 / double(count));
}

void write(volume::filesystem& files, volume::inode_number inode, std::uint64_t offset, byte_span data) {
  std::promise<void> written;
  files.write(inode, offset, data, false, false, [&](result<std::size_t> n) {
    (void)must(std::move(n));
    written.set_value();
  });
  written.get_future().wait();
}

void round(test::live_volume& volume, const std::string& name) {
  auto& files = volume->files();
  auto settle = [&] { (void)must(volume.drain()); };
  auto place = must(files.mkdir(volume::root_inode, name, 0755, {}))->inode;
  constexpr std::size_t small = 5000;
  constexpr std::size_t big = 256;
  buffer data(1 << 20);
  system_random().fill(data);
  byte_span noise{data};

  std::vector<volume::inode_number> made(small);
  auto file_name = [](std::size_t i) { return fmt::format("file-{:05}", i); };
  measure("create 1 KiB", small, [&](std::size_t i) {
    made[i] = must(files.mknod(place, file_name(i), S_IFREG | 0644, 0, {}))->inode;
    files.remember(made[i], 1);
    write(files, made[i], 0, noise.first(1024));
  }, settle);
  measure("lookup", small, [&](std::size_t i) { (void)must(files.lookup(place, file_name(i))); }, [] {});
  measure("unlink", small, [&](std::size_t i) {
    (void)must(files.unlink(place, file_name(i)));
    files.forget(made[i], 1);
  }, settle);

  auto file = must(files.mknod(place, "big", S_IFREG | 0644, 0, {}))->inode;
  measure("write 1 MiB", big, [&](std::size_t i) {
    store_le(data.data(), std::uint64_t{i}); // not the same frame again
    write(files, file, std::uint64_t{i} << 20, noise);
  }, settle);
  measure("write 4 KiB at random", 20'000, [&](std::size_t i) {
    write(files, file, (i * 7919 % (big << 8)) << 12, noise.subspan((i % 200) << 12, 4096));
  }, settle);
  (void)must(files.unlink(place, "big"));
  (void)must(files.rmdir(volume::root_inode, name));
}

} // namespace

int main(int argc, char** argv) {
  if (argc < 2 || argc > 3) {
    std::fprintf(stderr, "usage: %s DIRECTORY [ROUNDS]\n", argv[0]);
    return 2;
  }
  test::live_volume volume{argv[1]};
  volume.nodes.keep_values(false); // the log has all that is read here
  (void)must(volume.create());
  (void)must(volume.start());
  auto rounds = argc == 3 ? std::atoi(argv[2]) : 3;
  for (int i = 0; i < rounds; ++i) {
    std::printf("-- round %d\n", i + 1);
    round(volume, fmt::format("round-{}", i));
  }
  return 0;
}
