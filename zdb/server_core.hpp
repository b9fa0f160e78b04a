// Inside the server: what listens, accepts, watches and ends. Not for others; server.hpp is the
// door. One thread runs it (run()); only stop() may be called from another.
#pragma once

#include <list>
#include <unordered_map>
#include <unordered_set>

#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>

#include "zdb/compactor.hpp"
#include "zdb/connection.hpp"
#include "zdb/disk_worker.hpp"
#include "zdb/hooks.hpp"
#include "zdb/metrics_endpoint.hpp"
#include "zdb/server.hpp"

namespace qs::zdb {

class server_core {
public:
  explicit server_core(server_options o);
  ~server_core();
  server_core(const server_core&) = delete;
  server_core& operator=(const server_core&) = delete;

  status open();
  status run();
  void stop() {
    sockets_.post([this] { begin_stop(); });
  }
  void stop_on_signals();
  [[nodiscard]] std::string address() const { return address_; }
  /// What hooks are told: tcp://address:port or unix://path.
  [[nodiscard]] std::string id() const;
  [[nodiscard]] std::string metrics_address() const { return metrics_address_; }

private:
  using listener = boost::asio::posix::stream_descriptor;

  status open_listeners();
  status open_metrics();
  void add_listener(unique_fd fd);
  void accept(listener& l);
  void admit(unique_fd fd, std::string peer);
  bool make_place(const std::string& peer);
  void begin_stop();
  void end_if_idle();
  void watch_later();
  void sync_later();
  void sync_due();
  void timers_later();
  void run_timers();
  void on_gone();
  void open_compactor();
  void compact();
  void tell_ready();
  void tell_closing();
  std::string metrics() const;
  status sync_everything();
  [[nodiscard]] std::filesystem::path endpoint_path() const { return options_.data / "endpoint"; }

  server_options options_;
  timer_queue timers_;
  std::unique_ptr<store> store_;
  std::unique_ptr<commands> commands_;
  boost::asio::io_context io_{1}; ///< after these: handlers that it drops at the end hold them
  poller sockets_;
  hook_runner hooks_;
  std::unique_ptr<compactor> compactor_; ///< none: off
  bool compaction_due_ = false;
  std::string last_compacted_; ///< a namespace's name
  std::unique_ptr<connection_host> host_;
  std::unique_ptr<metrics_endpoint> metrics_;
  std::list<listener> listeners_;
  std::unordered_set<std::shared_ptr<client>> clients_;
  boost::asio::steady_timer watch_;
  boost::asio::steady_timer sync_timer_;
  boost::asio::steady_timer linger_;
  boost::asio::steady_timer timers_due_;
  boost::asio::signal_set signals_;
  std::string address_;
  std::string metrics_address_;
  std::uint64_t executed_before_ = 0;
  std::unordered_map<std::string, std::size_t> by_peer_; ///< how many of clients_
  std::uint64_t refused_clients_ = 0;
  std::uint64_t displaced_clients_ = 0;
  bool timers_posted_ = false;
  bool stopping_ = false;
  status why_ended_;
  disk_worker worker_; ///< last: ends first, while what its jobs use is still there
};

} // namespace qs::zdb
