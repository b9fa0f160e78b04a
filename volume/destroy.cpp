// destroy_volume: what create_volume and its use left in the volume's directories goes; nothing else is touched. Safe to
// repeat: the identity file goes last, so that what was cut short is still known to be there.
#include <system_error>

#include <fmt/format.h>

#include "codec/keys.hpp"
#include "volume/log.hpp"
#include "volume/volume.hpp"

namespace qs::volume {

status destroy_volume(const volume_options& options) {
  if (options.state_directory.empty()) return error{errc::invalid_argument, "destroy a volume: no state directory is given"};
  auto remove = [](const std::filesystem::path& path) -> status {
    std::error_code failed;
    std::filesystem::remove_all(path, failed);
    if (failed) return errno_error(fmt::format("remove {}", path.string()), failed.value());
    return {};
  };
  QS_TRY(write_log::erase(options.staging_directory.empty() ? options.state_directory / "log" : options.staging_directory,
                          codec::volume_keys::derive(options.root, options.name).id()));
  QS_TRY(remove(options.state_directory / "rows"));
  if (!options.cache_directory.empty()) QS_TRY(remove(options.cache_directory / "shards"));
  return remove(options.state_directory / "volume.json");
}

} // namespace qs::volume
