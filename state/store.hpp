// The recorded state on disk: one SQLite database per volume (state.db, 0600, journal_mode=DELETE, synchronous=EXTRA), so that
// `diff` can read it mode=ro and write nothing. The engine that holds the lock owns the writing store and calls it from the blocking
// actor's state lane only; it decides nothing. Every write is one transaction, durable when the call returns.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.hpp"
#include "base/random.hpp"
#include "base/result.hpp"
#include "model/recorded.hpp"

namespace qs::state {

inline constexpr int schema_version = 2;

class store {
public:
  virtual ~store() = default;

  virtual result<model::recorded> load() = 0;

  /// control.md, 2: one transaction. Fails with busy when the serial is not `expected_serial` any more.
  /// `nodes` are rows to add (their `since` is empty and set here), or changes of rows: of a node that exists only size, price_limit, replaced_by and the way into
  /// draining or replaced (with its reason) are taken over. What was cancelled before is no more. busy as well when the plan is stale in its nodes: numbers were
  /// given out since, or a node to change is on another host or incarnation, or replaced or gone. Returns the new serial.
  struct acceptance {
    std::uint64_t expected_serial = 0;
    model::accepted_spec spec; ///< generation is set by the store
    std::vector<model::recorded_node> nodes;
    std::uint32_t next_node_number = 1;
    bool protect = true;
    bool destroying = false; ///< only ever turned on
    std::string sealed_references; ///< resolved ${…} values, sealed by the caller; may be empty
  };
  virtual result<std::uint64_t> accept(const acceptance& what) = 0;

  /// One node's row as it is recorded now; what changes a row reads it here first.
  virtual result<std::optional<model::recorded_node>> node(model::node_id id) = 0;
  virtual status put_node(const model::recorded_node& node) = 0;
  /// A replacement: the new row and the old one's changed state in one transaction; takes the number from the counter.
  virtual status put_nodes(const std::vector<model::recorded_node>& nodes, std::uint32_t next_node_number) = 0;
  virtual status put_summary(const model::volume_summary& summary) = 0;
  virtual status set_flag(std::string_view flag, bool on) = 0; ///< protect, suspended, cancelled, destroying, mount_wanted
  /// A host refused a node of ours now. Kept for as long as anybody asks for it: 7 days.
  virtual status put_refusal(std::string_view provider, std::string_view host) = 0;
  virtual status put_note(std::string_view key, std::string_view value) = 0; ///< small facts of the engine (last sighting, …)
  virtual result<std::optional<std::string>> note(std::string_view key) = 0;
  /// What the last accept sealed; empty if nothing.
  virtual result<std::string> sealed_references() = 0;

  /// Durable before it returns, with a number of its own.
  virtual result<model::intent> add_intent(model::intent draft) = 0;
  virtual status put_intent(const model::intent& changed) = 0;
  virtual result<std::vector<model::intent>> open_intents() = 0;
  /// The newest reserve intent of a node's incarnation, whatever its progress: inspect and cancel need its request.
  virtual result<std::optional<model::intent>> reservation_of(model::node_id node, std::uint32_t incarnation) = 0;

  virtual status add_event(const model::event& draft) = 0; ///< number is set by the store; at most 10,000 are kept
  virtual result<std::vector<model::event>> events(std::uint64_t after, std::size_t most) = 0;

  /// A test's door: called after every committed write with a running number; may end the process.
  std::function<void(std::uint64_t)> after_commit;
};

/// Opens for writing, making it if it is not there (lineage from `random`). Migrates older schemas after copying the file;
/// a newer one is version_mismatch, something unreadable is corrupt.
result<std::unique_ptr<store>> open_store(const std::filesystem::path& file, random_source& random, const clock& time);
/// Read-only: makes nothing, changes nothing, and reads older schemas as they are. not_found if there is none; busy while a write is under way or after
/// a crash in the middle of one (a hot journal: only the engine, by opening it for writing, may roll that back).
result<model::recorded> read_recorded(const std::filesystem::path& file);
result<std::vector<model::event>> read_events(const std::filesystem::path& file, std::uint64_t after, std::size_t most);
/// One note read-only; nothing when there is no such note. not_found if there is no state.
result<std::optional<std::string>> read_note(const std::filesystem::path& file, std::string_view key);

/// The state directory of a volume (control.md, 1): `explicit_dir` (--state-dir or QS_STATE_DIR), else /var/lib/qs/<name> if it exists,
/// else $XDG_STATE_HOME/qs/<name>; both existing is an error that says so. Reads no environment itself.
struct state_roots {
  std::string explicit_dir;
  std::filesystem::path system_root = "/var/lib/qs";
  std::filesystem::path user_root; ///< $XDG_STATE_HOME/qs or ~/.local/state/qs
};
result<std::filesystem::path> state_directory(const state_roots& roots, std::string_view volume_name);

} // namespace qs::state
