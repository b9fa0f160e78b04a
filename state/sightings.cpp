#include "state/sightings.hpp"

#include <cerrno>

#include <nlohmann/json.hpp>

#include "base/bytes.hpp"
#include "base/posix.hpp"

namespace qs::state {

namespace {
constexpr int format = 1;
std::filesystem::path path_in(const std::filesystem::path& directory) {
  return directory / "sightings.json";
}
} // namespace

result<sightings> read_sightings(const std::filesystem::path& state_directory) {
  auto path = path_in(state_directory);
  auto text = read_file(path);
  if (!text.ok()) {
    if (text.err().sys == ENOENT || text.err().code == errc::not_found) return sightings{};
    return std::move(text).err();
  }
  auto damaged = [&] { return error{errc::corrupt, path.string() + " is damaged"}; };
  auto document = nlohmann::json::parse(*text, nullptr, false);
  if (!document.is_object() || document.value("format", 0) != format ||
      !document.contains("nodes") || !document["nodes"].is_array())
    return damaged();
  sightings out;
  for (const auto& n : document["nodes"]) {
    if (!n.is_object() || !n.contains("node") || !n["node"].is_number_unsigned() ||
        !n.contains("instance") || !n["instance"].is_string() || !n.contains("seen_ms") ||
        !n["seen_ms"].is_number_integer())
      return damaged();
    out[{n["node"].get<std::uint32_t>()}] = {
        n["instance"].get<std::string>(),
        wall_time{std::chrono::milliseconds{n["seen_ms"].get<std::int64_t>()}}};
  }
  return out;
}

status write_sightings(const std::filesystem::path& state_directory, const sightings& seen) {
  auto nodes = nlohmann::json::array();
  for (const auto& [node, s] : seen)
    nodes.push_back({{"node", node.number},
                     {"instance", s.instance},
                     {"seen_ms", std::chrono::duration_cast<std::chrono::milliseconds>(
                                     s.seen.time_since_epoch())
                                     .count()}});
  // What a server calls itself need not be UTF-8.
  auto text = nlohmann::json{{"format", format}, {"nodes", std::move(nodes)}}.dump(
      1, ' ', false, nlohmann::json::error_handler_t::replace);
  return write_file_atomic(path_in(state_directory), as_bytes(text));
}

void remove_sightings(const std::filesystem::path& state_directory) noexcept {
  std::error_code ignored;
  std::filesystem::remove(path_in(state_directory), ignored);
}

} // namespace qs::state
