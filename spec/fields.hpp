// fields: the one table of storage.yaml's keys: name, kind of value, default, limits, what it is
// for. Internal to spec. The parser, the suggestions for misspelt keys, the JSON Schema and
// docs/storage-yaml.md all come from it.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace qs::spec {

enum class field_kind {
  integer,   ///< low…high
  size,      ///< bytes, low…
  time_span, ///< milliseconds, low…
  money,     ///< TFT
  boolean,
  choice, ///< one of `choices`
  name,   ///< [a-z0-9-]{1,32}
  word,   ///< any text that is not empty; no references
  email,
  listen,     ///< IP:port of this machine
  path,       ///< references; absolute once replaced
  address,    ///< references; host:port
  http_url,   ///< references; http:// or https://
  smtp_url,   ///< references; smtp:// or smtps://
  secret,     ///< references; any text that is not empty
  table,      ///< a map with the fields of `of`
  size_table, ///< a size, or a map with the fields of `of`
  list,       ///< of `item`s (of `of`)
  grid,       ///< "local", a map with one field of `of`, or a list of these
};

struct section;

struct field {
  std::string_view key = {};
  field_kind kind = field_kind::word;
  std::string_view fallback = {}; ///< the default as written, or in words; "" = none
  std::string_view doc = {};
  bool required = false;
  const section* of = nullptr;
  field_kind item = field_kind::word; ///< of a list
  std::int64_t low = 0;
  std::int64_t high = 0; ///< 0 = no limit
  std::vector<std::string_view> choices = {};
  std::string_view example = "";
};

struct section {
  std::string_view name = {};
  std::vector<field> fields = {};
  bool exactly_one = false; ///< one field of all
};

/// The whole file.
const section& root_section();

inline constexpr int nodes_max = 1024;

} // namespace qs::spec
