// scalars: one value of storage.yaml as text → its typed value, or what is wrong with it. Internal
// to spec.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "spec/fields.hpp"
#include "spec/reader.hpp"

namespace qs::spec {

struct scalar_problem {
  std::string code;
  std::string message;
};

/// Reads `node` (a scalar) as the kind of `f`. What references stood for is added to `found`.
std::variant<field_value, scalar_problem> read_scalar(const field& f, const yaml_node& node,
                                                      const environment& env, reference_mode mode,
                                                      reference_values& found);

/// What a kind takes, for messages: "a number", "a size such as 20GiB".
std::string_view expectation(field_kind kind);

/// host:port, a port of 1…65535, IPv6 in brackets. Nothing if it is not that.
struct host_port {
  std::string host;
  int port = 0;
};
std::optional<host_port> parse_host_port(std::string_view text);

/// The host is an address that only this machine can reach.
bool is_loopback(std::string_view host);

} // namespace qs::spec
