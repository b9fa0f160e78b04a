// A workload on the simulated mount and what must be true of it afterwards: every byte that was answered reads back.
// Files are written in chunks of at most one extent; a chunk whose answer the crash took may hold the old or the new bytes.
// A power cut may take the last of what was not synced: what is left is a prefix, never without something that was (invariant 7).
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
  /// After a power cut, when it is mounted again: which operations are there? Empty if it is a prefix that holds all that was
  /// synced; what follows is checked against that.
  std::string after_power_cut();
  [[nodiscard]] std::size_t bytes() const;
  [[nodiscard]] bool began() const { return !files_.empty(); } ///< something was made, perhaps all of it is unlinked again
  int written = 0, refused = 0, unlinked = 0, reads = 0, read_errors = 0, caches_dropped = 0, longest_read = 0, synced = 0, lost = 0;

private:
  struct chunk {
    buffer bytes;                ///< answered
    std::vector<buffer> perhaps; ///< sent when the engine died, or not told apart after a power cut
  };
  struct file {
    volume::inode_number inode = 0;
    bool certain = true; ///< its making or unlinking was answered
    bool gone = false;   ///< unlinked
    bool dying = false;  ///< a write was sent when the engine died
    std::map<std::uint64_t, chunk> chunks;
  };
  /// Answered, and not synced yet.
  struct operation {
    enum class kind : std::uint8_t { make, write, unlink } what = kind::make;
    std::string name;
    std::uint64_t index = 0;     ///< of the chunk
    chunk before;                ///< as it was until then
    volume::file_time mtime{};   ///< of the file, since then
    volume::file_time mtime_before{};
  };
  enum class seen : std::uint8_t { yes, no, unknown };
  seen look(const std::vector<operation>& ops, std::size_t at);
  void undo(const operation& op, bool surely);
  void make();
  void sync();
  static std::size_t length_of(const chunk& c);
  static bool fits(const chunk& c, const buffer& got);
  void write(const std::string& name, file& f, std::uint64_t index);
  void unlink();
  void read();
  bool wait(const std::function<bool()>& done);

  simulation& sim_;
  std::map<std::string, file> files_;
  std::vector<operation> unsynced_;
  int next_ = 0;
};

} // namespace qs::test
