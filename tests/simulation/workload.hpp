// A workload on the simulated mount and what must be true of it afterwards: every byte that was answered reads back.
// Files are written in chunks of at most one extent; a chunk whose answer the crash took may hold the old or the new bytes.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "support/simulation.hpp"

namespace qs::test {

class workload {
public:
  explicit workload(simulation& sim) : sim_{sim} {}

  /// One operation of the seed's choosing; a read is answered within 20 simulated seconds.
  void one();
  /// Reads everything; returns what is wrong, empty if all is right. Waits for nodes.
  std::string verify();
  [[nodiscard]] std::size_t bytes() const;
  int written = 0, refused = 0, unlinked = 0, reads = 0, read_errors = 0, caches_dropped = 0, longest_read = 0;

private:
  struct chunk {
    buffer bytes;                  ///< answered
    std::optional<buffer> perhaps; ///< sent when the engine died
  };
  struct file {
    volume::inode_number inode = 0;
    bool certain = true; ///< its making or unlinking was answered
    bool gone = false;   ///< unlinked
    std::map<std::uint64_t, chunk> chunks;
  };
  void make();
  void write(file& f, std::uint64_t index);
  void unlink();
  void read();
  bool wait(const std::function<bool()>& done);

  simulation& sim_;
  std::map<std::string, file> files_;
  int next_ = 0;
};

} // namespace qs::test
