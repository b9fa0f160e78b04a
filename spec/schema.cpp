#include "spec/schema.hpp"

#include <charconv>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/units.hpp"
#include "spec/fields.hpp"

namespace qs::spec {
namespace {

using json = nlohmann::ordered_json;

json text(std::string_view pattern = {}) {
  json out{{"type", "string"}, {"minLength", 1}};
  if (!pattern.empty()) out["pattern"] = std::string{pattern};
  return out;
}

constexpr std::string_view size_pattern =
    "^[0-9]+(\\.[0-9]{1,9})? *(B|KiB|MiB|GiB|TiB|PiB|kB|MB|GB|TB|PB)$";
constexpr std::string_view duration_pattern = "^[0-9]+(\\.[0-9]{1,9})? *(ms|s|m|h|d)$";
constexpr std::string_view money_pattern = "^[0-9]+(\\.[0-9]{1,7})?( *TFT)?$";

json table_schema(const section& s);

json kind_schema(const field& f, field_kind kind) {
  switch (kind) {
  case field_kind::integer: {
    json out{{"type", "integer"}, {"minimum", f.low}};
    if (f.high != 0) out["maximum"] = f.high;
    if (f.key == "version") out = {{"const", 1}};
    return out;
  }
  case field_kind::size:
    return text(size_pattern);
  case field_kind::time_span:
    return text(duration_pattern);
  case field_kind::money:
    return {{"anyOf", {text(money_pattern), {{"type", "number"}, {"minimum", 0}}}}};
  case field_kind::boolean:
    return {{"type", "boolean"}};
  case field_kind::choice: {
    auto list = json::array();
    for (auto choice : f.choices) list.push_back(std::string{choice});
    return {{"enum", std::move(list)}};
  }
  case field_kind::name:
    return text("^[a-z0-9-]{1,32}$");
  case field_kind::word:
    return text();
  case field_kind::email:
    return text("^[^@ ]+@[^@ ]+$");
  case field_kind::listen:
    return text(":[0-9]{1,5}$");
  case field_kind::path:
    return text("^(/|~/|\\$\\{)");
  case field_kind::address:
    return text("(:[0-9]{1,5}|\\})$|^unix:/");
  case field_kind::http_url:
    return text("^(https?://|\\$\\{)");
  case field_kind::smtp_url:
    return text("^(smtps?://|\\$\\{)");
  case field_kind::secret:
    return text();
  case field_kind::table:
    return table_schema(*f.of);
  case field_kind::size_table:
    return {{"anyOf", {text(size_pattern), table_schema(*f.of)}}};
  case field_kind::list:
    return {{"type", "array"}, {"items", kind_schema(f, f.item)}};
  case field_kind::grid: {
    json one{{"anyOf", {{{"const", "local"}}, table_schema(*f.of)}}};
    return {{"anyOf",
             {{{"const", "local"}},
              table_schema(*f.of),
              {{"type", "array"}, {"minItems", 1}, {"items", one}}}}};
  }
  }
  return json::object();
}

/// A default that is a value, not a description in words.
void add_default(json& out, const field& f) {
  if (f.fallback.empty()) return;
  if (f.kind == field_kind::integer) {
    std::int64_t n = 0;
    auto [end, status] =
        std::from_chars(f.fallback.data(), f.fallback.data() + f.fallback.size(), n);
    if (status == std::errc{} && end == f.fallback.data() + f.fallback.size()) out["default"] = n;
  } else if (f.kind == field_kind::boolean) {
    out["default"] = f.fallback == "true";
  } else if (f.kind == field_kind::choice || f.kind == field_kind::grid ||
             (f.kind == field_kind::size && parse_bytes(f.fallback).ok()) ||
             (f.kind == field_kind::time_span && parse_duration(f.fallback).ok())) {
    out["default"] = std::string{f.fallback};
  }
}

json table_schema(const section& s) {
  json out{{"type", "object"}};
  auto properties = json::object();
  auto required = json::array();
  for (const auto& f : s.fields) {
    auto one = kind_schema(f, f.kind);
    one["description"] = std::string{f.doc};
    add_default(one, f);
    properties[std::string{f.key}] = std::move(one);
    if (f.required) required.push_back(std::string{f.key});
  }
  out["properties"] = std::move(properties);
  if (!required.empty()) out["required"] = std::move(required);
  out["additionalProperties"] = false;
  if (s.exactly_one) {
    out["minProperties"] = 1;
    out["maxProperties"] = 1;
  }
  // `local:` without a value is the empty map.
  if (s.fields.empty()) out["type"] = {"object", "null"};
  return out;
}

std::string kind_words(const field& f, field_kind kind) {
  switch (kind) {
  case field_kind::integer:
    return f.high == 0 ? fmt::format("number, from {}", f.low)
           : f.low < 0 ? std::string{"number"}
                       : fmt::format("number, {}…{}", f.low, f.high);
  case field_kind::size:
    return f.low > 1 ? fmt::format("size, from {}", exact_bytes(static_cast<byte_count>(f.low)))
                     : "size";
  case field_kind::time_span:
    return f.low > 0
               ? fmt::format("duration, from {}", exact_duration(std::chrono::milliseconds{f.low}))
               : "duration";
  case field_kind::money:
    return "TFT";
  case field_kind::boolean:
    return "true, false";
  case field_kind::choice:
    return fmt::format("{}", fmt::join(f.choices, ", "));
  case field_kind::name:
    return "name";
  case field_kind::word:
    return "text";
  case field_kind::email:
    return "mail address";
  case field_kind::listen:
    return "IP:port";
  case field_kind::path:
    return "path¹";
  case field_kind::address:
    return "host:port¹ or unix:/path";
  case field_kind::http_url:
    return "URL¹";
  case field_kind::smtp_url:
    return "smtp URL¹";
  case field_kind::secret:
    return "text¹";
  case field_kind::table:
    return "map";
  case field_kind::size_table:
    return "size or map";
  case field_kind::list:
    return f.item == field_kind::table ? "list of maps" : "list of texts";
  case field_kind::grid:
    return "see below";
  }
  return "";
}

void rows(std::string& out, const section& s, const std::string& path) {
  for (const auto& f : s.fields) {
    auto at = path.empty() ? std::string{f.key} : path + "." + std::string{f.key};
    auto list = f.kind == field_kind::list && f.item == field_kind::table;
    auto fallback = f.required           ? std::string{"**required**"}
                    : f.fallback.empty() ? ""
                                         : fmt::format("{}", f.fallback);
    auto doc = std::string{f.doc};
    if (!f.example.empty()) doc += fmt::format(" (`{}`)", f.example);
    out += fmt::format("| `{}{}` | {} | {} | {} |\n", at, list ? "[]" : "", kind_words(f, f.kind),
                       fallback, doc);
    if (f.of != nullptr) rows(out, *f.of, list ? at + "[]" : at);
  }
}

} // namespace

std::string schema_json() {
  json out{{"$schema", "https://json-schema.org/draft/2020-12/schema"},
           {"title", "storage.yaml"},
           {"description", "What a quantum-safe storage volume should be: version 1"}};
  out.update(table_schema(root_section()));
  return out.dump(2) + "\n";
}

std::string reference_markdown() {
  std::string out = "| key | takes | default | what it is |\n|---|---|---|---|\n";
  rows(out, root_section(), "");
  return out;
}

} // namespace qs::spec
