// Which namespace is in which directory, once more beside the settings: so that one whose settings
// cannot be read still has a name. <data>/namespaces/names, a line for each that was made:
// directory, name in hex, checksum. Only a copy: what of it is missing or damaged is written anew at the next start.
// One thread.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <string_view>

#include "base/result.hpp"

namespace qs::zdb {

class name_list {
public:
  /// What of it can be read; kept until replace().
  void read(std::filesystem::path file);
  /// Empty: not known. `directory`: its last part alone.
  [[nodiscard]] std::string name_of(const std::string& directory) const;
  /// Not synced: the settings are, and it is only needed without them.
  void add(const std::string& directory, std::string_view name);
  /// From now on these and no others.
  status replace(const std::map<std::string, std::string>& all);

private:
  std::filesystem::path file_;
  std::map<std::string, std::string> names_;
};

} // namespace qs::zdb
