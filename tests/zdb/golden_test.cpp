// Whole conversations with the real server: tests/golden/zdb/*.talk holds what is said and what is
// answered. QS_UPDATE_GOLDEN=1 writes the answers anew.
//
//   options: admin=boss protect      of the server, in the first lines
//   a> SET "k\x00" v                 client a says; {0} is the first bulk of its last answer
//   a names> INFO                    only the names of the lines in the answer count
//   a mode> NSINFO default           only the line "mode: …" of the answer counts
//   a send> WAIT SET                 nothing is read yet
//   a<                               now it is
#include "support/zdb_server.hpp"

#include <cstdlib>
#include <fstream>
#include <map>
#include <sstream>

#include "base/log.hpp"
#include "zdb/commands.hpp"
#include "zdb/resp.hpp"

namespace qs::zdb {
namespace {

std::string shown(std::string_view bytes) {
  std::string out = "\"";
  for (auto c : bytes) {
    auto u = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\')
      (out += '\\') += c;
    else if (u < 32 || u >= 127)
      out += fmt::format("\\x{:02x}", u);
    else
      out += c;
  }
  return out + "\"";
}

std::string shown(const reply& r) {
  switch (r.kind) {
  case reply_kind::simple:
    return "+" + r.text;
  case reply_kind::error:
    return "-" + r.text;
  case reply_kind::integer:
    return fmt::format(":{}", r.number);
  case reply_kind::nil:
    return "nil";
  case reply_kind::bulk:
    return shown(r.string());
  case reply_kind::array:
    break;
  }
  std::string out = "[";
  for (auto& i : r.items) out += (out.size() > 1 ? ", " : "") + shown(i);
  return out + "]";
}

/// "a: 1\nb: 2" becomes "a b".
std::string names_of(std::string_view text) {
  std::istringstream in{std::string{text}};
  std::string out;
  for (std::string line; std::getline(in, line);) {
    auto colon = line.find(':');
    auto name = colon == std::string::npos ? line : line.substr(0, colon);
    out += (out.empty() ? "" : " | ") + name;
  }
  return out;
}

/// Of "a: 1\nb: 2", "a: 1".
std::string line_of(std::string_view text, const std::string& name) {
  std::istringstream in{std::string{text}};
  for (std::string line; std::getline(in, line);)
    if (line.starts_with(name + ": ")) return line;
  return "(no line " + name + ")";
}

std::vector<std::string> words_of(std::string_view line, const std::string& first) {
  std::vector<std::string> out;
  for (std::size_t i = 0; i < line.size();) {
    if (line[i] == ' ') {
      ++i;
      continue;
    }
    std::string word;
    auto quoted = line[i] == '"';
    if (quoted) ++i;
    for (; i < line.size() && line[i] != (quoted ? '"' : ' '); ++i) {
      if (quoted && line[i] == '\\' && line[i + 1] == 'x') {
        word += static_cast<char>(std::stoi(std::string{line.substr(i + 2, 2)}, nullptr, 16));
        i += 3;
      } else if (quoted && line[i] == '\\') {
        word += line[++i];
      } else {
        word += line[i];
      }
    }
    if (quoted) ++i;
    // "k*200" is two hundred of them.
    if (auto star = word.find('*'); !quoted && star == 1 && word.size() > 2)
      word = std::string(std::stoul(word.substr(2)), word[0]);
    out.push_back(word == "{0}" ? first : word);
  }
  return out;
}

class speaker {
public:
  explicit speaker(const std::string& address) : socket_{address} {}
  /// `first_ping`: what is said has been worked on when this returns.
  void say(const std::vector<std::string>& words, bool first_ping) {
    std::string out = first_ping ? command({"PING"}) : std::string{};
    out += fmt::format("*{}\r\n", words.size());
    for (auto& w : words) out += fmt::format("${}\r\n{}\r\n", w.size(), w);
    socket_.send(out);
    if (first_ping) CHECK(hear({}) == "+PONG");
  }
  /// `of`: all of it, its "names", or the line of this name.
  std::string hear(const std::string& of) {
    std::optional<reply> got;
    while (!got) {
      auto byte = socket_.receive(1); // byte by byte: nothing of the next reply is taken
      if (byte.empty()) return "(closed)";
      REQUIRE(parser_.feed(as_bytes(byte), [&](reply&& r) { got = std::move(r); }).ok());
    }
    if (got->kind == reply_kind::bulk) first = got->string();
    if (got->kind == reply_kind::array && !got->items.empty()) first = got->items[0].string();
    if (of.empty()) return shown(*got);
    return of == "names" ? names_of(got->string()) : line_of(got->string(), of);
  }
  std::string first;

private:
  raw_socket socket_;
  reply_parser parser_;
};

void set_options(server_options& o, std::string_view words) {
  for (auto& w : words_of(words, "")) {
    if (w.starts_with("admin="))
      o.admin_password = w.substr(6);
    else if (w == "protect")
      o.protect = true;
    else if (w == "hide")
      o.hide_namespaces = true;
    else if (w == "seq")
      o.mode = key_mode::sequential;
    else
      FAIL("unknown option ", w);
  }
}

void run_talk(const std::filesystem::path& path) {
  CAPTURE(path.string());
  std::ifstream in{path};
  REQUIRE(in.good());
  std::vector<std::string> lines;
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  temporary_directory dir;
  auto o = local_options(dir.path);
  for (auto& l : lines)
    if (l.starts_with("options: ")) set_options(o, std::string_view{l}.substr(9));
  server_thread server{o};
  std::map<std::string, std::unique_ptr<speaker>> speakers;
  auto write = std::getenv("QS_UPDATE_GOLDEN") != nullptr;
  std::string fresh;
  for (std::size_t i = 0; i < lines.size(); ++i) {
    auto& line = lines[i];
    auto mark = line.find_first_of("<>");
    auto said = !line.empty() && !line.starts_with('#') && !line.starts_with("options: ") &&
                !line.starts_with("  ") && mark != std::string::npos;
    if (!line.starts_with("  ")) fresh += line + "\n";
    if (!said) continue;
    auto who = line.substr(0, mark);
    auto how = std::string{};
    if (auto space = who.find(' '); space != std::string::npos) {
      how = who.substr(space + 1);
      who = who.substr(0, space);
    }
    auto& s = speakers[who];
    if (!s) s = std::make_unique<speaker>(server.address());
    if (line[mark] == '>') s->say(words_of(line.substr(mark + 1), s->first), how == "send");
    if (how == "send") continue;
    auto answer = s->hear(how);
    fresh += "  " + answer + "\n";
    if (write) continue;
    CAPTURE(line);
    auto next = i + 1 < lines.size() ? lines[i + 1] : std::string{};
    CHECK("  " + answer == next);
  }
  if (write) std::ofstream{path} << fresh;
}

TEST_CASE("conversations are as they are written down") {
  log::configure({log::level::off, false, {}});
  std::size_t n = 0;
  for (auto& entry : std::filesystem::directory_iterator{QS_SOURCE_DIR "/tests/golden/zdb"})
    if (entry.path().extension() == ".talk") {
      run_talk(entry.path());
      ++n;
    }
  CHECK(n >= 6);
  log::configure({log::level::warning, false, {}});
}

/// Every command of the table is said somewhere in the conversations.
TEST_CASE("no command is left out of the conversations") {
  std::string all;
  for (auto& entry : std::filesystem::directory_iterator{QS_SOURCE_DIR "/tests/golden/zdb"}) {
    std::ifstream in{entry.path()};
    all.append(std::istreambuf_iterator<char>{in}, {});
  }
  for (auto& r : commands::table()) {
    CAPTURE(r.name);
    auto bare = fmt::format("> {}\n", r.name);
    auto more = fmt::format("> {} ", r.name);
    CHECK((all.find(bare) != std::string::npos || all.find(more) != std::string::npos));
  }
}

} // namespace
} // namespace qs::zdb
