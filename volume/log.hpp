// The one log on this machine: files log-N of records, each with its sequence and a checksum chained to all before it.
// Knows records' frames (docs/formats/log.md), not what is in them. append() is called under the operation lock, everything
// else from any thread. A file is deleted from the front only, when nobody uses it and the rows are flushed past it.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "base/bytes.hpp"
#include "base/posix.hpp"
#include "base/result.hpp"
#include "base/units.hpp"
#include "model/ids.hpp"

namespace qs::volume {

/// Bytes in a log file. The file stays readable for whoever holds the `log_file`.
struct log_position {
  std::uint64_t file = 0;
  std::uint64_t offset = 0;
  bool operator==(const log_position&) const = default;
};

class log_file {
public:
  log_file(std::uint64_t number, std::filesystem::path path, unique_fd fd)
      : number_{number}, path_{std::move(path)}, fd_{std::move(fd)} {}
  [[nodiscard]] std::uint64_t number() const noexcept { return number_; }
  [[nodiscard]] const std::filesystem::path& path() const noexcept { return path_; }
  [[nodiscard]] int fd() const noexcept { return fd_.get(); }
  status read(std::uint64_t offset, mutable_byte_span out) const { return read_exactly(fd_.get(), out, offset); }

private:
  std::uint64_t number_;
  std::filesystem::path path_;
  unique_fd fd_;
};

/// A record as the log found it at start.
struct found_record {
  std::uint64_t sequence = 0;
  byte_span body;
  std::uint64_t data_bytes = 0;
  log_position data; ///< where its data begins
};

/// What reading the old files gave.
struct log_recovery {
  std::uint64_t last_sequence = 0;   ///< of the last sound record (or what the files say came before them)
  std::uint64_t synced_sequence = 0; ///< nothing up to here may be missing
  std::uint64_t records = 0;
  std::uint64_t torn_bytes = 0;      ///< cut from the tail
  bool corrupt = false;              ///< the first bad record is at or below the synced sequence: nothing was cut
  std::string what;                  ///< for people, when corrupt or torn
};

/// Whose log files lie in a directory.
enum class log_owner : std::uint8_t { nobody, ours, another };

class write_log {
public:
  /// another: at least one file there is a log file of a volume other than `volume`, or cannot be told. Errors: io.
  static result<log_owner> owner_of(const std::filesystem::path& directory, const model::volume_id& volume);
  /// Deletes the log of `volume` from there and the directory, if nothing else is in it; the directory is the user's (mount.staging.path),
  /// and what else lies in it stays. Errors: io.
  static status erase(const std::filesystem::path& directory, const model::volume_id& volume);

  struct options {
    std::filesystem::path directory;
    model::volume_id volume{};
    byte_count file_bytes = 64 * mib; ///< a new file begins when one is this long
  };

  /// Finds the files and syncs them: what is read below may be built upon. Errors: io.
  static result<std::unique_ptr<write_log>> open(options opt);
  /// Reads every file, oldest first, and calls `each` for every sound record. Stops at the first bad one (see log_recovery).
  /// Writes nothing. Once, before start(). Errors: io, refused (another volume's log), version_mismatch, and those of `each`.
  status replay(const std::function<status(const found_record&)>& each, log_recovery& out);
  /// Cuts a torn tail and begins a new file: from now on append() works. Not after corruption.
  status start(std::uint64_t last_sequence);
  ~write_log();

  /// One record: header, body, then the pieces of data. write(2), no sync. On an error nothing of it stays, or broken() is true.
  /// Gives the place where the data begins.
  result<log_position> append(std::uint64_t sequence, byte_span body, std::span<const byte_span> data);
  /// Everything appended before the call is on the disk when it returns. One fdatasync for all who wait.
  status sync();
  [[nodiscard]] std::uint64_t synced_sequence() const;
  [[nodiscard]] std::uint64_t appended_sequence() const;
  [[nodiscard]] bool broken() const;

  /// Keeps the file from being deleted until released as often.
  void retain(std::uint64_t file);
  void release(std::uint64_t file);
  [[nodiscard]] std::shared_ptr<const log_file> file(std::uint64_t number) const;
  [[nodiscard]] byte_count bytes() const;
  /// Without the files at the front that only wait to be deleted: what fills the log.
  [[nodiscard]] byte_count needed_bytes() const;
  /// From the first file on that something in it is still needed of: what is left once what waits for a flush or a sync is gone.
  [[nodiscard]] byte_count held_bytes() const;
  /// Number of the oldest file.
  [[nodiscard]] std::uint64_t first_file() const;

  /// Files at the front that nobody uses and whose records the rows have on disk up to `flushed` are no longer needed; the
  /// oldest of them are deleted while the log has more than `keep` bytes.
  /// A file whose release is not on the disk yet stays: after a power cut it would be needed again (invariant 7).
  /// Says what the first needed file waits for: nothing that helps, a flush of the rows, or a sync of the log.
  enum class waits_for : std::uint8_t { users, flush, sync };
  waits_for trim(std::uint64_t flushed, byte_count keep = 0);
  /// Begins a new file unless the current one is empty, so that trim() can take all before it.
  status rotate();

private:
  struct entry {
    std::shared_ptr<const log_file> file;
    std::uint64_t length = 0;
    std::uint64_t last_sequence = 0; ///< of its last record, or what came before it
    std::uint64_t uses = 0;
    std::uint64_t released = 0; ///< newest record when it was last released: only that says that its bytes are not needed
    bool dirty = false;   ///< written to since the last sync
    bool durable = false; ///< synced at least once, so its header and name are on the disk
  };

  explicit write_log(options opt) : options_{std::move(opt)} {}
  /// False: stop here, the rest is bad.
  result<bool> read_one(entry& file, const std::function<status(const found_record&)>& each, log_recovery& out);
  status begin_file();
  void write_watermark(std::uint64_t sequence, std::uint64_t chain);
  std::uint64_t read_watermark() const;
  /// Says on the disk what trim() found, so that the next start need not read what is kept to save reads only.
  void write_front_mark(std::uint64_t number);
  /// Deletes those files; the marker is as old as it may be, and as good as their deletion then.
  status drop_unneeded();

  options options_;
  unique_fd directory_; ///< kept open: to sync it must not fail for want of a descriptor
  unique_fd watermark_;
  unique_fd front_file_;
  std::uint64_t front_ = 0; ///< as marked
  mutable std::mutex mutex_; ///< files, chain and sequences
  std::map<std::uint64_t, entry> files_;
  std::uint64_t next_number_ = 1;
  std::uint64_t chain_ = 0;
  std::uint64_t appended_ = 0;
  std::uint64_t synced_ = 0;
  byte_count bytes_ = 0;
  byte_count spare_ = 0; ///< of files at the front that are not needed
  bool broken_ = false;
  bool started_ = false;
  // A tail to be cut by start(): file number and sound length; files behind it go.
  std::uint64_t cut_file_ = 0;
  std::uint64_t cut_length_ = 0;

  std::mutex sync_mutex_; ///< who syncs; never held while appending
  std::condition_variable sync_done_;
  bool syncing_ = false;
  status sync_error_;
};

} // namespace qs::volume
