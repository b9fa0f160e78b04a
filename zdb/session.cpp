#include "zdb/session.hpp"

#include <algorithm>
#include <charconv>

#include <fmt/format.h>

#include "base/limits.hpp"
#include "zdb/sha1.hpp"

namespace qs::zdb {

namespace {

constexpr std::string_view no_challenge = "the server knows no challenge-response";

template <class T>
T number_or_zero(std::string_view text) {
  T value{};
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

std::map<std::string, std::string, std::less<>> parse_lines(std::string_view text) {
  std::map<std::string, std::string, std::less<>> lines;
  while (!text.empty()) {
    auto end = std::min(text.find('\n'), text.size());
    auto line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.ends_with('\r')) line.remove_suffix(1);
    auto colon = line.find(':');
    if (colon == std::string_view::npos || line.starts_with('#')) continue;
    auto value = line.substr(colon + 1);
    if (value.starts_with(' ')) value.remove_prefix(1);
    lines.emplace(line.substr(0, colon), value);
  }
  return lines;
}

std::string_view line_of(const std::map<std::string, std::string, std::less<>>& lines,
                         std::string_view name) {
  auto it = lines.find(name);
  return it == lines.end() ? std::string_view{} : std::string_view{it->second};
}

server_info parse_info(std::string_view text) {
  server_info info;
  info.lines = parse_lines(text);
  info.instance_id = line_of(info.lines, "instance_id");
  info.boot_time = number_or_zero<std::int64_t>(line_of(info.lines, "boot_time"));
  auto list = line_of(info.lines, "extensions");
  while (!list.empty()) {
    auto end = std::min(list.find(' '), list.size());
    if (end > 0) info.extensions.emplace_back(list.substr(0, end));
    list.remove_prefix(std::min(end + 1, list.size()));
  }
  return info;
}

namespace_info parse_nsinfo(std::string_view text) {
  namespace_info info;
  info.lines = parse_lines(text);
  auto line = [&](std::string_view name) { return line_of(info.lines, name); };
  auto number = [&](std::string_view name) { return number_or_zero<std::uint64_t>(line(name)); };
  info.name = line("name");
  info.entries = number("entries");
  info.is_public = line("public") == "yes";
  info.has_password = line("password") == "yes";
  info.worm = line("worm") == "yes";
  info.locked = line("locked") == "yes";
  info.mode = line("mode");
  info.data_size_bytes = number("data_size_bytes");
  info.data_limits_bytes = number("data_limits_bytes");
  info.index_size_bytes = number("index_size_bytes");
  info.free_bytes = number("data_disk_freespace_bytes");
  return info;
}

error unexpected(std::string_view command, const reply& r) {
  constexpr std::string_view kinds[] = {"simple", "error", "integer", "bulk", "nil", "array"};
  return {errc::protocol, fmt::format("{}: a reply of the wrong kind ({})", command,
                                      kinds[static_cast<std::size_t>(r.kind)])};
}

/// Takes a reply or why there is none; false when the reply is not one the command can give.
using on_reply = std::function<bool(result<reply>)>;

/// Wraps a typed callback: transport errors and error replies become errors, the rest is read by `read`.
template <class T, class Read>
on_reply reading(std::string_view command, callback<T> done, Read read) {
  return [command, done = std::move(done), read = std::move(read)](result<reply> r) {
    if (!r.ok()) return done(std::move(r).err()), true;
    if (r->is_error()) return done(error_from_reply(r->text).with(command)), true;
    result<T> value = read(*r);
    auto in_protocol = value.ok() || value.err().code != errc::protocol;
    done(std::move(value));
    return in_protocol;
  };
}

on_reply expecting_ok(std::string_view command, callback<void> done) {
  return reading<void>(command, std::move(done), [command](reply& r) -> status {
    if (r.kind == reply_kind::simple) return {};
    return unexpected(command, r);
  });
}

result<scan_page> read_scan(reply& r) {
  if (r.kind != reply_kind::array || r.items.size() != 2 || !r.items[0].bulk ||
      r.items[1].kind != reply_kind::array)
    return unexpected("SCAN", r);
  scan_page page;
  page.cursor = r.items[0].string();
  page.items.reserve(r.items[1].items.size());
  for (auto& item : r.items[1].items) {
    if (item.kind != reply_kind::array || item.items.size() != 3 || !item.items[0].bulk ||
        item.items[1].kind != reply_kind::integer || item.items[2].kind != reply_kind::integer ||
        item.items[1].number < 0)
      return unexpected("SCAN", item);
    page.items.push_back({std::string{item.items[0].string()},
                          static_cast<std::uint64_t>(item.items[1].number), item.items[2].number});
  }
  return page;
}

template <class... A>
std::vector<piece> request(const A&... arguments) {
  output out;
  add_request_header(out, sizeof...(arguments));
  (add_argument(out, arguments), ...);
  return out.take();
}

std::size_t size_of(const std::vector<piece>& pieces) {
  std::size_t n = 0;
  for (auto& p : pieces) n += p.bytes().size();
  return n;
}

} // namespace

error error_from_reply(std::string_view text) {
  struct row {
    std::string_view start;
    errc code;
  };
  // By the server's exact texts; the longest match is not needed, no row is a prefix of another's meaning.
  static constexpr row rows[] = {
      {"Access denied", errc::access_denied},
      {"Namespace protected and private", errc::access_denied},
      {"Password too long", errc::access_denied},
      {"No space left on this namespace", errc::no_space},
      {"Namespace is temporarily", errc::refused},
      {"Namespace is in read-only mode", errc::refused},
      {"Namespace is protected by worm mode", errc::refused},
      {"Cannot delete a key when namespace is in worm mode", errc::refused},
      {"Permission denied", errc::refused},
      {"Flushing public namespace denied", errc::refused},
      {"Cannot remove", errc::refused},
      {"Cannot update default namespace", errc::refused},
      {"Cannot change mode of used namespace", errc::refused},
      {"Invalid key, only update authorized", errc::refused},
      {"Data files are gone", errc::data_lost},
      {"Your active namespace is not available anymore", errc::not_found},
      {"Namespace not found", errc::not_found},
      {"This namespace doesn't exists", errc::not_found},
      {"Key not found", errc::not_found},
      {"This namespace is not available", errc::already_exists},
      {"Command not supported", errc::unsupported},
      {"Command disabled", errc::unsupported},
      {"Unauthorized", errc::unsupported},
      {"Cannot write", errc::io},
      {"Cannot delete key", errc::io},
      {"Could not", errc::io},
      {"Internal", errc::io},
      {"Try again", errc::busy},
  };
  auto code = errc::invalid_argument;
  for (auto& r : rows)
    if (text.starts_with(r.start)) {
      code = r.code;
      break;
    }
  return {code, fmt::format("the node says \"{}\"", text)};
}

std::string challenge_answer(std::string_view challenge, std::string_view password) {
  return sha1_hex(fmt::format("{}:{}", challenge, password));
}

session::session(session_options options, const qs::clock& time)
    : options_{std::move(options)}, time_{time} {}

void session::start(effect what, std::vector<piece> pieces,
                    std::function<bool(result<reply>)> done, bool urgent) {
  if (phase_ == phase::closed) {
    done(closed_why_);
    return;
  }
  request r;
  r.what = what;
  r.bytes = size_of(pieces);
  r.done = std::move(done);
  bytes_in_flight_ += r.bytes;
  if (!urgent && (phase_ != phase::ready || selecting_)) {
    r.held = std::move(pieces);
    held_.push_back(std::move(r));
    return;
  }
  for (auto& p : pieces) p.payload ? out_.add(std::move(p.payload)) : out_.add(p.text);
  sent_.push_back(std::move(r));
  ++unsent_;
}

void session::release_held() {
  while (phase_ == phase::ready && !selecting_ && !held_.empty()) {
    auto r = std::move(held_.front());
    held_.pop_front();
    for (auto& p : r.held) p.payload ? out_.add(std::move(p.payload)) : out_.add(p.text);
    r.held.clear();
    sent_.push_back(std::move(r));
    ++unsent_;
  }
}

bool session::valid_key(const std::string& key) const {
  return !key.empty() && key.size() <= limits::zdb_key_bytes_max;
}

namespace {
error bad_key() { return {errc::invalid_argument, "a key has 1 to 255 bytes"}; }
error bad_value() { return {errc::invalid_argument, "a value has at most 8 MiB"}; }
bool valid_value(const buffer_ptr& value) {
  return value != nullptr && value->size() <= limits::zdb_payload_bytes_max;
}
} // namespace

// -- handshake ------------------------------------------------------------------------------------

void session::handshake(callback<void> done) {
  QS_ASSERT(phase_ == phase::fresh);
  phase_ = phase::greeting;
  greeted_ = std::move(done);
  greet_auth();
}

void session::challenge_then(std::string password, std::function<void(result<std::string>)> next) {
  auto read = [password = std::move(password), next = std::move(next)](result<reply> r) {
    if (!r.ok()) return next(std::move(r).err()), true;
    if (r->is_error()) return next(error{errc::unsupported, std::string{no_challenge}}), true;
    if (r->kind != reply_kind::simple || r->text.size() != 16)
      return next(unexpected("AUTH SECURE CHALLENGE", *r)), false;
    next(challenge_answer(r->text, password));
    return true;
  };
  start(effect::read, zdb::request("AUTH", "SECURE", "CHALLENGE"), std::move(read), true);
}

void session::greet_auth() {
  if (options_.admin_password.empty()) return greet_select();
  auto finish = [this](result<reply> r) {
    if (!r.ok()) return greeted(std::move(r).err()), true;
    // "Authentication disabled": the server has no admin password, everybody is admin.
    if (r->is_error() && r->text != "Authentication disabled")
      return greeted(error_from_reply(r->text).with("AUTH")), true;
    greet_select();
    return true;
  };
  challenge_then(options_.admin_password, [this, finish](result<std::string> answer) {
    if (answer.ok())
      return start(effect::read, zdb::request("AUTH", "SECURE", *answer), finish, true);
    if (answer.err().code != errc::unsupported || !options_.allow_plain)
      return greeted(std::move(answer).err().with("AUTH"));
    start(effect::read, zdb::request("AUTH", options_.admin_password), finish, true);
  });
}

void session::greet_select() {
  if (options_.name_space == "default" && options_.password.empty()) return greet_discover();
  do_select(options_.name_space, options_.password, [this](status selected) {
    if (!selected.ok()) return greeted(std::move(selected));
    greet_discover();
  });
}

void session::do_select(std::string name_space, std::string password, callback<void> done) {
  auto finish = expecting_ok("SELECT", std::move(done));
  if (password.empty())
    return start(effect::read, zdb::request("SELECT", name_space), std::move(finish), true);
  challenge_then(password, [this, name_space, password, finish](result<std::string> answer) {
    if (answer.ok())
      return start(effect::read, zdb::request("SELECT", name_space, "SECURE", *answer), finish, true);
    if (answer.err().code != errc::unsupported || !options_.allow_plain)
      return (void)finish(std::move(answer).err().with("SELECT"));
    start(effect::read, zdb::request("SELECT", name_space, password), finish, true);
  });
}

void session::greet_discover() {
  if (!options_.discover) return greeted({});
  auto read = [this](result<reply> r) {
    if (!r.ok()) return greeted(std::move(r).err()), true;
    if (r->kind == reply_kind::bulk) server_ = parse_info(r->string());
    greeted({}); // a server that refuses INFO has no extensions
    return true;
  };
  start(effect::read, zdb::request("INFO"), std::move(read), true);
}

void session::greeted(status outcome) {
  if (phase_ != phase::greeting) return; // closed meanwhile: connection_lost has answered
  auto done = std::exchange(greeted_, {});
  if (outcome.ok()) {
    phase_ = phase::ready;
    done({});
    release_held();
    return;
  }
  auto why = outcome.err();
  phase_ = phase::closed;
  closed_why_ = why;
  fail_all(why, true);
  done(why);
}

// -- operations -----------------------------------------------------------------------------------

void session::set(std::string key, buffer_ptr value, callback<set_outcome> done) {
  if (!valid_key(key)) return done(bad_key());
  if (!valid_value(value)) return done(bad_value());
  auto read = [key](reply& r) -> result<set_outcome> {
    if (r.is_nil()) return set_outcome::identical;
    if (r.kind == reply_kind::bulk && r.string() == key) return set_outcome::stored;
    return unexpected("SET", r);
  };
  start(effect::write, zdb::request("SET", key, value),
        reading<set_outcome>("SET", std::move(done), std::move(read)));
}

void session::setnx(std::string key, buffer_ptr value, callback<bool> done) {
  if (!valid_key(key)) return done(bad_key());
  if (!valid_value(value)) return done(bad_value());
  auto read = [](reply& r) -> result<bool> {
    if (r.is_nil()) return false;
    if (r.kind == reply_kind::bulk) return true;
    return unexpected("SETNX", r);
  };
  start(effect::write, zdb::request("SETNX", key, value),
        reading<bool>("SETNX", std::move(done), std::move(read)));
}

void session::append(buffer_ptr value, callback<std::string> done) {
  if (!valid_value(value)) return done(bad_value());
  auto read = [](reply& r) -> result<std::string> {
    if (r.kind != reply_kind::bulk || r.bulk->size() != 8) return unexpected("SET", r);
    return std::string{r.string()};
  };
  start(effect::write, zdb::request("SET", "", value),
        reading<std::string>("SET", std::move(done), std::move(read)));
}

void session::get(std::string key, callback<buffer_ptr> done) {
  if (!valid_key(key)) return done(bad_key());
  auto read = [](reply& r) -> result<buffer_ptr> {
    if (r.is_nil()) return error{errc::not_found, "no such key"};
    if (r.kind != reply_kind::bulk) return unexpected("GET", r);
    return std::move(r.bulk);
  };
  start(effect::read, zdb::request("GET", key),
        reading<buffer_ptr>("GET", std::move(done), std::move(read)));
}

void session::del(std::string key, callback<void> done) {
  if (!valid_key(key)) return done(bad_key());
  start(effect::write, zdb::request("DEL", key), expecting_ok("DEL", std::move(done)));
}

void session::exists(std::string key, callback<bool> done) {
  if (!valid_key(key)) return done(bad_key());
  auto read = [](reply& r) -> result<bool> {
    if (r.kind != reply_kind::integer) return unexpected("EXISTS", r);
    return r.number == 1;
  };
  start(effect::read, zdb::request("EXISTS", key),
        reading<bool>("EXISTS", std::move(done), std::move(read)));
}

void session::check(std::string key, callback<bool> done) {
  if (!valid_key(key)) return done(bad_key());
  auto read = [](reply& r) -> result<bool> {
    if (r.is_nil()) return error{errc::not_found, "no such key"};
    if (r.kind != reply_kind::integer) return unexpected("CHECK", r);
    return r.number == 1;
  };
  start(effect::read, zdb::request("CHECK", key),
        reading<bool>("CHECK", std::move(done), std::move(read)));
}

void session::sync(callback<void> done) {
  start(effect::read, zdb::request("SYNC"), expecting_ok("SYNC", std::move(done)));
}

void session::scan(std::string cursor, callback<scan_page> done) {
  auto finish = [done = std::move(done)](result<reply> r) {
    if (r.ok() && r->is_error() && r->text == "No more data") {
      scan_page page;
      page.end = true;
      return done(std::move(page)), true;
    }
    return reading<scan_page>("SCAN", done, read_scan)(std::move(r));
  };
  auto pieces = cursor.empty() ? zdb::request("SCAN") : zdb::request("SCAN", cursor);
  start(effect::read, std::move(pieces), std::move(finish));
}

void session::nsinfo(std::string name_space, callback<namespace_info> done) {
  auto read = [](reply& r) -> result<namespace_info> {
    if (r.kind != reply_kind::bulk) return unexpected("NSINFO", r);
    return parse_nsinfo(r.string());
  };
  start(effect::read, zdb::request("NSINFO", name_space),
        reading<namespace_info>("NSINFO", std::move(done), std::move(read)));
}

void session::info(callback<server_info> done) {
  auto read = [](reply& r) -> result<server_info> {
    if (r.kind != reply_kind::bulk) return unexpected("INFO", r);
    return parse_info(r.string());
  };
  start(effect::read, zdb::request("INFO"),
        reading<server_info>("INFO", std::move(done), std::move(read)));
}

void session::ping(callback<void> done) {
  start(effect::read, zdb::request("PING"), expecting_ok("PING", std::move(done)));
}

void session::dbsize(callback<std::uint64_t> done) {
  auto read = [](reply& r) -> result<std::uint64_t> {
    if (r.kind != reply_kind::integer || r.number < 0) return unexpected("DBSIZE", r);
    return static_cast<std::uint64_t>(r.number);
  };
  start(effect::read, zdb::request("DBSIZE"),
        reading<std::uint64_t>("DBSIZE", std::move(done), std::move(read)));
}

void session::nsnew(std::string name_space, callback<void> done) {
  start(effect::write, zdb::request("NSNEW", name_space), expecting_ok("NSNEW", std::move(done)));
}

void session::nsset(std::string name_space, std::string property, std::string value,
                    callback<void> done) {
  if (value.empty() || value.size() > 63)
    return done(error{errc::invalid_argument, "a namespace property has 1 to 63 bytes"});
  start(effect::write, zdb::request("NSSET", name_space, property, value),
        expecting_ok("NSSET", std::move(done)));
}

void session::nsdel(std::string name_space, callback<void> done) {
  start(effect::write, zdb::request("NSDEL", name_space), expecting_ok("NSDEL", std::move(done)));
}

void session::nslist(callback<std::vector<std::string>> done) {
  auto read = [](reply& r) -> result<std::vector<std::string>> {
    if (r.kind != reply_kind::array) return unexpected("NSLIST", r);
    std::vector<std::string> names;
    for (auto& item : r.items) {
      if (item.kind != reply_kind::bulk) return unexpected("NSLIST", item);
      names.emplace_back(item.string());
    }
    return names;
  };
  start(effect::read, zdb::request("NSLIST"),
        reading<std::vector<std::string>>("NSLIST", std::move(done), std::move(read)));
}

void session::flush(callback<void> done) {
  start(effect::write, zdb::request("FLUSH"), expecting_ok("FLUSH", std::move(done)));
}

void session::select(std::string name_space, std::string password, callback<void> done) {
  if (phase_ == phase::closed) return done(closed_why_);
  if (phase_ != phase::ready || selecting_ || !held_.empty())
    return done(error{errc::busy, "SELECT while another handshake is under way"});
  selecting_ = true;
  do_select(std::move(name_space), std::move(password), [this, done = std::move(done)](status s) {
    selecting_ = false;
    done(std::move(s));
    release_held();
  });
}

// -- the owner's side -----------------------------------------------------------------------------

std::vector<piece> session::take_output() {
  auto now = time_.boot();
  for (; unsent_ > 0; --unsent_) {
    auto& r = sent_[sent_.size() - unsent_];
    r.sent = true;
    r.since = now;
  }
  return out_.take();
}

status session::receive(byte_span bytes) {
  if (phase_ == phase::closed) return closed_why_;
  std::optional<error> wrong;
  auto parsed = parser_.feed(bytes, [&](reply&& r) {
    if (wrong || phase_ == phase::closed) return;
    if (sent_.empty() || !sent_.front().sent) {
      wrong = error{errc::protocol, r.is_error()
                                        ? fmt::format("the node says \"{}\" unasked", r.text)
                                        : std::string{"a reply to nothing that was asked"}};
      if (r.is_error() && r.text == "Data files are gone") wrong->code = errc::data_lost;
      return;
    }
    auto answered = std::move(sent_.front());
    sent_.pop_front();
    bytes_in_flight_ -= answered.bytes;
    // A reply that the command never gives: from here on replies may belong to other requests.
    if (!answered.done(std::move(r)))
      wrong = error{errc::protocol, "a reply that does not fit what was asked"};
  });
  if (!parsed.ok()) wrong = parsed.err();
  if (phase_ == phase::closed) return closed_why_; // a failed handshake
  if (!wrong) return {};
  phase_ = phase::closed;
  closed_why_ = *wrong;
  fail_all(*wrong, true);
  if (greeted_) std::exchange(greeted_, {})(*wrong);
  return *wrong;
}

void session::connection_lost(const error& why) {
  if (phase_ == phase::closed) return;
  phase_ = phase::closed;
  closed_why_ = {errc::unreachable, fmt::format("the connection is closed ({})", describe(why)), why.sys};
  fail_all(why, false);
  if (greeted_) std::exchange(greeted_, {})(why);
}

void session::fail_all(const error& why, bool peer_error) {
  auto sent = std::exchange(sent_, {});
  auto held = std::exchange(held_, {});
  unsent_ = 0;
  bytes_in_flight_ = 0;
  (void)out_.take();
  for (auto& r : sent) {
    if (!r.sent)
      r.done(error{peer_error ? why.code : errc::unreachable, fmt::format("not sent: {}", describe(why)), why.sys});
    else if (r.what == effect::write)
      r.done(error{errc::maybe_delivered, fmt::format("sent, no answer: {}", describe(why)), why.sys});
    else
      r.done(why);
  }
  for (auto& r : held)
    r.done(error{peer_error ? why.code : errc::unreachable, fmt::format("not sent: {}", describe(why)), why.sys});
}

std::optional<std::chrono::milliseconds> session::waiting() const {
  if (sent_.empty() || !sent_.front().sent) return std::nullopt;
  return time_.boot() - sent_.front().since;
}

bool session::has(std::string_view extension) const {
  return std::find(server_.extensions.begin(), server_.extensions.end(), extension) !=
         server_.extensions.end();
}

} // namespace qs::zdb
