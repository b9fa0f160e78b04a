#include "zdb/connection.hpp"

#include <algorithm>
#include <cerrno>
#include <poll.h>
#include <sys/socket.h>

#include "base/log.hpp"

namespace qs::zdb {

namespace {
/// Received from one client or sent to it, and commands run for it, before the others get their
/// turn: so much, or for connection_host::turn_time.
constexpr std::size_t turn_bytes = 1 << 20;
constexpr std::size_t turn_commands = 128;
constexpr std::size_t scratch_bytes_short = 4 << 10;
constexpr std::size_t held_max = 4096;
constexpr std::size_t small_bytes = 64 << 10;
constexpr std::size_t moving_bytes = 1 << 20;
constexpr auto drain_time = std::chrono::milliseconds{500};
} // namespace

connection::connection(connection_host& host, unique_fd fd, std::string address)
    : host_{host}, socket_{std::move(fd)}, slow_since_{std::chrono::steady_clock::now()},
      active_at_{slow_since_} {
  peer = std::move(address);
}

void connection::start() {
  host_.table.greet(*this);
  auto added = host_.sockets.add(socket_.get(), *this);
  if (added.ok()) return;
  log::error("zdb", "{}", describe(added.err()));
  drop();
}

void connection::changed(bool readable, bool ended, bool has_room) {
  readable_ = readable_ || readable;
  ended_ = ended_ || ended;
  auto sends = has_room && std::exchange(writing_, false);
  if (sends || drain_until_ || (readable && may_execute())) ready();
}

bool connection::may_execute() const noexcept {
  return !closing && !blocked && !hungry_ && out.held() < held_max &&
         out.memory() + out.held() * commands::waiting_answer_bytes <=
             (host_.tight() ? small_bytes : host_.most.output_bytes_max);
}

/// There is room; else it stands in line for it.
bool connection::has_memory(std::size_t bytes) {
  if (host_.fits(bytes)) return true;
  hungry_ = true;
  host_.starve(self());
  return false;
}

void connection::fed() {
  if (closed_) return;
  hungry_ = false;
  ready();
}

bool connection::stalled(std::chrono::steady_clock::time_point now) const noexcept {
  return accounted_ > small_bytes && now - slow_since_ > host_.most.patience;
}

bool connection::arrived() const noexcept {
  pollfd p{socket_.get(), POLLIN, 0};
  return ::poll(&p, 1, 0) > 0;
}

bool connection::abandoned() const noexcept {
  if ((!waits && !guess) || closed_) return false;
  pollfd p{socket_.get(), POLLRDHUP, 0};
  return ::poll(&p, 1, 0) > 0;
}

void connection::moved(std::size_t bytes) noexcept {
  moved_ += bytes;
  if (moved_ < moving_bytes) return;
  moved_ = 0;
  slow_since_ = std::chrono::steady_clock::now();
}

void connection::account() {
  auto now = closed_ ? 0 : out.memory() + gathered.capacity() + rest_.size() + parser_.held();
  if (now > small_bytes && accounted_ <= small_bytes) {
    moved_ = 0;
    slow_since_ = std::chrono::steady_clock::now();
  }
  auto before = std::exchange(accounted_, now);
  if (before != now) host_.account(before, now);
}

void connection::wake() {
  if (woken_ || closed_) return;
  account();
  woken_ = true;
  host_.sockets.post([c = self()] {
    c->woken_ = false;
    c->ready();
  });
}

void connection::finish() {
  if (waits) return close(); // its answer is not to come
  closing = true;
  stopping_ = true;
  wake();
}

void connection::drop() {
  // Whoever drops it may be in the middle of its lists.
  closing = true;
  host_.sockets.post([c = self()] { c->close(); });
}

void connection::close() {
  if (closed_) return;
  closed_ = true;
  leave();
  host_.table.left(*this);
  std::string{}.swap(gathered);
  account();
  if (drain_until_) drain_until_->cancel();
  host_.sockets.remove(socket_.get());
  socket_.reset();
  host_.closed(*this); // may drop the last owner: nothing is touched after this
}

/// There is something to do, in our turn.
void connection::ready() {
  if (closed_ || queued_) return;
  queued_ = true;
  host_.queue(self());
}

/// The request that is complete; false: it waits for memory.
bool connection::run_pending() {
  if (host_.short_of_memory()) {
    auto bytes = host_.table.answer_bytes(*this, parser_.arguments());
    if (!has_memory(bytes > small_bytes ? bytes : 0)) return false;
  }
  pending_ = false;
  --turn_left_;
  host_.table.execute(*this, parser_.arguments());
  active_at_ = host_.table.last_ended();
  if (active_at_ >= turn_until_) turn_left_ = 0;
  parser_.release();
  account();
  return true;
}

std::size_t connection::work(byte_span bytes) {
  std::size_t done = 0;
  while (done < bytes.size() && turn_left_ > 0 && may_execute()) {
    if (parser_.wanted() > 0) {
      if (!has_memory(parser_.wanted())) break;
      parser_.grant();
      account();
    }
    std::size_t used = 0;
    pending_ = parser_.feed(bytes.subspan(done), used);
    done += used;
    if (pending_ && !run_pending()) {
      parser_.keep(); // it waits for memory; these bytes do not
      break;
    }
    if (!parser_.failed()) continue;
    ++host_.table.stats.failed;
    out.error(parser_.error());
    closing = true;
  }
  return done;
}

std::size_t connection::receive() {
  std::size_t turn = 0;
  while (readable_ && turn < turn_bytes && turn_left_ > 0 && !pending_ && rest_.empty() &&
         may_execute()) {
    auto body = parser_.body_space();
    // What is not worked on at once is kept; little of it when memory is short.
    auto most = host_.short_of_memory() ? scratch_bytes_short : host_.scratch.size();
    auto into = body.empty() ? mutable_byte_span{host_.scratch}.first(most) : body;
    auto n = ::recv(socket_.get(), into.data(), into.size(), MSG_DONTWAIT);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
      readable_ = false;
      break;
    }
    if (n <= 0) {
      readable_ = false;
      peer_ended_ = true;
      break;
    }
    auto got = static_cast<std::size_t>(n);
    turn += got;
    moved(got);
    host_.table.stats.received_bytes += got;
    host_.table.paused();
    // All there was, unless an end has to be read as well.
    if (got < into.size() && !ended_) readable_ = false;
    if (!body.empty()) {
      parser_.body_filled(got);
      continue;
    }
    auto bytes = byte_span{host_.scratch}.first(got);
    auto done = work(bytes);
    if (done < got) rest_ = to_buffer(bytes.subspan(done));
  }
  return turn;
}

/// At most some of it: who reads as fast as we send has his turn like the others.
bool connection::send() {
  for (std::size_t turn = 0; turn < turn_bytes && out.sendable();) {
    iovec parts[64];
    msghdr message{};
    message.msg_iov = parts;
    message.msg_iovlen = out.gather(parts, 64, turn_bytes - turn);
    constexpr auto flags = MSG_DONTWAIT | MSG_NOSIGNAL;
    auto n = message.msg_iovlen == 1 ? ::send(socket_.get(), parts[0].iov_base, parts[0].iov_len, flags)
                                     : ::sendmsg(socket_.get(), &message, flags);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      writing_ = errno == EAGAIN || errno == EWOULDBLOCK;
      return writing_;
    }
    turn += static_cast<std::size_t>(n);
    host_.table.stats.sent_bytes += static_cast<std::uint64_t>(n);
    moved(static_cast<std::size_t>(n));
    out.sent(static_cast<std::size_t>(n));
  }
  return true;
}

std::size_t connection::turn() {
  queued_ = false;
  if (closed_ || drain_until_) return 0;
  turn_left_ = turn_commands;
  turn_until_ = std::chrono::steady_clock::now() + connection_host::turn_time;
  host_.table.paused();
  if (pending_ && may_execute()) (void)run_pending();
  if (!pending_ && !rest_.empty() && may_execute()) {
    auto todo = std::exchange(rest_, {});
    auto done = work(todo);
    if (done < todo.size())
      rest_.assign(todo.begin() + static_cast<std::ptrdiff_t>(done), todo.end());
  }
  std::size_t received = 0;
  if (!pending_ && rest_.empty() && readable_ && !peer_ended_) received = receive();
  stand_in_line();
  listen_for_more(received > 0);
  return received;
}

bool connection::waited_for() const noexcept {
  return !closed_ && !drain_until_ && !queued_ && !pending_ && rest_.empty() && may_execute();
}

/// A request that has begun is to go on: `heard`, something of it came in this turn. A client that
/// stands in line for memory, or has to read before it is read from, is not silent.
void connection::listen_for_more(bool heard) noexcept {
  if (parser_.idle() || !waited_for()) return leave();
  if (heard || !listed()) host_.heard(*this);
}

/// More of it in the next turn, behind the others.
void connection::stand_in_line() {
  if (may_execute() && (pending_ || !rest_.empty() || (readable_ && !peer_ended_))) ready();
}

void connection::deliver() {
  if (closed_) return;
  if (drain_until_) return drain();
  if (!writing_ && !send()) return close();
  account();
  // What was asked is answered, also when the peer has sent its last byte.
  if (out.empty() && peer_ended_ && !blocked && (closing || (rest_.empty() && !pending_)))
    return close();
  if (out.empty() && closing && !blocked) return drain();
  if (!writing_ && out.sendable()) return ready(); // the rest in its next turn
  stand_in_line(); // there may be room for its answers again
}

// Closing a socket with unread bytes resets the connection, and the peer may never see the last
// reply: so first say that nothing more comes, then throw away what the peer still sends, for a
// while.
void connection::drain() {
  if (!drain_until_) {
    ::shutdown(socket_.get(), SHUT_WR);
    drain_until_ = std::make_unique<boost::asio::steady_timer>(host_.io, drain_time);
    drain_until_->async_wait([c = self()](const boost::system::error_code& ec) {
      if (!ec) c->close();
    });
  }
  auto more = true;
  for (std::size_t i = 0; i < 64 && more; ++i) { // then the others
    auto n =
        ::recv(socket_.get(), host_.scratch.data(), host_.scratch.size(), MSG_DONTWAIT);
    more = n > 0 || (n < 0 && errno == EINTR);
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) break;
    if (!more) return close();
  }
  if (stopping_) return close();
  if (more) ready();
}

} // namespace qs::zdb
