#include "spec/scalars.hpp"

#include <algorithm>
#include <charconv>

#include <arpa/inet.h>
#include <fmt/format.h>

#include "base/units.hpp"
#include "spec/references.hpp"

namespace qs::spec {
namespace {

using outcome = std::variant<field_value, scalar_problem>;

outcome bad(std::string_view code, std::string message) {
  return scalar_problem{std::string{code}, std::move(message)};
}

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool all_digits(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), is_digit);
}
bool starts_with(std::string_view text, std::string_view front) {
  return text.substr(0, front.size()) == front;
}

/// "unix:/run/zdb.sock": as long as a socket's address may be.
bool is_socket(std::string_view text) {
  return starts_with(text, "unix:/") && text.size() > 6 && text.size() <= 5 + 107 &&
         text.find('\0') == std::string_view::npos;
}

/// -?(0|[1-9][0-9]*) that fits. YAML's octal, hexadecimal and 1_000 are refused rather than guessed
/// at.
std::optional<std::int64_t> decimal(std::string_view text) {
  auto digits = starts_with(text, "-") ? text.substr(1) : text;
  if (!all_digits(digits) || (digits.size() > 1 && digits.front() == '0')) return std::nullopt;
  std::int64_t value = 0;
  auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (status != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

outcome read_integer(const field& f, const yaml_node& node) {
  auto value = node.plain ? decimal(node.text) : std::nullopt;
  if (!value) {
    auto hint = node.plain ? "in decimal digits" : "without quotes";
    return bad("QS0014",
               fmt::format("{} takes a whole number {}, not '{}'", f.key, hint, node.text));
  }
  if (*value < f.low || (f.high != 0 && *value > f.high))
    return f.high == 0
               ? bad("QS0020", fmt::format("{} must be at least {}, not {}", f.key, f.low, *value))
               : bad("QS0020",
                     fmt::format("{} must be {} to {}, not {}", f.key, f.low, f.high, *value));
  return field_value{*value};
}

outcome read_size(const field& f, const yaml_node& node) {
  if (all_digits(node.text))
    return bad("QS0015",
               fmt::format("{} needs a unit: {}GiB, {}TB, …", f.key, node.text, node.text));
  auto value = parse_bytes(node.text);
  if (!value.ok()) return bad("QS0015", value.err().message);
  if (*value < static_cast<byte_count>(f.low))
    return bad("QS0020", f.low <= 1
                             ? fmt::format("{} must be more than 0", f.key)
                             : fmt::format("{} must be at least {}, not {}", f.key,
                                           exact_bytes(static_cast<byte_count>(f.low)), node.text));
  return field_value{*value};
}

outcome read_duration(const field& f, const yaml_node& node) {
  auto value = parse_duration(node.text);
  if (!value.ok()) return bad("QS0016", value.err().message);
  if (value->count() < f.low)
    return bad("QS0020", fmt::format("{} must be at least {}, not {}", f.key,
                                     exact_duration(std::chrono::milliseconds{f.low}), node.text));
  return field_value{*value};
}

outcome read_money(const field& f, const yaml_node& node) {
  auto value = model::parse_money(node.text);
  if (!value.ok())
    return bad("QS0017",
               fmt::format("{} takes an amount such as 50 TFT, not '{}'", f.key, node.text));
  return field_value{*value};
}

outcome read_boolean(const field& f, const yaml_node& node) {
  if (node.plain && node.text == "true") return field_value{true};
  if (node.plain && node.text == "false") return field_value{false};
  return bad("QS0018", node.plain
                           ? fmt::format("{} takes true or false, not '{}'", f.key, node.text)
                           : fmt::format("{} takes true or false without quotes", f.key));
}

outcome read_choice(const field& f, const yaml_node& node) {
  if (std::find(f.choices.begin(), f.choices.end(), node.text) != f.choices.end())
    return field_value{node.text};
  auto guess = nearest(node.text, f.choices);
  auto message =
      fmt::format("{} takes {}, not '{}'", f.key, fmt::join(f.choices, " or "), node.text);
  if (!guess.empty()) message += fmt::format("; did you mean '{}'?", guess);
  return bad("QS0019", std::move(message));
}

outcome read_name(const field& f, const yaml_node& node) {
  auto fits = [](char c) { return (c >= 'a' && c <= 'z') || is_digit(c) || c == '-'; };
  if (node.text.empty() || node.text.size() > 32 ||
      !std::all_of(node.text.begin(), node.text.end(), fits))
    return bad("QS0021", fmt::format("{} takes 1 to 32 small letters, digits and '-', not '{}'",
                                     f.key, node.text));
  return field_value{node.text};
}

outcome read_word(const field& f, const yaml_node& node) {
  if (node.text.find_first_not_of(' ') == std::string::npos)
    return bad("QS0029", fmt::format("{} is empty", f.key));
  if (node.text.find("${") != std::string::npos)
    return bad("QS0025",
               fmt::format("{} takes plain text: references are not replaced here", f.key));
  return field_value{node.text};
}

outcome read_email(const field& f, const yaml_node& node) {
  auto at = node.text.find('@');
  auto fine = at != std::string::npos && at > 0 && at + 1 < node.text.size() &&
              node.text.find('@', at + 1) == std::string::npos &&
              node.text.find_first_of(" <>,;${}\n") == std::string::npos;
  return fine ? outcome{field_value{node.text}}
              : bad("QS0024", fmt::format("{} takes one mail address, not '{}'", f.key, node.text));
}

outcome read_listen(const field& f, const yaml_node& node) {
  auto parsed = parse_host_port(node.text);
  in6_addr address{};
  if (parsed &&
      (parsed->host == "localhost" || inet_pton(AF_INET, parsed->host.c_str(), &address) == 1 ||
       inet_pton(AF_INET6, parsed->host.c_str(), &address) == 1))
    return field_value{node.text};
  return bad(
      "QS0023",
      fmt::format(
          "{} takes an IP address of this machine and a port, for example 127.0.0.1:9480, not '{}'",
          f.key, node.text));
}

/// The path's text itself; "" = fine.
std::string path_problem(std::string_view value) {
  if (value.empty()) return "is empty";
  if (value.front() != '/') return "must be absolute: start it with / or ~/";
  for (std::string_view rest = value; !rest.empty();) {
    rest.remove_prefix(1);
    auto end = std::min(rest.find('/'), rest.size());
    if (rest.substr(0, end) == "..") return "must not go through '..'";
    rest.remove_prefix(end);
  }
  if (value.find_first_not_of('/') == std::string_view::npos) return "must not be '/'";
  if (value.find('\0') != std::string_view::npos) return "contains a zero byte";
  return value.size() > 4000 ? "is too long" : "";
}

bool is_url(std::string_view text, std::string_view scheme) {
  if (!starts_with(text, scheme)) return false;
  text.remove_prefix(scheme.size());
  auto host = text.substr(0, text.find_first_of("/?#"));
  return !host.empty() && text.find_first_of(" \t\n\"<>") == std::string_view::npos;
}

outcome read_sourced(const field& f, const yaml_node& node, const environment& env,
                     reference_mode mode, reference_values& found) {
  auto text = replace_references(node.text, f.kind == field_kind::path, env, mode, found);
  if (!text.text) return bad(text.code, fmt::format("{}: {}", f.key, text.problem));
  if (!text.complete) return field_value{std::move(*text.text)};
  const auto& value = text.text->value;
  // What a reference stood for may be secret: only what is written in the file is shown.
  auto shown = value == node.text ? fmt::format("'{}'", node.text)
                                  : fmt::format("what '{}' stands for", node.text);
  if (f.kind == field_kind::path) {
    if (auto problem = path_problem(value); !problem.empty())
      return bad("QS0022", fmt::format("{} {}", f.key, problem));
  } else if (value.empty()) {
    return bad("QS0029", node.text.empty() ? fmt::format("{} is empty", f.key)
                                           : fmt::format("{} is empty: {}", f.key, shown));
  } else if (f.kind == field_kind::address && !parse_host_port(value) && !is_socket(value)) {
    return bad("QS0023", fmt::format("{} takes host:port, for example 192.0.2.7:9900, or "
                                     "unix:/path of a socket, not {}",
                                     f.key, shown));
  } else if (f.kind == field_kind::http_url && !is_url(value, "https://") &&
             !is_url(value, "http://")) {
    return bad("QS0024", fmt::format("{} takes an http:// or https:// URL, not {}", f.key, shown));
  } else if (f.kind == field_kind::smtp_url && !is_url(value, "smtp://") &&
             !is_url(value, "smtps://")) {
    return bad("QS0024", fmt::format("{} takes an smtp:// or smtps:// URL, not {}", f.key, shown));
  }
  return field_value{std::move(*text.text)};
}

} // namespace

outcome read_scalar(const field& f, const yaml_node& node, const environment& env,
                    reference_mode mode, reference_values& found) {
  switch (f.kind) {
  case field_kind::integer:
    return read_integer(f, node);
  case field_kind::size:
  case field_kind::size_table:
    return read_size(f, node);
  case field_kind::time_span:
    return read_duration(f, node);
  case field_kind::money:
    return read_money(f, node);
  case field_kind::boolean:
    return read_boolean(f, node);
  case field_kind::choice:
    return read_choice(f, node);
  case field_kind::name:
    return read_name(f, node);
  case field_kind::word:
    return read_word(f, node);
  case field_kind::email:
    return read_email(f, node);
  case field_kind::listen:
    return read_listen(f, node);
  case field_kind::path:
  case field_kind::address:
  case field_kind::http_url:
  case field_kind::smtp_url:
  case field_kind::secret:
    return read_sourced(f, node, env, mode, found);
  case field_kind::table:
  case field_kind::list:
  case field_kind::grid:
    break;
  }
  return bad("QS0013", fmt::format("{} takes {}", f.key, expectation(f.kind)));
}

std::string_view expectation(field_kind kind) {
  switch (kind) {
  case field_kind::integer:
    return "a number";
  case field_kind::size:
    return "a size such as 20GiB";
  case field_kind::time_span:
    return "a duration such as 10m";
  case field_kind::money:
    return "an amount such as 50 TFT";
  case field_kind::boolean:
    return "true or false";
  case field_kind::choice:
    return "one word";
  case field_kind::name:
    return "a name";
  case field_kind::word:
  case field_kind::secret:
    return "text";
  case field_kind::email:
    return "a mail address";
  case field_kind::listen:
    return "address:port";
  case field_kind::path:
    return "a path";
  case field_kind::address:
    return "host:port or unix:/path";
  case field_kind::http_url:
  case field_kind::smtp_url:
    return "a URL";
  case field_kind::table:
    return "a map of keys";
  case field_kind::size_table:
    return "a size, or a map with size and path";
  case field_kind::list:
    return "a list";
  case field_kind::grid:
    return "local, {hosts: […]}, {threefold: {…}} or a list of these";
  }
  return "something else";
}

std::optional<host_port> parse_host_port(std::string_view text) {
  auto colon = text.rfind(':');
  if (colon == std::string_view::npos || colon == 0) return std::nullopt;
  auto host = text.substr(0, colon);
  auto port = all_digits(text.substr(colon + 1)) ? decimal(text.substr(colon + 1)) : std::nullopt;
  if (!port || *port < 1 || *port > 65535) return std::nullopt;
  if (host.front() == '[') {
    in6_addr address{};
    if (host.size() < 4 || host.back() != ']') return std::nullopt;
    auto inner = std::string{host.substr(1, host.size() - 2)};
    if (inet_pton(AF_INET6, inner.c_str(), &address) != 1) return std::nullopt;
    return host_port{inner, static_cast<int>(*port)};
  }
  auto fits = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || is_digit(c) || c == '-' ||
           c == '.' || c == '_';
  };
  if (!std::all_of(host.begin(), host.end(), fits)) return std::nullopt;
  return host_port{std::string{host}, static_cast<int>(*port)};
}

bool is_loopback(std::string_view host) {
  return host == "localhost" || host == "::1" || starts_with(host, "127.");
}

} // namespace qs::spec
