#include "grid/ledger.hpp"

#include <algorithm>
#include <deque>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/posix.hpp"

namespace qs::grid {

// One line of the file. `amount` is what moved; a charge's `owed` is what the balance did not
// cover, a credit's `owed` what of it went to old debts at once.
struct ledger::line {
  wall_time at{};
  std::string wallet;
  std::string kind; ///< credit, charge
  std::string subject;
  model::money amount;
  model::money owed;
  std::map<std::string, wall_time> nodes; ///< charged until
  model::money balance;                   ///< afterwards: written for people, checked when read
};

namespace {

using nlohmann::json;

constexpr model::money credit_max{1'000'000'000 * model::units_per_tft};

std::int64_t millis(wall_time t) { return t.time_since_epoch().count(); }
wall_time from_millis(std::int64_t ms) { return wall_time{std::chrono::milliseconds{ms}}; }

__extension__ using wide = __int128;

/// floor(rate · elapsed / month)
std::int64_t cost(model::money rate, std::chrono::milliseconds elapsed) {
  constexpr auto month = std::chrono::milliseconds{charge_month}.count();
  return static_cast<std::int64_t>(static_cast<wide>(rate.units) * elapsed.count() / month);
}

template <class Line>
std::string print(const Line& l) {
  json out{{"at", to_rfc3339(l.at)},
           {"at_ms", millis(l.at)},
           {"wallet", l.wallet},
           {"kind", l.kind},
           {"subject", l.subject},
           {"amount", model::to_decimal(l.amount)},
           {"balance", model::to_decimal(l.balance)}};
  if (l.owed.units != 0) out["owed"] = model::to_decimal(l.owed);
  if (!l.nodes.empty()) {
    auto& nodes = out["until_ms"] = json::object();
    for (const auto& [name, until] : l.nodes) nodes[name] = millis(until);
  }
  return out.dump(-1, ' ', false, json::error_handler_t::replace) + "\n";
}

template <class Line>
result<Line> parse(std::string_view text) {
  try {
    auto in = json::parse(text);
    Line l;
    l.at = from_millis(in.at("at_ms").template get<std::int64_t>());
    l.wallet = in.at("wallet").template get<std::string>();
    l.kind = in.at("kind").template get<std::string>();
    l.subject = in.at("subject").template get<std::string>();
    QS_TRY_ASSIGN(l.amount, model::parse_money(in.at("amount").template get<std::string>()));
    QS_TRY_ASSIGN(l.balance, model::parse_money(in.at("balance").template get<std::string>()));
    if (in.contains("owed")) {
      QS_TRY_ASSIGN(l.owed, model::parse_money(in["owed"].template get<std::string>()));
    }
    if (in.contains("until_ms"))
      for (const auto& [name, until] : in["until_ms"].items())
        l.nodes[name] = from_millis(until.template get<std::int64_t>());
    if (l.kind != "credit" && l.kind != "charge")
      return error{errc::corrupt, fmt::format("unknown kind '{}'", l.kind)};
    return l;
  } catch (const json::exception& e) {
    return error{errc::corrupt, e.what()};
  }
}

/// Calls `each(line, offset behind it)` for every whole line from `offset` on. Gives the end of the
/// last whole line.
template <class Each>
result<std::uint64_t> whole_lines(int fd, std::uint64_t offset, std::uint64_t size, Each&& each) {
  constexpr std::size_t line_max = 4 * mib;
  std::string held;
  auto end = offset;
  buffer chunk(256 * kib);
  while (offset < size) {
    auto n = std::min<std::uint64_t>(chunk.size(), size - offset);
    QS_TRY(read_exactly(fd, mutable_byte_span{chunk}.first(n), offset));
    offset += n;
    held += as_text(byte_span{chunk}.first(n));
    std::size_t from = 0;
    for (auto at = held.find('\n'); at != std::string::npos; at = held.find('\n', from)) {
      end += at + 1 - from;
      QS_TRY(each(std::string_view{held}.substr(from, at - from)));
      from = at + 1;
    }
    held.erase(0, from);
    if (held.size() > line_max) return error{errc::corrupt, "a line is longer than 4 MiB"};
  }
  return end;
}

result<std::uint64_t> size_of(int fd) {
  struct ::stat info {};
  if (::fstat(fd, &info) != 0) return errno_error("fstat", errno);
  return static_cast<std::uint64_t>(info.st_size);
}

} // namespace

status ledger::apply(const line& l) {
  auto& a = accounts_[l.wallet];
  auto after = l.kind == "credit" ? a.balance + l.amount - l.owed : a.balance - l.amount;
  if (after != l.balance)
    return error{errc::corrupt,
                 fmt::format("the balance should be {} and is written as {}",
                             model::to_decimal(after), model::to_decimal(l.balance))};
  a.balance = after;
  a.owed = l.kind == "credit" ? a.owed - l.owed : a.owed + l.owed;
  for (const auto& [name, until] : l.nodes) {
    auto& known = a.charged_until[name];
    known = std::max(known, until);
  }
  return {};
}

result<std::uint64_t> ledger::read_lines(int fd, std::uint64_t size) {
  if (size < offset_) { // somebody restored or removed it: what it says now is what holds
    offset_ = lines_ = 0;
    accounts_.clear();
  }
  auto end = whole_lines(fd, offset_, size, [&](std::string_view text) -> status {
    ++lines_;
    auto parsed = parse<line>(text);
    auto ok = parsed.ok() ? apply(*parsed) : status{std::move(parsed).err()};
    if (!ok) return error{errc::corrupt, fmt::format("line {}: {}", lines_, ok.err().message)};
    return {};
  });
  if (!end) {
    offset_ = lines_ = 0; // nothing half-read is kept
    accounts_.clear();
    return std::move(end).err().with(file_.string());
  }
  offset_ = *end;
  return end;
}

status ledger::peek(const std::string& wallet) {
  auto fd = open_file(file_, O_RDONLY);
  if (fd) {
    QS_TRY_ASSIGN(auto size, size_of(fd->get()));
    QS_TRY(read_lines(fd->get(), size));
  } else if (fd.err().sys != ENOENT) {
    return std::move(fd).err();
  }
  accounts_.try_emplace(wallet, account{welcome_credit, {}, {}});
  return {};
}

status ledger::refresh(const std::string& wallet, wall_time now) {
  QS_TRY_ASSIGN(auto fd, open_file(file_, O_RDWR | O_CREAT, 0600));
  QS_TRY_ASSIGN(auto size, size_of(fd.get()));
  QS_TRY_ASSIGN(auto end, read_lines(fd.get(), size));
  // A crash cut the last append. Whoever wrote it held the lock we hold, so nobody is still
  // writing.
  if (end < size && (::ftruncate(fd.get(), static_cast<off_t>(end)) != 0 || ::fsync(fd.get()) != 0))
    return errno_error(fmt::format("cut the torn end of {}", file_.string()), errno);
  if (size == 0) QS_TRY(sync_directory(file_.parent_path()));
  if (wallet.empty() || accounts_.contains(wallet)) return {};
  return credit(wallet, welcome_credit, "welcome", now);
}

status ledger::append(const line& l) {
  auto text = print(l);
  QS_TRY_ASSIGN(auto fd, open_file(file_, O_WRONLY | O_APPEND));
  auto written = write_all(fd.get(), as_bytes(text));
  if (written.ok() && ::fdatasync(fd.get()) != 0) written = errno_error("fdatasync", errno);
  if (!written.ok()) {
    // Not counted here, so it must not be there either.
    if (::ftruncate(fd.get(), static_cast<off_t>(offset_)) != 0)
      offset_ = UINT64_MAX; // read all again next time
    return std::move(written).err().with(fmt::format("append to {}", file_.string()));
  }
  offset_ += text.size();
  ++lines_;
  return apply(l);
}

model::money ledger::due(const account& a, const charged_node& node, wall_time now) const {
  auto to = node.until == wall_time{} ? now : std::min(now, node.until);
  auto from = node.since;
  if (auto it = a.charged_until.find(node.name); it != a.charged_until.end())
    from = std::max(from, it->second);
  if (to <= from) return {};
  return {cost(node.rate, to - node.since) - cost(node.rate, from - node.since)};
}

model::money ledger::balance(const std::string& wallet, const std::vector<charged_node>& nodes,
                             wall_time now) const {
  auto it = accounts_.find(wallet);
  if (it == accounts_.end()) return {};
  auto left = it->second.balance - it->second.owed;
  for (const auto& node : nodes) left = left - due(it->second, node, now);
  return std::max(left, model::money{});
}

status ledger::pay(const std::string& wallet, const std::vector<charged_node>& nodes,
                   wall_time now) {
  const auto& a = accounts_[wallet];
  line l{now, wallet, "charge", {}, {}, {}, {}, {}};
  model::money sum;
  for (const auto& node : nodes) {
    auto amount = due(a, node, now);
    if (amount.units == 0) continue;
    sum += amount;
    l.nodes[node.name] = node.until == wall_time{} ? now : std::min(now, node.until);
  }
  if (l.nodes.empty()) return {};
  l.subject =
      l.nodes.size() == 1 ? l.nodes.begin()->first : fmt::format("{} nodes", l.nodes.size());
  l.amount = std::min(sum, a.balance);
  l.owed = sum - l.amount;
  l.balance = a.balance - l.amount;
  return append(l);
}

status ledger::settle(const std::string& wallet, const std::vector<charged_node>& nodes,
                      wall_time now) {
  return pay(wallet, nodes, now);
}

status ledger::charge(const std::string& wallet, const std::vector<charged_node>& nodes,
                      wall_time now) {
  const auto& a = accounts_[wallet];
  for (const auto& node : nodes) {
    auto it = a.charged_until.find(node.name);
    auto from = it == a.charged_until.end() ? node.since : std::max(node.since, it->second);
    if (now - from >= charge_every && due(a, node, now).units > 0) return pay(wallet, nodes, now);
  }
  return {};
}

status ledger::credit(const std::string& wallet, model::money amount, const std::string& subject,
                      wall_time now) {
  if (amount.units <= 0 || amount > credit_max)
    return error{errc::invalid_argument,
                 fmt::format("{} cannot be credited; give a positive amount of at most {}",
                             model::format_money(amount), model::format_money(credit_max))};
  const auto& a = accounts_[wallet];
  line l{now, wallet, "credit", subject, amount, std::min(amount, a.owed), {}, {}};
  l.balance = a.balance + amount - l.owed;
  return append(l);
}

result<std::vector<ledger_entry>> ledger::newest(const std::string& wallet,
                                                 std::size_t most) const {
  auto fd = open_file(file_, O_RDONLY);
  if (!fd && fd.err().sys == ENOENT) return std::vector<ledger_entry>{};
  if (!fd) return std::move(fd).err();
  std::deque<ledger_entry> last;
  auto end = whole_lines(fd->get(), 0, offset_, [&](std::string_view text) -> status {
    QS_TRY_ASSIGN(auto l, parse<line>(text));
    if (l.wallet != wallet) return {};
    last.push_back({l.at, l.kind, l.subject, l.amount, l.balance});
    if (last.size() > most) last.pop_front();
    return {};
  });
  if (!end) return std::move(end).err().with(file_.string());
  return std::vector<ledger_entry>{last.begin(), last.end()};
}

} // namespace qs::grid
