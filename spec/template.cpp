#include "spec/template.hpp"

#include <fmt/format.h>

namespace qs::spec {
namespace {

/// A double-quoted YAML scalar; paths may hold anything.
std::string quoted(std::string_view text) {
  std::string out = "\"";
  for (auto c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out + "\"";
}

/// Quotes only where a reader would need them.
std::string plain(std::string_view text) {
  auto simple = !text.empty() &&
                text.find_first_not_of(
                    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./~") ==
                    std::string_view::npos &&
                text.front() != '-' && text != "~";
  return simple ? std::string{text} : quoted(text);
}

/// "  key: value" filled up to the column of the comments.
std::string line(std::string_view key_and_value, std::string_view comment) {
  return fmt::format("{:<36} # {}\n", key_and_value, comment);
}

std::string storage_text(const template_options& o) {
  auto n = o.data_shards + o.parity_shards;
  std::string out = "storage:\n";
  out += line("  capacity: " + o.capacity, "usable, after redundancy; grow it at any time");
  out += line(fmt::format("  redundancy: {{data: {}, parity: {}}}", o.data_shards, o.parity_shards),
              fmt::format("any {} of {} shards may be lost", o.parity_shards, n));
  out += line(fmt::format("  nodes: {}", o.nodes.value_or(n)),
              fmt::format("storage nodes, at least {}; more spread wider", n));
  out += line(fmt::format("  protect: {}", o.protect ? "true" : "false"),
              o.protect ? "refuse what would destroy data" : "plans may destroy data");
  out += "  # Where nodes must be; counts are minimums and add up. Default: anywhere.\n"
         "  # locations:\n"
         "  #   - {country: Belgium, nodes: 2}\n"
         "  # How many nodes of one placement group may share a host, farm or country. By default "
         "losing any one\n"
         "  # farm loses no data.\n";
  out +=
      fmt::format("  # spread: {{host: 1, farm: {}}}\n", o.parity_shards > 1 ? o.parity_shards : 1);
  return out;
}

std::string mount_text(const template_options& o) {
  if (!o.mount)
    return "# Without this section nothing is mounted.\n# mount:\n#   path: /mnt/archive\n";
  std::string out = "mount:\n";
  out += line("  path: " + plain(*o.mount), "where the files appear");
  out +=
      line("  cache: " + o.cache.value_or("10GiB"), "read cache on disk; ciphertext, may vanish");
  out += line("  staging: " + o.staging.value_or("10GiB"), "local log: takes all writes first");
  return out;
}

std::string monitor_text(const template_options& o) {
  std::string out = "monitor:\n";
  out += line("  interval: " + o.interval.value_or("10s"), "how often a node is asked");
  out += line("  failed_after: " + o.failed_after.value_or("1m"), "unreachable this long = failed");
  out += line("  replace_after: " + o.replace_after.value_or("10m"),
              "failed this long = replaced by a new node");
  return out;
}

} // namespace

std::string make_template(const template_options& o) {
  std::string out = "# yaml-language-server: $schema=./storage.schema.json\n"
                    "# What this volume should be. `qs diff` shows what an edit would change, `qs "
                    "apply` makes it so.\n"
                    "# All keys: docs/storage-yaml.md or `qs schema`.\n"
                    "version: 1\n";
  out += line("name: " + plain(o.name), "also names the local state; never changes");
  out += "\n";
  out += line("grid: local", "nodes are processes on this machine: for trying");
  out += "\n" + storage_text(o) + "\n" + mount_text(o) + "\n" + monitor_text(o) + "\n";
  out += "payment:\n";
  out += line("  runway: 30d", "how far ahead nodes stay paid");
  out += line("  top_up_below: 7d", "ask for money when the wallet covers less");
  out += "  # max_per_month: 50 TFT            # a plan over this is refused\n\n";
  if (o.listen)
    out += line(fmt::format("status: {{listen: {}}}", quoted(*o.listen)),
                "dashboard, /metrics, status API");
  else
    out += "# status: {listen: \"127.0.0.1:9480\"}  # dashboard, /metrics, status API\n";
  return out;
}

} // namespace qs::spec
