// A mount of a file system in a temporary directory; taken away again whatever happens in the test.
#pragma once

#include <doctest/doctest.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <thread>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/posix.hpp"
#include "fuse/mount.hpp"
#include "fuse/mount_point.hpp"
#include "support/memory_files.hpp"

namespace qs::test {

namespace fs = std::filesystem;

/// Can this machine mount at all? Tests say so and pass where it cannot.
inline bool can_mount() {
  static const bool yes = [] {
    unique_fd device{::open("/dev/fuse", O_RDWR | O_CLOEXEC)};
    return device.valid();
  }();
  return yes;
}

#define QS_NEEDS_FUSE()                                                                            \
  if (!qs::test::can_mount()) {                                                                    \
    MESSAGE("skipped: no /dev/fuse here");                                                         \
    return;                                                                                        \
  }

struct temporary_directory {
  fs::path path;
  temporary_directory() {
    std::string name = (fs::temp_directory_path() / "qs-fuse-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) std::abort();
    path = name;
  }
  ~temporary_directory() {
    (void)fuse::unmount(path / "mnt", true);
    std::error_code ignored;
    fs::remove_all(path, ignored);
  }
};

struct mounted_fixture {
  temporary_directory place;
  memory_files files;
  fuse::mount mount;
  std::atomic<int> gone{0};
  fs::path root = place.path / "mnt";

  mounted_fixture() {
    fs::create_directory(root);
    if (!can_mount()) return;
    auto started = mount.start(files, settings(), [this] { ++gone; });
    if (!started.ok()) FAIL(describe(started.err()));
  }
  ~mounted_fixture() { (void)mount.stop(std::chrono::seconds{0}); }
  actors::mount_settings settings() const { return {root, "test", false, false}; }
};

/// Waits for something that other threads or the kernel do.
template <class F>
bool eventually(F&& condition) {
  auto until = std::chrono::steady_clock::now() + std::chrono::seconds{10};
  while (std::chrono::steady_clock::now() < until) {
    if (condition()) return true;
    std::this_thread::yield();
  }
  return condition();
}

inline int run_shell(const std::string& command) {
  int code = std::system(command.c_str());
  return WIFEXITED(code) ? WEXITSTATUS(code) : 128;
}

inline std::string slurp(const fs::path& path) {
  auto text = read_file(path);
  if (!text.ok()) FAIL(describe(text.err()));
  return *text;
}

inline void spill(const fs::path& path, std::string_view text) {
  unique_fd fd{::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644)};
  REQUIRE(fd.valid());
  REQUIRE(write_all(fd.get(), as_bytes(text)).ok());
}

} // namespace qs::test
