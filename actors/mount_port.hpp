// What the mount actor needs of whoever puts a volume's files into the kernel's tree. Implemented
// by fuse/ and handed in by cli/; without it (a machine without FUSE, tests) everything but the
// mount works. Thread-safe; start and stop may block on the kernel, never on the network, and run
// on the blocking actor.
#pragma once

#include <chrono>
#include <filesystem>
#include <functional>
#include <string>

#include "base/result.hpp"
#include "volume/filesystem.hpp"

namespace qs::actors {

struct mount_settings {
  std::filesystem::path path;
  std::string volume_name;
  bool allow_other = false;
  bool writeback = false;
  bool operator==(const mount_settings&) const = default;
};

class mount_port {
public:
  virtual ~mount_port() = default;
  /// Could it be mounted there now? Only looks: a dead mount of our own is no obstacle, and start() takes it away. Errors, each with
  /// what to do: unsupported (no /dev/fuse), busy (mounted already, foreign dead mount), refused
  /// (not empty), not_found, invalid_argument (no directory).
  virtual status check(const mount_settings& settings) = 0;
  /// The mount is visible when this returns. `gone` is called once if somebody else unmounts it.
  virtual status start(volume::filesystem& files, const mount_settings& settings,
                       std::function<void()> gone) = 0;
  /// Ends the mount: orderly, or lazily if it is still busy at the deadline (and says so by
  /// errc::busy). After it returns no call reaches `files` any more. Without a mount: done.
  virtual status stop(std::chrono::milliseconds deadline) = 0;
  /// Makes the kernel forget cached names and pages.
  virtual status drop_page_cache() = 0;
  virtual bool mounted() const = 0;
};

} // namespace qs::actors
