// Places compared without case, and numbered so that inner loops compare integers. Internal to
// controller.
#pragma once

#include <string>
#include <string_view>
#include <unordered_map>

#include "model/node.hpp"
#include "spec/storage_spec.hpp"

namespace qs::controller {

inline std::string fold(std::string_view text) {
  std::string out{text};
  for (auto& c : out)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return out;
}

/// A host that names no farm or country shares none with anybody: it is one of its own.
inline std::string farm_key(const model::location& place, const std::string& host) {
  return place.farm.empty() ? "host:" + host : fold(place.farm);
}
inline std::string country_key(const model::location& place, const std::string& host) {
  return place.country.empty() ? "host:" + host : fold(place.country);
}

class numbering {
public:
  int of(const std::string& key) {
    return numbers_.try_emplace(key, static_cast<int>(numbers_.size())).first->second;
  }

private:
  std::unordered_map<std::string, int> numbers_;
};

inline bool fits(const spec::location_rule& rule, const model::location& place) {
  return (rule.country.empty() || fold(rule.country) == fold(place.country)) &&
         (rule.farm.empty() || fold(rule.farm) == fold(place.farm)) &&
         (rule.region.empty() || fold(rule.region) == fold(place.region));
}

} // namespace qs::controller
