// yaml_tree: YAML text → a small tree in which everything has its place, made from yaml-cpp's
// events. Internal to spec. A strict subset: one document, no anchors, aliases or tags, duplicate
// keys reported, depth and size bounded, so that no text can blow up. Knows nothing of
// storage.yaml's keys.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/diagnostic.hpp"

namespace qs::spec {

enum class node_kind { nothing, scalar, sequence, map, broken };

struct yaml_entry;

/// One value. `broken` = reported already, to be passed over in silence.
struct yaml_node {
  node_kind kind = node_kind::nothing;
  std::string text;      ///< of a scalar
  bool plain = false;    ///< a scalar without quotes
  bool flow = false;     ///< a map or sequence in { } or [ ]
  std::size_t begin = 0; ///< offsets into the file; for a scalar exactly its characters
  std::size_t end = 0;
  source_range where;
  std::vector<yaml_entry> entries; ///< of a map, in the order of the file, without duplicates
  std::vector<yaml_node> items;    ///< of a sequence
};

struct yaml_entry {
  yaml_node key;
  yaml_node value;
};

inline constexpr std::size_t yaml_depth_max = 12;

/// The root, if the text could be read at all. All problems go to `problems`.
std::optional<yaml_node> parse_yaml(std::string_view text, diagnostics& problems);

/// The value of `key` in a map, or nullptr.
const yaml_node* find(const yaml_node& map, std::string_view key);

} // namespace qs::spec
