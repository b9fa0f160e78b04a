// storage_spec: what storage.yaml says, typed and with every default filled in. Values only.
// Made by spec::load, never changed afterwards, compared by value. It holds references (${env:…})
// as written beside what they stood for when the file was loaded: `written` may be stored and
// shown, `value` may be secret. Owned by whoever loaded it; any thread may read it.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/units.hpp"
#include "model/money.hpp"

namespace qs::spec {

using duration = std::chrono::milliseconds;

/// Text in which ${env:NAME}, ${file:PATH} and a leading ~/ are replaced.
struct sourced {
  std::string written; ///< as in the file: may be stored, printed, hashed
  std::string value; ///< after replacement: may be secret; empty when loaded with references::keep
  bool operator==(const sourced&) const = default;
};

struct local_grid {
  bool operator==(const local_grid&) const = default;
};

/// A machine of the user's that runs a zdb server.
struct host_entry {
  std::string name;
  sourced address;                    ///< "192.0.2.7:9900"
  std::string farm;                   ///< its own name where the file gives none
  std::string country;                ///< "" = not said
  std::optional<byte_count> capacity; ///< nothing = what the server says it has
  std::optional<sourced> password;    ///< of the server's administrator
  bool insecure = false;              ///< plain SELECT to an old server is allowed
  bool operator==(const host_entry&) const = default;
};

struct hosts_grid {
  std::vector<host_entry> hosts; ///< not empty, names and addresses unique
  bool operator==(const hosts_grid&) const = default;
};

struct threefold_grid {
  std::string network = "main"; ///< main, test, qa or dev
  bool operator==(const threefold_grid&) const = default;
};

using grid_source = std::variant<local_grid, hosts_grid, threefold_grid>;

/// At least `nodes` nodes that fit every text that is not empty. A minimum without identity.
struct location_rule {
  std::string country;
  std::string farm;
  std::string region;
  int nodes = 1;
  bool operator==(const location_rule&) const = default;
};

/// At most so many nodes of one placement group on one host, farm, country.
struct spread_rule {
  int host = 1;
  int farm = 2;               ///< default max(1, parity): losing any one farm loses no data
  std::optional<int> country; ///< nothing = unlimited
  bool operator==(const spread_rule&) const = default;
};

struct exclusions {
  std::vector<std::string> hosts;
  std::vector<std::string> farms;
  std::vector<std::string> countries;
  bool operator==(const exclusions&) const = default;
};

struct storage_section {
  byte_count capacity = 0; ///< usable, after redundancy
  int data_shards = 4;     ///< k, 1…32
  int parity_shards = 2;   ///< m, 1…16
  int nodes = 6;           ///< at least k + m
  std::vector<location_rule> locations;
  spread_rule spread;
  exclusions exclude;
  bool protect = true;
  bool operator==(const storage_section&) const = default;
};

enum class fsync_mode { local, grid };

struct cache_section {
  byte_count size = 10 * gib;
  std::optional<sourced> path; ///< nothing = $XDG_CACHE_HOME/qs/<name>
  bool operator==(const cache_section&) const = default;
};

struct staging_section {
  byte_count size = 10 * gib;
  std::optional<sourced> path; ///< nothing = the state directory
  bool operator==(const staging_section&) const = default;
};

struct mount_options {
  bool allow_other = false;
  bool writeback = false;
  bool operator==(const mount_options&) const = default;
};

struct mount_section {
  sourced path; ///< value: absolute, not "/"
  cache_section cache;
  staging_section staging;
  fsync_mode fsync = fsync_mode::local;
  mount_options options;
  bool operator==(const mount_section&) const = default;
};

enum class confirm_mode { wallet, connect };

struct payment_section {
  duration runway = std::chrono::hours{24 * 30};
  duration top_up_below = std::chrono::hours{24 * 7};
  std::optional<model::money> max_per_month; ///< nothing = unlimited
  confirm_mode confirm = confirm_mode::wallet;
  std::optional<sourced> public_url;
  bool operator==(const payment_section&) const = default;
};

struct monitor_section {
  duration interval = std::chrono::seconds{10};
  duration failed_after = std::chrono::minutes{1};
  duration replace_after = std::chrono::minutes{10};
  duration scrub_every = std::chrono::hours{24 * 30};
  bool operator==(const monitor_section&) const = default;
};

struct webhook_target {
  sourced url;
  bool operator==(const webhook_target&) const = default;
};
struct email_target {
  std::string to;
  sourced smtp;
  bool operator==(const email_target&) const = default;
};
struct telegram_target {
  std::int64_t chat = 0;
  sourced token;
  bool operator==(const telegram_target&) const = default;
};
using notify_target = std::variant<webhook_target, email_target, telegram_target>;

struct status_section {
  std::string listen; ///< "127.0.0.1:9480"
  bool operator==(const status_section&) const = default;
};

struct storage_spec {
  int version = 1;
  std::string name;                                ///< [a-z0-9-]{1,32}
  std::vector<grid_source> grids = {local_grid{}}; ///< not empty; more than one = a mixed volume
  storage_section storage;
  std::optional<mount_section> mount;
  payment_section payment;
  monitor_section monitor;
  std::vector<notify_target> notify;
  std::optional<status_section> status;
  bool operator==(const storage_spec&) const = default;
};

} // namespace qs::spec
