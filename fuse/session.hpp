// A libfuse session without its loop: made, mounted and served by functions that the mount's
// threads call. Private to fuse/. Two things libfuse 3.14 does not do are added here, on the bytes
// of the messages (linux/fuse.h): FUSE_HANDLE_KILLPRIV_V2, without which the kernel asks for
// security.capability before every single write(2), and FUSE_NOTIFY_INC_EPOCH, which makes the
// kernel forget every name at once.
#pragma once

#include <filesystem>

#include "base/result.hpp"
#include "fuse/context.hpp"

namespace qs::fuse {

/// Makes owner.session and mounts it at `path` (absolute, checked). On an error nothing is mounted.
status open_session(context& owner, const std::filesystem::path& path);
/// Reads and processes requests until the connection ends (unmounted or aborted).
void serve(context& owner);
/// Ends the connection although it is in use: everything that waits or comes gets ENOTCONN or
/// ECONNABORTED. `path` is where the mount certainly still is, or empty. False if we may not.
bool abort_connection(const std::filesystem::path& path, std::string_view device);
/// Pages of all inodes that the kernel was told of, and names where possible.
status drop_kernel_caches(context& owner);
/// Raises read-ahead from the kernel's 128 KiB to 1 MiB where we may (root).
void raise_read_ahead(std::string_view device);

} // namespace qs::fuse
