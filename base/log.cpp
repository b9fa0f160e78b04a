#include "base/log.hpp"

#include <atomic>
#include <memory>
#include <mutex>
#include <sys/stat.h>

#include <spdlog/sinks/rotating_file_sink.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include "base/utf8.hpp"

namespace qs::log {
namespace {

struct state {
  std::atomic<level> least{level::warning};
  std::atomic<bool> json{false};
  std::shared_ptr<spdlog::logger> sink = spdlog::stderr_color_mt("qs");
  state() {
    sink->set_level(spdlog::level::trace);
    sink->set_pattern("%Y-%m-%dT%H:%M:%S.%e %^%l%$ %v");
  }
};

state& shared() {
  static state instance;
  return instance;
}

spdlog::level::level_enum to_spdlog(level l) {
  switch (l) {
  case level::debug: return spdlog::level::debug;
  case level::info: return spdlog::level::info;
  case level::warning: return spdlog::level::warn;
  case level::error: return spdlog::level::err;
  case level::off: break;
  }
  return spdlog::level::off;
}

/// Control characters as \xNN, and for JSON also quotes and backslashes escaped. So are bytes that
/// are no UTF-8: what clients choose, such as names, need not be, and a line of JSON has to.
std::string escaped(std::string_view text, bool json) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size();) {
    auto length = utf8_length(text, i);
    auto c = text[i];
    auto u = static_cast<unsigned char>(c);
    if (length > 1)
      out += text.substr(i, length);
    else if (length == 0)
      out += json ? fmt::format("\\\\x{:02x}", u) : fmt::format("\\x{:02x}", u);
    else if (u < 0x20 || u == 0x7f)
      out += json ? fmt::format("\\u{:04x}", u) : fmt::format("\\x{:02x}", u);
    else if (json && (c == '"' || c == '\\'))
      (out += '\\') += c;
    else
      out += c;
    i += length > 0 ? length : 1;
  }
  return out;
}

} // namespace

void configure(const options& opt) {
  auto& s = shared();
  s.least = opt.least;
  s.json = opt.json;
  if (!opt.file.empty()) {
    auto before = ::umask(0077);
    try {
      s.sink = std::make_shared<spdlog::logger>(
          "qs", std::make_shared<spdlog::sinks::rotating_file_sink_mt>(opt.file.string(), 10 << 20, 5));
    } catch (const spdlog::spdlog_ex& e) {
      s.sink->error("log    cannot log to {}: {}", opt.file.string(), e.what());
    }
    ::umask(before);
    s.sink->flush_on(spdlog::level::info);
  }
  s.sink->set_level(spdlog::level::trace);
  s.sink->set_pattern(opt.json ? R"({"time":"%Y-%m-%dT%H:%M:%S.%e","level":"%l",%v})"
                               : "%Y-%m-%dT%H:%M:%S.%e %^%l%$ %v");
}

bool enabled(level l) noexcept { return l >= shared().least.load(std::memory_order_relaxed); }

void write(level l, std::string_view component, std::string_view text) {
  auto& s = shared();
  if (s.json)
    s.sink->log(to_spdlog(l), R"("component":"{}","message":"{}")", component, escaped(text, true));
  else
    s.sink->log(to_spdlog(l), "{}: {}", component, escaped(text, false));
}

void flush() { shared().sink->flush(); }

} // namespace qs::log
