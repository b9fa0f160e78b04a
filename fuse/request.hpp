// One request of the kernel: owns the fuse_req_t and answers it exactly once, or asserts. Moves
// between threads; whoever has the answer gives it, after every lock is dropped, for with the
// answer the kernel may forget the inode at once. Holds the mount's door open (context::enter)
// until the answer is given.
#pragma once

#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "base/assert.hpp"
#include "base/bytes.hpp"
#include "fuse/context.hpp"
#include "volume/filesystem.hpp"

namespace qs::fuse {

/// Nothing changes the tree but this kernel: what it knows stays true.
inline constexpr double cache_seconds = 24.0 * 3600;

void fill_stat(struct stat& out, const volume::attributes& attr) noexcept;
fuse_entry_param to_entry(const volume::attributes& attr) noexcept;
/// The errno that stands for an error of the file system.
int to_errno(const error& e) noexcept;

class request {
public:
  /// Enters the door. If it is closed the request is answered with EIO and `*this` is false.
  explicit request(fuse_req_t req);
  request(request&& other) noexcept
      : req_{std::exchange(other.req_, nullptr)}, owner_{std::move(other.owner_)} {}
  request& operator=(request&&) = delete;
  request(const request&) = delete;
  request& operator=(const request&) = delete;
  ~request() {
    QS_ASSERT(req_ == nullptr);
  } // a request without an answer hangs its process for ever

  explicit operator bool() const noexcept { return req_ != nullptr; }
  [[nodiscard]] volume::filesystem& files() const noexcept { return owner_->files; }
  [[nodiscard]] const context& owner() const noexcept { return *owner_; }

  void error(int sys) { finish(fuse_reply_err(take(), sys)); }
  void done(const status& s) { error(s.ok() ? 0 : to_errno(s.err())); }
  void fail(const qs::error& e) { error(to_errno(e)); }
  /// Counts the lookup first, and takes it back if the kernel did not want the answer any more.
  void entry(const volume::attributes& attr);
  void created(const volume::attributes& attr, fuse_file_info info);
  /// "No such name", to be remembered by the kernel.
  void negative_entry();
  void attributes(const volume::attributes& attr);
  void target(const std::string& text) { finish(fuse_reply_readlink(take(), text.c_str())); }
  void opened(const fuse_file_info& info) { finish(fuse_reply_open(take(), &info)); }
  void bytes(byte_span data) {
    finish(fuse_reply_buf(take(), reinterpret_cast<const char*>(data.data()), data.size()));
  }
  /// A page of readdirplus; the inodes whose lookups it counts.
  void page(byte_span data, const std::vector<volume::inode_number>& counted);
  void written(std::size_t count) { finish(fuse_reply_write(take(), count)); }
  void space(const struct statvfs& st) { finish(fuse_reply_statfs(take(), &st)); }
  void position(std::uint64_t at) { finish(fuse_reply_lseek(take(), static_cast<off_t>(at))); }
  /// An xattr or a list of them, or with room 0 only its size; ERANGE if it does not fit.
  void sized(byte_span data, std::size_t room);
  /// forget and its like have no answer.
  void nothing() {
    fuse_reply_none(take());
    leave();
  }
  /// For fuse_add_direntry only; the request stays ours.
  [[nodiscard]] fuse_req_t raw() const noexcept { return req_; }

private:
  fuse_req_t take() {
    QS_ASSERT(req_ != nullptr);
    return std::exchange(req_, nullptr);
  }
  void finish(int) {
    leave();
  } // a failed answer: the process is gone or the mount is; nobody is left to be told
  void leave() { owner_->leave(); }

  fuse_req_t req_;
  std::shared_ptr<context> owner_;
};

} // namespace qs::fuse
