#include "spec/yaml_tree.hpp"

#include <algorithm>
#include <set>
#include <stdexcept>

#include <fmt/format.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/mark.h>
#include <yaml-cpp/parser.h>

#include <sstream>

#include "base/limits.hpp"
#include "base/utf8.hpp"
#include "spec/source_text.hpp"

namespace qs::spec {
namespace {

constexpr std::size_t text_problems_max = 20;
constexpr std::size_t tree_problems_max = 100;
/// Places are counted in characters from the start of a line: this bounds the work for each.
constexpr std::size_t line_bytes_max = 4096;

void add(diagnostics& problems, std::string_view code, std::string message,
         source_range where = {}) {
  problems.push_back({severity::error, std::string{code}, std::move(message), where});
}

/// Everything that is wrong with the text before it is YAML.
bool text_is_sound(const source_text& source, diagnostics& problems) {
  auto text = source.text();
  if (text.size() > limits::spec_bytes_max) {
    add(problems, "QS0001",
        fmt::format("the file has {} bytes, at most {} are read", text.size(),
                    limits::spec_bytes_max));
    return false;
  }
  for (std::size_t line = 0; line < source.lines(); ++line)
    if (auto bytes = source.line_end(line) - source.line_begin(line); bytes > line_bytes_max) {
      add(problems, "QS0001",
          fmt::format("a line of {} bytes, at most {} are read", bytes, line_bytes_max),
          {static_cast<int>(line) + 1, 1, 2});
      return false;
    }
  std::size_t found = 0;
  auto indenting = true;
  for (auto i = source.line_begin(0); i < text.size() && found < text_problems_max;) {
    auto length = utf8_length(text, i);
    if (length == 0) {
      // Columns after this byte would mean nothing, so this ends the check.
      add(problems, "QS0002", "this is not UTF-8; save the file as UTF-8", source.range(i, i + 1));
      return false;
    }
    auto c = static_cast<unsigned char>(text[i]);
    auto line_break = c == '\r' && i + 1 < text.size() && text[i + 1] == '\n';
    if (c == '\t' && indenting) {
      add(problems, "QS0004", "a tab; YAML is indented with spaces", source.range(i, i + 1));
      ++found;
      indenting = false;
    } else if ((c < 0x20 && c != '\t' && c != '\n' && !line_break) || c == 0x7F) {
      add(problems, "QS0004", fmt::format("a control character (0x{:02x}); remove it", c),
          source.range(i, i + 1));
      ++found;
    }
    if (c == '\n')
      indenting = true;
    else if (c != ' ')
      indenting = false;
    i += length;
  }
  return found == 0;
}

struct gave_up : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Builds the tree; throws gave_up after it has said why.
class builder final : public YAML::EventHandler {
public:
  builder(const source_text& source, diagnostics& problems)
      : source_{source}, problems_{problems} {}

  std::optional<yaml_node> root;

  void OnDocumentStart(const YAML::Mark& mark) override {
    if (documents_++ == 0) return;
    auto at = offset(mark);
    add(problems_, "QS0006", "a second YAML document; put one volume in one file",
        source_.range(at, at + 3));
    throw gave_up{"documents"};
  }
  void OnDocumentEnd() override {}

  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    yaml_node node;
    node.begin = node.end = offset(mark);
    auto rest = source_.text().substr(node.begin, 4);
    if (rest.substr(0, 1) == "~") node.end += 1;
    for (auto word : {"null", "Null", "NULL"})
      if (rest == word) node.end += 4;
    // Otherwise the mark is not of the value, which has no characters.
    place(node);
    if (node.end == node.begin) node.where = {};
    check(node, "?", anchor);
    put(std::move(node));
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override {
    yaml_node node;
    node.kind = node_kind::broken;
    node.begin = offset(mark);
    node.end = word_end(node.begin);
    place(node);
    add(problems_, "QS0005", "aliases (*name) are not read; write the value out", node.where);
    put(std::move(node));
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    yaml_node node;
    node.kind = node_kind::scalar;
    node.text = value;
    node.begin = offset(mark);
    auto text = source_.text();
    auto first = node.begin < text.size() ? text[node.begin] : '\0';
    node.plain = first != '"' && first != '\'' && first != '|' && first != '>';
    node.end = scalar_end(node);
    place(node);
    if (node.end >
        source_.text().size()) { // yaml-cpp takes the end of the file for the missing quote
      node.end = node.begin + 1;
      place(node);
      add(problems_, "QS0003", "this quote is never closed", node.where);
      node.kind = node_kind::broken;
    }
    check(node, tag, anchor);
    put(std::move(node));
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value style) override {
    open(node_kind::sequence, mark, tag, anchor, style);
  }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value style) override {
    open(node_kind::map, mark, tag, anchor, style);
  }
  void OnMapEnd() override { close(); }

private:
  struct frame {
    yaml_node node;
    std::optional<yaml_node> key;
    std::set<std::string> seen;
  };

  std::size_t offset(const YAML::Mark& mark) const {
    return source_.offset(mark.line, mark.column);
  }
  void place(yaml_node& node) const { node.where = source_.range(node.begin, node.end); }

  std::size_t word_end(std::size_t at) const {
    auto text = source_.text();
    while (at < text.size() &&
           std::string_view{" \n\r,]}"}.find(text[at]) == std::string_view::npos)
      ++at;
    return at;
  }

  /// Where a scalar's characters end: behind the quote, or behind the last character of its first
  /// line; behind the end of the file if the quote is never closed.
  std::size_t scalar_end(const yaml_node& node) const {
    auto text = source_.text();
    auto at = node.begin;
    if (at >= text.size()) return at;
    if (node.plain)
      return text.substr(at, node.text.size()) == node.text ? at + node.text.size() : word_end(at);
    auto quote = text[at];
    if (quote == '|' || quote == '>') return at + 1;
    for (++at; at < text.size(); ++at) {
      auto escaped = quote == '"' && text[at] == '\\';
      auto doubled = quote == '\'' && text[at] == quote && at + 1 < text.size() && text[at + 1] == quote;
      if (escaped || doubled)
        ++at;
      else if (text[at] == quote)
        return at + 1;
    }
    return text.size() + 1;
  }

  /// Refuses what could make a small text mean a big or a strange thing.
  void check(yaml_node& node, const std::string& tag, YAML::anchor_t anchor) {
    auto broken = true;
    if (anchor != 0)
      add(problems_, "QS0005", "anchors (&name) are not read; remove it", node.where);
    else if (!tag.empty() && tag != "?" && tag != "!")
      add(problems_, "QS0005", fmt::format("tags ({}) are not read; remove it", tag), node.where);
    else
      broken = false;
    if (broken && node.kind != node_kind::map && node.kind != node_kind::sequence)
      node.kind = node_kind::broken;
  }

  void open(node_kind kind, const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
            YAML::EmitterStyle::value style) {
    yaml_node node;
    node.kind = kind;
    node.begin = offset(mark);
    node.end = node.begin + 1;
    node.flow = style == YAML::EmitterStyle::Flow;
    place(node);
    if (stack_.size() >= yaml_depth_max) {
      add(problems_, "QS0007", fmt::format("nested deeper than {} levels", yaml_depth_max),
          node.where);
      throw gave_up{"depth"};
    }
    check(node, tag, anchor);
    stack_.push_back({std::move(node), std::nullopt, {}});
  }

  void close() {
    auto node = std::move(stack_.back().node);
    stack_.pop_back();
    put(std::move(node));
  }

  void put(yaml_node node) {
    if (problems_.size() > tree_problems_max) {
      add(problems_, "QS0010", "too many problems to go on; mend these first", node.where);
      throw gave_up{"problems"};
    }
    if (stack_.empty()) {
      root = std::move(node);
      return;
    }
    auto& top = stack_.back();
    if (top.node.kind == node_kind::sequence) {
      top.node.items.push_back(std::move(node));
      return;
    }
    if (!top.key) {
      if (node.kind == node_kind::map || node.kind == node_kind::sequence) {
        add(problems_, "QS0003", "a key must be a word, not a list or a map", node.where);
        node = {};
        node.kind = node_kind::broken;
      }
      top.key = std::move(node);
      return;
    }
    auto key = std::move(*top.key);
    top.key.reset();
    if (key.kind == node_kind::broken) return;
    if (!top.seen.insert(key.text).second) {
      auto first = std::find_if(top.node.entries.begin(), top.node.entries.end(),
                                [&](const yaml_entry& e) { return e.key.text == key.text; });
      add(problems_, "QS0008",
          fmt::format("'{}' is here a second time; the first is in line {}", key.text,
                      first->key.where.line),
          key.where);
      return;
    }
    if (node.kind == node_kind::nothing && node.where.line == 0) node.where = key.where;
    top.node.entries.push_back({std::move(key), std::move(node)});
  }

  const source_text& source_;
  diagnostics& problems_;
  std::vector<frame> stack_;
  int documents_ = 0;
};

} // namespace

std::optional<yaml_node> parse_yaml(std::string_view text, diagnostics& problems) {
  source_text source{text};
  if (!text_is_sound(source, problems)) return std::nullopt;
  builder handler{source, problems};
  try {
    // yaml-cpp counts columns in bytes from the first character after the mark; a \r before \n is
    // the line's end.
    std::string lines;
    lines.reserve(text.size());
    for (auto c : text.substr(source.line_begin(0)))
      if (c != '\r') lines.push_back(c);
    std::istringstream stream{lines};
    YAML::Parser parser{stream};
    while (parser.HandleNextDocument(handler)) {
    }
  } catch (const gave_up&) {
    return std::nullopt;
  } catch (const YAML::Exception& e) {
    auto at = source.offset(e.mark.line, e.mark.column);
    add(problems, "QS0003", fmt::format("this is not YAML: {}", e.msg), source.range(at, at + 1));
    return std::nullopt;
  } catch (const std::exception& e) {
    add(problems, "QS0003", fmt::format("this is not YAML: {}", e.what()), {});
    return std::nullopt;
  }
  return std::move(handler.root);
}

const yaml_node* find(const yaml_node& map, std::string_view key) {
  for (const auto& entry : map.entries)
    if (entry.key.text == key) return &entry.value;
  return nullptr;
}

} // namespace qs::spec
