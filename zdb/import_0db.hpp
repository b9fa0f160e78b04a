// Takes over what a 0-db 2.x left in its data and index directories (data version 3, index version
// 4): its namespaces are copied into ours, live versions only, with settings, timestamps and
// sequential ids. Nothing of it is changed or deleted, ever. Called once, when a store is opened,
// before anything is served. docs/decisions/0003 says why it is copied.
#pragma once

#include <filesystem>
#include <functional>

#include "base/result.hpp"
#include "zdb/name_space.hpp"

namespace qs::zdb {

struct import_report {
  std::size_t namespaces = 0;
  std::uint64_t keys = 0;
  std::uint64_t bytes = 0;
  std::uint64_t damaged = 0; ///< entries left out because their checksum does not fit
};

/// Is there a namespace of 0-db, looked at by files d0, d1, … in directories of `data` and by
/// settings in those of `index` (which may be empty)?
bool holds_0db(const std::filesystem::path& data, const std::filesystem::path& index);

/// `data_alone`: a namespace whose index cannot be read has user mode, and is taken from its data.
/// `target(name)` gives the directory for a namespace that is to be taken over, or an empty path if
/// there is one of that name. Each appears there whole or not at all; a run that was interrupted is
/// simply done again. Errors: busy (0-db runs on it), invalid_argument (no index), corrupt (also:
/// settings without data), version_mismatch, io, no_space.
result<import_report>
import_0db(const std::filesystem::path& data, const std::filesystem::path& index, bool data_alone,
           file_pool& pool, const name_space::limits& limits,
           const std::function<std::filesystem::path(const std::string& name)>& target);

} // namespace qs::zdb
