#include "actors/references.hpp"

#include <nlohmann/json.hpp>

#include "codec/seal.hpp"

namespace qs::actors {
namespace {

codec::seal_place place(const codec::volume_keys& keys) {
  return {codec::seal_kind::local_secret, keys.id(), {}, 0};
}

} // namespace

std::string seal_references(const codec::volume_keys& keys, const spec::reference_values& values,
                            random_source& random) {
  if (values.empty()) return {};
  auto text = nlohmann::json(values).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  return to_hex(codec::seal(keys.local_secrets(), place(keys), as_bytes(text), random));
}

spec::reference_values open_references(const codec::volume_keys& keys, const std::string& sealed) {
  auto bytes = from_hex(sealed);
  if (!bytes || bytes->empty()) return {};
  auto plain = codec::open(keys.local_secrets(), place(keys), *bytes);
  if (!plain.ok()) return {};
  return parse_references(to_string(byte_span{*plain})).value_or({});
}

result<spec::reference_values> parse_references(const std::string& text) {
  if (text.empty()) return spec::reference_values{};
  auto parsed = nlohmann::json::parse(text, nullptr, false);
  if (!parsed.is_object()) return error{errc::invalid_argument, "references must be a JSON object"};
  spec::reference_values out;
  for (auto& [key, value] : parsed.items()) {
    if (!value.is_string()) return error{errc::invalid_argument, "references must be strings"};
    out[key] = value.get<std::string>();
  }
  return out;
}

} // namespace qs::actors
