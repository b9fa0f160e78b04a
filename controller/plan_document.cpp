// A plan as bytes: its hash, its JSON for scripts, and the saved plan.
#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <sodium.h>

#include "base/bytes.hpp"
#include "controller/render.hpp"

namespace qs::controller {
namespace {

using json = nlohmann::ordered_json;

inline constexpr int document_version = 1;

void put_row(byte_writer& w, const model::recorded_node& r) {
  w.put(r.id.number).put(r.incarnation).put_sized(r.provider).put_sized(r.host);
  w.put_sized(r.place.farm).put_sized(r.place.country).put_sized(r.place.region);
  w.put(r.size)
      .put(static_cast<std::uint64_t>(r.price_limit.units))
      .put(static_cast<std::uint64_t>(r.price.units));
  w.put(static_cast<std::uint8_t>(r.state)).put_sized(r.reason);
  w.put(static_cast<std::uint64_t>(r.since.time_since_epoch().count()));
  w.put(r.replaces ? r.replaces->number : 0).put(r.replaced_by ? r.replaced_by->number : 0);
}

/// What a provider or a node said may be anything: bytes that are no UTF-8 are replaced, never
/// thrown at.
std::string text_of(const json& doc) {
  return doc.dump(2, ' ', false, json::error_handler_t::replace) + "\n";
}

json action_json(const action& a) {
  json out{{"kind", to_string(a.kind)}, {"address", a.address}, {"reason", a.reason}};
  if (!a.host.empty()) {
    out["host"] = a.host;
    out["farm"] = a.place.farm;
    out["country"] = a.place.country;
  }
  if (a.size != 0) out["size"] = a.size;
  out["bytes_to_move"] = a.bytes_to_move;
  out["price_per_month"] = model::to_decimal(a.price_per_month);
  out["depends_on"] = a.depends_on;
  if (a.destroys_data) out["destroys_data"] = true;
  return out;
}

json plan_json(const plan& p) {
  auto actions = json::array();
  for (const auto& a : p.actions) actions.push_back(action_json(a));
  const auto& s = p.summary;
  return json{{"format_version", document_version},
              {"plan_hash", p.hash},
              {"serial", p.serial},
              {"actions", std::move(actions)},
              {"summary",
               {{"add", s.add},
                {"change", s.change},
                {"replace", s.replace},
                {"destroy", s.destroy},
                {"unknown", s.unknown},
                {"bytes_to_move", s.bytes_to_move},
                {"usable_bytes_gained", s.usable_bytes_gained},
                {"worst_redundancy", s.worst_redundancy},
                {"price_per_month", model::to_decimal(s.price_per_month)}}},
              {"drift", p.drift}};
}

/// Everything that plan_json does not carry exactly, for the way back.
json exact_json(const plan& p) {
  auto out = plan_json(p);
  out["lineage"] = p.lineage;
  out["spec_hash"] = p.spec_hash;
  out["spec_text"] = p.spec_text;
  out["next_node_number"] = p.next_node_number;
  out["needs_typed_name"] = p.needs_typed_name;
  for (std::size_t i = 0; i < p.actions.size(); ++i) {
    const auto& a = p.actions[i];
    out["actions"][i]["effect"] = static_cast<int>(a.effect);
    out["actions"][i]["node"] = a.node.number;
    out["actions"][i]["place"] = {a.place.farm, a.place.country, a.place.region};
  }
  auto rows = json::array();
  for (const auto& r : p.rows)
    rows.push_back({{"number", r.id.number},
                    {"incarnation", r.incarnation},
                    {"provider", r.provider},
                    {"host", r.host},
                    {"place", {r.place.farm, r.place.country, r.place.region}},
                    {"size", r.size},
                    {"price_limit", model::to_decimal(r.price_limit)},
                    {"price", model::to_decimal(r.price)},
                    {"state", to_string(r.state)},
                    {"reason", r.reason},
                    {"since", r.since.time_since_epoch().count()},
                    {"replaces", r.replaces ? r.replaces->number : 0},
                    {"replaced_by", r.replaced_by ? r.replaced_by->number : 0}});
  out["rows"] = std::move(rows);
  return out;
}

model::location place_of(const json& j) {
  return {j.at(0).get<std::string>(), j.at(1).get<std::string>(), j.at(2).get<std::string>()};
}

model::money money_of(const json& j) {
  auto parsed = model::parse_money(j.get<std::string>());
  return parsed.ok() ? *parsed
                     : model::money{}; // a changed amount changes the hash, which is checked
}

plan plan_of(const json& doc) {
  plan p;
  p.hash = doc.at("plan_hash").get<std::string>();
  p.serial = doc.at("serial").get<std::uint64_t>();
  p.lineage = doc.at("lineage").get<std::string>();
  p.spec_hash = doc.at("spec_hash").get<std::string>();
  p.spec_text = doc.at("spec_text").get<std::string>();
  p.next_node_number = doc.at("next_node_number").get<std::uint32_t>();
  p.needs_typed_name = doc.at("needs_typed_name").get<bool>();
  p.drift = doc.at("drift").get<std::vector<std::string>>();
  const auto& s = doc.at("summary");
  p.summary = {s.at("add").get<int>(),
               s.at("change").get<int>(),
               s.at("replace").get<int>(),
               s.at("destroy").get<int>(),
               s.at("unknown").get<int>(),
               s.at("bytes_to_move").get<byte_count>(),
               s.at("usable_bytes_gained").get<std::int64_t>(),
               s.at("worst_redundancy").get<int>(),
               money_of(s.at("price_per_month"))};
  for (const auto& j : doc.at("actions")) {
    action a;
    for (int k = 0; k <= static_cast<int>(action_kind::adopt_node); ++k)
      if (j.at("kind").get<std::string>() == to_string(static_cast<action_kind>(k)))
        a.kind = static_cast<action_kind>(k);
    a.effect = static_cast<action_effect>(j.at("effect").get<int>() % 5);
    a.address = j.at("address").get<std::string>();
    a.reason = j.at("reason").get<std::string>();
    a.node.number = j.at("node").get<std::uint32_t>();
    a.host = j.value("host", "");
    a.place = place_of(j.at("place"));
    a.size = j.value("size", byte_count{0});
    a.bytes_to_move = j.at("bytes_to_move").get<byte_count>();
    a.price_per_month = money_of(j.at("price_per_month"));
    a.depends_on = j.at("depends_on").get<std::vector<std::string>>();
    a.destroys_data = j.value("destroys_data", false);
    p.actions.push_back(std::move(a));
  }
  for (const auto& j : doc.at("rows")) {
    model::recorded_node r;
    r.id.number = j.at("number").get<std::uint32_t>();
    r.incarnation = j.at("incarnation").get<std::uint32_t>();
    r.provider = j.at("provider").get<std::string>();
    r.host = j.at("host").get<std::string>();
    r.place = place_of(j.at("place"));
    r.size = j.at("size").get<byte_count>();
    r.price_limit = money_of(j.at("price_limit"));
    r.price = money_of(j.at("price"));
    r.state = model::parse_node_state(j.at("state").get<std::string>())
                  .value_or(model::node_state::planned);
    r.reason = j.at("reason").get<std::string>();
    r.since = wall_time{std::chrono::milliseconds{j.at("since").get<std::int64_t>()}};
    if (auto n = j.at("replaces").get<std::uint32_t>(); n != 0) r.replaces = model::node_id{n};
    if (auto n = j.at("replaced_by").get<std::uint32_t>(); n != 0)
      r.replaced_by = model::node_id{n};
    p.rows.push_back(std::move(r));
  }
  return p;
}

} // namespace

std::string hash_of(const plan& p) {
  buffer in;
  byte_writer w{in};
  auto count = [&](std::size_t n) { w.put(static_cast<std::uint32_t>(n)); };
  w.put_sized(std::string_view{"qs plan 1"})
      .put(p.serial)
      .put_sized(p.lineage)
      .put_sized(p.spec_hash)
      .put_sized(p.spec_text);
  count(p.actions.size());
  for (const auto& a : p.actions) {
    w.put(static_cast<std::uint8_t>(a.kind))
        .put(static_cast<std::uint8_t>(a.effect))
        .put_sized(a.address)
        .put_sized(a.reason);
    w.put(a.node.number)
        .put_sized(a.host)
        .put_sized(a.place.farm)
        .put_sized(a.place.country)
        .put_sized(a.place.region);
    w.put(a.size).put(a.bytes_to_move).put(static_cast<std::uint64_t>(a.price_per_month.units));
    count(a.depends_on.size());
    for (const auto& d : a.depends_on) w.put_sized(d);
    w.put(static_cast<std::uint8_t>(a.destroys_data ? 1 : 0));
  }
  count(p.drift.size());
  for (const auto& d : p.drift) w.put_sized(d);
  const auto& s = p.summary;
  for (auto n : {s.add, s.change, s.replace, s.destroy, s.unknown, s.worst_redundancy})
    w.put(static_cast<std::uint32_t>(n));
  w.put(s.bytes_to_move)
      .put(static_cast<std::uint64_t>(s.usable_bytes_gained))
      .put(static_cast<std::uint64_t>(s.price_per_month.units));
  count(p.rows.size());
  for (const auto& r : p.rows) put_row(w, r);
  w.put(p.next_node_number).put(static_cast<std::uint8_t>(p.needs_typed_name ? 1 : 0));
  std::array<std::byte, 32> out{};
  crypto_generichash(uchars(mutable_byte_span{out}), out.size(), uchars(byte_span{in}), in.size(),
                     nullptr, 0);
  return to_hex(out);
}

std::string to_json(const plan& p) { return text_of(plan_json(p)); }

std::string to_json(const std::vector<refusal>& refusals) {
  auto errors = json::array();
  for (const auto& r : refusals)
    errors.push_back({{"refused_by_rule", r.by_rule}, {"message", r.message}});
  return text_of(json{{"format_version", document_version}, {"errors", std::move(errors)}});
}

std::string to_document(const plan& p) {
  auto out = exact_json(p);
  out["document"] = "qs plan";
  return text_of(out);
}

result<plan> from_document(std::string_view text) {
  try {
    auto doc = json::parse(text);
    if (!doc.is_object() || doc.value("document", "") != "qs plan")
      return error{errc::invalid_argument, "this is no plan saved by 'qs diff -o'"};
    if (doc.at("format_version").get<int>() > document_version)
      return error{errc::version_mismatch,
                   "this plan was saved by a newer qs: make it again with this one"};
    auto p = plan_of(doc);
    if (hash_of(p) != p.hash)
      return error{errc::corrupt,
                   "this plan was changed after it was saved: make it again with 'qs diff -o'"};
    return p;
  } catch (const json::exception&) {
    return error{errc::invalid_argument, "this is no plan saved by 'qs diff -o'"};
  }
}

} // namespace qs::controller
