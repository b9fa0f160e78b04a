#include "spec/fields.hpp"

#include "base/limits.hpp"

namespace qs::spec {
namespace {

using enum field_kind;

constexpr std::int64_t second = 1000;
constexpr std::int64_t minute = 60 * second;
constexpr std::int64_t hour = 60 * minute;
constexpr auto shards_max =
    static_cast<std::int64_t>(limits::data_shards_max + limits::parity_shards_max);
constexpr auto mebibyte = static_cast<std::int64_t>(mib);
constexpr auto gibibyte = static_cast<std::int64_t>(gib);

// One line is one entry.
// clang-format off
const section& host_section() {
  static const section s{
      "host",
      {
          {.key = "name", .kind = name, .doc = "How this machine is called in plans and in `exclude`", .required = true, .example = "nas"},
          {.key = "address", .kind = address, .doc = "Where its zdb server listens: an address, or `unix:/path` of a socket on this machine", .required = true, .example = "192.0.2.7:9900"},
          {.key = "farm", .kind = word, .fallback = "its own name", .doc = "What fails together with it", .example = "home"},
          {.key = "country", .kind = word, .doc = "Where it stands", .example = "Belgium"},
          {.key = "capacity", .kind = size, .fallback = "what the server has", .doc = "How much of it may be used", .low = gibibyte, .example = "4TiB"},
          {.key = "password", .kind = secret, .doc = "Of the server's administrator", .example = "${env:NAS_ADMIN}"},
          {.key = "insecure", .kind = boolean, .fallback = "false", .doc = "Allow an old server that takes passwords only in the clear"},
      }};
  return s;
}

const section& grid_section() {
  static const section empty{"local", {}};
  static const section threefold{
      "threefold",
      {{.key = "network", .kind = choice, .fallback = "main", .doc = "Which ThreeFold network", .choices = {"main", "test", "qa", "dev"}}}};
  static const section s{
      "grid",
      {
          {.key = "local", .kind = table, .doc = "Nodes are processes on this machine, spread over made-up hosts: for trying", .of = &empty},
          {.key = "hosts", .kind = list, .doc = "Nodes are on machines of yours that run a zdb server", .of = &host_section(), .item = table},
          {.key = "threefold", .kind = table, .doc = "Nodes are rented from the ThreeFold Grid", .of = &threefold},
      },
      true};
  return s;
}

const section& redundancy_section() {
  static const section s{
      "redundancy",
      {
          {.key = "data", .kind = integer, .fallback = "4", .doc = "Shards that are enough to read", .low = 1, .high = limits::data_shards_max},
          {.key = "parity", .kind = integer, .fallback = "2", .doc = "Shards that may be lost", .low = 1, .high = limits::parity_shards_max},
      }};
  return s;
}

const section& location_section() {
  static const section s{
      "location",
      {
          {.key = "country", .kind = word, .doc = "Name of a country", .example = "Belgium"},
          {.key = "farm", .kind = word, .doc = "Name of a farm", .example = "greenfarm"},
          {.key = "region", .kind = word, .doc = "Name of a region", .example = "Europe"},
          {.key = "nodes", .kind = integer, .fallback = "1", .doc = "At least so many nodes there", .low = 1, .high = nodes_max},
      }};
  return s;
}

const section& spread_section() {
  static const section s{
      "spread",
      {
          {.key = "host", .kind = integer, .fallback = "1", .doc = "Most nodes of one placement group on one host", .low = 1, .high = shards_max},
          {.key = "farm", .kind = integer, .fallback = "parity, at least 1", .doc = "Most nodes of one placement group in one farm; with the default, losing any one farm loses no data", .low = 1, .high = shards_max, .example = "1"},
          {.key = "country", .kind = integer, .fallback = "unlimited", .doc = "Most nodes of one placement group in one country", .low = 1, .high = shards_max, .example = "3"},
      }};
  return s;
}

const section& exclude_section() {
  static const section s{
      "exclude",
      {
          {.key = "hosts", .kind = list, .fallback = "none", .doc = "Hosts that get no node", .item = word, .example = "[nas2]"},
          {.key = "farms", .kind = list, .fallback = "none", .doc = "Farms that get no node", .item = word},
          {.key = "countries", .kind = list, .fallback = "none", .doc = "Countries that get no node", .item = word},
      }};
  return s;
}

const section& storage_section_table() {
  static const section s{
      "storage",
      {
          {.key = "capacity", .kind = size, .doc = "Usable space, after redundancy. Growing it grows the grid; shrinking it must still fit the data", .required = true, .low = 1, .example = "20GiB"},
          {.key = "redundancy", .kind = table, .doc = "How much may be lost: with `{data: 4, parity: 2}` any 2 of 6 shards", .of = &redundancy_section()},
          {.key = "nodes", .kind = integer, .fallback = "data + parity", .doc = "Storage nodes; more spreads wider", .low = 1, .high = nodes_max, .example = "6"},
          {.key = "locations", .kind = list, .fallback = "anywhere", .doc = "Where nodes must be. Counts are minimums and add up", .of = &location_section(), .item = table},
          {.key = "spread", .kind = table, .doc = "How far the nodes of one placement group are kept apart", .of = &spread_section()},
          {.key = "exclude", .kind = table, .doc = "Where no node may be", .of = &exclude_section()},
          {.key = "protect", .kind = boolean, .fallback = "true", .doc = "Refuse every plan that would destroy data, until an apply with false"},
      }};
  return s;
}

const section& mount_section_table() {
  static const section cache{
      "cache",
      {
          {.key = "size", .kind = size, .fallback = "10GiB", .doc = "Most space the read cache takes", .low = 16 * mebibyte},
          {.key = "path", .kind = path, .fallback = "$XDG_CACHE_HOME/qs/NAME", .doc = "Its directory; may vanish at any time", .example = "~/.cache/qs/family-archive"},
      }};
  static const section staging{
      "staging",
      {
          {.key = "size", .kind = size, .fallback = "10GiB", .doc = "Most space the local log takes: writers are slowed at half, refused (ENOSPC) at the end", .low = 64 * mebibyte},
          {.key = "path", .kind = path, .fallback = "the state directory", .doc = "Its directory; as precious as the data until it is on the nodes", .example = "/srv/qs-log"},
      }};
  static const section options{
      "options",
      {
          {.key = "allow_other", .kind = boolean, .fallback = "false", .doc = "Other users of this machine may use the mount"},
          {.key = "writeback", .kind = boolean, .fallback = "false", .doc = "The kernel gathers small writes: faster, and what it gathers is lost in a crash"},
      }};
  static const section s{
      "mount",
      {
          {.key = "path", .kind = path, .doc = "Where the files appear; an empty directory", .required = true, .example = "/mnt/archive"},
          {.key = "cache", .kind = size_table, .doc = "The read cache on disk, ciphertext: a size, or size and path", .of = &cache},
          {.key = "staging", .kind = size_table, .doc = "The local log that takes all writes first: a size, or size and path", .of = &staging},
          {.key = "fsync", .kind = choice, .fallback = "local", .doc = "What fsync waits for: this machine's disk, or the grid", .choices = {"local", "grid"}},
          {.key = "options", .kind = table, .doc = "Options of the mount", .of = &options},
      }};
  return s;
}

const section& payment_section_table() {
  static const section s{
      "payment",
      {
          {.key = "runway", .kind = field_kind::time_span, .fallback = "30d", .doc = "How far ahead nodes stay paid", .low = hour},
          {.key = "top_up_below", .kind = field_kind::time_span, .fallback = "7d", .doc = "Ask for money when the wallet covers less than this"},
          {.key = "max_per_month", .kind = money, .fallback = "unlimited", .doc = "A plan that costs more is refused", .example = "50 TFT"},
          {.key = "confirm", .kind = choice, .fallback = "wallet", .doc = "wallet: the local wallet pays; connect: reservations are signed and paid in the ThreeFold Connect app", .choices = {"wallet", "connect"}},
          {.key = "public_url", .kind = http_url, .doc = "Where the phone reaches the sign-and-pay documents", .example = "https://qs.example.org"},
      }};
  return s;
}

const section& monitor_section_table() {
  static const section s{
      "monitor",
      {
          {.key = "interval", .kind = field_kind::time_span, .fallback = "10s", .doc = "How often each node is asked whether it lives", .low = 100},
          {.key = "failed_after", .kind = field_kind::time_span, .fallback = "1m", .doc = "Unreachable this long = failed", .low = 100},
          {.key = "replace_after", .kind = field_kind::time_span, .fallback = "10m", .doc = "Failed this long = replaced by a new node", .low = 100},
          {.key = "scrub_every", .kind = field_kind::time_span, .fallback = "30d", .doc = "How often every shard is read and checked", .low = minute},
      }};
  return s;
}

const section& notify_section() {
  static const section telegram{
      "telegram",
      {
          {.key = "chat", .kind = integer, .doc = "Number of the chat", .required = true, .low = -(std::int64_t{1} << 53), .high = std::int64_t{1} << 53, .example = "1234"},
          {.key = "token", .kind = secret, .doc = "Token of the bot", .required = true, .example = "${env:TG_TOKEN}"},
      }};
  static const section s{
      "notification",
      {
          {.key = "webhook", .kind = http_url, .doc = "A URL that gets each message as JSON", .example = "https://example.org/hook"},
          {.key = "email", .kind = email, .doc = "Who gets mail; needs `smtp`", .example = "me@example.org"},
          {.key = "smtp", .kind = smtp_url, .doc = "The mail server for `email`", .example = "smtp://mail.example.org"},
          {.key = "telegram", .kind = table, .doc = "A Telegram chat", .of = &telegram},
      }};
  return s;
}

} // namespace

const section& root_section() {
  static const section status{
      "status",
      {{.key = "listen", .kind = listen, .doc = "Address and port of the dashboard, /metrics and the status API", .required = true, .example = "127.0.0.1:9480"}}};
  static const section s{
      "storage.yaml",
      {
          {.key = "version", .kind = integer, .doc = "Version of this format: 1", .required = true, .low = 1, .example = "1"},
          {.key = "name", .kind = name, .doc = "Name of the volume: small letters, digits and -, at most 32. Also names the local state; it never changes", .required = true, .example = "family-archive"},
          {.key = "grid", .kind = grid, .fallback = "local", .doc = "Where nodes come from: `local`, `{hosts: […]}`, `{threefold: {network: main}}`, or a list of these", .of = &grid_section()},
          {.key = "storage", .kind = table, .doc = "What to keep", .required = true, .of = &storage_section_table()},
          {.key = "mount", .kind = table, .fallback = "no mount", .doc = "The file system", .of = &mount_section_table()},
          {.key = "payment", .kind = table, .doc = "Money", .of = &payment_section_table()},
          {.key = "monitor", .kind = table, .doc = "When a node counts as failed", .of = &monitor_section_table()},
          {.key = "notify", .kind = list, .fallback = "nobody", .doc = "Who is told", .of = &notify_section(), .item = table},
          {.key = "status", .kind = table, .fallback = "off", .doc = "The status page", .of = &status},
      }};
  return s;
}
// clang-format on

} // namespace qs::spec
