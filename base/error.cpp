#include "base/error.hpp"

#include <array>
#include <cerrno>
#include <cstring>
#include <system_error>

namespace qs {

std::string_view to_string(errc code) noexcept {
  static constexpr std::array<std::string_view, 20> names{
      "none",        "invalid_argument", "not_found",        "already_exists", "io",
      "no_space",    "corrupt",          "unreachable",      "timed_out",      "maybe_delivered",
      "refused",     "access_denied",    "data_lost",        "busy",           "no_quorum",
      "unsupported", "version_mismatch", "protocol",         "cancelled",      "over_budget"};
  auto index = static_cast<std::size_t>(code);
  return index < names.size() ? names[index] : "?";
}

error error::with(std::string_view doing) && {
  auto text = describe(*this);
  message = std::string{doing} + ": " + text;
  return std::move(*this);
}

error errno_error(std::string_view doing, int sys) {
  auto code = errc::io;
  switch (sys) {
  case ENOENT: code = errc::not_found; break;
  case EEXIST: code = errc::already_exists; break;
  case ENOSPC:
  case EDQUOT: code = errc::no_space; break;
  case EACCES:
  case EPERM: code = errc::access_denied; break;
  case ETIMEDOUT: code = errc::timed_out; break;
  case ECONNREFUSED:
  case EHOSTUNREACH:
  case ENETUNREACH: code = errc::unreachable; break;
  default: break;
  }
  return {code, std::string{doing} + ": " + std::generic_category().message(sys), sys};
}

std::string describe(const error& e) {
  if (!e.message.empty()) return e.message;
  if (e.sys != 0) return std::generic_category().message(e.sys);
  return std::string{to_string(e.code)};
}

} // namespace qs
