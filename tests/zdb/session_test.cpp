// The session against a scripted peer that answers with the exact replies of the protocol, as a
// 0-db does.
#include <doctest/doctest.h>

#include <fmt/format.h>

#include "zdb/session.hpp"

namespace qs::zdb {
namespace {

std::string bulk(std::string_view s) { return fmt::format("${}\r\n{}\r\n", s.size(), s); }

/// What the session wants to send, as text.
std::string sends(session& s) {
  std::string out;
  for (auto& p : s.take_output()) out += as_text(p.bytes());
  return out;
}
std::string asks(std::initializer_list<std::string_view> args) {
  std::string out = fmt::format("*{}\r\n", args.size());
  for (auto a : args) out += bulk(a);
  return out;
}
void answer(session& s, std::string_view text, std::size_t step = 1) {
  for (std::size_t at = 0; at < text.size() && !s.closed(); at += step)
    (void)s.receive(as_bytes(text.substr(at, step)));
}
template <class T>
struct taken {
  std::optional<result<T>> value;
  int calls = 0;
  callback<T> take() {
    return [this](result<T> r) {
      value.emplace(std::move(r));
      ++calls;
    };
  }
  [[nodiscard]] bool ok() const { return value && value->ok(); }
  [[nodiscard]] errc code() const {
    return !value ? errc::none : value->ok() ? errc::none : value->err().code;
  }
};

std::string zero_db_info() {
  return bulk("# server\nserver_name: 0-db (zdb)\nserver_revision: 2.0.7\nengine_revision: "
              "2.0.7\ninstance_id: 1234\n"
              "boot_time: 1700000000\nuptime: 5\n\n# clients\nclients_lifetime: 1\n");
}
std::string our_info() {
  return bulk("# server\ninstance_id: 99\nboot_time: 17\nextensions: SYNC SETNX\n");
}

struct ready_session {
  manual_clock time;
  session s{{}, time};
  taken<void> greeted;
  explicit ready_session(const std::string& info = our_info()) {
    s.handshake(greeted.take());
    CHECK(sends(s) == asks({"INFO"}));
    answer(s, info);
    REQUIRE(greeted.ok());
    REQUIRE(s.ready());
  }
};

TEST_CASE("handshake: AUTH and SELECT by challenge, operations wait behind it") {
  session_options o;
  o.name_space = "qs1";
  o.password = "secret";
  o.admin_password = "boss";
  session s{o};
  taken<void> greeted;
  taken<bool> exists;
  s.handshake(greeted.take());
  s.exists("k", exists.take());
  CHECK(sends(s) == asks({"AUTH", "SECURE", "CHALLENGE"}));
  answer(s, "+0011223344556677\r\n");
  CHECK(sends(s) == asks({"AUTH", "SECURE", challenge_answer("0011223344556677", "boss")}));
  answer(s, "+OK\r\n");
  CHECK(sends(s) == asks({"AUTH", "SECURE", "CHALLENGE"}));
  answer(s, "+8899aabbccddeeff\r\n");
  CHECK(sends(s) ==
        asks({"SELECT", "qs1", "SECURE", challenge_answer("8899aabbccddeeff", "secret")}));
  answer(s, "+OK\r\n");
  CHECK(sends(s) == asks({"INFO"}));
  CHECK(!greeted.value);
  answer(s, zero_db_info());
  CHECK(greeted.ok());
  CHECK(s.server().instance_id == "1234");
  CHECK(s.server().boot_time == 1700000000);
  CHECK(!s.has("SYNC"));
  CHECK(sends(s) == asks({"EXISTS", "k"}));
  answer(s, ":1\r\n");
  CHECK(exists.ok());
}

TEST_CASE("the challenge answer is SHA-1 of challenge:password") {
  // printf %s 0123456789abcdef:password | sha1sum
  CHECK(challenge_answer("0123456789abcdef", "password") ==
        "098613a9ee6db421f3ddebac4196b182ca060784");
}

TEST_CASE("handshake: what goes wrong has its own code") {
  struct row {
    const char* select_reply;
    errc code;
  };
  for (auto& [reply, code] :
       std::initializer_list<row>{{"-Access denied\r\n", errc::access_denied},
                                  {"-Namespace not found\r\n", errc::not_found},
                                  {":1\r\n", errc::protocol}}) {
    auto select_reply = reply;
    CAPTURE(select_reply);
    session_options o;
    o.name_space = "n";
    o.password = "p";
    session s{o};
    taken<void> greeted;
    taken<buffer_ptr> get;
    s.handshake(greeted.take());
    s.get("k", get.take());
    (void)sends(s);
    answer(s, "+0011223344556677\r\n");
    (void)sends(s);
    answer(s, reply, 100);
    CHECK(greeted.code() == code);
    CHECK(greeted.calls == 1);
    CHECK(get.calls == 1);
    CHECK(s.closed());
    CHECK(!s.has_output());
  }
}

TEST_CASE("a plain password goes only where it may") {
  for (bool allowed : {false, true}) {
    session_options o;
    o.name_space = "n";
    o.password = "p";
    o.allow_plain = allowed;
    o.discover = false;
    session s{o};
    taken<void> greeted;
    s.handshake(greeted.take());
    (void)sends(s);
    answer(s, "-Unexpected arguments\r\n");
    CHECK(sends(s) == (allowed ? asks({"SELECT", "n", "p"}) : ""));
    if (allowed) answer(s, "+OK\r\n");
    CHECK(greeted.code() == (allowed ? errc::none : errc::unsupported));
  }
}

TEST_CASE("a server that is full is not one without challenges") {
  session_options o;
  o.name_space = "n";
  o.password = "p";
  o.allow_plain = true;
  o.discover = false;
  session s{o};
  taken<void> greeted;
  s.handshake(greeted.take());
  (void)sends(s);
  answer(s, "-Too many clients\r\n");
  CHECK(sends(s).empty());
  CHECK(greeted.code() == errc::busy);
}

TEST_CASE("operations and their replies, split at every byte") {
  for (std::size_t step : {1UL, 2UL, 5UL, 10'000UL}) {
    ready_session r;
    auto& s = r.s;
    taken<set_outcome> stored, identical, full, odd_locked;
    taken<bool> fresh, taken_, checked, corrupt, here;
    taken<buffer_ptr> got, missing;
    taken<void> deleted, not_there, synced, ping, made, exists, unset, gone;
    taken<scan_page> page, end;
    taken<namespace_info> ns;
    taken<std::uint64_t> size;
    taken<std::string> id;
    auto value = share(to_buffer("value"));
    s.set("k", value, stored.take());
    s.set("k", value, identical.take());
    s.set("k", value, full.take());
    s.set("k", value, odd_locked.take());
    s.setnx("k", value, fresh.take());
    s.setnx("k", value, taken_.take());
    s.get("k", got.take());
    s.get("x", missing.take());
    s.del("k", deleted.take());
    s.del("k", not_there.take());
    s.check("k", checked.take());
    s.check("k", corrupt.take());
    s.exists("k", here.take());
    s.sync(synced.take());
    s.ping(ping.take());
    s.scan("", page.take());
    s.scan(std::string(17, 'c'), end.take());
    s.nsinfo("n", ns.take());
    s.dbsize(size.take());
    s.append(value, id.take());
    s.nsnew("n", made.take());
    s.nsnew("n", exists.take());
    s.nsset("n", "maxsize", "5", unset.take());
    s.nsdel("n", gone.take());
    CHECK(s.pending() == 24);
    auto wire = sends(s);
    CHECK(wire.starts_with(asks({"SET", "k", "value"})));
    CHECK(wire.ends_with(asks({"NSSET", "n", "maxsize", "5"}) + asks({"NSDEL", "n"})));
    CHECK(s.bytes_in_flight() == wire.size());
    std::string cursor(17, 'c');
    answer(s,
           bulk("k") +
               "$-1\r\n-No space left on this namespace\r\n-Namespace is temporarily locked "
               "(read-only)\r\n" +
               bulk("k") + "$-1\r\n" + bulk("value") +
               "$-1\r\n+OK\r\n-Key not found\r\n:1\r\n:0\r\n:1\r\n+OK\r\n+PONG\r\n" + "*2\r\n" +
               bulk(cursor) + "*1\r\n*3\r\n" + bulk("k") +
               ":5\r\n:1700000000\r\n-No more data\r\n" +
               bulk("# namespace\nname: n\nentries: 3\npublic: no\nworm: no\nlocked: no\npassword: "
                    "yes\ndata_size_bytes: 77\n"
                    "data_limits_bytes: 100\nmode: userkey\ndata_disk_freespace_bytes: 1000\n") +
               ":3\r\n" + bulk(std::string(8, '\1')) +
               "+OK\r\n-This namespace is not available\r\n-Permission denied\r\n+OK\r\n",
           step);
    CHECK(stored.ok());
    CHECK(**stored.value == set_outcome::stored);
    CHECK(**identical.value == set_outcome::identical);
    CHECK(full.code() == errc::no_space);
    CHECK(odd_locked.code() == errc::refused);
    CHECK(**fresh.value == true);
    CHECK(**taken_.value == false);
    CHECK(as_text(***got.value) == "value");
    CHECK(missing.code() == errc::not_found);
    CHECK(deleted.ok());
    CHECK(not_there.code() == errc::not_found);
    CHECK(**checked.value == true);
    CHECK(**corrupt.value == false);
    CHECK(**here.value == true);
    CHECK(synced.ok());
    CHECK(ping.ok());
    REQUIRE(page.ok());
    CHECK((*page.value)->items.at(0).key == "k");
    CHECK((*page.value)->items.at(0).length == 5);
    CHECK((*page.value)->cursor == cursor);
    CHECK((*end.value)->end);
    CHECK((*ns.value)->data_size_bytes == 77);
    CHECK((*ns.value)->has_password);
    CHECK(!(*ns.value)->is_public);
    CHECK((*ns.value)->free_bytes == 1000);
    CHECK(**size.value == 3);
    CHECK((*id.value)->size() == 8);
    CHECK(made.ok());
    CHECK(exists.code() == errc::already_exists);
    CHECK(unset.code() == errc::refused);
    CHECK(gone.ok());
    CHECK(s.pending() == 0);
    CHECK(s.bytes_in_flight() == 0);
    CHECK(s.ready());
  }
}

TEST_CASE("a lost connection: reads fail, sent writes are unknown, unsent ones are not") {
  ready_session r;
  taken<buffer_ptr> get;
  taken<set_outcome> sent, unsent;
  taken<void> del;
  auto value = share(to_buffer("v"));
  r.s.get("a", get.take());
  r.s.set("b", value, sent.take());
  r.s.del("c", del.take());
  (void)r.s.take_output();
  r.time.advance(std::chrono::seconds{3});
  CHECK(r.s.waiting() == std::chrono::seconds{3});
  r.s.set("d", value, unsent.take());
  r.s.connection_lost({errc::timed_out, "no answer"});
  CHECK(get.code() == errc::timed_out);
  CHECK(sent.code() == errc::maybe_delivered);
  CHECK(del.code() == errc::maybe_delivered);
  CHECK(unsent.code() == errc::unreachable);
  CHECK(r.s.closed());
  taken<void> ping;
  r.s.ping(ping.take());
  CHECK(ping.code() == errc::unreachable);
  r.s.connection_lost({errc::timed_out, "again"});
  CHECK(get.calls + sent.calls + del.calls + unsent.calls == 4);
}

TEST_CASE("out of protocol closes the session") {
  struct row {
    std::string reply;
    errc get;
  };
  for (auto& [reply, code] :
       std::initializer_list<row>{{"garbage\r\n", errc::protocol}, {":5\r\n", errc::protocol}}) {
    ready_session r;
    taken<buffer_ptr> get;
    taken<set_outcome> set;
    r.s.get("k", get.take());
    r.s.set("k", share(to_buffer("v")), set.take());
    (void)sends(r.s);
    CHECK(!r.s.receive(as_bytes(reply)).ok());
    CHECK(get.code() == code);
    CHECK(set.code() == errc::maybe_delivered);
    CHECK(r.s.closed());
  }
  ready_session r;
  auto unasked = r.s.receive(as_bytes("+OK\r\n"));
  REQUIRE(!unasked.ok());
  CHECK(unasked.err().code == errc::protocol);
  ready_session
      wrong_key; // the key comes back with SET: another one means that replies are off by one
  taken<set_outcome> set;
  wrong_key.s.set("mine", share(to_buffer("v")), set.take());
  (void)sends(wrong_key.s);
  CHECK(!wrong_key.s.receive(as_bytes(bulk("other"))).ok());
  CHECK(set.code() == errc::protocol);
}

TEST_CASE("error texts and their codes") {
  struct row {
    const char* text;
    errc code;
  };
  for (auto& [text, code] : std::initializer_list<row>{
           {"Access denied", errc::access_denied},
           {"Namespace protected and private", errc::access_denied},
           {"No space left on this namespace", errc::no_space},
           {"Namespace is temporarily frozen (read-write disabled)", errc::refused},
           {"Namespace is in read-only mode", errc::refused},
           {"Data files are gone", errc::data_lost},
           {"Namespace not found", errc::not_found},
           {"Command not supported", errc::unsupported},
           {"Cannot write data right now", errc::io},
           {"Invalid key", errc::invalid_argument},
           {"Internal Error", errc::io}})
    CHECK(error_from_reply(text).code == code);
}

TEST_CASE("keys and values over the limits are refused before they are sent") {
  ready_session r;
  taken<set_outcome> a, b, c;
  r.s.set("", share({}), a.take());
  r.s.set(std::string(256, 'k'), share({}), b.take());
  r.s.set("k", share(buffer((8 << 20) + 1)), c.take());
  CHECK(a.code() == errc::invalid_argument);
  CHECK(b.code() == errc::invalid_argument);
  CHECK(c.code() == errc::invalid_argument);
  CHECK(!r.s.has_output());
}

} // namespace
} // namespace qs::zdb
