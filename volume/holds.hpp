// Who the kernel still knows: lookup counts per inode, and which of those inodes have lost their
// last name. Nothing of this is stored: after a restart the kernel knows nothing, and orphans are
// reaped then. Thread-safe; in 16 parts by inode, so that many FUSE threads do not meet at one
// lock. As large as what the kernel itself keeps in memory.
#pragma once

#include <array>
#include <cstdint>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "volume/filesystem.hpp"

namespace qs::volume {

class holds {
public:
  void remember(inode_number inode, std::uint64_t lookups) {
    auto& p = part_of(inode);
    std::lock_guard lock{p.mutex};
    p.entries[inode].lookups += lookups;
  }

  /// True: nobody holds it any more and it has no name, so the caller must have it reaped. At most
  /// once per inode.
  [[nodiscard]] bool forget(inode_number inode, std::uint64_t lookups) {
    auto& p = part_of(inode);
    std::lock_guard lock{p.mutex};
    auto it = p.entries.find(inode);
    if (it == p.entries.end()) return false;
    if (it->second.lookups > lookups) {
      it->second.lookups -= lookups;
      return false;
    }
    bool orphan = it->second.orphan;
    p.entries.erase(it);
    return orphan;
  }

  /// The inode's last name is gone. True: nobody holds it, reap it now; false: forget() will say
  /// so.
  [[nodiscard]] bool orphaned(inode_number inode) {
    auto& p = part_of(inode);
    std::lock_guard lock{p.mutex};
    auto it = p.entries.find(inode);
    if (it == p.entries.end()) return true;
    it->second.orphan = true;
    return false;
  }

  [[nodiscard]] std::vector<inode_number> all() const {
    std::vector<inode_number> out;
    for (const auto& p : parts_) {
      std::lock_guard lock{p.mutex};
      out.reserve(out.size() + p.entries.size());
      for (const auto& one : p.entries) out.push_back(one.first);
    }
    return out;
  }

private:
  struct entry {
    std::uint64_t lookups = 0;
    bool orphan = false;
  };
  struct alignas(64) part {
    mutable std::mutex mutex;
    std::unordered_map<inode_number, entry> entries;
  };
  part& part_of(inode_number inode) { return parts_[inode % parts_.size()]; }

  std::array<part, 16> parts_;
};

} // namespace qs::volume
