#include "spec/reader.hpp"

#include <algorithm>

#include <fmt/format.h>

#include "spec/fields.hpp"
#include "spec/scalars.hpp"

namespace qs::spec {
namespace {

std::string_view kind_name(const yaml_node& node) {
  switch (node.kind) {
  case node_kind::scalar:
    return "a single value";
  case node_kind::sequence:
    return "a list";
  case node_kind::map:
    return "a map";
  case node_kind::nothing:
  case node_kind::broken:
    break;
  }
  return "nothing";
}

std::string join(std::string_view path, std::string_view key) {
  return path.empty() ? std::string{key} : fmt::format("{}.{}", path, key);
}

/// The only place of `key` in the whole table, "storage.nodes"; "" if there is none or more than
/// one.
void places_of_key(const section& s, const std::string& path, std::string_view key,
                   std::vector<std::string>& found) {
  for (const auto& f : s.fields) {
    if (f.key == key) found.push_back(path);
    if (f.of != nullptr && f.kind == field_kind::table)
      places_of_key(*f.of, join(path, f.key), key, found);
  }
}

class walker {
public:
  walker(const environment& env, reference_mode mode, diagnostics& problems)
      : env_{env}, mode_{mode}, problems_{problems} {}

  fields_read out;

  void table(const yaml_node& node, const section& s, const std::string& path, source_range owner) {
    if (node.kind == node_kind::broken) {
      out.broken.insert(path);
      return;
    }
    if (node.kind != node_kind::map) {
      report("QS0013",
             fmt::format("{} takes a map of keys, not {}", label(path, s), kind_name(node)), owner,
             path);
      return;
    }
    for (const auto& entry : node.entries) {
      auto known = std::find_if(s.fields.begin(), s.fields.end(),
                                [&](const field& f) { return f.key == entry.key.text; });
      if (known == s.fields.end())
        unknown_key(entry.key, s, path);
      else
        value(entry.value, *known, join(path, known->key), entry.key.where);
    }
    for (const auto& f : s.fields)
      if (f.required && find(node, f.key) == nullptr)
        report("QS0012", missing(f, path, s), owner, join(path, f.key));
    if (s.exactly_one && node.entries.size() != 1)
      report("QS0027",
             fmt::format("one map of {} takes exactly one of {}; make a list to have several",
                         s.name, keys(s)),
             owner, path);
  }

private:
  void report(std::string_view code, std::string message, source_range where,
              const std::string& path) {
    problems_.push_back({severity::error, std::string{code}, std::move(message), where});
    out.broken.insert(path);
  }

  static std::string label(const std::string& path, const section& s) {
    return path.empty() ? std::string{"the file"} : std::string{s.name};
  }

  static std::string keys(const section& s) {
    std::vector<std::string_view> names;
    for (const auto& f : s.fields) names.push_back(f.key);
    return fmt::format("{}", fmt::join(names, ", "));
  }

  static std::string missing(const field& f, const std::string& path, const section& s) {
    auto where = path.empty() ? std::string{} : fmt::format(" in {}", s.name);
    auto example =
        f.example.empty() ? std::string{} : fmt::format(", for example {}: {}", f.key, f.example);
    if (f.of != nullptr)
      for (const auto& inner : f.of->fields)
        if (inner.required)
          example = fmt::format(", for example {}: {{{}: {}}}", f.key, inner.key, inner.example);
    return fmt::format("'{}' is missing{}{}", f.key, where, example);
  }

  void unknown_key(const yaml_node& key, const section& s, const std::string& path) {
    std::vector<std::string_view> names;
    for (const auto& f : s.fields) names.push_back(f.key);
    auto message = fmt::format("unknown key '{}'", key.text);
    std::vector<std::string> elsewhere;
    places_of_key(root_section(), "", key.text, elsewhere);
    auto guess = nearest(key.text, names);
    if (!elsewhere.empty() && elsewhere.front() != path && elsewhere.size() == 1)
      message += elsewhere.front().empty()
                     ? "; it belongs at the top, without indentation"
                     : fmt::format("; it belongs under '{}'", elsewhere.front());
    else if (!guess.empty())
      message += fmt::format("; did you mean '{}'?", guess);
    else if (names.empty())
      message += fmt::format("; {} takes none", s.name);
    else
      message += fmt::format("; known here: {}", keys(s));
    // The misspelt key may be a required one: broken, so that rules about the section do not speak
    // on half of it.
    report("QS0011", std::move(message), key.where, join(path, key.text));
  }

  void value(const yaml_node& node, const field& f, const std::string& path, source_range key) {
    out.places[path] = node.kind == node_kind::scalar ? node.where : key;
    if (node.kind == node_kind::broken) {
      out.broken.insert(path);
      return;
    }
    if (node.kind == node_kind::nothing) {
      if (f.kind == field_kind::table && f.of->fields.empty()) return;
      report(
          "QS0013",
          fmt::format("{} has no value; give it {}, or remove the key", f.key, expectation(f.kind)),
          node.where, path);
      return;
    }
    switch (f.kind) {
    case field_kind::table:
      table(node, *f.of, path, key);
      return;
    case field_kind::list:
      list(node, f, path, key);
      return;
    case field_kind::grid:
      grid(node, f, path, key);
      return;
    case field_kind::size_table:
      if (node.kind == node_kind::map) {
        table(node, *f.of, path, key);
        return;
      }
      out.places[path + ".size"] = node.where;
      scalar(node, f.of->fields.front(), f.key, path + ".size", key);
      return;
    default:
      scalar(node, f, f.key, path, key);
    }
  }

  void scalar(const yaml_node& node, const field& f, std::string_view name, const std::string& path,
              source_range key) {
    if (node.kind == node_kind::broken) {
      out.broken.insert(path);
      return;
    }
    auto called = f;
    called.key = name;
    if (node.kind != node_kind::scalar) {
      report("QS0013",
             fmt::format("{} takes {}, not {}", name, expectation(f.kind), kind_name(node)), key,
             path);
      return;
    }
    auto read = read_scalar(called, node, env_, mode_, out.references);
    if (auto* problem = std::get_if<scalar_problem>(&read))
      report(problem->code, std::move(problem->message), node.where, path);
    else
      out.values[path] = std::get<field_value>(std::move(read));
  }

  void list(const yaml_node& node, const field& f, const std::string& path, source_range key) {
    if (node.kind != node_kind::sequence) {
      report("QS0013", fmt::format("{} takes a list, not {}", f.key, kind_name(node)), key, path);
      return;
    }
    out.counts[path] = node.items.size();
    for (std::size_t i = 0; i < node.items.size(); ++i) {
      const auto& item = node.items[i];
      auto at = item_path(path, i);
      auto where = item.where.line > 0 ? item.where : key;
      out.places[at] = where;
      if (item.kind == node_kind::nothing) {
        report("QS0013", fmt::format("an item of {} has no value", f.key), where, at);
      } else if (f.item == field_kind::table) {
        table(item, *f.of, at, where);
      } else {
        field one{.key = f.key, .kind = f.item};
        scalar(item, one, f.key, at, where);
      }
    }
  }

  void grid(const yaml_node& node, const field& f, const std::string& path, source_range key) {
    if (node.kind == node_kind::sequence) {
      out.counts[path] = node.items.size();
      if (node.items.empty())
        report("QS0027", "grid is an empty list; write grid: local", key, path);
      for (std::size_t i = 0; i < node.items.size(); ++i) {
        const auto& item = node.items[i];
        auto where = item.where.line > 0 ? item.where : key;
        out.places[item_path(path, i)] = where;
        one_grid(item, f, item_path(path, i), where);
      }
      return;
    }
    out.counts[path] = 1;
    out.places[item_path(path, 0)] = out.places[path];
    one_grid(node, f, item_path(path, 0), key);
  }

  void one_grid(const yaml_node& node, const field& f, const std::string& path,
                source_range owner) {
    if (node.kind == node_kind::scalar && node.text == "local") {
      out.places[path + ".local"] = node.where;
      return;
    }
    if (node.kind == node_kind::scalar) {
      auto hint = node.text == "hosts"
                      ? "; write grid: {hosts: [{name: nas, address: \"192.0.2.7:9900\"}]}"
                  : node.text == "threefold" ? "; write grid: {threefold: {network: main}}"
                                             : "";
      report("QS0027",
             fmt::format("grid takes {}, not '{}'{}", expectation(f.kind), node.text, hint),
             node.where, path);
      return;
    }
    if (node.kind == node_kind::map)
      table(node, *f.of, path, owner);
    else if (node.kind == node_kind::broken)
      out.broken.insert(path);
    else
      report("QS0027", fmt::format("grid takes {}, not {}", expectation(f.kind), kind_name(node)),
             owner, path);
  }

  const environment& env_;
  reference_mode mode_;
  diagnostics& problems_;
};

bool is_below(std::string_view path, std::string_view top) {
  return path.size() > top.size() && path.substr(0, top.size()) == top &&
         (top.empty() || path[top.size()] == '.' || path[top.size()] == '[');
}

} // namespace

std::string item_path(std::string_view list, std::size_t index) {
  return fmt::format("{}[{}]", list, index);
}

bool fields_read::sound(const std::string& path) const {
  return std::none_of(broken.begin(), broken.end(), [&](const std::string& b) {
    return b == path || is_below(b, path) || is_below(path, b);
  });
}

source_range fields_read::place(std::string path) const {
  for (;;) {
    if (auto found = places.find(path); found != places.end()) return found->second;
    auto cut = path.find_last_of(".[");
    if (cut == std::string::npos) return {};
    path.resize(cut);
  }
}

fields_read read_fields(const yaml_node& root, const environment& env, reference_mode mode,
                        diagnostics& problems) {
  walker w{env, mode, problems};
  w.table(root, root_section(), "", root.where);
  return std::move(w.out);
}

} // namespace qs::spec
