#include "zdb/session.hpp"

#include <algorithm>

#include <fmt/format.h>

#include "zdb/session_replies.hpp"
#include "zdb/sha1.hpp"

namespace qs::zdb {

namespace {

constexpr std::string_view no_challenge = "the server knows no challenge-response";

std::size_t size_of(const std::vector<piece>& pieces) {
  std::size_t n = 0;
  for (auto& p : pieces) n += p.bytes().size();
  return n;
}

} // namespace

std::string challenge_answer(std::string_view challenge, std::string_view password) {
  return sha1_hex(fmt::format("{}:{}", challenge, password));
}

session::session(session_options options, const qs::clock& time)
    : options_{std::move(options)}, time_{time} {}

void session::start(effect what, std::vector<piece> pieces, std::function<bool(result<reply>)> done,
                    bool urgent) {
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
    // Only what says nothing of challenges: a server that is full knows them all the same.
    if (r->is_error() && (r->text == "Too many clients" || r->text == "Try again"))
      return next(error_from_reply(r->text)), true;
    if (r->is_error()) return next(error{errc::unsupported, std::string{no_challenge}}), true;
    if (r->kind != reply_kind::simple || r->text.size() != 16)
      return next(unexpected("AUTH SECURE CHALLENGE", *r)), false;
    next(challenge_answer(r->text, password));
    return true;
  };
  start(effect::read, make_request("AUTH", "SECURE", "CHALLENGE"), std::move(read), true);
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
      return start(effect::read, make_request("AUTH", "SECURE", *answer), finish, true);
    if (answer.err().code != errc::unsupported || !options_.allow_plain)
      return greeted(std::move(answer).err().with("AUTH"));
    start(effect::read, make_request("AUTH", options_.admin_password), finish, true);
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
    return start(effect::read, make_request("SELECT", name_space), std::move(finish), true);
  challenge_then(password, [this, name_space, password, finish](result<std::string> answer) {
    if (answer.ok())
      return start(effect::read, make_request("SELECT", name_space, "SECURE", *answer), finish,
                   true);
    if (answer.err().code != errc::unsupported || !options_.allow_plain)
      return (void)finish(std::move(answer).err().with("SELECT"));
    start(effect::read, make_request("SELECT", name_space, password), finish, true);
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
  start(effect::read, make_request("INFO"), std::move(read), true);
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
      wrong =
          error{errc::protocol, r.is_error() ? fmt::format("the node says \"{}\" unasked", r.text)
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
  closed_why_ = {errc::unreachable, fmt::format("the connection is closed ({})", describe(why)),
                 why.sys};
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
      r.done(error{peer_error ? why.code : errc::unreachable,
                   fmt::format("not sent: {}", describe(why)), why.sys});
    else if (r.what == effect::write)
      r.done(
          error{errc::maybe_delivered, fmt::format("sent, no answer: {}", describe(why)), why.sys});
    else
      r.done(why);
  }
  for (auto& r : held)
    r.done(error{peer_error ? why.code : errc::unreachable,
                 fmt::format("not sent: {}", describe(why)), why.sys});
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
