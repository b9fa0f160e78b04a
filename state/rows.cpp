#include "state/rows.hpp"

#include <charconv>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace qs::state {
namespace {

using json = nlohmann::json;

constexpr std::string_view verbs[] = {"reserve", "resize", "cancel"};
constexpr std::string_view progresses[] = {"written", "submitted", "unknown",
                                           "done",    "refused",   "absent"};

template <class E, std::size_t N>
std::optional<E> from_name(const std::string_view (&names)[N], std::string_view text) {
  for (std::size_t i = 0; i < N; ++i)
    if (names[i] == text) return static_cast<E>(i);
  return std::nullopt;
}

error damaged(database& db, std::string_view what) {
  return {errc::corrupt,
          fmt::format("{}: {}; put back a copy of it", db.file().string(), what)};
}

json to_json(const std::vector<model::group>& groups) {
  auto out = json::array();
  for (const auto& g : groups) {
    auto slots = json::array();
    for (auto id : g.slots) slots.push_back(id.number);
    out.push_back({{"id", g.id.number}, {"generation", g.generation}, {"slots", std::move(slots)}});
  }
  return out;
}

json to_json(const std::vector<model::group_health>& health) {
  auto out = json::array();
  for (const auto& h : health)
    out.push_back({{"id", h.id.number},
                   {"generation", h.generation},
                   {"segments", h.segments},
                   {"older", h.segments_on_older_generation},
                   {"missing", h.segments_missing_shards},
                   {"redundancy", h.redundancy_left_min},
                   {"stored", h.stored_bytes}});
  return out;
}

} // namespace

// -- meta
// --------------------------------------------------------------------------------------------------------------

result<std::optional<std::string>> meta(database& db, std::string_view key) {
  QS_TRY_ASSIGN(auto query, db.prepare("SELECT value FROM meta WHERE key = ?"));
  query.bind(key);
  QS_TRY_ASSIGN(auto found, query.step());
  if (!found) return std::optional<std::string>{};
  return std::optional<std::string>{query.text(0)};
}

status put_meta(database& db, std::string_view key, std::string_view value) {
  QS_TRY_ASSIGN(auto insert, db.prepare("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)"));
  return insert.bind(key).bind(value).run();
}

result<std::uint64_t> meta_number(database& db, std::string_view key) {
  QS_TRY_ASSIGN(auto text, meta(db, key));
  std::uint64_t value = 0;
  if (!text) return value;
  auto [at, code] = std::from_chars(text->data(), text->data() + text->size(), value);
  if (code != std::errc{} || at != text->data() + text->size())
    return damaged(db, fmt::format("{} is no number", key));
  return value;
}

status put_meta_number(database& db, std::string_view key, std::uint64_t value) {
  return put_meta(db, key, fmt::format("{}", value));
}

// -- nodes
// -------------------------------------------------------------------------------------------------------------

namespace {

constexpr std::string_view node_columns =
    "number, incarnation, provider, host, farm, country, region, size, price_limit, price, state, "
    "reason, since, address, port, "
    "ns, identity, replaces, replaced_by";

result<model::recorded_node> read_node(database& db, const statement& row) {
  model::recorded_node n;
  n.id.number = static_cast<std::uint32_t>(row.integer(0));
  n.incarnation = static_cast<std::uint32_t>(row.integer(1));
  n.provider = row.text(2);
  n.host = row.text(3);
  n.place = {row.text(4), row.text(5), row.text(6)};
  n.size = static_cast<byte_count>(row.integer(7));
  n.price_limit = {row.integer(8)};
  n.price = {row.integer(9)};
  auto state = model::parse_node_state(row.text(10));
  if (!state)
    return damaged(db, fmt::format("node {} is in a state '{}' that does not exist",
                                   to_string(n.id), row.text(10)));
  n.state = *state;
  n.reason = row.text(11);
  n.since = from_millis(row.integer(12));
  n.where = {row.text(13), static_cast<std::uint16_t>(row.integer(14)), row.text(15)};
  n.identity = row.blob(16);
  if (!row.is_null(17)) n.replaces = model::node_id{static_cast<std::uint32_t>(row.integer(17))};
  if (!row.is_null(18)) n.replaced_by = model::node_id{static_cast<std::uint32_t>(row.integer(18))};
  return n;
}

} // namespace

result<std::optional<model::recorded_node>> get_node(database& db, model::node_id id) {
  QS_TRY_ASSIGN(auto query,
                db.prepare(fmt::format("SELECT {} FROM nodes WHERE number = ?", node_columns)));
  query.bind(static_cast<std::int64_t>(id.number));
  QS_TRY_ASSIGN(auto found, query.step());
  if (!found) return std::optional<model::recorded_node>{};
  QS_TRY_ASSIGN(auto node, read_node(db, query));
  return std::optional{std::move(node)};
}

status put_node(database& db, const model::recorded_node& n) {
  QS_TRY_ASSIGN(
      auto insert,
      db.prepare(fmt::format(
          "INSERT OR REPLACE INTO nodes ({}) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
          node_columns)));
  auto bind_id = [&](const std::optional<model::node_id>& id) {
    if (id)
      insert.bind(static_cast<std::int64_t>(id->number));
    else
      insert.bind_null();
  };
  insert.bind(static_cast<std::int64_t>(n.id.number))
      .bind(static_cast<std::int64_t>(n.incarnation));
  insert.bind(n.provider)
      .bind(n.host)
      .bind(n.place.farm)
      .bind(n.place.country)
      .bind(n.place.region);
  insert.bind(static_cast<std::int64_t>(n.size)).bind(n.price_limit.units).bind(n.price.units);
  insert.bind(to_string(n.state)).bind(n.reason).bind(to_millis(n.since));
  insert.bind(n.where.address)
      .bind(static_cast<std::int64_t>(n.where.port))
      .bind(n.where.ns)
      .bind_blob(n.identity);
  bind_id(n.replaces);
  bind_id(n.replaced_by);
  return insert.run();
}

// -- intents
// -----------------------------------------------------------------------------------------------------------

status put_intent(database& db, const model::intent& i) {
  QS_TRY_ASSIGN(auto insert, db.prepare("INSERT OR REPLACE INTO intents (number, node, "
                                        "incarnation, verb, progress, request, detail, "
                                        "written_at) VALUES (?,?,?,?,?,?,?,?)"));
  return insert.bind(static_cast<std::int64_t>(i.number))
      .bind(static_cast<std::int64_t>(i.node.number))
      .bind(static_cast<std::int64_t>(i.incarnation))
      .bind(verbs[static_cast<std::size_t>(i.what)])
      .bind(progresses[static_cast<std::size_t>(i.state)])
      .bind(i.request)
      .bind(i.detail)
      .bind(to_millis(i.written_at))
      .run();
}

result<model::intent> read_intent(const statement& row) {
  model::intent i;
  i.number = static_cast<std::uint64_t>(row.integer(0));
  i.node.number = static_cast<std::uint32_t>(row.integer(1));
  i.incarnation = static_cast<std::uint32_t>(row.integer(2));
  auto verb = from_name<model::intent::verb>(verbs, row.text(3));
  auto progress = from_name<model::intent::progress>(progresses, row.text(4));
  if (!verb || !progress)
    return error{errc::corrupt,
                 fmt::format("intent {} of the state database cannot be read", i.number)};
  i.what = *verb;
  i.state = *progress;
  i.request = row.text(5);
  i.detail = row.text(6);
  i.written_at = from_millis(row.integer(7));
  return i;
}

// -- the volume's summary
// ----------------------------------------------------------------------------------------------

status put_summary(database& db, const model::volume_summary& s) {
  json doc{{"created", s.created},
           {"data_shards", s.data_shards},
           {"parity_shards", s.parity_shards},
           {"capacity", s.capacity},
           {"used_bytes", s.used_bytes},
           {"bytes_at_risk", s.bytes_at_risk},
           {"groups", to_json(s.groups)},
           {"health", to_json(s.health)}};
  QS_TRY_ASSIGN(auto insert,
                db.prepare("INSERT OR REPLACE INTO summary (id, document) VALUES (1, ?)"));
  return insert.bind(doc.dump()).run();
}

namespace {

result<model::volume_summary> load_summary(database& db) {
  QS_TRY_ASSIGN(auto query, db.prepare("SELECT document FROM summary WHERE id = 1"));
  QS_TRY_ASSIGN(auto found, query.step());
  model::volume_summary s;
  if (!found) return s;
  try {
    auto doc = json::parse(query.text(0));
    s.created = doc.at("created").get<bool>();
    s.data_shards = doc.at("data_shards").get<std::uint32_t>();
    s.parity_shards = doc.at("parity_shards").get<std::uint32_t>();
    s.capacity = doc.at("capacity").get<byte_count>();
    s.used_bytes = doc.at("used_bytes").get<byte_count>();
    s.bytes_at_risk = doc.at("bytes_at_risk").get<byte_count>();
    for (const auto& g : doc.at("groups")) {
      model::group group{
          {g.at("id").get<std::uint32_t>()}, g.at("generation").get<std::uint32_t>(), {}};
      for (const auto& slot : g.at("slots")) group.slots.push_back({slot.get<std::uint32_t>()});
      s.groups.push_back(std::move(group));
    }
    for (const auto& h : doc.at("health"))
      s.health.push_back({{h.at("id").get<std::uint32_t>()},
                          h.at("generation").get<std::uint32_t>(),
                          h.at("segments").get<std::uint64_t>(),
                          h.at("older").get<std::uint64_t>(),
                          h.at("missing").get<std::uint64_t>(),
                          h.at("redundancy").get<std::uint32_t>(),
                          h.at("stored").get<byte_count>()});
  } catch (const json::exception&) {
    return damaged(db, "the volume's summary cannot be read");
  }
  return s;
}

/// Read-only eyes may find a state that no engine has brought up to date yet.
result<std::map<model::host_key, wall_time>> load_refusals(database& db) {
  std::map<model::host_key, wall_time> out;
  QS_TRY_ASSIGN(auto version, db.number("PRAGMA user_version"));
  if (version < 2) return out;
  QS_TRY_ASSIGN(auto query, db.prepare("SELECT provider, host, at FROM refused_hosts"));
  for (;;) {
    QS_TRY_ASSIGN(auto more, query.step());
    if (!more) return out;
    out[{query.text(0), query.text(1)}] = from_millis(query.integer(2));
  }
}

} // namespace

// -- all of it
// ---------------------------------------------------------------------------------------------------------

result<model::recorded> load_recorded(database& db) {
  model::recorded r;
  QS_TRY_ASSIGN(auto lineage, meta(db, "lineage"));
  if (!lineage) return damaged(db, "it has no lineage");
  r.lineage = *lineage;
  QS_TRY_ASSIGN(r.serial, meta_number(db, "serial"));
  QS_TRY_ASSIGN(auto next, meta_number(db, "next_node_number"));
  r.next_node_number = static_cast<std::uint32_t>(next);
  QS_TRY_ASSIGN(auto protect, meta_number(db, "protect"));
  QS_TRY_ASSIGN(auto suspended, meta_number(db, "suspended"));
  QS_TRY_ASSIGN(auto cancelled, meta_number(db, "cancelled"));
  QS_TRY_ASSIGN(auto destroying, meta_number(db, "destroying"));
  QS_TRY_ASSIGN(auto mount_wanted, meta_number(db, "mount_wanted"));
  r.protect = protect != 0;
  r.suspended = suspended != 0;
  r.cancelled = cancelled != 0;
  r.destroying = destroying != 0;
  r.mount_wanted = mount_wanted != 0;
  QS_TRY_ASSIGN(auto text, meta(db, "accepted_text"));
  if (text) {
    model::accepted_spec spec;
    spec.text = std::move(*text);
    QS_TRY_ASSIGN(auto hash, meta(db, "accepted_hash"));
    spec.hash = hash.value_or("");
    QS_TRY_ASSIGN(spec.generation, meta_number(db, "accepted_generation"));
    QS_TRY_ASSIGN(auto at, meta_number(db, "accepted_at"));
    spec.accepted_at = from_millis(static_cast<std::int64_t>(at));
    r.accepted = std::move(spec);
  }
  QS_TRY_ASSIGN(auto query,
                db.prepare(fmt::format("SELECT {} FROM nodes ORDER BY number", node_columns)));
  for (;;) {
    QS_TRY_ASSIGN(auto more, query.step());
    if (!more) break;
    QS_TRY_ASSIGN(auto node, read_node(db, query));
    r.nodes.push_back(std::move(node));
  }
  QS_TRY_ASSIGN(r.volume, load_summary(db));
  QS_TRY_ASSIGN(r.refused_hosts, load_refusals(db));
  return r;
}

result<std::vector<model::event>> load_events(database& db, std::uint64_t after, std::size_t most) {
  QS_TRY_ASSIGN(auto query, db.prepare("SELECT number, at, level, kind, subject, message FROM "
                                       "events WHERE number > ? ORDER BY number LIMIT ?"));
  query.bind(static_cast<std::int64_t>(after)).bind(static_cast<std::int64_t>(most));
  std::vector<model::event> out;
  for (;;) {
    QS_TRY_ASSIGN(auto more, query.step());
    if (!more) return out;
    out.push_back({static_cast<std::uint64_t>(query.integer(0)), from_millis(query.integer(1)),
                   query.text(2), query.text(3), query.text(4), query.text(5)});
  }
}

} // namespace qs::state
