#include "actors/control.hpp"

#include <cstdint>

#include <caf/all.hpp>

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <thread>

#include <fmt/format.h>
#include <httplib.h>
#include <nlohmann/json.hpp>

#include "actors/caf_error.hpp"
#include "actors/metrics.hpp"
#include "actors/status_view.hpp"
#include "base/log.hpp"
#include "base/posix.hpp"

namespace qs::actors {
namespace {

using namespace std::chrono_literals;
using nlohmann::json;

constexpr auto request_deadline = 200s;

/// An HTTP server on a thread of its own, from bound to stopped.
class served {
public:
  served() = default;
  ~served() {
    if (!thread_.joinable()) return;
    http.stop();
    thread_.join();
  }
  served(const served&) = delete;
  served& operator=(const served&) = delete;

  httplib::Server http; ///< routes are set and it is bound before run()

  /// Returns when it serves: httplib stops only what does, and leaves the rest running for ever.
  void run() {
    thread_ = std::thread{[this] {
      http.listen_after_bind();
      ended_ = true;
    }};
    while (!http.is_running() && !ended_) std::this_thread::yield(); // some microseconds
  }

private:
  std::thread thread_;
  std::atomic<bool> ended_{false};
};

class server final : public control_server {
public:
  explicit server(control_config config) : config_{std::move(config)} {}
  ~server() override { stop(); }

  status start(const supervisor_actor& supervisor) override {
    {
      std::lock_guard lock{mutex_};
      supervisor_.emplace(supervisor);
    }
    auto path = control_socket(config_.shared->options.state_directory);
    ::unlink(path.c_str());
    unix_ = std::make_unique<served>();
    unix_->http.set_address_family(AF_UNIX);
    routes(unix_->http, true);
    // A path over 107 bytes does not fit a socket address: go there through a descriptor of the
    // directory.
    auto address = path.string();
    if (address.size() > 107) {
      auto opened = open_file(path.parent_path(), O_RDONLY | O_DIRECTORY);
      if (!opened.ok()) return std::move(opened).err().with("control socket");
      directory_ = std::move(*opened);
      address = fmt::format("/proc/self/fd/{}/{}", directory_.get(), path.filename().string());
    }
    // The process makes all files for its owner alone. A umask of its own for this one would be that
    // of files which other threads make meanwhile.
    auto bound = unix_->http.bind_to_port(address.c_str(), 80);
    if (!bound) return errno_error(fmt::format("listen on {}", path.string()), errno);
    ::chmod(path.c_str(), 0600);
    unix_->run();
    return {};
  }

  status listen(const std::string& address) override {
    if (address == listening_) return {};
    tcp_.reset();
    listening_.clear();
    if (address.empty()) return {};
    auto colon = address.rfind(':');
    if (colon == std::string::npos)
      return error{errc::invalid_argument,
                   fmt::format("status.listen {}: host:port is expected", address)};
    auto host = address.substr(0, colon);
    if (host.size() > 2 && host.front() == '[') host = host.substr(1, host.size() - 2);
    auto port = std::atoi(address.c_str() + colon + 1);
    tcp_ = std::make_unique<served>();
    routes(tcp_->http, false);
    if (!tcp_->http.bind_to_port(host.c_str(), port)) {
      tcp_.reset();
      return error{errc::busy, fmt::format("status.listen {}: the address cannot be used ({}); "
                                           "choose another port in storage.yaml",
                                           address, std::generic_category().message(errno))};
    }
    tcp_->run();
    listening_ = address;
    return {};
  }

  void stop() override {
    config_.feed->close();
    if (unix_) {
      unix_.reset();
      ::unlink(control_socket(config_.shared->options.state_directory).c_str());
    }
    tcp_.reset();
    std::lock_guard lock{mutex_};
    supervisor_.reset();
  }

private:
  control_reply ask(const std::string& verb, const std::string& body) {
    std::optional<supervisor_actor> target;
    {
      std::lock_guard lock{mutex_};
      target = supervisor_;
    }
    control_reply out{503, R"({"format_version":1,"error":"the engine is stopping","exit":5})"};
    if (!target) return out;
    caf::scoped_actor self{*config_.system};
    self->request(*target, request_deadline, control_request{verb, body})
        .receive(
            [&](control_reply& r) { out = std::move(r); },
            [&](caf::error& e) {
              out.body =
                  json{{"format_version", 1}, {"error", describe(from_caf(e))}, {"exit", 5}}.dump();
            });
    return out;
  }

  void forward(const std::string& verb, const httplib::Request& request,
               httplib::Response& response) {
    auto reply = ask(verb, request.body);
    response.status = reply.status;
    response.set_content(reply.body + "\n", "application/json");
  }

  void routes(httplib::Server& s, bool commands) {
    s.set_payload_max_length(4 << 20);
    s.set_keep_alive_max_count(1);
    s.set_read_timeout(30);
    s.set_write_timeout(300);
    auto get = [&](const char* path, const char* verb) {
      s.Get(path,
            [this, verb](const httplib::Request& q, httplib::Response& r) { forward(verb, q, r); });
    };
    get("/v1/status", "status");
    get("/v1/nodes", "nodes");
    get("/v1/wallet", "wallet");
    s.Get("/v1/hello", [this](const httplib::Request&, httplib::Response& r) { hello(r); });
    s.Get("/v1/events", [this](const httplib::Request& q, httplib::Response& r) { events(q, r); });
    s.Get("/metrics", [this](const httplib::Request&, httplib::Response& r) {
      r.set_content(metrics_text(ask("status", {}).body), "text/plain; version=0.0.4");
    });
    s.Get("/", [](const httplib::Request&, httplib::Response& r) {
      r.set_content(status_page(), "text/html; charset=utf-8");
    });
    if (!commands) return;
    auto post = [&](const char* path, const char* verb) {
      s.Post(path, [this, verb](const httplib::Request& q, httplib::Response& r) {
        forward(verb, q, r);
      });
    };
    post("/v1/plan", "plan");
    post("/v1/accept", "accept");
    post("/v1/wallet/topup", "topup");
    post("/v1/mount", "mount");
    post("/v1/umount", "umount");
    post("/v1/cache/drop", "cache_drop");
    post("/v1/suspend", "suspend");
    post("/v1/resume", "resume");
    post("/v1/cancel", "cancel");
    post("/v1/nodes/replace", "node_replace");
    post("/v1/nodes/drain", "node_drain");
    post("/v1/nodes/delete", "node_delete");
    s.Post("/v1/stop", [this](const httplib::Request&, httplib::Response& r) {
      r.set_content("{\"format_version\":1}\n", "application/json");
      config_.stop();
    });
  }

  void hello(httplib::Response& r) {
    auto body = json{{"format_version", 1},
                     {"protocol", control_protocol},
                     {"version", QS_VERSION},
                     {"spec_versions", {1}},
                     {"state_schema", state::schema_version},
                     {"pid", ::getpid()},
                     {"name", config_.shared->options.volume},
                     {"started", to_rfc3339(started_)}};
    r.set_content(body.dump() + "\n", "application/json");
  }

  void events(const httplib::Request& q, httplib::Response& r) {
    std::uint64_t after = 0;
    std::int64_t wait = 0;
    if (q.has_param("after"))
      after = std::strtoull(q.get_param_value("after").c_str(), nullptr, 10);
    if (q.has_param("wait_ms"))
      wait = std::strtoll(q.get_param_value("wait_ms").c_str(), nullptr, 10);
    std::string out;
    for (const auto& e : config_.feed->after(
             after, std::chrono::milliseconds{std::clamp<std::int64_t>(wait, 0, 30'000)}))
      out += event_json(e) + "\n";
    r.set_content(out, "application/x-ndjson");
  }

  control_config config_;
  wall_time started_ = system_clock().wall();
  std::mutex mutex_;
  std::optional<supervisor_actor> supervisor_;
  std::unique_ptr<served> unix_;
  std::unique_ptr<served> tcp_;
  std::string listening_;
  unique_fd directory_;
};

} // namespace

std::unique_ptr<control_server> make_control(control_config config) {
  return std::make_unique<server>(std::move(config));
}

std::filesystem::path control_socket(const std::filesystem::path& state_directory) {
  return state_directory / "control.sock";
}

} // namespace qs::actors
