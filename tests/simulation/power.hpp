// A power cut of the machine the engine runs on: the process is gone, and of its disk what nobody synced. Which file is synced
// how far is known by watching fsync, fdatasync and unlink of this whole program, RocksDB and SQLite included (power.cpp defines
// them). Of what was not synced something random stays: a part, the whole, or its length with zeros in it.
//
// What it does not do: parts of a file that were written over in place and not synced stay as written (SQLite alone does that, and is
// only cut between its commits), and names come and go in the order of the calls, as journalling file systems keep it.
// One machine at a time.
#pragma once

#include <filesystem>
#include <map>
#include <string>

#include "base/random.hpp"

namespace qs::test {

class simulated_disk {
public:
  /// Everything under `root` from now on.
  explicit simulated_disk(const std::filesystem::path& root);
  ~simulated_disk();
  simulated_disk(const simulated_disk&) = delete;
  simulated_disk& operator=(const simulated_disk&) = delete;

  /// The power goes: nobody has any of the files open any more.
  void cut(random_source& random);
  std::map<std::string, long> counters;

private:
  void cut_log(const std::filesystem::path& file, std::uint64_t synced, std::uint64_t size, seeded_random& random);
  std::filesystem::path root_;
};

} // namespace qs::test
