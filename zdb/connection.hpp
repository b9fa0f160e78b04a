// One client's socket in the server: reads when there is room for its replies, runs commands,
// sends. And what all connections share: whose turn it is, and how much memory they may hold
// together. I/O thread only.
#pragma once

#include <deque>

#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>

#include "base/posix.hpp"
#include "zdb/commands.hpp"
#include "zdb/poller.hpp"
#include "zdb/silence.hpp"
#include "zdb/turn_queue.hpp"

namespace qs::zdb {

class connection;

/// What all connections of a server share.
///
/// Memory: requests larger than 16 KiB are granted from `memory_max` before their bytes are read,
/// and replies count against it. Past half of it, who has more than 64 KiB unread gets no more
/// work. Past three quarters, large requests and commands with large answers stand in line for
/// memory, small ones go on; and those who hold some and move less than 1 MiB within `patience` are
/// dropped. So the total stays below memory_max, one answer, and 20 KiB a client.
///
/// Silence: who has sent a part of a request, is being waited for, and sends not one byte more for
/// `silence` is dropped. How long a request takes is up to the client.
///
/// Turns are taken some at a time: their commands run, what they wrote goes to the files together
/// (commands::settle), and only then are their answers sent.
class connection_host {
public:
  struct limits {
    std::size_t output_bytes_max; ///< with more unread output a client is not read from
    std::size_t memory_max;
    std::chrono::milliseconds patience;
    std::chrono::milliseconds silence; ///< 0: any
  };
  connection_host(boost::asio::io_context& context, poller& all_sockets, commands& all,
                  const limits& lim, const qs::clock& time);

  status open() {
    return sockets.open([this] { serve(); });
  }

  boost::asio::io_context& io;
  commands& table;
  poller& sockets;
  const limits most;
  buffer scratch; ///< where small requests are received
  std::function<void(client&)> closed;
  std::function<void(const std::function<void(connection&)>&)> each;

  /// Looked at behind each command.
  static constexpr auto turn_time = std::chrono::milliseconds{2};

  /// In line for a turn.
  void queue(const std::shared_ptr<connection>& c);
  void account(std::size_t before, std::size_t now);
  [[nodiscard]] bool fits(std::size_t more) const noexcept {
    return used() + more <= most.memory_max;
  }
  [[nodiscard]] bool tight() const noexcept { return used() > most.memory_max / 2; }
  [[nodiscard]] bool short_of_memory() const noexcept { return used() > most.memory_max / 4 * 3; }
  /// The same, for what asks again: if there is none, those who hold some and do not move go.
  bool room(std::size_t more);
  /// In line for memory.
  void starve(const std::shared_ptr<connection>& c);
  [[nodiscard]] std::size_t used() const noexcept { return used_ + table.waiting_bytes(); }
  [[nodiscard]] std::uint64_t dropped() const noexcept { return dropped_; }
  /// It has sent something, and its request is not whole.
  void heard(silence_line::member& who) noexcept { silence_.heard(who, time_.boot()); }
  /// Drops who was silent for too long; from time to time.
  void drop_silent();
  [[nodiscard]] std::uint64_t dropped_silent() const noexcept { return dropped_silent_; }
  void stop();

private:
  void serve();
  void serve_soon();
  void pass();
  void deliver();
  void feed_hungry();
  void relieve();

  const qs::clock& time_;
  silence_line silence_;
  std::uint64_t dropped_silent_ = 0;
  turn_queue<connection> turns_;
  std::vector<std::shared_ptr<connection>> served_; ///< in this pass, their answers not sent
  bool serving_ = false;
  bool posted_ = false; ///< serve() is to come
  std::size_t used_ = 0;
  std::deque<std::weak_ptr<connection>> hungry_;
  bool feeding_ = false;
  bool relieving_ = false;
  bool asked_ = false;
  bool stopped_ = false;
  boost::asio::steady_timer relief_;
  std::uint64_t dropped_ = 0;
};

class connection final : public client, private poller::watched, private silence_line::member {
public:
  connection(connection_host& host, unique_fd fd, std::string address);
  void start();
  void wake() override;
  void drop() override;
  void holds() override { account(); }
  /// No more commands; closes when the replies are sent.
  void finish();
  void close();
  /// Works until it has had its share: so many bytes were received. Nothing is sent.
  std::size_t turn();
  /// What was written is in the files: the answers go out.
  void deliver();
  bool served = false; ///< had a turn, and deliver() is to come
  /// Memory may be there now.
  void fed();

  [[nodiscard]] std::size_t accounted() const noexcept { return accounted_; }
  /// When its last command ended, or it came.
  [[nodiscard]] std::chrono::steady_clock::time_point active_at() const noexcept {
    return active_at_;
  }
  /// Holds memory, and moves too little.
  [[nodiscard]] bool stalled(std::chrono::steady_clock::time_point now) const noexcept;
  /// It is its turn to send; nothing of what it has sent waits for us.
  [[nodiscard]] bool waited_for() const noexcept;
  /// There is something at the socket that was not read, or its end.
  [[nodiscard]] bool arrived() const noexcept;
  /// A WAIT is under way, or a password to be judged: meanwhile nothing is read from it.
  [[nodiscard]] bool abandoned() const noexcept override;

private:
  friend class connection_host; // silence_line knows it by its place alone
  std::shared_ptr<connection> self() {
    return std::static_pointer_cast<connection>(shared_from_this());
  }
  void changed(bool readable, bool ended, bool has_room) override;
  void ready();
  void stand_in_line();
  bool may_execute() const noexcept;
  bool has_memory(std::size_t bytes);
  bool run_pending();
  std::size_t receive();
  std::size_t work(byte_span bytes);
  bool send();
  void moved(std::size_t bytes) noexcept;
  void listen_for_more(bool heard) noexcept;
  void account();
  void drain();

  connection_host& host_;
  unique_fd socket_;
  request_parser parser_{true};
  buffer rest_; ///< received, not yet worked on
  std::size_t accounted_ = 0;
  std::size_t moved_ = 0; ///< since slow_since_
  std::chrono::steady_clock::time_point slow_since_;
  std::chrono::steady_clock::time_point active_at_;
  std::size_t turn_left_ = 0; ///< commands
  std::chrono::steady_clock::time_point turn_until_;
  bool readable_ = false;     ///< the socket may have more
  bool ended_ = false;        ///< and it has an end
  bool queued_ = false;
  bool hungry_ = false;
  bool pending_ = false; ///< a whole request is there and waits for memory
  bool writing_ = false; ///< its buffer was full
  bool woken_ = false;
  bool peer_ended_ = false;
  bool closed_ = false;
  bool stopping_ = false; ///< the server ends: nobody is waited for
  std::unique_ptr<boost::asio::steady_timer>
      drain_until_; ///< set: only throwing away what still comes
};

} // namespace qs::zdb
