// The command table: what every command of the protocol checks, does and answers, and the
// extensions SYNC and SETNX. No sockets: a client is its state and a queue of replies. What waits
// for the disk goes to the helper thread through `environment::disk` and is answered later. All of
// it on the I/O thread. Texts: zdb-protocol; differences: docs/zdb.md.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/clock.hpp"
#include "base/random.hpp"
#include "zdb/request.hpp"
#include "zdb/store.hpp"

namespace qs::zdb {

/// One connection as the commands see it.
struct client : std::enable_shared_from_this<client> {
  virtual ~client() = default;
  /// A held reply has been filled in, or `blocked` has ended.
  virtual void wake() = 0;

  std::shared_ptr<name_space> space;
  bool admin = false;
  bool writable = true;
  std::optional<std::string> challenge; ///< good for one attempt
  reply_queue out;
  bool blocked = false; ///< the next command waits for one that changes namespaces
  bool closing = false; ///< no more commands; close when the replies are sent
};

struct server_stats {
  std::uint64_t clients = 0;
  std::uint64_t executed = 0;
  std::uint64_t failed = 0;
  std::uint64_t unauthorized = 0;
  std::uint64_t received_bytes = 0;
  std::uint64_t sent_bytes = 0;
};

struct environment {
  /// Runs `work` on the helper thread (first in, first out), then `then` on the I/O thread.
  std::function<void(std::function<void()> work, std::function<void()> then)> disk;
  /// The data files are gone: answer what is pending and end.
  std::function<void()> gone;
  const qs::clock* time = &system_clock();
  random_source* random = &system_random();
};

struct command_options {
  std::string admin_password;
  bool protect = false;
  bool mode_is_fixed = false; ///< --mode was given
  bool sync_always = false;
};

class commands {
public:
  commands(store& all, command_options options, environment env);

  /// A new client: in `default`.
  void greet(client& c);
  /// Answers into c.out, now or later.
  void execute(client& c, std::span<const argument> args);
  /// Done when everything written so far to `space` is on disk: one fdatasync for all who wait.
  void sync(const std::shared_ptr<name_space>& space, std::function<void(const status&)> done);
  /// Lock and data files are still linked; else everything is answered with "Data files are gone"
  /// from now on.
  bool watch();
  [[nodiscard]] bool gone() const noexcept { return gone_; }

  server_stats stats;
  static constexpr std::string_view gone_text = "Data files are gone";

  using arguments = std::span<const argument>;
  using handler = void (commands::*)(client&, arguments);
  struct row {
    std::string_view name;
    handler run = nullptr; ///< none: "Command not supported" for now
    bool admin = false;
    std::size_t least = 1; ///< arguments with the name
    std::size_t most = request_arguments_max;
    bool not_empty = false; ///< no argument may be empty
  };
  /// In the order in which a prefix is looked up.
  static std::span<const row> table();

private:
  struct admin_job {
    /// At its turn: an answer at once, or `work` for the helper thread.
    std::function<std::optional<std::string>(std::function<status()>& work)> prepare;
    std::function<std::string(const status&)> finish;
    std::shared_ptr<client> who;
    reply_queue::ticket ticket = 0;
  };

  // basic
  void invalid(client& c, arguments args);
  void ping(client& c, arguments args);
  void time(client& c, arguments args);
  void auth(client& c, arguments args);
  void auth_secure(client& c, arguments args);
  void select(client& c, arguments args);
  void info(client& c, arguments args);
  void dbsize(client& c, arguments args);
  void sync_command(client& c, arguments args);
  void stop_command(client& c, arguments args);
  // data
  void set(client& c, arguments args);
  void setnx(client& c, arguments args);
  void get(client& c, arguments args);
  void mget(client& c, arguments args);
  void del(client& c, arguments args);
  void exists(client& c, arguments args);
  void check(client& c, arguments args);
  void length(client& c, arguments args);
  void keytime(client& c, arguments args);
  void scan(client& c, arguments args);
  void flush(client& c, arguments args);
  // namespaces
  void nsnew(client& c, arguments args);
  void nsdel(client& c, arguments args);
  void nslist(client& c, arguments args);
  void nsset(client& c, arguments args);
  void nsinfo(client& c, arguments args);

  void fail(client& c, std::string_view text);
  bool deny(client& c, std::string_view text);
  bool may_write(client& c);
  bool may_read(client& c);
  bool key_fits(client& c, const argument& key, std::string_view text);
  bool password_fits(std::string_view given, std::string_view wanted) const;
  bool answer_fits(client& c, std::string_view hash, std::string_view password);
  std::optional<std::uint32_t> timestamp(client& c, arguments args, std::size_t at);
  void write(client& c, arguments args, bool only_new);
  void written(client& c, std::string reply);
  void one_value(client& c, byte_span key);
  void start_sync(const std::shared_ptr<name_space>& space);
  void disk_trouble();
  void later(client& c, admin_job job);
  void next_admin_job();
  std::optional<std::string> change_setting(name_space& space, std::string_view property,
                                            std::string_view value, namespace_settings& changed,
                                            bool& stored);

  store& store_;
  command_options options_;
  environment env_;
  std::string instance_id_;
  std::int64_t boot_seconds_ = 0;
  boot_time started_{};
  std::deque<admin_job> admin_jobs_;
  bool gone_ = false;
};

} // namespace qs::zdb
