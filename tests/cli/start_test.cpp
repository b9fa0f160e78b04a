// What passes between an engine that starts and whoever waits for it, and when a wait for its files is over.
#include <thread>

#include <nlohmann/json.hpp>
#include <unistd.h>

#include "base/posix.hpp"
#include "cli/engine_process.hpp"
#include "cli/follow.hpp"
#include "cli/views.hpp"
#include "cli_fixture.hpp"

namespace {

using namespace qs;
using namespace std::chrono_literals;
using cli::start_report;
using cli::verdict;
using nlohmann::json;

struct readiness_pipe {
  readiness_pipe() {
    int ends[2];
    REQUIRE(::pipe(ends) == 0);
    out = unique_fd{ends[0]};
    in = ends[1];
  }
  start_report read(std::chrono::milliseconds patience) {
    return cli::read_start(out.get(), patience, [this](const std::string& s) { steps.push_back(s); });
  }
  unique_fd out;
  int in = -1; ///< closed by report_ready and report_failure
  std::vector<std::string> steps;
};

TEST_CASE("cli start: ready, failed with its code and words, or just gone") {
  readiness_pipe good;
  cli::report_step(good.in, "checking the recorded state");
  cli::report_ready(good.in);
  auto report = good.read(10s);
  CHECK(report.what == start_report::kind::ready);
  CHECK(good.steps == std::vector<std::string>{"checking the recorded state"});

  readiness_pipe bad;
  cli::report_step(bad.in, "checking the recorded state");
  cli::report_failure(bad.in, 3, "the 24 words do not belong\nto this volume");
  report = bad.read(10s);
  CHECK(report.what == start_report::kind::failed);
  CHECK(report.exit == 3);
  CHECK(report.message == "the 24 words do not belong\nto this volume");

  readiness_pipe dead;
  cli::report_step(dead.in, "looking at the providers");
  ::close(dead.in);
  report = dead.read(10s);
  CHECK(report.what == start_report::kind::closed);
  CHECK(report.step == "looking at the providers");
}

TEST_CASE("cli start: one that makes progress is waited for, however long it takes all in all") {
  readiness_pipe p;
  std::thread engine{[&] {
    for (int i = 0; i < 8; ++i) {
      ::usleep(60'000); // the pace of the thing that is waited for
      cli::report_step(p.in, "step " + std::to_string(i));
    }
    cli::report_ready(p.in);
  }};
  auto report = p.read(300ms); // less than it takes in all
  engine.join();
  CHECK(report.what == start_report::kind::ready);
  CHECK(p.steps.size() == 8);
}

TEST_CASE("cli start: one that tells nothing is given up by who waits, and only by them") {
  readiness_pipe p;
  cli::report_step(p.in, "checking the recorded state");
  auto report = p.read(200ms);
  CHECK(report.what == start_report::kind::silent);
  CHECK(report.step == "checking the recorded state");
  cli::report_ready(p.in); // it was not ended: its word still arrives
  CHECK(p.read(10s).what == start_report::kind::ready);
}

json condition(const char* type, const char* status, const char* reason, const char* message = "") {
  return {{"type", type}, {"status", status}, {"reason", reason}, {"message", message}};
}

TEST_CASE("cli start: over when the files are there, or it is clear why they are not") {
  json s{{"generation", 1}, {"destroying", false}, {"state", "Ready"}, {"volume", {{"created", true}, {"open", true}, {"problem", ""}}},
         {"conditions", {condition("Ready", "True", "Ready"), condition("Mounted", "True", "Mounted", "/mnt/x")}}};
  auto judge = [](const json& status) { return cli::judge_serving(status.dump()); };
  CHECK(judge(s).how == verdict::done);
  CHECK(cli::judge_serving("nonsense").how == verdict::not_yet);

  auto early = s;
  early["conditions"] = json::array();
  CHECK(judge(early).how == verdict::not_yet); // of the engine before, or of none: not looked at yet
  auto replaying = s;
  replaying["volume"]["open"] = false;
  CHECK(judge(replaying).how == verdict::not_yet);
  auto broken = replaying;
  broken["volume"]["problem"] = "no space left on device";
  CHECK(judge(broken).how == verdict::degraded);
  CHECK(judge(broken).reason.find("no space left") != std::string::npos);

  auto mounting = s;
  mounting["conditions"][1] = condition("Mounted", "False", "NotYet");
  CHECK(judge(mounting).how == verdict::not_yet);
  auto failed = s;
  failed["conditions"][1] = condition("Mounted", "False", "Failed", "mount point /mnt/x is not empty");
  CHECK(judge(failed).how == verdict::degraded);
  CHECK(judge(failed).reason.find("not empty") != std::string::npos);
  auto unmounted = s;
  unmounted["conditions"][1] = condition("Mounted", "False", "NotWanted");
  CHECK(judge(unmounted).how == verdict::done);
  auto no_mount = s;
  no_mount["conditions"].erase(1);
  CHECK(judge(no_mount).how == verdict::done);

  auto nothing = s;
  nothing["generation"] = 0;
  nothing["volume"] = json::object();
  CHECK(judge(nothing).how == verdict::done);
  auto deploying = s;
  deploying["volume"]["created"] = false;
  CHECK(judge(deploying).how == verdict::done);
  CHECK(judge(deploying).reason.find("status --watch") != std::string::npos);
  auto unreadable = early;
  unreadable["conditions"].push_back(condition("ConfigValid", "False", "Unreadable", "storage.yaml:3:1: error"));
  CHECK(judge(unreadable).how == verdict::degraded);
  CHECK(judge(unreadable).reason.find("storage.yaml:3:1") != std::string::npos);
  auto going = s;
  going["destroying"] = true;
  going["volume"]["open"] = false;
  CHECK(judge(going).how == verdict::done);
}

TEST_CASE("cli follow: nobody goes on with what is suspended or cancelled; steps under way are waited for") {
  json s{{"generation", 2}, {"state", "Ready"}, {"nodes", {{{"state", "ready"}}}}, {"volume", {{"created", true}}}, {"conditions", json::array()}};
  cli::follow_request what{2, "ready", {}, 0, true};
  CHECK(cli::judge_status(s.dump(), what).how == verdict::done);
  auto asked = s;
  asked["under_way"] = 1; // the wallet, for one
  CHECK(cli::judge_status(asked.dump(), what).how == verdict::not_yet);
  auto suspended = s;
  suspended["suspended"] = true;
  suspended["state"] = "Suspended";
  CHECK(cli::judge_status(suspended.dump(), what).how == verdict::paused);
  CHECK(cli::judge_status(suspended.dump(), what).reason.find("qs resume") != std::string::npos);
  auto cancelled = s;
  cancelled["cancelled"] = true;
  CHECK(cli::judge_status(cancelled.dump(), what).how == verdict::done); // what was in flight was all of it
  cancelled["state"] = "Suspended";
  CHECK(cli::judge_status(cancelled.dump(), what).how == verdict::paused);
  cli::follow_request later{3, "ready", {}, 0, true};
  CHECK(cli::judge_status(suspended.dump(), later).how == verdict::not_yet); // of the generation before
}

TEST_CASE("cli events: each line once, the highest number remembered, what is none left out") {
  std::vector<std::string> kinds;
  std::uint64_t after = 3;
  cli::each_event("{\"number\":5,\"kind\":\"NodeReady\"}\nnonsense\n{\"number\":4,\"kind\":\"Condition\"}\n\n{\"kind\":\"Late\"}", after,
                  [&](const std::string&, const std::string& kind) { kinds.push_back(kind); });
  CHECK(kinds == std::vector<std::string>{"NodeReady", "Condition", "Late"});
  CHECK(after == 5);
}

} // namespace
