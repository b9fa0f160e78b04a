// The commands' end of the control socket: HTTP over AF_UNIX, one request at a time. The documents are those of
// actors/status_view.cpp and plan_view.cpp; JSON as text here, parsed by who knows it. Main thread.
#pragma once

#include <chrono>
#include <filesystem>
#include <string>

#include "base/posix.hpp"
#include "base/result.hpp"

namespace qs::cli {

/// An answer that is no success: what to tell the person and the exit code to end with.
struct refusal {
  int exit = 1;
  std::string message;
};

struct reply {
  int http = 0;
  std::string body;
  [[nodiscard]] bool ok() const noexcept { return http >= 200 && http < 300; }
  /// What an error answer says; made up from the status line if it says nothing.
  [[nodiscard]] refusal why() const;
};

class control_client {
public:
  /// Says hello, for as long as `patience` while an engine is starting. Errors: unreachable (no engine), timed_out,
  /// version_mismatch (another protocol: "qs restart"), refused (the engine of another volume).
  static result<control_client> open(const std::filesystem::path& state_directory, const std::string& volume,
                                     std::chrono::milliseconds patience);

  /// Errors: unreachable (the engine went away), timed_out. An engine that still starts or is busy for a moment is asked again
  /// for up to 10 s.
  result<reply> get(const std::string& path, std::chrono::milliseconds patience = std::chrono::seconds{30}) const;
  result<reply> post(const std::string& path, const std::string& body,
                     std::chrono::milliseconds patience = std::chrono::seconds{210}) const;

  [[nodiscard]] int engine_pid() const noexcept { return pid_; }
  [[nodiscard]] const std::string& engine_version() const noexcept { return version_; }

private:
  result<reply> once(bool posting, const std::string& path, const std::string& body, std::chrono::milliseconds patience) const;
  result<reply> ask(bool posting, const std::string& path, const std::string& body, std::chrono::milliseconds patience) const;

  std::string address_;
  unique_fd directory_; ///< keeps /proc/self/fd/N alive when the socket's path is too long
  int pid_ = 0;
  std::string version_;
};

} // namespace qs::cli
