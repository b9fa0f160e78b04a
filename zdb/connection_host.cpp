// What all connections share: whose turn it is, memory, and who is silent.
#include <algorithm>

#include <boost/asio/post.hpp>

#include "base/log.hpp"
#include "zdb/connection.hpp"

namespace qs::zdb {

namespace {
constexpr std::size_t turns_at_once = 64; ///< then sockets are looked at
/// Passes one behind the other, before what the disk has done is heard of: who waits for it does
/// not lose its turns to those who need none.
constexpr auto serve_time = std::chrono::microseconds{250};
/// Received and to be sent; then what was written goes to the files, and the answers out.
constexpr std::size_t held_at_once = 1 << 20;
constexpr auto relief_pause = std::chrono::milliseconds{100};
} // namespace

connection_host::connection_host(boost::asio::io_context& context, poller& all_sockets,
                                 commands& all, const limits& lim, const qs::clock& time)
    : io{context}, table{all}, sockets{all_sockets}, most{lim}, scratch(64 << 10), time_{time},
      relief_{context} {}

void connection_host::queue(const std::shared_ptr<connection>& c) {
  if (stopped_) return;
  turns_.add(c->space.get(), c);
  if (!serving_) serve_soon();
}

void connection_host::serve_soon() {
  if (std::exchange(posted_, true)) return;
  boost::asio::post(io, [this] {
    posted_ = false;
    serve();
  });
}

/// Passes, as long as there is something to do. What else the io_context has to do gets its turn
/// after a while; then it goes on here, and waits for sockets only when nobody has sent anything
/// for a millisecond.
void connection_host::serve() {
  auto until = std::chrono::steady_clock::now() + serve_time;
  serving_ = true;
  auto busy = true;
  while (busy && !stopped_) {
    auto told = sockets.look(turns_.empty());
    busy = told > 0 || !turns_.empty();
    if (!turns_.empty()) pass();
    if (std::chrono::steady_clock::now() >= until) break;
  }
  serving_ = false;
  if (stopped_) return;
  if (busy || sockets.something_posted()) serve_soon();
  else sockets.wait();
}

void connection_host::pass() {
  auto until = std::chrono::steady_clock::now() + turn_time;
  std::size_t held = 0;
  table.gather();
  for (std::size_t i = 0; i < turns_at_once; ++i) {
    auto who = turns_.next();
    if (!who) break;
    held += who->turn() + who->out.bytes();
    if (!std::exchange(who->served, true)) served_.push_back(std::move(who));
    if (held >= held_at_once || table.last_ended() >= until) break;
  }
  deliver();
}

void connection_host::deliver() {
  table.settle();
  // The last first: who asked over several connections and waits for the first answer wakes up when
  // all are there, and does not take the processor from us at each.
  for (auto it = served_.rbegin(); it != served_.rend(); ++it) {
    (*it)->served = false;
    (*it)->deliver();
  }
  served_.clear();
}

void connection_host::account(std::size_t before, std::size_t now) {
  used_ = used_ - before + now;
  if (now >= before || hungry_.empty() || std::exchange(feeding_, true)) return;
  sockets.post([this] { feed_hungry(); });
}

void connection_host::starve(const std::shared_ptr<connection>& c) {
  hungry_.push_back(c);
  if (!std::exchange(relieving_, true)) sockets.post([this] { relieve(); });
}

bool connection_host::room(std::size_t more) {
  if (fits(more)) return true;
  asked_ = true;
  if (!std::exchange(relieving_, true)) sockets.post([this] { relieve(); });
  return false;
}

void connection_host::feed_hungry() {
  feeding_ = false;
  // Each tries once; who still has no room stands in line again, at its end.
  for (auto n = hungry_.size(); n > 0 && fits(1) && !hungry_.empty(); --n) {
    auto who = hungry_.front().lock();
    hungry_.pop_front();
    if (who) who->fed();
  }
}

void connection_host::relieve() {
  relieving_ = (std::exchange(asked_, false) || !hungry_.empty()) && !stopped_;
  if (!relieving_) return;
  std::vector<connection*> slow;
  auto now = std::chrono::steady_clock::now();
  each([&](connection& c) {
    if (c.stalled(now)) slow.push_back(&c);
  });
  std::sort(slow.begin(), slow.end(),
            [](auto* a, auto* b) { return a->accounted() > b->accounted(); });
  for (auto* c : slow) {
    if (!short_of_memory()) break;
    log::warning("zdb", "memory is short: {} holds {} bytes and does not move, dropped",
                 c->peer.empty() ? "a local client" : c->peer, c->accounted());
    ++dropped_;
    c->drop();
  }
  if (!std::exchange(feeding_, true)) sockets.post([this] { feed_hungry(); });
  relief_.expires_after(relief_pause);
  relief_.async_wait([this](const boost::system::error_code& ec) {
    if (!ec) relieve();
  });
}

void connection_host::stop() {
  stopped_ = true;
  sockets.stop();
  relief_.cancel();
  turns_.clear();
  hungry_.clear();
}

void connection_host::drop_silent() {
  if (most.silence.count() == 0) return;
  auto now = time_.boot();
  while (auto* who = silence_.silent(now - most.silence)) {
    auto* c = static_cast<connection*>(who);
    // What came since is not yet read where this thread, or this machine, stood still.
    if (c->arrived() || !c->waited_for()) {
      silence_.heard(*who, now);
      continue;
    }
    log::warning("zdb", "{} sent a part of a request and nothing more for {} ms, dropped",
                 c->peer.empty() ? "a local client" : c->peer, most.silence.count());
    ++dropped_silent_;
    who->leave();
    c->drop();
  }
}

} // namespace qs::zdb
