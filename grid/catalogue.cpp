#include "grid/catalogue.hpp"

#include <algorithm>
#include <array>
#include <cctype>
#include <set>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/diagnostic.hpp"
#include "base/posix.hpp"

namespace qs::grid {
namespace {

using nlohmann::json;

constexpr std::size_t hosts_max = 4096;
constexpr byte_count capacity_max = 1024 * tib;
const std::vector<std::string_view> host_keys{
    "id", "farm", "country", "region", "capacity", "price_per_gib_month", "available"};

struct farm {
  const char* name;
  const char* country;
  const char* region;
  const char* capacity;
  const char* price;
};

// Made up. Three hosts each.
constexpr std::array<farm, 8> farms{{
    {"greenfarm", "Belgium", "Europe", "2TiB", "0.05"},
    {"meuse", "Belgium", "Europe", "1TiB", "0.045"},
    {"alpenrack", "Switzerland", "Europe", "4TiB", "0.08"},
    {"jura", "Switzerland", "Europe", "2TiB", "0.075"},
    {"northwind", "Finland", "Europe", "4TiB", "0.035"},
    {"maple", "Canada", "North America", "2TiB", "0.04"},
    {"prairie", "Canada", "North America", "1TiB", "0.03"},
    {"merlion", "Singapore", "Asia", "2TiB", "0.06"},
}};
constexpr int hosts_per_farm = 3;

/// One host's fields, with every problem put on the list.
class host_reader {
public:
  host_reader(const json& from, std::string where, std::vector<std::string>& problems)
      : from_{from}, where_{std::move(where)}, problems_{problems} {}

  std::string text(const char* key, bool required) {
    auto it = from_.find(key);
    if (it == from_.end()) {
      if (required) problem(fmt::format("'{}' is missing", key));
      return {};
    }
    auto length = it->is_string() ? it->get_ref<const std::string&>().size() : 0;
    if (length == 0 || length > 64) {
      problem(fmt::format("'{}' must be a text of 1 to 64 characters", key));
      return {};
    }
    return it->get<std::string>();
  }

  byte_count capacity() {
    auto written = text("capacity", true);
    if (written.empty()) return 0;
    auto bytes = parse_bytes(written);
    if (!bytes)
      problem(fmt::format("'capacity': {}", bytes.err().message));
    else if (*bytes < gib || *bytes > capacity_max)
      problem("'capacity' must be between 1GiB and 1PiB");
    else
      return *bytes;
    return 0;
  }

  model::money price() {
    auto written = text("price_per_gib_month", true);
    if (written.empty()) return {};
    auto amount = model::parse_money(written);
    if (!amount)
      problem(fmt::format("'price_per_gib_month': {}", amount.err().message));
    else if (amount->units > 1000 * model::units_per_tft)
      problem("'price_per_gib_month' must be at most 1000 TFT");
    else
      return *amount;
    return {};
  }

  bool available() {
    auto it = from_.find("available");
    if (it == from_.end()) return true;
    if (it->is_boolean()) return it->get<bool>();
    problem("'available' must be true or false");
    return false;
  }

  void unknown_keys() {
    for (const auto& [key, value] : from_.items()) {
      if (std::find(host_keys.begin(), host_keys.end(), key) != host_keys.end()) continue;
      auto near = nearest(key, host_keys);
      problem(near.empty() ? fmt::format("unknown key '{}'", key)
                           : fmt::format("unknown key '{}'; did you mean '{}'?", key, near));
    }
  }

  void problem(std::string what) { problems_.push_back(fmt::format("{}: {}", where_, what)); }

private:
  const json& from_;
  std::string where_;
  std::vector<std::string>& problems_;
};

bool valid_id(std::string_view id) {
  return !id.empty() && id.size() <= 32 && std::all_of(id.begin(), id.end(), [](unsigned char c) {
    return std::islower(c) != 0 || std::isdigit(c) != 0 || c == '-' || c == '.' || c == '_';
  });
}

model::host read_host(const json& item, std::size_t index, std::set<std::string>& ids,
                      std::vector<std::string>& problems) {
  auto id = item.is_object() && item.contains("id") && item["id"].is_string()
                ? item["id"].get<std::string>()
                : "";
  host_reader in{item, id.empty() ? fmt::format("hosts[{}]", index) : fmt::format("host {}", id),
                 problems};
  model::host out;
  if (!item.is_object()) {
    in.problem("must be an object {\"id\": …, \"farm\": …}");
    return out;
  }
  out.id = in.text("id", true);
  if (!out.id.empty() && !valid_id(out.id))
    in.problem("'id' may have a-z 0-9 . _ - and at most 32 characters");
  if (!out.id.empty() && !ids.insert(out.id).second) in.problem("'id' is used twice");
  out.place = {in.text("farm", true), in.text("country", true), in.text("region", false)};
  out.capacity = in.capacity();
  out.free = out.capacity;
  out.price_per_gib_month = in.price();
  out.available = in.available();
  in.unknown_keys();
  return out;
}

error wrong(const std::vector<std::string>& problems) {
  return {errc::invalid_argument, fmt::format("{}", fmt::join(problems, "\n"))};
}

result<std::vector<model::host>> read_document(const json& document) {
  std::vector<std::string> problems;
  if (!document.is_object() || !document.contains("hosts") || !document["hosts"].is_array())
    return wrong({"the catalogue must be an object with a list of \"hosts\""});
  if (!document.contains("version") || document["version"] != 1)
    problems.emplace_back("\"version\" must be 1");
  for (const auto& [key, value] : document.items())
    if (key != "version" && key != "hosts")
      problems.push_back(fmt::format("unknown key '{}'", key));
  const auto& list = document["hosts"];
  if (list.size() > hosts_max) return wrong({fmt::format("more than {} hosts", hosts_max)});
  std::vector<model::host> out;
  std::set<std::string> ids;
  for (std::size_t i = 0; i < list.size(); ++i) out.push_back(read_host(list[i], i, ids, problems));
  if (!problems.empty()) return wrong(problems);
  return out;
}

} // namespace

std::string default_catalogue() {
  std::string out = "{\n  \"version\": 1,\n  \"hosts\": [\n";
  int number = 0;
  for (const auto& f : farms)
    for (int i = 0; i < hosts_per_farm; ++i) {
      ++number;
      out += fmt::format(
          "    {{\"id\": \"h{}\", \"farm\": \"{}\", \"country\": \"{}\", \"region\": \"{}\", "
          "\"capacity\": \"{}\", \"price_per_gib_month\": \"{}\"}}{}\n",
          number, f.name, f.country, f.region, f.capacity, f.price,
          number == static_cast<int>(farms.size()) * hosts_per_farm ? "" : ",");
    }
  return out + "  ]\n}\n";
}

result<std::vector<model::host>> parse_catalogue(std::string_view text) {
  try {
    return read_document(json::parse(text));
  } catch (const json::exception& e) {
    return error{errc::invalid_argument, fmt::format("not valid JSON: {}", e.what())};
  }
}

result<std::vector<model::host>> load_catalogue(const std::filesystem::path& grid, bool make) {
  auto path = grid / "catalogue.json";
  auto text = read_file(path, 4 * mib);
  if (!text && text.err().sys == ENOENT) {
    if (!make) return parse_catalogue(default_catalogue());
    auto made = create_file_atomic(path, as_bytes(default_catalogue()), 0600);
    if (!made && made.err().sys != EEXIST && made.err().code != errc::already_exists)
      return std::move(made).err();
    text = read_file(path, 4 * mib);
  }
  if (!text) return std::move(text).err();
  auto hosts = parse_catalogue(*text);
  if (!hosts) return std::move(hosts).err().with(path.string());
  return hosts;
}

model::money monthly_price(model::money per_gib_month, byte_count size) {
  __extension__ using wide = unsigned __int128;
  auto units = (static_cast<wide>(per_gib_month.units) * size + gib - 1) / gib;
  return {static_cast<std::int64_t>(units)};
}

} // namespace qs::grid
