#include <cstdint>

#include "actors/system.hpp"

#include <caf/all.hpp>
#include <caf/io/all.hpp>

#include "actors/caf_error.hpp"

namespace qs::actors {

system_config::system_config(const runtime_options& options) {
  load<caf::io::middleman>();
  set("scheduler.policy", caf::atom("sharing"));
  set("scheduler.max-threads", options.worker_count);
  set("scheduler.max-throughput",
      std::size_t{100}); // the default, unlimited, lets one busy actor hold a worker
  set("logger.console", caf::atom("none"));
  add_error_category(caf::atom("qs"), render_errc);
}

} // namespace qs::actors
