#include "cli/follow_file.hpp"

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>

#include <nlohmann/json.hpp>

#include "base/log.hpp"
#include "cli/control_client.hpp"
#include "cli/plan_client.hpp"
#include "cli/volume_choice.hpp"

namespace qs::cli {

using namespace std::chrono_literals;
using nlohmann::json;

namespace {

constexpr auto look_every = 1s;
/// A text that could not be accepted is tried again after so long: a host may be free, the wallet filled.
constexpr auto again_after = 60s;

} // namespace

struct file_follower::impl {
  explicit impl(common_flags o) : flags{std::move(o)} {}

  void run() {
    for (;;) {
      follow();
      std::unique_lock lock{mutex};
      if (changed.wait_for(lock, look_every, [this] { return stopping; })) return;
    }
  }

  void follow() {
    auto volume = choose_volume(flags, need::file);
    if (!volume.ok()) return say(describe(volume.err()));
    auto now = std::chrono::steady_clock::now();
    if (volume->text == seen && (settled || now < again_at)) return;
    seen = volume->text;
    settled = false;
    again_at = now + again_after;
    auto file = load_file(*volume);
    if (!file.spec) {
      settled = true; // the same text has the same mistakes
      return say("storage.yaml has mistakes and is not followed: 'qs validate' shows them");
    }
    auto client = control_client::open(volume->state_directory, volume->name, 5s);
    if (!client.ok()) return say(describe(client.err()));
    auto plan = ask_for_plan(*client, *volume, file, false);
    if (!plan.ok()) return say(describe(plan.err()));
    if (plan->exit != 0) return say(plan->errors.empty() ? "no plan can be made" : plan->errors.front());
    if (plan->empty || plan->only_unknown) {
      settled = plan->empty;
      if (settled) remember_file(*volume);
      return;
    }
    auto accepted = client->post("/v1/accept", json{{"plan_hash", plan->plan_hash}, {"serial", plan->serial}, {"only_additions", true}}.dump());
    if (!accepted.ok()) return say(describe(accepted.err()));
    if (!accepted->ok()) return say(accepted->why().message);
    settled = true;
    remember_file(*volume);
    auto answer = json::parse(accepted->body, nullptr, false);
    if (answer.is_object() && answer.value("unchanged", false)) return; // what is under way goes on or is cancelled: no matter of the file
    log::info("follow", "storage.yaml only adds; accepted:\n{}", plan->human);
    said.clear();
  }

  /// Once for each different thing.
  void say(const std::string& text) {
    if (text == said) return;
    said = text;
    log::warning("follow", "{}", text);
  }

  common_flags flags;
  std::string seen;
  bool settled = false; ///< nothing is to be done for `seen`
  std::chrono::steady_clock::time_point again_at{};
  std::string said;
  std::mutex mutex;
  std::condition_variable changed;
  bool stopping = false;
  std::thread thread;
};

file_follower::file_follower(const common_flags& o) : impl_{std::make_unique<impl>(o)} {
  impl_->thread = std::thread{[i = impl_.get()] { i->run(); }};
}

file_follower::~file_follower() {
  {
    std::lock_guard lock{impl_->mutex};
    impl_->stopping = true;
  }
  impl_->changed.notify_all();
  impl_->thread.join();
}

} // namespace qs::cli
