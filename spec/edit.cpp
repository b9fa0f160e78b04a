#include "spec/edit.hpp"

#include <charconv>

#include <fmt/format.h>

#include "base/units.hpp"
#include "spec/fields.hpp"
#include "spec/load.hpp"
#include "spec/source_text.hpp"
#include "spec/yaml_tree.hpp"

namespace qs::spec {
namespace {

error cannot(std::string_view key, std::string_view why) {
  return {errc::invalid_argument,
          fmt::format("set storage.{}: {}; edit the file by hand", key, why)};
}

std::string_view line_break(std::string_view text) {
  auto at = text.find('\n');
  return at != std::string_view::npos && at > 0 && text[at - 1] == '\r' ? "\r\n" : "\n";
}

/// A new key goes next to capacity, which is always there: same map, same indentation.
result<std::string> insert_after_capacity(std::string_view text, const yaml_node& storage,
                                          std::string_view key, std::string_view value) {
  for (const auto& entry : storage.entries) {
    if (entry.key.text != "capacity") continue;
    if (entry.value.kind != node_kind::scalar) return cannot(key, "capacity has no plain value");
    std::string out{text};
    if (storage.flow) {
      out.insert(entry.value.end, fmt::format(", {}: {}", key, value));
      return out;
    }
    source_text source{text};
    auto line = source.line_of(entry.value.begin);
    auto indent = source.line_of(entry.key.begin) == line ? entry.key.where.column - 1 : -1;
    if (indent < 0) return cannot(key, "capacity spans lines");
    auto end = source.line_end(line);
    out.insert(end, fmt::format("{}{:{}}{}: {}", line_break(text), "", indent, key, value));
    return out;
  }
  return cannot(key, "storage has no capacity");
}

/// What the file now says, read again: an edit that did something else is not an edit.
status verify(std::string_view text, std::string_view key, std::string_view value) {
  diagnostics problems;
  auto root = parse_yaml(text, problems);
  const auto* storage = root && !has_errors(problems) ? find(*root, "storage") : nullptr;
  const auto* node = storage != nullptr ? find(*storage, key) : nullptr;
  if (node == nullptr || node->kind != node_kind::scalar || node->text != value)
    return cannot(key, "the result would not read back");
  return {};
}

result<std::string> set(std::string_view text, std::string_view key, std::string_view value) {
  diagnostics problems;
  auto root = parse_yaml(text, problems);
  if (!root || has_errors(problems))
    return error{errc::invalid_argument,
                 fmt::format("set storage.{}: the file has errors; `qs validate` shows them", key)};
  const auto* storage = root->kind == node_kind::map ? find(*root, "storage") : nullptr;
  if (storage == nullptr || storage->kind != node_kind::map)
    return cannot(key, "there is no storage section");
  std::string out;
  if (const auto* node = find(*storage, key)) {
    if (node->kind != node_kind::scalar || node->end <= node->begin)
      return cannot(key, "it has no plain value");
    out = std::string{text};
    out.replace(node->begin, node->end - node->begin, value);
  } else {
    QS_TRY_ASSIGN(out, insert_after_capacity(text, *storage, key, value));
  }
  QS_TRY(verify(out, key, value));
  return out;
}

} // namespace

result<std::string> set_capacity(std::string_view text, std::string_view size) {
  QS_TRY_ASSIGN(auto bytes, parse_bytes(size));
  if (bytes == 0 || size.find_first_not_of("0123456789") == std::string_view::npos)
    return error{
        errc::invalid_argument,
        fmt::format("'{}' is not a capacity; write a number and a unit, for example 40GiB", size)};
  return set(text, "capacity", size);
}

result<std::string> set_nodes(std::string_view text, int nodes) {
  if (nodes < 1 || nodes > nodes_max)
    return error{errc::invalid_argument,
                 fmt::format("nodes must be 1 to {}, not {}", nodes_max, nodes)};
  return set(text, "nodes", fmt::format("{}", nodes));
}

result<std::string> set_protect(std::string_view text, bool protect) {
  return set(text, "protect", protect ? "true" : "false");
}

} // namespace qs::spec
