#include "spec/references.hpp"

#include <string_view>

#include <fmt/format.h>

#include "base/units.hpp"

namespace qs::spec {
namespace {

constexpr std::size_t value_bytes_max = 64 * kib;

bool is_variable_name(std::string_view name) {
  auto letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; };
  if (name.empty() || !letter(name.front())) return false;
  for (auto c : name)
    if (!letter(c) && (c < '0' || c > '9')) return false;
  return true;
}

struct one_value {
  std::optional<std::string> value;
  std::string code;
  std::string problem;
};

one_value refuse(std::string_view code, std::string problem) {
  return {std::nullopt, std::string{code}, std::move(problem)};
}

one_value home_directory(const environment& env, reference_values& found) {
  auto home = env.home();
  if (home.empty() || home.front() != '/')
    return refuse(
        "QS0026",
        "'~/' cannot be replaced: the home directory is unknown; set HOME or write the whole path");
  found["~"] = home;
  return {std::move(home), {}, {}};
}

one_value from_variable(std::string_view name, const environment& env, reference_values& found) {
  if (!is_variable_name(name))
    return refuse("QS0025", fmt::format("'{}' is not the name of a variable", name));
  auto value = env.variable(std::string{name});
  if (!value) return refuse("QS0026", fmt::format("the variable {} is not set", name));
  found[fmt::format("${{env:{}}}", name)] = *value;
  return {std::move(value), {}, {}};
}

one_value from_file(std::string path, const environment& env, reference_values& found) {
  if (path.empty()) return refuse("QS0025", "${file:} names no file");
  if (path.rfind("~/", 0) == 0) {
    auto home = home_directory(env, found);
    if (!home.value) return home;
    path = *home.value + path.substr(1);
  }
  auto content = env.file(path);
  if (!content.ok())
    return refuse("QS0026",
                  fmt::format("the file {} cannot be read: {}", path, describe(content.err())));
  auto value = std::move(*content);
  while (!value.empty() && (value.back() == '\n' || value.back() == '\r')) value.pop_back();
  if (value.size() > value_bytes_max)
    return refuse("QS0026",
                  fmt::format("the file {} has more than {} bytes", path, value_bytes_max));
  found[fmt::format("${{file:{}}}", path)] = value;
  return {std::move(value), {}, {}};
}

} // namespace

replaced replace_references(const std::string& written, bool home, const environment& env,
                            reference_mode mode, reference_values& found) {
  replaced out;
  std::string value;
  auto kept = false;
  std::string_view rest = written;
  auto refuse_all = [&](one_value&& bad) {
    out.code = std::move(bad.code);
    out.problem = std::move(bad.problem);
    return out;
  };
  if (home && rest.rfind("~/", 0) == 0) {
    if (mode == reference_mode::keep) {
      kept = true;
    } else {
      auto directory = home_directory(env, found);
      if (!directory.value) return refuse_all(std::move(directory));
      value = *directory.value;
    }
    rest.remove_prefix(1);
  }
  for (;;) {
    auto start = rest.find("${");
    value += rest.substr(0, start);
    if (start == std::string_view::npos) break;
    rest.remove_prefix(start);
    auto end = rest.find('}');
    auto inside = rest.substr(2, end == std::string_view::npos ? end : end - 2);
    auto is_env = inside.rfind("env:", 0) == 0;
    if (end == std::string_view::npos || (!is_env && inside.rfind("file:", 0) != 0))
      return refuse_all(refuse(
          "QS0025", fmt::format("'{}' is not a reference; write ${{env:NAME}} or ${{file:PATH}}",
                                rest.substr(0, end == std::string_view::npos ? end : end + 1))));
    if (mode == reference_mode::keep) {
      if (is_env && !is_variable_name(inside.substr(4)))
        return refuse_all(
            refuse("QS0025", fmt::format("'{}' is not the name of a variable", inside.substr(4))));
      kept = true;
    } else {
      auto one = is_env ? from_variable(inside.substr(4), env, found)
                        : from_file(std::string{inside.substr(5)}, env, found);
      if (!one.value) return refuse_all(std::move(one));
      value += *one.value;
    }
    rest.remove_prefix(end + 1);
  }
  out.text = sourced{written, kept ? std::string{} : std::move(value)};
  out.complete = !kept;
  return out;
}

} // namespace qs::spec
