#include <cstdint>

#include <caf/all.hpp>

#include "actors/caf_error.hpp"

namespace qs::actors {

caf::error to_caf(const qs::error& e) {
  return {static_cast<std::uint8_t>(e.code), caf::atom("qs"),
          caf::make_message(describe(e), e.sys)};
}

qs::error from_caf(const caf::error& e) {
  if (e.category() == caf::atom("qs")) {
    qs::error out{static_cast<errc>(e.code()), {}, 0};
    const auto& context = e.context();
    if (context.match_elements<std::string, int>()) {
      out.message = context.get_as<std::string>(0);
      out.sys = context.get_as<int>(1);
    }
    return out;
  }
  if (e == caf::sec::request_timeout) return {errc::timed_out, "no answer within the deadline"};
  if (e == caf::sec::request_receiver_down || e == caf::exit_reason::user_shutdown)
    return {errc::unreachable, "the part of the engine that was asked is not running"};
  return {errc::protocol, "inside the engine: " + caf::to_string(e)};
}

std::string render_errc(std::uint8_t code, caf::atom_value, const caf::message& context) {
  auto text = std::string{to_string(static_cast<errc>(code))};
  if (context.match_elements<std::string, int>()) text += ": " + context.get_as<std::string>(0);
  return text;
}

} // namespace qs::actors
