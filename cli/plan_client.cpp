#include "cli/plan_client.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "cli/engine_options.hpp"
#include "cli/exit_codes.hpp"

namespace qs::cli {

using nlohmann::json;

plan_answer read_plan(const std::string& document) {
  plan_answer out;
  auto d = json::parse(document, nullptr, false);
  if (!d.is_object()) {
    out.exit = exit_failed;
    out.errors.push_back("the plan cannot be read; is the engine another version? 'qs restart'");
    return out;
  }
  auto strings = [&](const char* key) {
    std::vector<std::string> list;
    if (auto found = d.find(key); found != d.end() && found->is_array())
      for (const auto& e : *found)
        if (e.is_string()) list.push_back(e.get<std::string>());
    return list;
  };
  out.exit = d.value("exit", 0);
  out.empty = d.value("empty", false);
  out.only_unknown = d.value("only_unknown", false);
  out.refresh = d.value("refresh", false);
  out.needs_typed_name = d.value("needs_typed_name", false);
  out.human = d.value("human", "");
  out.human_colour = d.value("human_colour", out.human);
  out.plan_hash = d.value("plan_hash", "");
  out.serial = d.value("serial", std::uint64_t{0});
  if (auto plan = d.find("plan"); plan != d.end() && plan->is_object()) out.plan_json = plan->dump(2) + "\n";
  out.errors = strings("errors");
  out.warnings = strings("warnings");
  if (out.exit == 0 && out.plan_json.empty()) out.exit = exit_failed;
  if (out.exit != 0 && out.errors.empty()) out.errors.push_back("no plan could be made; 'qs logs' may say why");
  return out;
}

result<plan_answer> ask_for_plan(const control_client& client, const chosen_volume& volume, const spec::loaded& file, bool destroy) {
  json request{{"text", destroy ? "" : volume.text}, {"destroy", destroy}};
  request["references"] = json::parse(references_json(file.references), nullptr, false);
  auto answer = client.post("/v1/plan", request.dump(-1, ' ', false, json::error_handler_t::replace));
  if (!answer.ok()) return std::move(answer).err();
  if (answer->ok()) return read_plan(answer->body);
  auto why = answer->why();
  plan_answer out;
  out.exit = why.exit;
  out.errors.push_back(why.message);
  return out;
}

int report_plan(const plan_answer& plan, terminal& t) {
  for (const auto& w : plan.warnings) t.warn(w);
  for (const auto& e : plan.errors) t.fail(plan.exit, e);
  return plan.exit;
}

bool report_problems(const chosen_volume& volume, const spec::loaded& file, terminal& t) {
  if (!file.problems.empty()) {
    auto text = render(file.problems, volume.file.filename().string(), volume.text);
    while (!text.empty() && text.back() == '\n') text.pop_back();
    t.note(text);
  }
  return file.spec.has_value();
}

} // namespace qs::cli
