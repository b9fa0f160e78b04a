#include "zdb/metrics_endpoint.hpp"

#include <cerrno>
#include <sys/socket.h>

#include <boost/asio/steady_timer.hpp>
#include <fmt/format.h>

#include "zdb/listen.hpp"

namespace qs::zdb {

using boost::asio::posix::stream_descriptor;

struct metrics_endpoint::visitor {
  visitor(boost::asio::io_context& io, unique_fd fd, std::shared_ptr<std::size_t> count)
      : socket{io, fd.release()}, end{io}, visitors{std::move(count)} {
    ++*visitors;
  }
  ~visitor() { --*visitors; }
  visitor(const visitor&) = delete;
  visitor& operator=(const visitor&) = delete;
  stream_descriptor socket;
  boost::asio::steady_timer end;
  std::shared_ptr<std::size_t> visitors;
  std::string in;
  std::string out;
  std::size_t sent = 0;
};

metrics_endpoint::metrics_endpoint(boost::asio::io_context& io, unique_fd listener,
                                   std::function<std::string()> text)
    : io_{io}, listener_{io, listener.release()}, text_{std::move(text)} {
  accept();
}

void metrics_endpoint::stop() {
  stopped_ = true;
  boost::system::error_code ignored;
  listener_.close(ignored);
}

void metrics_endpoint::accept() {
  listener_.async_wait(stream_descriptor::wait_read, [this](const boost::system::error_code& ec) {
    if (ec || stopped_) return;
    std::string peer;
    auto fd = accept_client(listener_.native_handle(), peer);
    if (fd.valid() && *visitors_ < connections_max) {
      auto v = std::make_shared<visitor>(io_, std::move(fd), visitors_);
      v->end.expires_after(deadline);
      v->end.async_wait([weak = std::weak_ptr{v}](const boost::system::error_code& late) {
        auto who = weak.lock();
        boost::system::error_code ignored;
        if (!late && who) who->socket.close(ignored);
      });
      read(v);
    }
    accept();
  });
}

void metrics_endpoint::read(const std::shared_ptr<visitor>& v) {
  v->socket.async_wait(stream_descriptor::wait_read, [this,
                                                      v](const boost::system::error_code& ec) {
    if (ec || stopped_) return;
    char bytes[2048];
    auto n = ::recv(v->socket.native_handle(), bytes, sizeof bytes, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return read(v);
    if (n <= 0) return;
    v->in.append(bytes, static_cast<std::size_t>(n));
    if (v->in.find("\r\n\r\n") == std::string::npos && v->in.find("\n\n") == std::string::npos) {
      if (v->in.size() < request_bytes_max) read(v);
      return;
    }
    v->out = reply_to(v->in);
    write(v);
  });
}

std::string metrics_endpoint::reply_to(std::string_view request) const {
  auto line = request.substr(0, request.find_first_of("\r\n"));
  auto head = line.starts_with("HEAD ");
  std::string_view status = "200 OK";
  std::string body;
  if (!head && !line.starts_with("GET ")) {
    status = "405 Method Not Allowed";
    body = "only GET\n";
  } else {
    auto path = line.substr(line.find(' ') + 1);
    path = path.substr(0, path.find_first_of(" ?"));
    if (path == "/metrics") {
      body = text_();
    } else {
      status = "404 Not Found";
      body = "see /metrics\n";
    }
  }
  auto out = fmt::format("HTTP/1.1 {}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"
                         "Content-Length: {}\r\nConnection: close\r\n\r\n",
                         status, body.size());
  return head ? out : out + body;
}

void metrics_endpoint::write(const std::shared_ptr<visitor>& v) {
  v->socket.async_wait(stream_descriptor::wait_write,
                       [this, v](const boost::system::error_code& ec) {
                         if (ec) return;
                         auto n = ::send(v->socket.native_handle(), v->out.data() + v->sent,
                                         v->out.size() - v->sent, MSG_DONTWAIT | MSG_NOSIGNAL);
                         if (n < 0 && errno != EAGAIN && errno != EINTR) return;
                         if (n > 0) v->sent += static_cast<std::size_t>(n);
                         if (v->sent < v->out.size()) return write(v);
                         ::shutdown(v->socket.native_handle(), SHUT_WR);
                         v->end.cancel();
                       });
}

} // namespace qs::zdb
