#include "spec/rules.hpp"

#include <algorithm>

#include <fmt/format.h>

#include "spec/scalars.hpp"

namespace qs::spec {
namespace {

class checker {
public:
  checker(const storage_spec& spec, const fields_read& read, diagnostics& problems)
      : spec_{spec}, read_{read}, problems_{problems} {}

  void all() {
    version();
    redundancy();
    monitor();
    payment();
    mount();
    notify();
    status();
  }

private:
  bool sound(std::initializer_list<const char*> paths) const {
    return std::all_of(paths.begin(), paths.end(), [&](const char* p) { return read_.sound(p); });
  }
  void report(std::string_view code, const std::string& path, std::string message,
              severity level = severity::error) {
    problems_.push_back({level, std::string{code}, std::move(message), read_.place(path)});
  }

  void version() {
    if (read_.sound("version") && spec_.version > 1)
      report("QS0101", "version",
             fmt::format("this qs reads version 1, not {}; a newer qs is needed", spec_.version));
  }

  void redundancy() {
    if (!sound({"storage.redundancy", "storage.nodes"})) return;
    const auto& s = spec_.storage;
    auto needed = s.data_shards + s.parity_shards;
    if (s.nodes >= needed) return;
    if (read_.given("storage.redundancy.parity"))
      report("QS0107", "storage.redundancy.parity",
             fmt::format("parity {} needs {} nodes, but nodes is {}", s.parity_shards, needed,
                         s.nodes));
    else if (read_.given("storage.redundancy.data"))
      report("QS0107", "storage.redundancy.data",
             fmt::format("data {} with parity {} needs {} nodes, but nodes is {}", s.data_shards,
                         s.parity_shards, needed, s.nodes));
    else
      report("QS0107", "storage.nodes",
             fmt::format("nodes is {}, but data {} and parity {} (the default) need {}", s.nodes,
                         s.data_shards, s.parity_shards, needed));
  }

  void monitor() {
    const auto& m = spec_.monitor;
    auto show = [](duration d) { return exact_duration(d); };
    if (!sound({"monitor.interval", "monitor.failed_after", "monitor.replace_after"})) return;
    auto place = [&](const char* key) { return read_.given(key) ? key : "monitor.interval"; };
    if (m.failed_after < m.interval)
      report("QS0121", place("monitor.failed_after"),
             fmt::format("failed_after {} is shorter than interval {}: every node would fail "
                         "between two looks",
                         show(m.failed_after), show(m.interval)));
    else if (m.failed_after < 2 * m.interval)
      report(
          "QS0305", place("monitor.failed_after"),
          fmt::format(
              "failed_after {} is less than two intervals of {}: one lost answer makes a node fail",
              show(m.failed_after), show(m.interval)),
          severity::warning);
    if (m.replace_after < m.interval)
      report("QS0122", place("monitor.replace_after"),
             fmt::format("replace_after {} is shorter than interval {}: a node would be replaced "
                         "without a second look",
                         show(m.replace_after), show(m.interval)));
  }

  void payment() {
    const auto& p = spec_.payment;
    if (sound({"payment.runway", "payment.top_up_below"}) && p.top_up_below > p.runway)
      report("QS0123",
             read_.given("payment.top_up_below") ? "payment.top_up_below" : "payment.runway",
             fmt::format(
                 "top_up_below {} is longer than runway {}: money would be asked for all the time",
                 exact_duration(p.top_up_below), exact_duration(p.runway)));
    if (read_.sound("payment.max_per_month") && p.max_per_month && p.max_per_month->units == 0)
      report("QS0306", "payment.max_per_month",
             "max_per_month is 0: every plan that costs anything is refused", severity::warning);
  }

  /// The log or the cache inside the mount would wait for themselves.
  void mount() {
    if (!spec_.mount || !sound({"mount.path", "mount.cache", "mount.staging"})) return;
    auto clean = [](const sourced& s) {
      std::string out;
      for (auto c : s.value)
        if (c != '/' || out.empty() || out.back() != '/') out.push_back(c);
      while (out.size() > 1 && out.back() == '/') out.pop_back();
      return out;
    };
    auto inside = [](const std::string& path, const std::string& top) {
      return path == top || (path.size() > top.size() && path.compare(0, top.size(), top) == 0 &&
                             path[top.size()] == '/');
    };
    auto top = clean(spec_.mount->path);
    auto check = [&](const std::optional<sourced>& path, const char* key, const char* name) {
      if (path && !path->value.empty() && !top.empty() && inside(clean(*path), top))
        report(
            "QS0117", key,
            fmt::format("the {} must not be inside the mount {}", name, spec_.mount->path.written));
    };
    check(spec_.mount->cache.path, "mount.cache.path", "cache");
    check(spec_.mount->staging.path, "mount.staging.path", "staging directory");
    const auto& cache = spec_.mount->cache.path;
    const auto& staging = spec_.mount->staging.path;
    if (cache && staging && !cache->value.empty() && !staging->value.empty() &&
        (inside(clean(*staging), clean(*cache)) || inside(clean(*cache), clean(*staging))))
      report("QS0118", "mount.staging.path",
             "staging and cache must be in directories of their own: the cache may be emptied at "
             "any time");
  }

  void notify() {
    for (std::size_t i = 0; i < read_.count("notify"); ++i) {
      auto at = item_path("notify", i);
      if (!read_.sound(at)) continue;
      auto has = [&](const char* key) { return read_.given(at + "." + key); };
      auto targets = int{has("webhook")} + int{has("email")} + int{has("telegram")};
      if (targets != 1)
        report("QS0028", at,
               targets == 0 ? "an entry of notify takes one of webhook, email or telegram"
                            : "an entry of notify takes only one of webhook, email or telegram; "
                              "write one entry for each");
      else if (has("email") != has("smtp"))
        report("QS0028", at + (has("email") ? ".email" : ".smtp"),
               has("email") ? "email needs smtp, the server that takes the mail, for example smtp: "
                              "\"smtp://mail.example.org\""
                            : "smtp belongs to email, which is missing");
    }
  }

  void status() {
    if (!spec_.status || !read_.sound("status")) return;
    auto listen = parse_host_port(spec_.status->listen);
    if (listen && !is_loopback(listen->host))
      report("QS0303", "status.listen",
             fmt::format("{} can be reached from other machines: anyone there can read the status",
                         spec_.status->listen),
             severity::warning);
  }

  const storage_spec& spec_;
  const fields_read& read_;
  diagnostics& problems_;
};

} // namespace

void check_rules(const storage_spec& spec, const fields_read& read, diagnostics& problems) {
  checker{spec, read, problems}.all();
  check_placement(spec, read, problems);
}

} // namespace qs::spec
