#include "cli/control_client.hpp"

#include <cerrno>

#include <fcntl.h>
#include <sys/socket.h>

#include <fmt/format.h>
#include <httplib.h>
#include <nlohmann/json.hpp>

#include "actors/engine.hpp"
#include "cli/exit_codes.hpp"
#include "cli/terminal.hpp"

namespace qs::cli {
namespace {

using namespace std::chrono_literals;
using nlohmann::json;

constexpr std::size_t socket_path_max = 107;
constexpr auto starting_patience = 10s;

error failure(httplib::Error what, const std::string& path) {
  switch (what) {
  case httplib::Error::Connection: return {errc::unreachable, "no engine answers on the control socket; 'qs start' starts one"};
  case httplib::Error::ConnectionTimeout: return {errc::timed_out, "the engine does not take connections; try again, or 'qs restart'"};
  case httplib::Error::Read:
  case httplib::Error::Write: return {errc::timed_out, fmt::format("the engine gave no answer to {}; it may still be at it: look with 'qs status'", path)};
  default: return {errc::unreachable, fmt::format("asking the engine for {} failed: {}; 'qs logs' may say more", path, httplib::to_string(what))};
  }
}

} // namespace

refusal reply::why() const {
  auto parsed = json::parse(body, nullptr, false);
  refusal out{http == 503 ? exit_again : exit_failed, {}};
  if (parsed.is_object()) {
    if (auto e = parsed.find("error"); e != parsed.end() && e->is_string()) out.message = e->get<std::string>();
    if (auto e = parsed.find("exit"); e != parsed.end() && e->is_number_integer()) out.exit = e->get<int>();
  }
  if (out.message.empty()) out.message = fmt::format("the engine answered with HTTP {}; is it another version? 'qs restart'", http);
  return out;
}

result<reply> control_client::once(bool posting, const std::string& path, const std::string& body, std::chrono::milliseconds patience) const {
  try {
    httplib::Client client{address_, 80};
    client.set_address_family(AF_UNIX);
    client.set_connection_timeout(5s);
    client.set_write_timeout(30s);
    client.set_read_timeout(patience);
    auto answer = posting ? client.Post(path, body, "application/json") : client.Get(path);
    if (!answer) return failure(answer.error(), path);
    return reply{answer->status, std::move(answer->body)};
  } catch (const std::exception& e) {
    return error{errc::unreachable, fmt::format("asking the engine for {} failed: {}", path, e.what())};
  }
}

result<reply> control_client::ask(bool posting, const std::string& path, const std::string& body, std::chrono::milliseconds patience) const {
  auto until = std::chrono::steady_clock::now() + starting_patience;
  for (;;) {
    auto answer = once(posting, path, body, patience);
    if (!answer.ok() || answer->http != 503 || std::chrono::steady_clock::now() > until) return answer;
    if (interruptible_pause(100)) return answer;
  }
}

result<reply> control_client::get(const std::string& path, std::chrono::milliseconds patience) const { return ask(false, path, {}, patience); }

result<reply> control_client::post(const std::string& path, const std::string& body, std::chrono::milliseconds patience) const {
  return ask(true, path, body, patience);
}

result<control_client> control_client::open(const std::filesystem::path& state_directory, const std::string& volume,
                                            std::chrono::milliseconds patience) {
  control_client out;
  auto socket = actors::control_socket(state_directory);
  out.address_ = socket.string();
  if (out.address_.size() > socket_path_max) {
    auto opened = open_file(state_directory, O_RDONLY | O_DIRECTORY);
    if (!opened.ok()) return error{errc::unreachable, fmt::format("no engine runs for '{}'; 'qs start' starts one", volume)};
    out.directory_ = std::move(*opened);
    out.address_ = fmt::format("/proc/self/fd/{}/{}", out.directory_.get(), socket.filename().string());
  }
  auto until = std::chrono::steady_clock::now() + patience;
  for (;;) {
    auto hello = out.once(false, "/v1/hello", {}, 10s);
    if (!hello.ok()) {
      if (hello.err().code != errc::unreachable || std::chrono::steady_clock::now() >= until || interrupted()) return std::move(hello).err();
      interruptible_pause(50);
      continue;
    }
    auto said = json::parse(hello->body, nullptr, false);
    if (!hello->ok() || !said.is_object() || !said.contains("protocol") || !said["protocol"].is_number_integer())
      return error{errc::version_mismatch, "what answers on the control socket is no engine of this version; 'qs restart'"};
    if (auto theirs = said["protocol"].get<int>(); theirs != actors::control_protocol)
      return error{errc::version_mismatch,
                   fmt::format("the running engine (version {}) speaks protocol {}, this command (version {}) protocol {}; 'qs restart' starts "
                               "the engine anew with this version",
                               said.value("version", "unknown"), theirs, QS_VERSION, actors::control_protocol)};
    if (auto theirs = said.value("name", volume); theirs != volume)
      return error{errc::refused, fmt::format("the engine in {} is about the volume '{}', not '{}'", state_directory.string(), theirs, volume)};
    out.pid_ = said.value("pid", 0);
    out.version_ = said.value("version", "");
    return out;
  }
}

} // namespace qs::cli
