// A client's session with one zdb namespace: handshake, pipelined operations, replies matched in
// order. No I/O and no threads: whoever owns the socket owns the session, sends what take_output()
// gives, feeds receive(), and says connection_lost() when the socket is gone; a new connection
// takes a new session. Good against 0-db and our own server. Every callback is called exactly once,
// from receive(), connection_lost() or, when refused at once, from the operation itself; it may
// start new operations, but must not destroy the session.
#pragma once

#include <chrono>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.hpp"
#include "base/result.hpp"
#include "zdb/resp.hpp"

namespace qs::zdb {

struct session_options {
  std::string name_space =
      "default";              ///< selected by the handshake; "default" without password: no SELECT
  std::string password;       ///< of the namespace; empty: none
  std::string admin_password; ///< not empty: AUTH before SELECT
  bool allow_plain = false;   ///< passwords may go in clear to a server that knows no challenge
                              ///< (loopback, `insecure`)
  bool discover = true;       ///< ask INFO for extensions and instance in the handshake
};

enum class set_outcome : std::uint8_t {
  stored,    ///< acknowledged; on disk only after a sync barrier
  identical, ///< answered nil: "already stored". On servers without our extensions compare by GET
             ///< (invariant 3)
};

struct scan_item {
  std::string key;
  std::uint64_t length = 0;   ///< of the payload
  std::int64_t timestamp = 0; ///< unix seconds
};

struct scan_page {
  std::vector<scan_item> items;
  std::string cursor; ///< 17 bytes: give it to the next scan; empty at the end
  bool end = false;   ///< nothing more; items is empty
};

/// NSINFO, line by line. Missing lines leave the default; `lines` has them all.
struct namespace_info {
  std::string name;
  std::uint64_t entries = 0;
  bool is_public = false;
  bool has_password = false;
  bool worm = false;
  bool locked = false;
  std::string mode;                    ///< "userkey" or "sequential"
  std::uint64_t data_size_bytes = 0;   ///< live payload
  std::uint64_t data_limits_bytes = 0; ///< quota, 0 = none
  std::uint64_t index_size_bytes = 0;
  std::uint64_t free_bytes = 0; ///< data_disk_freespace_bytes
  std::map<std::string, std::string, std::less<>> lines;
};

/// INFO. `instance_id` changes when the server starts, as `boot_time` does.
struct server_info {
  std::string instance_id;
  std::int64_t boot_time = 0;          ///< as the server prints it; only compared for equality
  std::vector<std::string> extensions; ///< "SYNC", "SETNX"; empty on 0-db
  std::map<std::string, std::string, std::less<>> lines;
};

template <class T>
using callback = std::function<void(result<T>)>;

/// What an error reply means to a caller; the message keeps the server's text.
error error_from_reply(std::string_view text);
/// Lowercase hex of SHA-1(challenge ":" password): the answer to AUTH SECURE CHALLENGE.
std::string challenge_answer(std::string_view challenge, std::string_view password);

class session {
public:
  explicit session(session_options options, const qs::clock& time = system_clock());
  session(const session&) = delete;
  session& operator=(const session&) = delete;

  /// Once, first. Operations started before it is done wait behind it unsent; if it fails they fail
  /// with the same error and the session is closed. access_denied: a password is wrong; not_found:
  /// no such namespace; unsupported: the server knows no challenge and plain passwords are not
  /// allowed.
  void handshake(callback<void> done);

  // Operations. Keys: 1..255 bytes, values: up to 8 MiB, else invalid_argument at once.
  void set(std::string key, buffer_ptr value, callback<set_outcome> done);
  /// Stores only if the key is free; false: it exists. errc::unsupported where the server has no
  /// SETNX.
  void setnx(std::string key, buffer_ptr value, callback<bool> done);
  /// errc::not_found when there is no such key.
  void get(std::string key, callback<buffer_ptr> done);
  /// errc::not_found when there was no such key.
  void del(std::string key, callback<void> done);
  void exists(std::string key, callback<bool> done);
  /// True: the stored bytes fit their checksum. False: damaged or unreadable. errc::not_found: no
  /// such key.
  void check(std::string key, callback<bool> done);
  /// Done when all that was answered before on this namespace is on disk. errc::unsupported without
  /// the extension.
  void sync(callback<void> done);
  /// One page; `cursor` empty: from the start.
  void scan(std::string cursor, callback<scan_page> done);
  void nsinfo(std::string name_space, callback<namespace_info> done);
  void info(callback<server_info> done);
  void ping(callback<void> done);
  void dbsize(callback<std::uint64_t> done);
  /// Sequential mode: appends and gives the new 8-byte id.
  void append(buffer_ptr value, callback<std::string> done);

  // Admin. errc::refused when the server wants an admin and we are none.
  /// errc::already_exists when there is one.
  void nsnew(std::string name_space, callback<void> done);
  /// `property`: maxsize, password, public, worm, mode, lock, freeze. Value: up to 63 bytes.
  void nsset(std::string name_space, std::string property, std::string value, callback<void> done);
  /// errc::not_found when there is none.
  void nsdel(std::string name_space, callback<void> done);
  void nslist(callback<std::vector<std::string>> done);
  /// Empties the selected namespace. It must be private and have a password.
  void flush(callback<void> done);
  /// SELECT of another namespace, as in the handshake; the operations started later are for that
  /// one.
  void select(std::string name_space, std::string password, callback<void> done);

  // The owner's side.
  /// What is to be sent now; from this call on it counts as sent.
  [[nodiscard]] std::vector<piece> take_output();
  [[nodiscard]] bool has_output() const noexcept { return !out_.empty(); }
  /// Bytes from the socket. errc::protocol: the peer does not speak zdb, everything pending has
  /// been failed and the session is closed: close the socket.
  status receive(byte_span bytes);
  /// Fails everything pending: reads with `why` (unreachable or timed_out), writes that were sent
  /// with maybe_delivered, what was not sent with unreachable.
  void connection_lost(const error& why);

  /// Request bytes started and not yet answered: what a window counts.
  [[nodiscard]] std::size_t bytes_in_flight() const noexcept { return bytes_in_flight_; }
  [[nodiscard]] std::size_t pending() const noexcept { return sent_.size() + held_.size(); }
  /// How long the oldest request that was sent has been waiting; nothing when none is.
  [[nodiscard]] std::optional<std::chrono::milliseconds> waiting() const;
  [[nodiscard]] bool ready() const noexcept { return phase_ == phase::ready; }
  [[nodiscard]] bool closed() const noexcept { return phase_ == phase::closed; }
  /// After the handshake: whether the server lists this extension.
  [[nodiscard]] bool has(std::string_view extension) const;
  /// From the handshake (options.discover).
  [[nodiscard]] const server_info& server() const noexcept { return server_; }

private:
  enum class phase : std::uint8_t { fresh, greeting, ready, closed };
  enum class effect : std::uint8_t { read, write };
  struct request {
    effect what = effect::read;
    std::size_t bytes = 0;
    boot_time since{};
    bool sent = false;
    std::function<bool(result<reply>)> done; ///< false: no reply this command can get
    std::vector<piece> held; ///< not in out_ yet: waits for the handshake or a SELECT
  };

  void start(effect what, std::vector<piece> pieces, std::function<bool(result<reply>)> done,
             bool urgent = false);
  void release_held();
  void greet_auth();
  void greet_select();
  void greet_discover();
  void challenge_then(std::string password, std::function<void(result<std::string>)> next);
  void do_select(std::string name_space, std::string password, callback<void> done);
  void greeted(status outcome);
  void fail_all(const error& why, bool peer_error);

  session_options options_;
  const qs::clock& time_;
  phase phase_ = phase::fresh;
  callback<void> greeted_;
  bool selecting_ = false;
  error closed_why_;
  output out_;
  std::deque<request> sent_; ///< in out_ or on the wire, oldest first
  std::deque<request> held_; ///< behind a handshake or SELECT
  std::size_t unsent_ = 0;   ///< requests at the end of sent_ not yet taken
  std::size_t bytes_in_flight_ = 0;
  reply_parser parser_;
  server_info server_;
};

} // namespace qs::zdb
