#include "zdb/session_replies.hpp"

#include <algorithm>
#include <charconv>

#include <fmt/format.h>

namespace qs::zdb {

namespace {

template <class T>
T number_or_zero(std::string_view text) {
  T value{};
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

std::map<std::string, std::string, std::less<>> parse_lines(std::string_view text) {
  std::map<std::string, std::string, std::less<>> lines;
  while (!text.empty()) {
    auto end = std::min(text.find('\n'), text.size());
    auto line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.ends_with('\r')) line.remove_suffix(1);
    auto colon = line.find(':');
    if (colon == std::string_view::npos || line.starts_with('#')) continue;
    auto value = line.substr(colon + 1);
    if (value.starts_with(' ')) value.remove_prefix(1);
    lines.emplace(line.substr(0, colon), value);
  }
  return lines;
}

std::string_view line_of(const std::map<std::string, std::string, std::less<>>& lines,
                         std::string_view name) {
  auto it = lines.find(name);
  return it == lines.end() ? std::string_view{} : std::string_view{it->second};
}

} // namespace

server_info parse_info(std::string_view text) {
  server_info info;
  info.lines = parse_lines(text);
  info.instance_id = line_of(info.lines, "instance_id");
  info.boot_time = number_or_zero<std::int64_t>(line_of(info.lines, "boot_time"));
  auto list = line_of(info.lines, "extensions");
  while (!list.empty()) {
    auto end = std::min(list.find(' '), list.size());
    if (end > 0) info.extensions.emplace_back(list.substr(0, end));
    list.remove_prefix(std::min(end + 1, list.size()));
  }
  return info;
}

namespace_info parse_nsinfo(std::string_view text) {
  namespace_info info;
  info.lines = parse_lines(text);
  auto line = [&](std::string_view name) { return line_of(info.lines, name); };
  auto number = [&](std::string_view name) { return number_or_zero<std::uint64_t>(line(name)); };
  info.name = line("name");
  info.entries = number("entries");
  info.is_public = line("public") == "yes";
  info.has_password = line("password") == "yes";
  info.worm = line("worm") == "yes";
  info.locked = line("locked") == "yes";
  info.mode = line("mode");
  info.data_size_bytes = number("data_size_bytes");
  info.data_limits_bytes = number("data_limits_bytes");
  info.index_size_bytes = number("index_size_bytes");
  info.free_bytes = number("data_disk_freespace_bytes");
  return info;
}

error unexpected(std::string_view command, const reply& r) {
  constexpr std::string_view kinds[] = {"simple", "error", "integer", "bulk", "nil", "array"};
  return {errc::protocol, fmt::format("{}: a reply of the wrong kind ({})", command,
                                      kinds[static_cast<std::size_t>(r.kind)])};
}

on_reply expecting_ok(std::string_view command, callback<void> done) {
  return reading<void>(command, std::move(done), [command](reply& r) -> status {
    if (r.kind == reply_kind::simple) return {};
    return unexpected(command, r);
  });
}

result<scan_page> read_scan(reply& r) {
  if (r.kind != reply_kind::array || r.items.size() != 2 || !r.items[0].bulk ||
      r.items[1].kind != reply_kind::array)
    return unexpected("SCAN", r);
  scan_page page;
  page.cursor = r.items[0].string();
  page.items.reserve(r.items[1].items.size());
  for (auto& item : r.items[1].items) {
    if (item.kind != reply_kind::array || item.items.size() != 3 || !item.items[0].bulk ||
        item.items[1].kind != reply_kind::integer || item.items[2].kind != reply_kind::integer ||
        item.items[1].number < 0)
      return unexpected("SCAN", item);
    page.items.push_back({std::string{item.items[0].string()},
                          static_cast<std::uint64_t>(item.items[1].number), item.items[2].number});
  }
  return page;
}

error error_from_reply(std::string_view text) {
  struct row {
    std::string_view start;
    errc code;
  };
  // By the server's exact texts; the longest match is not needed, no row is a prefix of another's
  // meaning.
  static constexpr row rows[] = {
      {"Access denied", errc::access_denied},
      {"Namespace protected and private", errc::access_denied},
      {"Password too long", errc::access_denied},
      {"No space left on this namespace", errc::no_space},
      {"Namespace is temporarily", errc::refused},
      {"Namespace is in read-only mode", errc::refused},
      {"Namespace is protected by worm mode", errc::refused},
      {"Cannot delete a key when namespace is in worm mode", errc::refused},
      {"Permission denied", errc::refused},
      {"Flushing public namespace denied", errc::refused},
      {"Cannot remove", errc::refused},
      {"Cannot update default namespace", errc::refused},
      {"Cannot change mode of used namespace", errc::refused},
      {"Invalid key, only update authorized", errc::refused},
      {"Data files are gone", errc::data_lost},
      {"Your active namespace is not available anymore", errc::not_found},
      {"Namespace not found", errc::not_found},
      {"This namespace doesn't exists", errc::not_found},
      {"Key not found", errc::not_found},
      {"This namespace is not available", errc::already_exists},
      {"Command not supported", errc::unsupported},
      {"Command disabled", errc::unsupported},
      {"Unauthorized", errc::unsupported},
      {"Cannot write", errc::io},
      {"Namespace cannot be opened", errc::io}, // it is there: neither not_found nor lost
      {"Cannot delete key", errc::io},
      {"Could not", errc::io},
      {"Internal", errc::io},
      {"Try again", errc::busy},
      {"Too many clients", errc::busy},
  };
  auto code = errc::invalid_argument;
  for (auto& r : rows)
    if (text.starts_with(r.start)) {
      code = r.code;
      break;
    }
  return {code, fmt::format("the node says \"{}\"", text)};
}

} // namespace qs::zdb
