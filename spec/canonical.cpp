#include <array>

#include <fmt/format.h>
#include <sodium.h>

#include "base/units.hpp"
#include "spec/load.hpp"

namespace qs::spec {
namespace {

/// A double-quoted YAML scalar.
std::string quoted(std::string_view text) {
  std::string out = "\"";
  for (auto c : text) {
    auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\')
      out += fmt::format("\\{}", c);
    else if (byte < 0x20 || byte == 0x7F)
      out += fmt::format("\\x{:02x}", byte);
    else
      out += c;
  }
  return out + "\"";
}

std::string size(byte_count bytes) {
  auto text = exact_bytes(bytes);
  return text.back() >= '0' && text.back() <= '9' ? text + "B" : text;
}

std::string flag(bool value) { return value ? "true" : "false"; }

class writer {
public:
  std::string out;

  void line(int depth, std::string_view key, std::string_view value) {
    out += fmt::format("{:{}}{}: {}\n", "", depth * 2, key, value);
  }
  void head(int depth, std::string_view key) {
    out += fmt::format("{:{}}{}:\n", "", depth * 2, key);
  }
  void words(int depth, std::string_view key, const std::vector<std::string>& list) {
    std::string all;
    for (const auto& word : list) all += (all.empty() ? "" : ", ") + quoted(word);
    line(depth, key, "[" + all + "]");
  }

  void grid(const grid_source& source) {
    if (std::holds_alternative<local_grid>(source)) {
      out += "  - local\n";
    } else if (const auto* threefold = std::get_if<threefold_grid>(&source)) {
      out += fmt::format("  - threefold: {{network: {}}}\n", threefold->network);
    } else {
      out += "  - hosts:\n";
      for (const auto& host : std::get<hosts_grid>(source).hosts) {
        out += fmt::format("      - name: {}\n", quoted(host.name));
        line(4, "address", quoted(host.address.written));
        line(4, "farm", quoted(host.farm));
        if (!host.country.empty()) line(4, "country", quoted(host.country));
        if (host.capacity) line(4, "capacity", size(*host.capacity));
        if (host.password) line(4, "password", quoted(host.password->written));
        line(4, "insecure", flag(host.insecure));
      }
    }
  }

  void storage(const storage_section& s) {
    head(0, "storage");
    line(1, "capacity", size(s.capacity));
    line(1, "redundancy", fmt::format("{{data: {}, parity: {}}}", s.data_shards, s.parity_shards));
    line(1, "nodes", fmt::format("{}", s.nodes));
    if (!s.locations.empty()) head(1, "locations");
    for (const auto& l : s.locations) {
      out += fmt::format("    - nodes: {}\n", l.nodes);
      if (!l.country.empty()) line(3, "country", quoted(l.country));
      if (!l.farm.empty()) line(3, "farm", quoted(l.farm));
      if (!l.region.empty()) line(3, "region", quoted(l.region));
    }
    head(1, "spread");
    line(2, "host", fmt::format("{}", s.spread.host));
    line(2, "farm", fmt::format("{}", s.spread.farm));
    if (s.spread.country) line(2, "country", fmt::format("{}", *s.spread.country));
    head(1, "exclude");
    words(2, "hosts", s.exclude.hosts);
    words(2, "farms", s.exclude.farms);
    words(2, "countries", s.exclude.countries);
    line(1, "protect", flag(s.protect));
  }

  void mount(const mount_section& m) {
    head(0, "mount");
    line(1, "path", quoted(m.path.written));
    head(1, "cache");
    line(2, "size", size(m.cache.size));
    if (m.cache.path) line(2, "path", quoted(m.cache.path->written));
    head(1, "staging");
    line(2, "size", size(m.staging.size));
    if (m.staging.path) line(2, "path", quoted(m.staging.path->written));
    line(1, "fsync", m.fsync == fsync_mode::local ? "local" : "grid");
    head(1, "options");
    line(2, "allow_other", flag(m.options.allow_other));
    line(2, "writeback", flag(m.options.writeback));
  }

  void notify(const notify_target& target) {
    if (const auto* hook = std::get_if<webhook_target>(&target)) {
      out += fmt::format("  - webhook: {}\n", quoted(hook->url.written));
    } else if (const auto* mail = std::get_if<email_target>(&target)) {
      out += fmt::format("  - email: {}\n    smtp: {}\n", quoted(mail->to),
                         quoted(mail->smtp.written));
    } else {
      const auto& telegram = std::get<telegram_target>(target);
      out += fmt::format("  - telegram:\n      chat: {}\n      token: {}\n", telegram.chat,
                         quoted(telegram.token.written));
    }
  }
};

} // namespace

std::string to_canonical(const storage_spec& spec) {
  writer w;
  w.line(0, "version", fmt::format("{}", spec.version));
  w.line(0, "name", quoted(spec.name));
  w.head(0, "grid");
  for (const auto& source : spec.grids) w.grid(source);
  w.storage(spec.storage);
  if (spec.mount) w.mount(*spec.mount);
  const auto& p = spec.payment;
  w.head(0, "payment");
  w.line(1, "runway", exact_duration(p.runway));
  w.line(1, "top_up_below", exact_duration(p.top_up_below));
  if (p.max_per_month) w.line(1, "max_per_month", model::to_decimal(*p.max_per_month) + " TFT");
  w.line(1, "confirm", p.confirm == confirm_mode::wallet ? "wallet" : "connect");
  if (p.public_url) w.line(1, "public_url", quoted(p.public_url->written));
  const auto& m = spec.monitor;
  w.head(0, "monitor");
  w.line(1, "interval", exact_duration(m.interval));
  w.line(1, "failed_after", exact_duration(m.failed_after));
  w.line(1, "replace_after", exact_duration(m.replace_after));
  w.line(1, "scrub_every", exact_duration(m.scrub_every));
  if (!spec.notify.empty()) w.head(0, "notify");
  for (const auto& target : spec.notify) w.notify(target);
  if (spec.status) {
    w.head(0, "status");
    w.line(1, "listen", quoted(spec.status->listen));
  }
  return w.out;
}

std::string canonical_hash(const storage_spec& spec) {
  auto text = to_canonical(spec);
  std::array<unsigned char, 32> digest{};
  crypto_generichash(digest.data(), digest.size(),
                     reinterpret_cast<const unsigned char*>(text.data()), text.size(), nullptr, 0);
  std::string out;
  for (auto byte : digest) out += fmt::format("{:02x}", byte);
  return out;
}

} // namespace qs::spec
