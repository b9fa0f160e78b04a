// The place in the tree where a volume is to be mounted: what is there now, may we, and taking a
// mount away again. Knows the kernel's mount table and umount(2); no libfuse, no session. Blocking
// calls on the kernel only. Thread-free.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "actors/mount_port.hpp"
#include "base/result.hpp"

namespace qs::fuse {

/// One line of /proc/self/mountinfo (proc(5)), unescaped.
struct mount_entry {
  std::string device; ///< "0:47", as under /sys/class/bdi and /sys/fs/fuse/connections (the number
                      ///< after the colon)
  std::filesystem::path path;
  std::string type;   ///< "fuse.qs"
  std::string source; ///< "qs:NAME"
  bool operator==(const mount_entry&) const = default;
};

/// Lines that do not parse are left out.
std::vector<mount_entry> parse_mountinfo(std::string_view text);
/// The mount that is on top at exactly this path.
std::optional<mount_entry> topmost_mount(const std::vector<mount_entry>& table,
                                         const std::filesystem::path& path);
/// The same from the kernel's table of now.
result<std::optional<mount_entry>> mount_at(const std::filesystem::path& path);

inline constexpr std::string_view mount_type = "fuse.qs";
/// What mountinfo and df show as source: "qs:NAME".
std::string mount_source(std::string_view volume_name);
bool is_ours(const mount_entry& entry, std::string_view volume_name);

/// Absolute, without symlinks, also if the last component is a dead mount.
result<std::filesystem::path> resolve_mount_point(const std::filesystem::path& path);

/// Errors as actors::mount_port::check() says. A dead mount of our own is taken away (lazily) by who is about to mount; a look
/// leaves it. Changes nothing else.
enum class dead_mounts : std::uint8_t { leave, clear };
status check_mount_point(const actors::mount_settings& settings, dead_mounts dead);

/// umount(2) as root, fusermount3 otherwise. Lazy: detached now, gone when the last file in it is
/// closed. Errors: busy, not_found (nothing is mounted there), io, access_denied.
status unmount(const std::filesystem::path& path, bool lazy);

} // namespace qs::fuse
