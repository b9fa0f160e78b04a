// qs::error in CAF's messages and back. Category "qs": the code, the text and errno travel;
// everything CAF itself reports (request_timeout, request_receiver_down, …) comes back as the errc
// that the caller would act on.
#pragma once

#include <cstdint>

#include <caf/atom.hpp>
#include <caf/fwd.hpp>

#include <string>

#include "base/error.hpp"

namespace qs::actors {

/// For handlers and promises: `return to_caf(e);`.
caf::error to_caf(const error& e);
/// request_timeout → timed_out, receiver down or gone → unreachable, unexpected message or handler
/// threw → protocol.
error from_caf(const caf::error& e);
/// For actor_system_config::add_error_category.
std::string render_errc(std::uint8_t code, caf::atom_value category, const caf::message& context);

} // namespace qs::actors
