#include "cli/engine_options.hpp"

#include <nlohmann/json.hpp>

#include "cli/phrase_file.hpp"

namespace qs::cli {

actors::engine_options options_without_phrase(const chosen_volume& volume) {
  actors::engine_options out;
  out.volume = volume.name;
  out.state_directory = volume.state_directory;
  out.grid_directory = volume.around.grid_dir;
  out.cache_directory = volume.around.cache_of(volume.name);
  out.wallets_directory = volume.around.wallets();
  out.program = this_program().string();
  return out;
}

result<actors::engine_options> engine_options_for(const chosen_volume& volume) {
  auto out = options_without_phrase(volume);
  QS_TRY_ASSIGN(out.root, read_phrase(volume.around, volume.name));
  return out;
}

std::string references_json(const spec::reference_values& values) {
  return nlohmann::json(values).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

} // namespace qs::cli
