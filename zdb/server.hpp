// The zdb server: `qs zdb`. One I/O thread runs every client and the store; one helper thread does
// what waits for the disk. Small on purpose: a local grid runs dozens of these as processes. No
// CAF, no global state: tests run several in one process.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.hpp"
#include "base/result.hpp"
#include "base/units.hpp"

namespace qs::zdb {

enum class sync_mode : std::uint8_t {
  never,    ///< only SYNC and an orderly stop bring data to the disk for sure
  interval, ///< every namespace that was written is synced every sync_interval
  always,   ///< a write is answered when it is on disk
};

enum class key_mode : std::uint8_t { mixed, user, sequential };

struct server_options {
  std::filesystem::path data;  ///< made 0700 if missing; locked for the server's life
  std::filesystem::path index; ///< where 0-db's index is, if `data` holds its data
  std::string listen = "127.0.0.1";
  std::uint16_t port = 9900;    ///< 0: given by the kernel and written to <data>/endpoint
  std::filesystem::path socket; ///< unix socket instead of TCP, with `dual_net` beside it
  bool dual_net = false;
  std::string admin_password;      ///< empty: every client is admin
  bool protect = false;            ///< `default` is read-only without the admin password
  byte_count maxsize = 0;          ///< quota of new namespaces; 0: none
  byte_count datasize = 256 * mib; ///< a data file is rotated at this size
  key_mode mode = key_mode::mixed; ///< mixed: user unless NSSET mode says seq
  sync_mode sync = sync_mode::never;
  std::chrono::milliseconds sync_interval{1000};
  std::filesystem::path logfile; ///< empty: stderr
  bool log_json = false;
  bool verbose = false;
  std::filesystem::path hook;   ///< run at events; empty: none
  std::string metrics;          ///< "address:port" for Prometheus; empty: none
  bool hide_namespaces = false; ///< names only to admins and to who is in them
  /// What compaction may read and write in a second; 0: it is off.
  byte_count compaction = 32 * mib;
  std::chrono::seconds rotate{0};    ///< a data file takes no more records after so long
  bool background = false;           ///< go on in a process of its own
  bool dump = false;                 ///< print what there is and end; nothing is changed
  std::vector<std::string> warnings; ///< to be said on the log
  bool show_help = false;            ///< --help: print server_usage() and end
  bool show_version = false;
  std::chrono::milliseconds watch_every{5000}; ///< are lock and data files still linked?
  std::size_t client_output_bytes = 4 << 20; ///< a client with more unread output is not read from
  std::size_t memory_bytes_max = 256 << 20;  ///< requests and replies of all clients together
  std::size_t cache_bytes = 64 << 20; ///< small values in memory; 0: none
  std::size_t clients_max = 10'000;
  /// When memory is short: who holds some must move 1 MiB in this time.
  std::chrono::milliseconds patience{5000};
  /// Who has sent a part of a request and then nothing for so long is dropped; 0: never.
  std::chrono::milliseconds silence{60'000};
  /// What that is measured by; it is looked at every watch_every.
  const qs::clock* time = &system_clock();
};

/// The arguments after `qs zdb`, with 0-db's names and meanings (server_usage()). "--x value" and
/// "--x=value". Reads --admin-file and the environment's QS_ZDB_ADMIN. Errors: invalid_argument
/// naming the flag.
result<server_options> options_from_args(std::span<const std::string> args);
std::string_view server_usage() noexcept;

/// Runs until SIGTERM or SIGINT, then stops in order: no new work, replies sent, everything synced.
/// Returns the exit code: 0 stopped, 1 could not start or had to end (said on the log), 5 another
/// server holds the directory. Configures the program's log; blocks the signals it handles.
int run_server(const server_options& options);

class server_core;

/// A server in this process, for tests and tools.
class server {
public:
  /// Locks, opens the store, listens. Errors: busy (another server holds the directory), io,
  /// corrupt, invalid_argument.
  static result<std::unique_ptr<server>> open(server_options options);
  ~server();
  /// Serves on the calling thread until stop() or until the data files are gone (errc::data_lost).
  status run();
  /// From any thread, any number of times.
  void stop();
  /// "127.0.0.1:PORT" or "unix:/path".
  [[nodiscard]] std::string address() const;
  /// "127.0.0.1:PORT"; empty without --metrics.
  [[nodiscard]] std::string metrics_address() const;

private:
  explicit server(std::unique_ptr<server_core> core);
  std::unique_ptr<server_core> core_;
};

} // namespace qs::zdb
