// The session's operations: each a request and how its reply is read.
#include <fmt/format.h>

#include "base/limits.hpp"
#include "zdb/session_replies.hpp"

namespace qs::zdb {

namespace {
bool valid_key(const std::string& key) {
  return !key.empty() && key.size() <= limits::zdb_key_bytes_max;
}
error bad_key() { return {errc::invalid_argument, "a key has 1 to 255 bytes"}; }
error bad_value() { return {errc::invalid_argument, "a value has at most 8 MiB"}; }
bool valid_value(const buffer_ptr& value) {
  return value != nullptr && value->size() <= limits::zdb_payload_bytes_max;
}
} // namespace

void session::set(std::string key, buffer_ptr value, callback<set_outcome> done) {
  if (!valid_key(key)) return done(bad_key());
  if (!valid_value(value)) return done(bad_value());
  auto read = [key](reply& r) -> result<set_outcome> {
    if (r.is_nil()) return set_outcome::identical;
    if (r.kind == reply_kind::bulk && r.string() == key) return set_outcome::stored;
    return unexpected("SET", r);
  };
  start(effect::write, make_request("SET", key, value),
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
  start(effect::write, make_request("SETNX", key, value),
        reading<bool>("SETNX", std::move(done), std::move(read)));
}

void session::append(buffer_ptr value, callback<std::string> done) {
  if (!valid_value(value)) return done(bad_value());
  auto read = [](reply& r) -> result<std::string> {
    if (r.kind != reply_kind::bulk || r.bulk->size() != 8) return unexpected("SET", r);
    return std::string{r.string()};
  };
  start(effect::write, make_request("SET", "", value),
        reading<std::string>("SET", std::move(done), std::move(read)));
}

void session::get(std::string key, callback<buffer_ptr> done) {
  if (!valid_key(key)) return done(bad_key());
  auto read = [](reply& r) -> result<buffer_ptr> {
    if (r.is_nil()) return error{errc::not_found, "no such key"};
    if (r.kind != reply_kind::bulk) return unexpected("GET", r);
    return std::move(r.bulk);
  };
  start(effect::read, make_request("GET", key),
        reading<buffer_ptr>("GET", std::move(done), std::move(read)));
}

void session::del(std::string key, callback<void> done) {
  if (!valid_key(key)) return done(bad_key());
  start(effect::write, make_request("DEL", key), expecting_ok("DEL", std::move(done)));
}

void session::exists(std::string key, callback<bool> done) {
  if (!valid_key(key)) return done(bad_key());
  auto read = [](reply& r) -> result<bool> {
    if (r.kind != reply_kind::integer) return unexpected("EXISTS", r);
    return r.number == 1;
  };
  start(effect::read, make_request("EXISTS", key),
        reading<bool>("EXISTS", std::move(done), std::move(read)));
}

void session::check(std::string key, callback<bool> done) {
  if (!valid_key(key)) return done(bad_key());
  auto read = [](reply& r) -> result<bool> {
    if (r.is_nil()) return error{errc::not_found, "no such key"};
    if (r.kind != reply_kind::integer) return unexpected("CHECK", r);
    return r.number == 1;
  };
  start(effect::read, make_request("CHECK", key),
        reading<bool>("CHECK", std::move(done), std::move(read)));
}

void session::sync(callback<void> done) {
  start(effect::read, make_request("SYNC"), expecting_ok("SYNC", std::move(done)));
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
  auto pieces = cursor.empty() ? make_request("SCAN") : make_request("SCAN", cursor);
  start(effect::read, std::move(pieces), std::move(finish));
}

void session::nsinfo(std::string name_space, callback<namespace_info> done) {
  auto read = [](reply& r) -> result<namespace_info> {
    if (r.kind != reply_kind::bulk) return unexpected("NSINFO", r);
    return parse_nsinfo(r.string());
  };
  start(effect::read, make_request("NSINFO", name_space),
        reading<namespace_info>("NSINFO", std::move(done), std::move(read)));
}

void session::info(callback<server_info> done) {
  auto read = [](reply& r) -> result<server_info> {
    if (r.kind != reply_kind::bulk) return unexpected("INFO", r);
    return parse_info(r.string());
  };
  start(effect::read, make_request("INFO"),
        reading<server_info>("INFO", std::move(done), std::move(read)));
}

void session::ping(callback<void> done) {
  start(effect::read, make_request("PING"), expecting_ok("PING", std::move(done)));
}

void session::dbsize(callback<std::uint64_t> done) {
  auto read = [](reply& r) -> result<std::uint64_t> {
    if (r.kind != reply_kind::integer || r.number < 0) return unexpected("DBSIZE", r);
    return static_cast<std::uint64_t>(r.number);
  };
  start(effect::read, make_request("DBSIZE"),
        reading<std::uint64_t>("DBSIZE", std::move(done), std::move(read)));
}

void session::nsnew(std::string name_space, callback<void> done) {
  start(effect::write, make_request("NSNEW", name_space), expecting_ok("NSNEW", std::move(done)));
}

void session::nsset(std::string name_space, std::string property, std::string value,
                    callback<void> done) {
  if (value.empty() || value.size() > 63)
    return done(error{errc::invalid_argument, "a namespace property has 1 to 63 bytes"});
  start(effect::write, make_request("NSSET", name_space, property, value),
        expecting_ok("NSSET", std::move(done)));
}

void session::nsdel(std::string name_space, callback<void> done) {
  start(effect::write, make_request("NSDEL", name_space), expecting_ok("NSDEL", std::move(done)));
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
  start(effect::read, make_request("NSLIST"),
        reading<std::vector<std::string>>("NSLIST", std::move(done), std::move(read)));
}

void session::flush(callback<void> done) {
  start(effect::write, make_request("FLUSH"), expecting_ok("FLUSH", std::move(done)));
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

} // namespace qs::zdb
