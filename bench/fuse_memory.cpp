// The null back end of fuse/: a file system in memory, mounted. bench/fuse.py on it shows what the FUSE path itself costs,
// without log, rows and nodes. Not part of qs.
//   bench_fuse_memory DIRECTORY     (until SIGINT, SIGTERM)
#include <csignal>
#include <cstdio>

#include <unistd.h>

#include "fuse/mount.hpp"
#include "support/memory_files.hpp"

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: %s DIRECTORY\n", argv[0]);
    return 2;
  }
  sigset_t ends;
  sigemptyset(&ends);
  sigaddset(&ends, SIGINT);
  sigaddset(&ends, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &ends, nullptr); // before there are threads
  qs::test::memory_files files;
  qs::fuse::mount mount;
  auto started = mount.start(files, {argv[1], "memory", false, false}, [] { ::kill(::getpid(), SIGTERM); });
  if (!started.ok()) {
    std::fprintf(stderr, "%s\n", qs::describe(started.err()).c_str());
    return 1;
  }
  int signal = 0;
  sigwait(&ends, &signal);
  auto stopped = mount.stop(std::chrono::seconds{5});
  if (!stopped.ok()) std::fprintf(stderr, "%s\n", qs::describe(stopped.err()).c_str());
  return stopped.ok() ? 0 : 1;
}
