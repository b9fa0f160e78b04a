// One namespace: its settings, its append-only data files, its index, and what is on disk for sure.
// Layout of its directory: `namespace` (settings, replaced atomically), NNNNNNNN.data (record.hpp),
// `synced` (up to where data is known to be on disk). It decides by keys and bytes; passwords and
// permissions are the commands'. The I/O thread owns it; only sync_job::run and the static file
// functions may run on the helper thread.
#pragma once

#include <array>
#include <sys/types.h>
#include <chrono>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "zdb/block.hpp"
#include "zdb/data_file.hpp"
#include "zdb/gathered_write.hpp"
#include "zdb/index.hpp"
#include "zdb/sequential_index.hpp"

namespace qs::zdb {

struct namespace_settings {
  std::string name;
  std::string password; ///< in clear: the challenge needs it; the file is 0600
  std::uint64_t maxsize = 0;
  bool is_public = true;
  bool worm = false;
  bool sequential = false;
};

/// Text with a checksum line; docs/formats/zdb-files.md.
std::string encode_settings(const namespace_settings& settings);
result<namespace_settings> decode_settings(std::string_view text);
/// Of the namespace in this directory. Errors: io, corrupt, version_mismatch.
result<namespace_settings> read_settings(const std::filesystem::path& directory);

enum class write_answer : std::uint8_t {
  stored,
  gathered, ///< stored if settle() says so
  identical,
  exists,
  worm,
  no_space,
  key_needed,  ///< an empty key
  update_only, ///< the id was never given out, or is deleted
  failed,
  missing
};
enum class read_answer : std::uint8_t { found, missing, damaged, unreadable };

/// Up to where a namespace is on disk: files below `file` wholly, `file` up to `size`.
struct sync_mark {
  std::uint32_t file = 0;
  std::uint64_t size = 0;
  auto operator<=>(const sync_mark&) const = default;
};

/// As it was written down; nothing if missing or damaged.
sync_mark read_sync_mark(const std::filesystem::path& directory);

/// What the helper thread does for SYNC; it shares nothing with the namespace.
struct sync_job {
  std::vector<std::shared_ptr<unique_fd>> files;
  std::filesystem::path directory;
  bool names_changed = false;
  sync_mark mark; ///< holds once run() has succeeded

  status run() const;
};

inline bool is_sequential_key(byte_span key) noexcept { return key.size() == 8; }

/// The key must be a sequential one.
inline std::uint64_t id_of(byte_span key) noexcept { return load_le<std::uint64_t>(key.data()); }

/// A reference to one version of a key, as HISTORY has it: 8 bytes, file id u32, offset u32.
std::string encode_reference(record_place place);
/// Nothing if these are not 8 bytes.
std::optional<record_place> decode_reference(byte_span bytes) noexcept;

/// One version of a key.
struct key_version {
  record_place previous; ///< the one before; not valid(): none, or compaction has dropped it
  std::uint32_t timestamp = 0;
  value_block payload;
};
enum class history_answer : std::uint8_t {
  found,
  missing,       ///< the key does not exist (or was deleted)
  no_more,       ///< the file that held this version has been compacted: history ends there
  bad_reference, ///< no record stands there
  other_key,     ///< the record there is another key's
  failed         ///< damaged or unreadable
};

/// A record as it stands in its file, for DATA RAW.
struct raw_record {
  std::string key;
  record_header header; ///< kind says whether it is a deletion
  value_block payload;
  std::uint32_t offset = 0; ///< where it stands
  std::uint64_t next = 0;   ///< where the next one stands
};
enum class raw_answer : std::uint8_t { found, end_of_file, bad_request, failed };

/// Where the bytes of a namespace are; all in bytes.
struct space_usage {
  std::uint64_t live_payload = 0; ///< what quota and data_size_bytes count
  std::uint64_t live = 0;         ///< live records with their headers and keys
  std::uint64_t dead = 0;         ///< overwritten and deleted records, compaction's to free
  std::uint64_t tombstones = 0;   ///< records that say "deleted", freed when nothing needs them
  std::uint64_t disk = 0;         ///< all data files as long as they are
  std::size_t files = 0;
};

/// A record of a file that is being compacted.
struct compaction_record {
  record_header header;
  std::uint32_t offset = 0;
  std::uint64_t id = 0; ///< the index's hash of the key, or the sequential id
  bool keep = false;
};

/// What one pass of the compactor does: `inputs`, neighbours in the order of records, become one
/// file. It shares nothing with the namespace but open files.
struct compaction_plan {
  struct input {
    std::uint32_t id = 0;
    std::uint64_t size = 0;
    std::filesystem::path path;
    std::shared_ptr<unique_fd> file;
    bool drop_tombstones = false; ///< nothing older is left that they could hide
  };
  std::vector<input> inputs;
  file_header output;
  std::filesystem::path directory;
  std::uint64_t epoch = 0; ///< of the namespace: FLUSH, RELOAD and NSDEL change it
  std::array<std::byte, 16> hash_key{};
};

enum class scan_order : std::uint8_t { oldest_first, newest_first };

struct found_key {
  std::string key;
  std::uint32_t length = 0;
  std::uint32_t timestamp = 0;
};

class name_space {
public:
  struct limits {
    std::uint64_t datasize = 256ULL << 20;
    std::array<std::byte, 16> hash_key{};
    std::chrono::seconds rotate_after{0}; ///< a file this old takes no more records; 0: any age
    /// A new file is written to from now on; `left` is 0 for the first one.
    std::function<void(name_space&, std::uint32_t left, std::uint32_t now)> jumped = {};
  };

  /// Makes the directory with settings in it, synced; any thread. Errors: io, no_space.
  static status create(const std::filesystem::path& directory, const namespace_settings& settings);
  /// Replaces the settings file; any thread.
  static status save(const std::filesystem::path& directory, const namespace_settings& settings);
  /// Opens and reads every data file's headers; torn tails past the synced mark are cut. Errors:
  /// io, corrupt.
  static result<std::shared_ptr<name_space>>
  open(file_pool& pool, const std::filesystem::path& directory, limits lim);

  /// Stands for one that could not be opened: holds its name, reads and writes nothing.
  struct not_opened {
    std::string why;             ///< for the log; empty: none, it is served
    std::string name;            ///< its own, under which it may not be held; empty: not known
    bool settings_known = false; ///< so that a password can be judged
  };
  /// `settings`: as far as they are known, with the name that it is held under.
  static std::shared_ptr<name_space> stand_in(file_pool& pool, std::filesystem::path directory,
                                              limits lim, namespace_settings settings,
                                              not_opened why);
  [[nodiscard]] bool served() const noexcept { return failure_.why.empty(); }
  [[nodiscard]] const not_opened& failed_why() const noexcept { return failure_; }
  /// Opens what is stood in for; `settings` were read anew. On error it goes on standing in.
  status revive(namespace_settings settings);

  // Keys: user mode up to 255 bytes; sequential mode 8 bytes little-endian or empty to append.
  /// `id`: the key it is stored under. only_new: exists instead of replacing.
  /// `gather`: a small one may wait for settle(), to be written together with others.
  write_answer set(byte_span key, byte_span value, std::uint32_t timestamp, bool only_new,
                   std::string& id, bool gather = false);
  /// Writes what was gathered, with one call, and tells `settled`. If that fails nothing of it has
  /// been there, and each is tried again alone. Everything here that looks at a record that is not
  /// yet written, or at files, does it first.
  void settle();
  /// What came of one gathered set().
  struct settled_write {
    write_answer answer = write_answer::stored;
    std::string id;
  };
  write_answer erase(byte_span key, std::uint32_t timestamp);
  /// Stores what another server had, under any key or id, without asking quota or worm. Errors: io,
  /// no_space.
  status restore(byte_span key, byte_span value, std::uint32_t timestamp);
  /// Sequential ids below `next` are not given out any more.
  status use_up_ids(std::uint64_t next);
  /// Where a value may come from: `disk` says what stands there, whatever is in memory.
  enum class source : std::uint8_t { anywhere, disk };
  [[nodiscard]] read_answer get(byte_span key, value_block& out, source from = source::anywhere);
  [[nodiscard]] read_answer look(byte_span key, record_header& out);
  /// Whether there is one, without reading more than it takes: in sequential mode the index alone.
  [[nodiscard]] read_answer exists(byte_span key);
  /// Bytes [offset, offset + length) of the payload, cut at its end (an offset past it gives
  /// none); reads no others. The record's header and key are checked against their checksum, the
  /// payload's checksum only if all of it was asked for: who reads pieces brings checksums of its
  /// own.
  [[nodiscard]] read_answer get_range(byte_span key, std::uint64_t offset, std::uint64_t length,
                                      value_block& out);

  /// Live keys after `cursor` (17 bytes, or empty), in the order they were written, or before it,
  /// backwards; at most about 2 ms of them. Empty and an empty cursor: nothing more. A cursor stays
  /// good when its item is deleted or its file compacted. Errors: invalid_argument (not a cursor
  /// of here), io.
  struct page {
    std::vector<found_key> items;
    std::string cursor;
  };
  /// A page may be empty while there is a cursor: nothing alive was met in its time.
  result<page> scan(byte_span cursor, scan_order order = scan_order::oldest_first);
  /// Like scan, only keys that begin with `prefix`.
  result<page> scan_prefix(byte_span prefix, byte_span cursor);
  /// The cursor of a key: SCAN from it gives what follows. missing, damaged, unreadable as get.
  [[nodiscard]] read_answer cursor_of(byte_span key, std::string& cursor);
  /// A version of a key: the live one without `at`, else the one that stands there.
  [[nodiscard]] history_answer history(byte_span key, std::optional<record_place> at,
                                       key_version& out);
  /// The record at `offset` of file `id`; an offset inside the file's header means its first one.
  [[nodiscard]] raw_answer raw(std::uint32_t id, std::uint64_t offset, raw_record& out);

  /// From now on a new file is written to. Nothing happens if the current one has no records.
  status jump();
  /// Everything read again from the disk. errc::busy while it is synced or compacted or files of a
  /// FLUSH are deleted. After another error reads go on as before, writes do not.
  status reload();
  /// Files in which a record was overwritten or deleted since the last forget_changed_files().
  [[nodiscard]] std::vector<std::uint32_t> changed_files() const;
  void forget_changed_files() { changed_.clear(); }

  /// Everything gone: a new file says that nothing before it counts. Gives the files that the
  /// helper thread must delete once the sync_job that follows has run.
  result<std::vector<std::filesystem::path>> flush();
  /// They are deleted, and those of every flush() before: the file that says so is one like others
  /// (compaction syncs the directory, and with it the deletions, before that file goes).
  void flushed();

  [[nodiscard]] bool dirty() const noexcept { return end() != synced_; }
  [[nodiscard]] sync_mark end() const noexcept;
  [[nodiscard]] sync_mark synced() const noexcept { return synced_; }
  result<sync_job> make_sync_job();
  /// What came of it. A failed one makes the namespace read-only until the next start: what was in
  /// memory may be lost.
  void sync_done(const sync_job& job, const status& outcome);
  /// Every data file is still where it was put.
  [[nodiscard]] bool linked() const;

  // -- compaction, for the compactor; one plan at a time
  /// Neighbouring files that are worth it; with `anyway` whatever has something to free. Nothing
  /// while old versions are to stay or the last plan is not ended.
  std::optional<compaction_plan> plan_compaction(unsigned dead_percent, std::uint64_t least_bytes,
                                                 bool anyway);
  /// False: the files are no longer what they were; end the plan.
  [[nodiscard]] bool still_valid(const compaction_plan& plan) const noexcept;
  /// Sets `keep` of records of input `which`. Errors: the index cannot say.
  status choose_live(const compaction_plan& plan, std::size_t which,
                   std::span<compaction_record> records);
  /// The new file is on the disk whole and under its name, and so is everything that was written
  /// to the namespace until then (what killed a record must outlive it): from now on the new file
  /// may be pointed at.
  status adopt(const compaction_plan& plan);
  /// Adopted, so that the index may point at the new file.
  [[nodiscard]] bool compacting_into(const compaction_plan& plan) const noexcept {
    return epoch_ == plan.epoch && moving_to_ == plan.output.id;
  }
  /// A record of input `which` stands at `moved_to` in the new file as well: found there from now
  /// on, if it is still alive. Errors: the index cannot say.
  status moved(const compaction_plan& plan, std::size_t which, const compaction_record& record,
               std::uint32_t moved_to);
  /// The inputs are needed no more; gives their paths, for the helper thread to delete.
  std::vector<std::filesystem::path> retire_inputs(const compaction_plan& plan);
  /// Always the last call. `failed`: these files are left alone until the next start.
  void end_compaction(const compaction_plan& plan, bool failed);

  /// As long as somebody has this, old versions are to stay: no plan is made, and a pass that can
  /// still be given up is.
  [[nodiscard]] std::shared_ptr<void> hold_versions();
  [[nodiscard]] bool versions_stay() const noexcept {
    return settings_.worm || !held_versions_.expired();
  }

  [[nodiscard]] const namespace_settings& settings() const noexcept { return settings_; }
  void set_settings(namespace_settings settings) { settings_ = std::move(settings); }
  [[nodiscard]] const std::filesystem::path& directory() const noexcept { return directory_; }
  [[nodiscard]] std::uint64_t entries() const noexcept;
  [[nodiscard]] std::uint64_t live_bytes() const noexcept { return live_bytes_; }
  [[nodiscard]] std::uint64_t disk_bytes() const noexcept;
  [[nodiscard]] space_usage usage() const noexcept;
  [[nodiscard]] std::uint64_t index_bytes() const noexcept;
  [[nodiscard]] std::uint64_t next_id() const noexcept { return ids_.next_id(); }
  [[nodiscard]] bool ever_written() const noexcept { return !files_.empty(); }
  [[nodiscard]] bool compacting() const noexcept { return compacting_; }
  /// The file that is written to; 0: none yet.
  [[nodiscard]] std::uint32_t active_file() const noexcept { return active_; }

  // Temporary, never stored.
  bool locked = false;
  bool frozen = false;
  bool changing_mode = false; ///< NSSET mode is being stored: no first write meanwhile
  bool removed = false;       ///< NSDEL: clients in it are dropped
  /// Waiting for a sync: (mark to reach, what to call). Kept here, used by the server.
  struct waiter {
    sync_mark mark;
    std::function<void(const status&)> done;
  };
  std::vector<waiter> waiters;
  /// What came of the gathered ones, in order; empty: all of them are stored. Set by who gathers.
  std::function<void(name_space&, std::span<const settled_write>)> settled;
  bool syncing = false;
  unsigned deleting_files = 0; ///< FLUSHes whose files are not yet deleted
  std::uint64_t read_errors = 0;
  std::uint64_t write_errors = 0;
  std::uint32_t last_error_at = 0; ///< unix seconds; 0: none

private:
  name_space(file_pool& pool, std::filesystem::path directory, limits lim);
  status load(bool opening = false); ///< opening: nobody serves it yet
  void take(name_space& fresh);
  using file_ptr = std::unique_ptr<data_file>;
  result<file_ptr> open_one(std::uint32_t id, const sync_mark& mark);
  status drop_replaced(std::map<std::uint32_t, file_ptr>& found);
  status read_records(data_file& f, const sync_mark& mark);
  status index_record(const record_header& header, byte_span key, record_place place);
  status apply(const record_header& header, byte_span key, record_place place);
  status append(const record_header& header, byte_span key, byte_span value, record_place& place);
  write_answer kept(const status& indexed);
  status rotate(bool flushes);
  [[nodiscard]] bool full(const data_file& f, std::uint64_t need) const;
  [[nodiscard]] bool can_gather(std::uint64_t need) const;
  void gather(const record_header& header, byte_span key, byte_span value, gathered_write w);
  void undo(const gathered_write& w);
  void count_written(const gathered_write& w);
  [[nodiscard]] bool waits(record_place place) const noexcept;
  void note_write_error(const error& why);
  data_file* file(std::uint32_t id) const;
  void add_file(file_ptr made);
  /// What a record at `place` that took `bytes` was, it is no longer.
  void died(record_place place, std::uint64_t bytes);
  result<bool> is_live(const record_header& header, byte_span key, record_place here);
  /// The origin that a cursor names. errc::invalid_argument.
  result<record_place> read_cursor(byte_span cursor);
  result<page> scan_forward(byte_span cursor, byte_span prefix);
  result<page> scan_backward(byte_span cursor);
  /// Reads header and key; errc::corrupt if no record stands there.
  result<record_header> read_head(record_place place, std::string& key);
  result<value_block> read_payload(record_place place, const record_header& header);
  [[nodiscard]] std::uint64_t freeable(const data_file& f) const noexcept;
  [[nodiscard]] bool tombstones_needless(std::uint32_t first, std::uint32_t last) const noexcept;
  enum class seen : std::uint8_t { same, other, damaged, unreadable };
  /// Is it this key's record that stands there?
  seen key_at(record_place place, byte_span key, record_header* header = nullptr,
              source from = source::anywhere);
  seen other_or_damaged(data_file& f, std::uint32_t offset);
  read_answer value_at(record_place at, byte_span key, std::uint32_t length, source from,
                       value_block& out);
  const value_block* cached(const data_file& f, std::uint32_t offset, source from);
  bool same_record(data_file& f, std::uint32_t offset, byte_span key, byte_span value);
  bool same_value(record_place place, byte_span key, byte_span value);
  struct position {
    std::size_t slot = user_index::npos;
    index_entry entry;
    record_header header; ///< if found and asked for
    read_answer state = read_answer::missing;
    bool waits = false; ///< gathered: nothing else is known
  };
  /// Not what is gathered: that is written first.
  position locate(byte_span key, bool with_header);
  position look_up(byte_span key, bool with_header);
  void note_read_error(const error& why);

  file_pool& pool_;
  std::filesystem::path directory_;
  limits limits_;
  namespace_settings settings_;
  std::map<std::uint32_t, file_ptr> files_;
  /// The same in the order of their records, by the first file they stand in for. While the
  /// compactor moves to a new file, that one is in files_ alone.
  std::map<std::uint32_t, data_file*> order_;
  std::uint32_t active_ = 0;    ///< written to
  std::uint32_t last_log_ = 0;  ///< highest id used for writing
  std::uint32_t last_file_ = 0; ///< highest id ever used
  std::uint64_t epoch_ = 0;
  std::uint32_t moving_to_ = 0; ///< the compactor's new file, while index entries change over
  bool compacting_ = false;
  std::weak_ptr<void> held_versions_;
  bool left_aside_ = false; ///< a file could not be read: what it holds is not known
  user_index keys_;
  sequential_index ids_;
  std::uint64_t live_bytes_ = 0;
  sync_mark synced_;
  std::vector<gathered_write> gathered_; ///< they follow the active file's end, in order
  std::uint64_t gathered_bytes_ = 0;
  std::uint32_t gathered_from_ = 0; ///< where the first of them will stand
  std::set<std::uint32_t> changed_;
  std::chrono::steady_clock::time_point active_since_{};
  // The directory when all files were last found where they were put; 0: look at all of them.
  mutable ino_t looked_ino_ = 0;
  mutable dev_t looked_dev_ = 0;
  mutable timespec looked_mtime_{};
  bool names_changed_ = false;
  not_opened failure_;
  unsigned errors_said_ = 0;   ///< of reading, in this second
  bool write_failing_ = false; ///< said once on the log
  bool failed_ = false;        ///< memory and disk may disagree: no writes until the next start
};

} // namespace qs::zdb
