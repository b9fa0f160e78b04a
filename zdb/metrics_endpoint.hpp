// Answers Prometheus: GET /metrics over HTTP, and nothing else. On the server's own I/O thread, a
// few connections at once, each for a few seconds; the text is made when it is asked for.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>

#include "base/posix.hpp"

namespace qs::zdb {

class metrics_endpoint {
public:
  static constexpr std::size_t connections_max = 16;
  static constexpr std::size_t request_bytes_max = 8 << 10;
  static constexpr std::chrono::seconds deadline{10};

  metrics_endpoint(boost::asio::io_context& io, unique_fd listener,
                   std::function<std::string()> text);
  void stop();

private:
  struct visitor;
  void accept();
  void read(const std::shared_ptr<visitor>& v);
  void write(const std::shared_ptr<visitor>& v);
  [[nodiscard]] std::string reply_to(std::string_view request) const;

  boost::asio::io_context& io_;
  boost::asio::posix::stream_descriptor listener_;
  std::function<std::string()> text_;
  std::shared_ptr<std::size_t> visitors_ = std::make_shared<std::size_t>(0);
  bool stopped_ = false;
};

} // namespace qs::zdb
