// Inside the session: how requests are put together and replies read. Not for others; session.hpp
// is the door.
#pragma once

#include <functional>
#include <string_view>
#include <vector>

#include "zdb/session.hpp"

namespace qs::zdb {

/// errc::protocol: a reply that `command` never gets.
error unexpected(std::string_view command, const reply& r);
server_info parse_info(std::string_view text);
namespace_info parse_nsinfo(std::string_view text);
result<scan_page> read_scan(reply& r);

/// Takes a reply or why there is none; false when the reply is not one the command can give.
using on_reply = std::function<bool(result<reply>)>;

/// Wraps a typed callback: transport errors and error replies become errors, the rest is read by
/// `read`.
template <class T, class Read>
on_reply reading(std::string_view command, callback<T> done, Read read) {
  return [command, done = std::move(done), read = std::move(read)](result<reply> r) {
    if (!r.ok()) return done(std::move(r).err()), true;
    if (r->is_error()) return done(error_from_reply(r->text).with(command)), true;
    result<T> value = read(*r);
    auto in_protocol = value.ok() || value.err().code != errc::protocol;
    done(std::move(value));
    return in_protocol;
  };
}

/// For commands that answer +OK, or any other simple reply.
on_reply expecting_ok(std::string_view command, callback<void> done);

/// One request: arguments are texts or payloads.
template <class... A>
std::vector<piece> make_request(const A&... arguments) {
  output out;
  add_request_header(out, sizeof...(arguments));
  (add_argument(out, arguments), ...);
  return out.take();
}

} // namespace qs::zdb
