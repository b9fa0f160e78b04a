#include "zdb/connection.hpp"

#include <cerrno>
#include <sys/socket.h>

#include <boost/asio/post.hpp>

namespace qs::zdb {

namespace {
/// Received from one client before the others get their turn.
constexpr std::size_t turn_bytes = 2 << 20;
constexpr std::size_t held_max = 4096;
constexpr auto drain_time = std::chrono::milliseconds{500};
} // namespace

connection::connection(connection_host& host, unique_fd fd)
    : host_{host}, socket_{host.io, fd.release()} {}

void connection::start() {
  host_.table.greet(*this);
  arm();
}

bool connection::may_execute() const noexcept {
  return !closing && !blocked && out.bytes() <= host_.output_bytes_max && out.held() < held_max;
}

void connection::wake() {
  if (woken_ || closed_) return;
  woken_ = true;
  boost::asio::post(host_.io, [c = self()] {
    c->woken_ = false;
    c->run(false);
  });
}

void connection::finish() {
  closing = true;
  stopping_ = true;
  wake();
}

void connection::close() {
  if (closed_) return;
  closed_ = true;
  boost::system::error_code ignored;
  if (drain_until_) drain_until_->cancel();
  socket_.close(ignored);
  host_.closed(*this); // may drop the last owner: nothing is touched after this
}

std::size_t connection::work(byte_span bytes) {
  std::size_t done = 0;
  while (done < bytes.size() && may_execute()) {
    std::size_t used = 0;
    auto complete = parser_.feed(bytes.subspan(done), used);
    done += used;
    if (complete) {
      host_.table.execute(*this, parser_.arguments());
    } else if (parser_.failed()) {
      ++host_.table.stats.failed;
      out.error(parser_.error());
      closing = true;
    }
  }
  return done;
}

void connection::receive() {
  for (std::size_t turn = 0; turn < turn_bytes && rest_.empty() && may_execute();) {
    auto body = parser_.body_space();
    auto into = body.empty() ? mutable_byte_span{host_.scratch} : body;
    auto n = ::recv(socket_.native_handle(), into.data(), into.size(), MSG_DONTWAIT);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return;
    if (n <= 0) {
      peer_ended_ = true;
      return;
    }
    auto got = static_cast<std::size_t>(n);
    turn += got;
    host_.table.stats.received_bytes += got;
    if (!body.empty()) {
      parser_.body_filled(got);
      continue;
    }
    auto bytes = byte_span{host_.scratch}.first(got);
    auto done = work(bytes);
    if (done < got) rest_ = to_buffer(bytes.subspan(done));
  }
}

bool connection::send() {
  while (out.sendable()) {
    iovec parts[64];
    msghdr message{};
    message.msg_iov = parts;
    message.msg_iovlen = out.gather(parts, 64);
    auto n = ::sendmsg(socket_.native_handle(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno == EAGAIN || errno == EWOULDBLOCK;
    host_.table.stats.sent_bytes += static_cast<std::uint64_t>(n);
    out.sent(static_cast<std::size_t>(n));
  }
  return true;
}

void connection::run(bool readable) {
  if (closed_) return;
  if (drain_until_) return drain();
  if (readable) receive();
  for (;;) {
    if (!rest_.empty() && may_execute()) {
      auto todo = std::exchange(rest_, {});
      auto done = work(todo);
      if (done < todo.size())
        rest_.assign(todo.begin() + static_cast<std::ptrdiff_t>(done), todo.end());
    }
    if (!send()) return close();
    if (rest_.empty() || !may_execute()) break;
  }
  // What was asked is answered, also when the peer has sent its last byte.
  if (out.empty() && peer_ended_ && (closing || (rest_.empty() && !blocked))) return close();
  if (out.empty() && closing) return drain();
  arm();
}

// Closing a socket with unread bytes resets the connection, and the peer may never see the last
// reply: so first say that nothing more comes, then throw away what the peer still sends, for a
// while.
void connection::drain() {
  if (!drain_until_) {
    ::shutdown(socket_.native_handle(), SHUT_WR);
    drain_until_ = std::make_unique<boost::asio::steady_timer>(host_.io, drain_time);
    drain_until_->async_wait([c = self()](const boost::system::error_code& ec) {
      if (!ec) c->close();
    });
  }
  for (;;) {
    auto n =
        ::recv(socket_.native_handle(), host_.scratch.data(), host_.scratch.size(), MSG_DONTWAIT);
    if (n > 0 || (n < 0 && errno == EINTR)) continue;
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) break;
    return close();
  }
  if (stopping_) return close();
  if (reading_) return;
  reading_ = true;
  socket_.async_wait(boost::asio::posix::stream_descriptor::wait_read,
                     [c = self()](const boost::system::error_code& ec) {
                       c->reading_ = false;
                       if (!ec && !c->closed_) c->drain();
                     });
}

void connection::arm() {
  if (!reading_ && !peer_ended_ && rest_.empty() && may_execute()) {
    reading_ = true;
    socket_.async_wait(boost::asio::posix::stream_descriptor::wait_read,
                       [c = self()](const boost::system::error_code& ec) {
                         c->reading_ = false;
                         if (ec) return;
                         c->run(true);
                       });
  }
  if (!writing_ && out.sendable()) {
    writing_ = true;
    socket_.async_wait(boost::asio::posix::stream_descriptor::wait_write,
                       [c = self()](const boost::system::error_code& ec) {
                         c->writing_ = false;
                         if (ec) return;
                         c->run(false);
                       });
  }
}

} // namespace qs::zdb
