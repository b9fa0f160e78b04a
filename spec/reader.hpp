// reader: the YAML tree read along the field table: every key known, every value of its kind, each
// by its path. Internal to spec. Knows kinds of values, not what they mean together (rules) nor the
// typed spec (bind).
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <variant>

#include "base/diagnostic.hpp"
#include "spec/load.hpp"
#include "spec/yaml_tree.hpp"

namespace qs::spec {

using field_value =
    std::variant<std::int64_t, byte_count, duration, model::money, bool, std::string, sourced>;

struct fields_read {
  std::map<std::string, field_value> values;
  std::map<std::string, std::size_t> counts;  ///< of lists: how many items
  std::map<std::string, source_range> places; ///< of everything that is in the file
  std::set<std::string> broken;               ///< reported already
  reference_values references;

  template <class T>
  [[nodiscard]] const T* get(const std::string& path) const {
    auto found = values.find(path);
    return found == values.end() ? nullptr : std::get_if<T>(&found->second);
  }
  [[nodiscard]] bool given(const std::string& path) const { return places.count(path) != 0; }
  [[nodiscard]] std::size_t count(const std::string& path) const {
    auto found = counts.find(path);
    return found == counts.end() ? 0 : found->second;
  }
  /// Nothing at, above or below the path has been reported.
  [[nodiscard]] bool sound(const std::string& path) const;
  /// The place of the path, or of what stands nearest above it.
  [[nodiscard]] source_range place(std::string path) const;
};

/// "storage.locations[2]"
std::string item_path(std::string_view list, std::size_t index);

fields_read read_fields(const yaml_node& root, const environment& env, reference_mode mode,
                        diagnostics& problems);

} // namespace qs::spec
