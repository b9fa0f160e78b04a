#include "zdb/server_core.hpp"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <malloc.h>
#include <sys/socket.h>
#include <unistd.h>

#include <fmt/format.h>

#include "base/log.hpp"
#include "zdb/listen.hpp"

namespace qs::zdb {

namespace {

namespace asio = boost::asio;
constexpr auto stop_linger = std::chrono::seconds{2};
constexpr std::chrono::milliseconds hooks_at_stop{5000};

} // namespace

server_core::server_core(server_options o)
    : options_{std::move(o)}, sockets_{io_}, hooks_{io_, options_.hook.string(), system_clock()}, watch_{io_},
      sync_timer_{io_}, linger_{io_}, timers_due_{io_}, signals_{io_},
      worker_{[this](std::function<void()> then) { sockets_.post(std::move(then)); }} {
  timers_.changed = [this] { timers_later(); };
}

server_core::~server_core() { timers_.changed = {}; }

void server_core::stop_on_signals() {
  signals_.add(SIGTERM);
  signals_.add(SIGINT);
  signals_.async_wait([this](const boost::system::error_code& ec, int number) {
    if (ec) return;
    log::info("zdb", "signal {}: stopping", number);
    begin_stop();
  });
}

status server_core::open() {
  auto& o = options_;
  if (o.protect && o.admin_password.empty())
    return error{errc::invalid_argument, "--protect needs an admin password (--admin-file)"};
  store_options s;
  s.data = o.data;
  s.index = o.index;
  s.datasize = o.datasize;
  s.maxsize = o.maxsize;
  s.sequential = o.mode == key_mode::sequential;
  s.data_alone = o.mode == key_mode::user;
  s.rotate_after = o.rotate;
  s.cache_bytes = o.cache_bytes;
  s.jumped = [this](name_space& space, std::uint32_t left, std::uint32_t now) {
    if (left == 0) return;
    if (!std::exchange(compaction_due_, true)) sockets_.post([this] { compact(); });
    auto from = data_file_path(space.directory(), left).string();
    auto to = data_file_path(space.directory(), now).string();
    hooks_.run("jump-index", {from, to}); // the index of a file is in it
    hooks_.run("jump-data", {from, to});
  };
  QS_TRY_ASSIGN(store_, store::open(std::move(s)));
  environment env;
  env.disk = [this](std::function<void()> work, std::function<void()> then) {
    worker_.post(std::move(work), std::move(then));
  };
  env.gone = [this] { on_gone(); };
  env.timers = &timers_;
  env.fits = [this](std::size_t more) { return host_->room(more); };
  open_compactor();
  if (hooks_.enabled()) env.hooks = &hooks_;
  command_options c;
  c.admin_password = o.admin_password;
  c.protect = o.protect;
  c.mode_is_fixed = o.mode != key_mode::mixed;
  c.sync_always = o.sync == sync_mode::always;
  c.hide_namespaces = o.hide_namespaces;
  c.answer_bytes_max = std::min<std::size_t>(c.answer_bytes_max, o.memory_bytes_max / 4);
  c.mirror_bytes_max = std::min<std::size_t>(c.mirror_bytes_max, o.memory_bytes_max / 4);
  commands_ = std::make_unique<commands>(*store_, std::move(c), env);
  connection_host::limits most{o.client_output_bytes, o.memory_bytes_max, o.patience, o.silence};
  host_ = std::make_unique<connection_host>(io_, sockets_, *commands_, most, *o.time);
  QS_TRY(host_->open());
  host_->closed = [this](client& who) {
    // Destroyed when its own handler has returned.
    auto it = clients_.find(who.shared_from_this());
    if (it != clients_.end()) {
      auto at = by_peer_.find(who.peer);
      if (at != by_peer_.end() && --at->second == 0) by_peer_.erase(at);
      sockets_.post([last = *it] {});
      clients_.erase(it);
    }
    end_if_idle();
  };
  host_->each = [this](const std::function<void(connection&)>& what) {
    for (auto& who : clients_) what(static_cast<connection&>(*who));
  };
  QS_TRY(open_listeners());
  QS_TRY(open_metrics());
  log::info("zdb", "{} serves {} namespaces of {}", address_,
            store_->all().size() - std::min(store_->failed(), store_->all().size()),
            o.data.string());
  return {};
}

status server_core::open_listeners() {
  auto& o = options_;
  ::unlink(endpoint_path().c_str());
  if (o.socket.empty() || o.dual_net) {
    QS_TRY_ASSIGN(auto tcp, listen_tcp("listen", o.listen, o.port));
    address_ = tcp.address;
    add_listener(std::move(tcp.fd));
    if (o.port == 0) QS_TRY(write_file_atomic(endpoint_path(), as_bytes(address_ + "\n")));
  }
  if (!o.socket.empty()) {
    QS_TRY_ASSIGN(auto fd, listen_unix(o.socket));
    if (address_.empty()) address_ = fmt::format("unix:{}", o.socket.string());
    add_listener(std::move(fd));
  }
  hooks_.set_id(id());
  return {};
}

std::string server_core::id() const {
  return address_.starts_with("unix:") ? fmt::format("unix://{}", options_.socket.string())
                                       : fmt::format("tcp://{}", address_);
}

status server_core::open_metrics() {
  if (options_.metrics.empty()) return {};
  auto colon = options_.metrics.rfind(':'); // checked when the flag was read
  std::uint16_t port = 0;
  auto* text = options_.metrics.c_str();
  (void)std::from_chars(text + colon + 1, text + options_.metrics.size(), port);
  QS_TRY_ASSIGN(auto tcp, listen_tcp("metrics", options_.metrics.substr(0, colon), port));
  metrics_address_ = tcp.address;
  metrics_ =
      std::make_unique<metrics_endpoint>(io_, std::move(tcp.fd), [this] { return metrics(); });
  log::info("zdb", "metrics at http://{}/metrics", metrics_address_);
  return {};
}

std::string server_core::metrics() const {
  metrics_text out;
  out.head("zdb_build_info", "gauge", "1, with the version.");
  out.value("zdb_build_info", std::uint64_t{1}, metrics_text::label("version", QS_VERSION));
  auto gauge = [&](std::string_view name, std::string_view help, std::uint64_t value) {
    out.head(name, "gauge", help);
    out.value(name, value);
  };
  gauge("zdb_clients", "Connections now.", clients_.size());
  gauge("zdb_client_memory_bytes", "Requests and replies held for clients.", host_->used());
  gauge("zdb_client_memory_max_bytes", "What they may hold together.", host_->most.memory_max);
  out.head("zdb_clients_dropped_total", "counter",
           "Clients dropped because memory was short and they did not move.");
  out.value("zdb_clients_dropped_total", host_->dropped());
  out.head("zdb_clients_silent_total", "counter",
           "Clients dropped because they had sent a part of a request and then nothing.");
  out.value("zdb_clients_silent_total", host_->dropped_silent());
  out.head("zdb_clients_refused_total", "counter", "Connections beyond --clients.");
  out.value("zdb_clients_refused_total", refused_clients_);
  if (compactor_) {
    auto& done = compactor_->stats();
    auto counter = [&](std::string_view name, std::string_view help, std::uint64_t value) {
      out.head(name, "counter", help);
      out.value(name, value);
    };
    counter("zdb_compactions_total", "Passes of compaction.", done.passes);
    counter("zdb_compaction_failures_total", "Passes that failed.", done.failures);
    counter("zdb_compaction_freed_bytes_total", "Space given back.", done.bytes_freed);
  }
  commands_->metrics(out);
  return out.take();
}

void server_core::add_listener(unique_fd fd) {
  listeners_.emplace_back(io_, fd.release());
  accept(listeners_.back());
}

void server_core::accept(listener& l) {
  l.async_wait(listener::wait_read, [this, &l](const boost::system::error_code& ec) {
    if (ec || stopping_) return;
    for (int i = 0; i < 64; ++i) {
      std::string peer;
      auto fd = accept_client(l.native_handle(), peer);
      if (fd.valid()) {
        admit(std::move(fd), std::move(peer));
        continue;
      }
      if (errno == EINTR || errno == ECONNABORTED) continue;
      if (errno != EMFILE && errno != ENFILE && errno != ENOBUFS && errno != ENOMEM) break;
      log::warning("zdb", "accept: {}", describe(posix_error(errno)));
      auto pause = std::make_shared<asio::steady_timer>(io_, std::chrono::milliseconds{100});
      return pause->async_wait([this, &l, pause](const boost::system::error_code& e) {
        if (!e && !stopping_) accept(l);
      });
    }
    accept(l);
  });
}

void server_core::admit(unique_fd fd, std::string peer) {
  if (clients_.size() >= options_.clients_max && !make_place(peer)) {
    constexpr std::string_view full = "-Too many clients\r\n";
    (void)::send(fd.get(), full.data(), full.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (refused_clients_++ % 1000 == 0)
      log::warning("zdb", "{} clients: no more are taken (--clients)", clients_.size());
    return;
  }
  tune_client(fd.get());
  ++by_peer_[peer];
  auto c = std::make_shared<connection>(*host_, std::move(fd), std::move(peer));
  clients_.insert(c);
  c->start();
}

/// When all places are taken, an address that has fewer than its share gets one of the address that
/// has most: the one whose last command is longest ago, an administrator's last of all.
bool server_core::make_place(const std::string& peer) {
  auto own = by_peer_.find(peer);
  auto addresses = by_peer_.size() + (own == by_peer_.end() ? 1 : 0);
  if (own != by_peer_.end() && own->second >= options_.clients_max / addresses) return false;
  auto most = std::max_element(by_peer_.begin(), by_peer_.end(),
                               [](auto& a, auto& b) { return a.second < b.second; });
  if (most == by_peer_.end() || most->second < 2) return false;
  std::shared_ptr<connection> idle;
  auto before = [](const connection& a, const connection& b) {
    return a.admin != b.admin ? b.admin : a.active_at() < b.active_at();
  };
  for (auto& c : clients_) {
    if (c->peer != most->first) continue;
    auto who = std::static_pointer_cast<connection>(c);
    if (!idle || before(*who, *idle)) idle = std::move(who);
  }
  if (!idle) return false;
  if (displaced_clients_++ % 1000 == 0)
    log::warning("zdb", "{} clients: one of the {} of {} makes place (--clients)", clients_.size(),
                 most->second, most->first.empty() ? "a local client" : most->first);
  idle->close();
  return true;
}

void server_core::timers_later() {
  auto next = timers_.next();
  if (!next) return;
  auto wait = *next - system_clock().boot();
  if (wait <= boot_time{0}) { // also while the loop waits for clients by itself
    if (!std::exchange(timers_posted_, true)) sockets_.post([this] { run_timers(); });
    return;
  }
  timers_due_.expires_after(wait);
  timers_due_.async_wait([this](const boost::system::error_code& ec) {
    if (!ec) run_timers(); // else there is an earlier one
  });
}

void server_core::run_timers() {
  timers_posted_ = false;
  timers_.run(system_clock().boot());
  timers_later();
}

void server_core::watch_later() {
  watch_.expires_after(options_.watch_every);
  watch_.async_wait([this](const boost::system::error_code& ec) {
    // Cancelling does not stop one that was due: it would begin anew, and the server never end.
    if (ec || stopping_ || !commands_->watch()) return;
    // Who waits for others with WAIT, or in line with a password, is not read from, so nobody sees
    // it leave.
    std::vector<std::shared_ptr<connection>> left;
    for (auto& c : clients_) {
      auto who = std::static_pointer_cast<connection>(c);
      if (who->abandoned()) left.push_back(who);
    }
    for (auto& c : left) c->close();
    host_->drop_silent();
    // Nothing happened for a while: give memory back.
    if (std::exchange(executed_before_, commands_->stats.executed) == commands_->stats.executed)
      ::malloc_trim(64 << 10);
    compact();
    watch_later();
  });
}

void server_core::sync_later() {
  sync_timer_.expires_after(options_.sync_interval);
  sync_timer_.async_wait([this](const boost::system::error_code& ec) {
    if (ec || stopping_) return;
    for (auto& [name, space] : store_->all())
      if (space->dirty() && !space->syncing) commands_->sync(space, [](const status&) {});
    sync_later();
  });
}

void server_core::open_compactor() {
  if (options_.compaction == 0) return;
  compaction_options c;
  c.bytes_per_second = options_.compaction;
  compaction_environment env;
  env.disk = [this](std::function<void()> work, std::function<void()> then) {
    worker_.post(std::move(work), std::move(then));
  };
  env.after = [this](std::chrono::milliseconds wait, std::function<void()> then) {
    timers_.add(system_clock().boot() + wait, std::move(then));
  };
  compactor_ = std::make_unique<compactor>(c, std::move(env));
}

/// Every few seconds, when a file is full, and when a pass has ended: is another one worth it?
void server_core::compact() {
  compaction_due_ = false;
  if (!compactor_ || stopping_ || compactor_->working_on()) return;
  // On from where the last pass was: one that is always worth it, or always fails, is not the only
  // one that is looked at.
  auto& all = store_->all();
  auto it = all.upper_bound(last_compacted_);
  for (std::size_t i = 0; i < all.size(); ++i, ++it) {
    if (it == all.end()) it = all.begin();
    auto begun = compactor_->consider(it->second, false, [this](const status& s) {
      if (s.ok()) sockets_.post([this] { compact(); });
    });
    if (!begun) continue;
    last_compacted_ = it->first;
    return;
  }
}

void server_core::tell_ready() {
  if (!hooks_.enabled()) return;
  auto spaces = (options_.data / "namespaces").string();
  hooks_.run("namespaces-init", {spaces, spaces});
  hooks_.run("ready", {}, [this](int code) {
    if (code == 0 || stopping_) return;
    why_ended_ = error{errc::refused, fmt::format("the hook for \"ready\" said {}", code)};
    begin_stop();
  });
}

/// The last words; nobody waits for longer than a few seconds for them.
void server_core::tell_closing() {
  if (!hooks_.enabled()) return;
  auto until = system_clock().boot() + hooks_at_stop;
  auto left = [&] { return std::max(until - system_clock().boot(), boot_time{1}); };
  for (auto& [name, space] : store_->all()) {
    if (system_clock().boot() >= until) break;
    if (!space->served()) continue;
    auto file = data_file_path(space->directory(), space->active_file()).string();
    (void)hooks_.run_and_wait("namespace-closing", {name, file, file}, left());
  }
  auto done = hooks_.run_and_wait("close", {}, std::max(left(), boot_time{1000}));
  if (!done.ok()) log::warning("zdb", "{}", describe(done.err()));
}

status server_core::run() {
  watch_later();
  if (options_.sync == sync_mode::interval) sync_later();
  tell_ready();
  io_.run();
  // If they are gone, what lies at these paths now may be another server's.
  if (commands_->gone())
    return error{errc::data_lost,
                 fmt::format("the data files in {} are gone", options_.data.string())};
  ::unlink(endpoint_path().c_str());
  if (!options_.socket.empty()) ::unlink(options_.socket.c_str());
  auto synced = sync_everything();
  tell_closing();
  return why_ended_.ok() ? synced : why_ended_;
}

status server_core::sync_everything() {
  status all;
  for (auto& [name, space] : store_->all()) {
    if (!space->dirty()) continue;
    auto job = space->make_sync_job();
    if (!job.ok()) {
      all = std::move(job).err();
      continue;
    }
    auto done = job->run();
    space->sync_done(*job, done);
    if (!done.ok()) all = std::move(done).err();
  }
  return all;
}

void server_core::begin_stop() {
  if (std::exchange(stopping_, true)) return;
  boost::system::error_code ignored;
  for (auto& l : listeners_) l.close(ignored);
  watch_.cancel();
  if (compactor_) compactor_->stop();
  sync_timer_.cancel();
  signals_.cancel(ignored);
  if (metrics_) metrics_->stop();
  // Whoever does not take its replies is not waited for longer than this.
  linger_.expires_after(stop_linger);
  linger_.async_wait([this](const boost::system::error_code& ec) {
    if (!ec) io_.stop();
  });
  auto all = clients_;
  for (auto& c : all) static_cast<connection&>(*c).finish();
  end_if_idle();
}

void server_core::end_if_idle() {
  if (!stopping_ || !clients_.empty()) return;
  linger_.cancel();
  timers_.clear();
  timers_due_.cancel();
  host_->stop();
  hooks_.stop();
}

void server_core::on_gone() {
  // Posted: the command that found it out answers first. Later commands are answered with the
  // error.
  sockets_.post([this] {
    if (stopping_) return;
    stopping_ = true;
    boost::system::error_code ignored;
    for (auto& l : listeners_) l.close(ignored);
    watch_.cancel();
    if (compactor_) compactor_->stop();
    sync_timer_.cancel();
    signals_.cancel(ignored);
    if (metrics_) metrics_->stop();
    linger_.expires_after(std::chrono::milliseconds{500});
    linger_.async_wait([this](const boost::system::error_code&) { io_.stop(); });
    end_if_idle();
  });
}

} // namespace qs::zdb
