#include "spec/load.hpp"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "spec/bind.hpp"
#include "spec/reader.hpp"
#include "spec/rules.hpp"
#include "spec/yaml_tree.hpp"

namespace qs::spec {
namespace {

/// More than anybody reads.
constexpr std::size_t problems_max = 120;

void finish(loaded& out) {
  std::stable_sort(
      out.problems.begin(), out.problems.end(), [](const diagnostic& a, const diagnostic& b) {
        return std::pair{a.where.line, a.where.column} < std::pair{b.where.line, b.where.column};
      });
  auto bad = has_errors(out.problems);
  if (bad) out.spec.reset();
  if (out.problems.size() <= problems_max) return;
  auto more = out.problems.size() - problems_max;
  auto where = out.problems[problems_max].where;
  out.problems.resize(problems_max);
  out.problems.push_back(
      {bad ? severity::error : severity::warning, "QS0010",
       fmt::format("{} more problems from here on; mend those shown first", more), where});
}

source_range place(const loaded& from, const std::string& path) {
  auto found = from.places.find(path);
  return found == from.places.end() ? source_range{} : found->second;
}

/// All problems but those of this version; `spec` is there even if it has errors, with defaults in
/// their place.
loaded read_everything(std::string_view text, const environment& env, reference_mode mode) {
  loaded out;
  auto root = parse_yaml(text, out.problems);
  if (!root || root->kind == node_kind::nothing) {
    if (!has_errors(out.problems))
      out.problems.push_back(
          {severity::error, "QS0009", "the file is empty; `qs init` writes one to begin with", {}});
    return out;
  }
  auto read = read_fields(*root, env, mode, out.problems);
  auto spec = bind(read);
  check_rules(spec, read, out.problems);
  out.spec = std::move(spec);
  out.places = std::move(read.places);
  out.references = std::move(read.references);
  return out;
}

} // namespace

loaded load(std::string_view text, const environment& env, reference_mode mode) {
  auto out = read_everything(text, env, mode);
  finish(out);
  return out;
}

diagnostics unsupported(const loaded& from) {
  diagnostics out;
  if (!from.spec) return out;
  const auto& spec = *from.spec;
  // Left undone without harm: said, and not refused.
  auto warn = [&](std::string_view code, const std::string& path, std::string_view what) {
    if (from.places.contains(path))
      out.push_back({severity::warning, std::string{code},
                     fmt::format("this version does not do {} yet; it changes nothing", what),
                     place(from, path)});
  };
  auto refuse = [&](std::string_view code, const std::string& path, std::string_view what,
                    std::string_view instead) {
    out.push_back({severity::error, std::string{code},
                   fmt::format("this version does not do {} yet; {}", what, instead),
                   place(from, path)});
  };
  for (std::size_t i = 0; i < spec.grids.size(); ++i) {
    auto at = item_path("grid", i);
    if (std::holds_alternative<threefold_grid>(spec.grids[i]))
      refuse("QS0202", at + ".threefold", "grid threefold",
             "use grid: local to try it on this machine");
  }
  if (spec.payment.confirm == confirm_mode::connect)
    refuse("QS0204", "payment.confirm", "confirm: connect", "use confirm: wallet");
  if (!spec.notify.empty())
    refuse("QS0205", "notify", "notify", "remove it; `qs status` and `qs events` tell the same");
  if (spec.mount && spec.mount->fsync == fsync_mode::grid)
    refuse("QS0206", "mount.fsync", "fsync: grid", "use fsync: local");
  warn("QS0307", "monitor.scrub_every", "scrub_every");
  warn("QS0308", "payment.public_url", "public_url");
  return out;
}

loaded validate(std::string_view text, const environment& env, reference_mode mode) {
  auto out = read_everything(text, env, mode);
  for (auto& problem : unsupported(out)) out.problems.push_back(std::move(problem));
  finish(out);
  return out;
}

} // namespace qs::spec
