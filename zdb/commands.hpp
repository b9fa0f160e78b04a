// The command table: what every command of the protocol checks, does and answers, and the
// extensions SYNC, SETNX and GETRANGE. No sockets: a client is its state and a queue of replies.
// What waits for the disk goes to the helper thread through `environment::disk` and is answered
// later. All of it on the I/O thread. Texts: zdb-protocol; differences: docs/zdb.md.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.hpp"
#include "base/random.hpp"
#include "zdb/client.hpp"
#include "zdb/metrics.hpp"
#include "zdb/password_guard.hpp"
#include "zdb/store.hpp"
#include "zdb/turn_queue.hpp"

namespace qs::zdb {

class hook_runner;

struct server_stats {
  std::uint64_t clients = 0;
  std::uint64_t executed = 0;
  std::uint64_t failed = 0;
  std::uint64_t unauthorized = 0;
  std::uint64_t received_bytes = 0;
  std::uint64_t sent_bytes = 0;
  std::uint64_t wrong_passwords = 0;
  std::uint64_t syncs = 0; ///< those that succeeded, however many waited for one
};

struct environment {
  /// Runs `work` on the helper thread (first in, first out), then `then` on the I/O thread.
  std::function<void(std::function<void()> work, std::function<void()> then)> disk;
  /// The data files are gone: answer what is pending and end.
  std::function<void()> gone;
  timer_queue* timers = nullptr; ///< always needed; run by the owner
  /// So much more may be held for clients; none: as much as one likes.
  std::function<bool(std::size_t)> fits;
  hook_runner* hooks = nullptr;  ///< none: no --hook
  const qs::clock* time = &system_clock();
  random_source* random = &system_random();
};

struct command_options {
  std::string admin_password;
  bool protect = false;
  bool mode_is_fixed = false; ///< --mode was given
  bool sync_always = false;
  bool hide_namespaces = false;              ///< names only to admins and to who is in it
  std::size_t mirror_bytes_max = 64U << 20U; ///< a mirror with more unread copies is dropped
  std::size_t answer_bytes_max = 64U << 20U; ///< MGET ends with errors beyond this
};

class commands {
public:
  commands(store& all, command_options options, environment env);

  /// A new client: in `default`.
  void greet(client& c);
  /// It is closed: nobody else gets what it waits for.
  void left(client& c);
  /// Answers into c.out, now or later.
  void execute(client& c, std::span<const argument> args);
  /// From now on what SETs write waits for settle(), which writes it together; until then their
  /// answers must not be sent. Where a write fails, each is tried again alone, and gets the answer
  /// that comes of it.
  void gather() noexcept { gathering_ = true; }
  void settle();
  /// When the last command ended; the next one begins then, unless something else came between.
  [[nodiscard]] std::chrono::steady_clock::time_point last_ended() const noexcept {
    return ended_;
  }
  void paused() noexcept { straight_on_ = false; }
  /// How large the answer to this may be, roughly: asked when memory is short.
  [[nodiscard]] std::size_t answer_bytes(client& c, std::span<const argument> args);
  /// Done when everything written so far to `space` is on disk: one fdatasync for all who wait.
  /// `holds`: memory that waits with it, beside what every waiting answer takes.
  void sync(const std::shared_ptr<name_space>& space, std::function<void(const status&)> done,
            std::size_t holds = 0);
  /// What answers that wait for the disk take; also those whose client is gone.
  [[nodiscard]] std::size_t waiting_bytes() const noexcept { return waiting_bytes_; }
  /// At least what one of them takes: its place in the line, what is to be said and to whom.
  static constexpr std::size_t waiting_answer_bytes = 512;
  /// Lock and data files are still linked; else everything is answered with "Data files are gone"
  /// from now on.
  bool watch();
  [[nodiscard]] bool gone() const noexcept { return gone_; }
  /// The metrics of commands and namespaces, to be followed by the server's own.
  void metrics(metrics_text& out) const;

  server_stats stats;
  static constexpr std::string_view gone_text = "Data files are gone";
  static constexpr std::string_view removed_text =
      "Your active namespace is not available anymore (probably removed).";
  /// Of a namespace that is there and is not served; docs/decisions/0007.
  static constexpr std::string_view not_served_text =
      "Namespace cannot be opened, see the server's log";
  static constexpr std::string_view extensions = "SYNC SETNX GETRANGE";

  using arguments = std::span<const argument>;
  using handler = void (commands::*)(client&, arguments);
  struct row {
    std::string_view name;
    handler run = nullptr;
    bool admin = false;
    std::size_t least = 1; ///< arguments with the name
    std::size_t most = request_arguments_max;
    bool not_empty = false; ///< no argument may be empty
    /// Neither counts nor looks at files, so that what others wrote may wait.
    bool beside = false;
    /// It works on the client's namespace.
    [[nodiscard]] bool in_namespace() const noexcept;
  };
  /// In the order in which a prefix is looked up.
  static std::span<const row> table();
  /// The first row of which `name` is a beginning, in any case; nothing: no such command.
  static std::optional<std::size_t> find(std::string_view name);

private:
  /// An answer that comes later.
  struct promise {
    std::weak_ptr<client> who;
    reply_queue::ticket ticket = 0;
    std::size_t row = 0;
    std::chrono::steady_clock::time_point since;
    std::shared_ptr<const std::string> copy; ///< for mirrors, where there are any
  };
  struct admin_job {
    /// At its turn: an answer at once, or `work` for the helper thread.
    std::function<std::optional<std::string>(std::function<status()>& work)> prepare;
    std::function<std::string(const status&)> finish;
    std::string name; ///< of the namespace that it changes; empty: none
    promise reply;
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
  void getrange(client& c, arguments args);
  void mget(client& c, arguments args);
  void del(client& c, arguments args);
  void exists(client& c, arguments args);
  void check(client& c, arguments args);
  void length(client& c, arguments args);
  void keytime(client& c, arguments args);
  void flush(client& c, arguments args);
  // walking
  void scan(client& c, arguments args);
  void rscan(client& c, arguments args);
  void kscan(client& c, arguments args);
  void history(client& c, arguments args);
  void keycur(client& c, arguments args);
  void index(client& c, arguments args);
  void data(client& c, arguments args);
  // namespaces
  void nsnew(client& c, arguments args);
  void nsdel(client& c, arguments args);
  void nslist(client& c, arguments args);
  void nsset(client& c, arguments args);
  void nsinfo(client& c, arguments args);
  void nsjump(client& c, arguments args);
  void reload(client& c, arguments args);
  [[nodiscard]] std::string describe_namespace(const client& c, const name_space& space) const;
  // watching others
  void wait(client& c, arguments args);
  void mirror(client& c, arguments args);
  void master(client& c, arguments args);
  void hooks(client& c, arguments args);

  void dispatch(client& c, arguments args);
  void fail(client& c, std::string_view text);
  bool deny(client& c, std::string_view text);
  void refuse(client& c, std::string_view text = "Permission denied");
  promise promise_answer(client& c);
  void answer(const promise& p, std::string_view reply);
  /// Judged when it is asked: passwords may change while an attempt waits.
  using verdict = std::function<bool()>;
  using secret = std::function<std::string()>;
  /// A password for `target`: judged, now or in its turn where somebody guesses, and answered;
  /// `enter` lets the client in and says so.
  void judge(client& c, std::string_view target, const verdict& right,
             const std::function<std::string(client&)>& enter);
  void note_judged(const client& c, std::string_view target, bool right);
  void become_admin(client& c, const verdict& right);
  verdict plain_check(std::string_view given, secret wanted) const;
  bool may_write(client& c);
  bool may_read(client& c);
  bool may_know(const client& c, const name_space& space) const;
  /// What is said of a name under which nothing is found.
  std::string_view not_found(std::string_view text = "Namespace not found") const {
    return store_.unnamed() > 0 ? not_served_text : text;
  }
  bool key_fits(client& c, const argument& key, std::string_view text);
  bool password_fits(std::string_view given, std::string_view wanted) const;
  /// Whether the hash answers the client's challenge; nothing where it cannot, which is said.
  std::optional<verdict> answer_check(client& c, std::string_view hash, secret wanted);
  std::optional<std::uint32_t> timestamp(client& c, arguments args, std::size_t at);
  void write(client& c, arguments args, bool only_new);
  void written(client& c, std::string_view reply);
  void write_behind(const std::shared_ptr<name_space>& space);
  void doubtful(client& c, std::string_view id);
  void settle_now();
  void settled(name_space& space, std::span<const name_space::settled_write> writes);
  /// Answers with it; how many bytes it has.
  std::size_t one_value(client& c, byte_span key);
  static std::string bulk_text(std::string_view id);
  /// What is said of a SET that did not store; nothing: it did.
  static std::string_view refusal(write_answer answer) noexcept;
  void start_sync(const std::shared_ptr<name_space>& space);
  void clear_away(const std::filesystem::path& directory);
  using paths_ptr = std::shared_ptr<std::vector<std::filesystem::path>>;
  void delete_flushed(const std::shared_ptr<name_space>& space, const paths_ptr& paths, bool all,
                      std::function<void()> then);
  void disk_trouble();
  void later(client& c, admin_job job);
  void later(admin_job job);
  /// When no compaction is under way there.
  void when_whole(const std::shared_ptr<name_space>& space, admin_job job);
  void next_admin_job();
  std::optional<std::string> change_setting(name_space& space, std::string_view property,
                                            std::string_view value, namespace_settings& changed,
                                            bool& stored);
  void walk(client& c, arguments args, scan_order order);
  /// An MGET that took longer than a client may at once; its other keys are in client::gathered,
  /// each behind a byte that says how long it is.
  struct multi_get {
    std::weak_ptr<client> who;
    std::size_t row = 0;
    std::chrono::steady_clock::time_point since;
    std::shared_ptr<const std::string> copy; ///< for mirrors, where there are any
    bool failed = false;
    std::size_t bytes = 0;
    std::size_t at = 0;
  };
  [[nodiscard]] bool more_fits(const client& c, std::chrono::steady_clock::time_point until) const;
  void next_value(client& c, byte_span key, std::size_t& bytes);
  void more_values(const std::shared_ptr<multi_get>& s);
  struct scan_under_way;
  using scan_ptr = std::shared_ptr<scan_under_way>;
  void go_on(const scan_ptr& s);
  void go_on_walking(const scan_ptr& s);
  void again(const scan_ptr& s, std::chrono::milliseconds pause = {});
  /// Calls it when it is the client's turn among those whose answers take long. With a pause, it
  /// stands in line from then on only.
  void in_turn(const std::weak_ptr<client>& who, std::function<void()> go_on,
               std::chrono::milliseconds pause = {});
  void next_in_turn();
  void try_reload(const promise& p, const std::shared_ptr<name_space>& space, int tries);
  void tell_waiting(const client& source, const name_space* space, std::size_t ran);
  std::string encode_copy(const client& source, arguments args, std::size_t at) const;
  void tell_mirrors(const client* source, std::string_view copy);
  void hook(std::string_view type, std::vector<std::string> details);

  store& store_;
  command_options options_;
  environment env_;
  std::uint32_t instance_ = 0;
  std::int64_t boot_seconds_ = 0;
  boot_time started_{};
  std::deque<admin_job> admin_jobs_;
  /// Namespaces that they change: whether these exist is told behind them only, for who asks may
  /// be the one who has lost the connection on which he asked for the change.
  std::multiset<std::string, std::less<>> pending_names_;
  /// Answers that took longer than one client may at once (SCANs, MGET): they go on in turn, one of
  /// each namespace.
  struct unfinished {
    std::weak_ptr<client> who;
    std::function<void()> go_on;
  };
  static constexpr std::chrono::milliseconds memory_pause{20}; ///< of those that need some
  turn_queue<unfinished> unfinished_;
  bool unfinished_due_ = false;
  std::size_t waiting_bytes_ = 0;
  bool gone_ = false;
  password_guard guard_;
  boot_time guess_said_{};
  /// Who waits for a command, by namespace and row; row 0 is "*".
  std::map<std::pair<const name_space*, std::size_t>, std::vector<client*>> waiting_;
  std::vector<std::weak_ptr<client>> mirrors_;
  std::vector<latency_histogram> latencies_; ///< by row
  /// SETs that wait for settle().
  struct doubtful_answer {
    std::shared_ptr<client> who;
    reply_queue::spot at;
    std::size_t row = 0;
    std::chrono::steady_clock::time_point since;
  };
  struct gathered_answers {
    std::shared_ptr<name_space> space;
    std::vector<doubtful_answer> answers; ///< in order
  };
  std::vector<gathered_answers> gathered_; ///< few: a turn is in one namespace
  bool gathering_ = false;
  // The command under way.
  std::size_t row_ = 0;
  std::chrono::steady_clock::time_point since_;
  std::chrono::steady_clock::time_point ended_;
  bool straight_on_ = false; ///< ended_ is now
  bool promised_ = false;
  bool failed_ = false;
  std::uint32_t owner_ = 0;
  std::shared_ptr<const std::string> copy_;
};

} // namespace qs::zdb
