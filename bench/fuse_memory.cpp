// Mounts to be measured by bench/fuse.py. Not part of qs.
//   bench_fuse_memory DIRECTORY            a file system in memory: what the FUSE path itself costs
//   bench_fuse_memory DIRECTORY STATE      a real 4+2 volume with log and rows in STATE and nodes
//   in memory: all but the network
// Until SIGINT or SIGTERM. SIGUSR1 drains the volume and drops its caches and the kernel's.
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <memory>

#include <unistd.h>

#include "fuse/mount.hpp"
#include "support/live_volume.hpp"
#include "support/memory_files.hpp"

namespace {

bool good(const qs::status& s) {
  if (!s.ok()) std::fprintf(stderr, "%s\n", qs::describe(s.err()).c_str());
  return s.ok();
}

} // namespace

int main(int argc, char** argv) {
  if (argc != 2 && argc != 3) {
    std::fprintf(stderr, "usage: %s DIRECTORY [STATE]\n", argv[0]);
    return 2;
  }
  sigset_t wanted;
  sigemptyset(&wanted);
  for (int one : {SIGINT, SIGTERM, SIGUSR1}) sigaddset(&wanted, one);
  pthread_sigmask(SIG_BLOCK, &wanted, nullptr); // before there are threads
  std::unique_ptr<qs::test::memory_files> memory;
  std::unique_ptr<qs::test::live_volume> volume;
  if (argc == 2) {
    memory = std::make_unique<qs::test::memory_files>();
  } else {
    volume = std::make_unique<qs::test::live_volume>(argv[2]);
    if (!good(volume->create()) || !good(volume->start())) return 1;
  }
  qs::volume::filesystem& files = volume ? (*volume)->files() : *memory;
  qs::fuse::mount mount;
  if (!good(mount.start(files, {argv[1], "bench", false, false},
                        [] { ::kill(::getpid(), SIGTERM); })))
    return 1;
  int signal = 0;
  while (sigwait(&wanted, &signal) == 0 && signal == SIGUSR1) {
    if (volume) (void)(good(volume->drain()) && good((*volume)->drop_caches()));
    (void)good(mount.drop_page_cache());
  }
  return good(mount.stop(std::chrono::seconds{5})) ? 0 : 1;
}
