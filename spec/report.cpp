#include "spec/report.hpp"

#include <algorithm>

#include <nlohmann/json.hpp>

#include "spec/codes.hpp"
#include "spec/source_text.hpp"

namespace qs::spec {
namespace {

using json = nlohmann::ordered_json;

json position(const source_text& source, int line, int column) {
  return {{"line", line}, {"column", column}, {"byte", source.offset_of(line, column)}};
}

} // namespace

std::string to_json(const diagnostics& problems, std::string_view file, std::string_view text) {
  source_text source{text};
  auto count = [&](severity level) {
    return std::count_if(problems.begin(), problems.end(),
                         [&](const diagnostic& d) { return d.level == level; });
  };
  auto list = json::array();
  for (const auto& d : problems) {
    json one{{"severity", d.level == severity::error ? "error" : "warning"},
             {"code", d.code},
             {"summary", d.message},
             {"detail", std::string{advice(d.code)}}};
    if (d.where.line > 0) {
      auto end = std::max(d.where.end_column, d.where.column + 1);
      one["range"] = {{"filename", std::string{file}},
                      {"start", position(source, d.where.line, d.where.column)},
                      {"end", position(source, d.where.line, end)}};
    }
    list.push_back(std::move(one));
  }
  json out{{"format_version", 1},
           {"valid", !has_errors(problems)},
           {"error_count", count(severity::error)},
           {"warning_count", count(severity::warning)},
           {"diagnostics", std::move(list)}};
  return out.dump(2, ' ', false, json::error_handler_t::replace) + "\n";
}

} // namespace qs::spec
