// One client's socket in the server: reads when there is room for its replies, runs commands,
// sends. I/O thread only.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/steady_timer.hpp>

#include "base/posix.hpp"
#include "zdb/commands.hpp"

namespace qs::zdb {

/// What all connections of a server share.
struct connection_host {
  boost::asio::io_context& io;
  commands& table;
  std::size_t output_bytes_max; ///< with more unread output a client is not read from
  buffer scratch;               ///< where small requests are received
  std::function<void(client&)> closed;
};

class connection final : public client {
public:
  connection(connection_host& host, unique_fd fd);
  void start();
  void wake() override;
  /// No more commands; closes when the replies are sent.
  void finish();
  void close();

private:
  std::shared_ptr<connection> self() {
    return std::static_pointer_cast<connection>(shared_from_this());
  }
  void run(bool readable);
  bool may_execute() const noexcept;
  void receive();
  std::size_t work(byte_span bytes);
  bool send();
  void arm();
  void drain();

  connection_host& host_;
  boost::asio::posix::stream_descriptor socket_;
  request_parser parser_;
  buffer rest_; ///< received, not yet worked on
  bool reading_ = false;
  bool writing_ = false;
  bool woken_ = false;
  bool peer_ended_ = false;
  bool closed_ = false;
  bool stopping_ = false; ///< the server ends: nobody is waited for
  std::unique_ptr<boost::asio::steady_timer>
      drain_until_; ///< set: only throwing away what still comes
};

} // namespace qs::zdb
