// The mount: a volume's files in the kernel's tree, through libfuse's low-level interface on
// threads of its own. Implements actors/mount_port.hpp; knows no actors and no network, forks
// nothing and installs no signal handlers. Thread-safe; `gone` comes on a serving thread and must
// not call stop() there.
#pragma once

#include <memory>

#include "actors/mount_port.hpp"

namespace qs::fuse {

class mount final : public actors::mount_port {
public:
  /// `threads` serve requests; 0 = twice the cores, 4 to 16.
  explicit mount(unsigned threads = 0);
  /// A mount that is still there is detached at once, as by stop(0).
  ~mount() override;

  status check(const actors::mount_settings& settings) override;
  /// As check(), and: busy if this object serves a mount already; timed_out if the kernel did not
  /// begin to talk.
  status start(volume::filesystem& files, const actors::mount_settings& settings,
               std::function<void()> gone) override;
  status stop(std::chrono::milliseconds deadline) override;
  /// Pages of every inode that the kernel holds; names too where the kernel can (Linux 6.16). Do
  /// not call it from `gone`.
  status drop_page_cache() override;
  bool mounted() const override;

private:
  class impl;
  std::unique_ptr<impl> impl_;
};

} // namespace qs::fuse
