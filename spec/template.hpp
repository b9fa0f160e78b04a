// make_template: the storage.yaml that `qs init` writes, with a comment for what a newcomer may
// want to change.
#pragma once

#include <optional>
#include <string>

#include "base/units.hpp"

namespace qs::spec {

struct template_options {
  std::string name;
  std::string capacity = "20GiB"; ///< as the user wrote it
  int data_shards = 4;
  int parity_shards = 2;
  std::optional<int> nodes;           ///< default data + parity
  std::optional<std::string> mount;   ///< absolute path or ~/…; nothing = no mount section
  std::optional<std::string> cache;   ///< size of the read cache; default as in storage_spec
  std::optional<std::string> staging; ///< size of the local log; default as in storage_spec
  std::optional<std::string> listen;  ///< status address "127.0.0.1:9480"; nothing = off
  bool protect = true;
  std::optional<std::string> interval; ///< of the monitor, as are the next two
  std::optional<std::string> failed_after;
  std::optional<std::string> replace_after;
};

/// Text whose validation finds no error if the options are sound; check it with spec::validate.
std::string make_template(const template_options& options);

} // namespace qs::spec
