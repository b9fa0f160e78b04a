// Commands by which clients follow what others do: WAIT, MIRROR, MASTER, HOOKS; and the metrics.
#include <algorithm>
#include <charconv>

#include <fmt/format.h>

#include "base/log.hpp"
#include "zdb/commands.hpp"
#include "zdb/hooks.hpp"

namespace qs::zdb {

namespace {
constexpr std::chrono::milliseconds wait_default{5000};
constexpr std::uint64_t wait_least_ms = 100;
constexpr std::uint64_t wait_most_ms = 1'800'000;
constexpr std::size_t every_command = 0; ///< the row "*"
} // namespace

void commands::wait(client& c, arguments args) {
  if (args.size() != 2 && args.size() != 3) return fail(c, "Invalid arguments");
  auto watched = find(args[1].text());
  if (!watched) return fail(c, "Unknown command to watch");
  auto time = wait_default;
  if (args.size() == 3) {
    auto text = args[2].text();
    std::uint64_t ms = 0;
    auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), ms);
    if (ec != std::errc{} || end != text.data() + text.size() || ms < wait_least_ms ||
        ms > wait_most_ms)
      return fail(c, "Invalid timeout");
    time = std::chrono::milliseconds{ms};
  }
  promised_ = true; // how long it takes says nothing about us
  client::waiting w;
  w.space = c.space.get();
  w.row = *watched;
  w.ticket = c.out.hold();
  w.end = env_.timers->add(env_.time->boot() + time, [this, weak = c.weak_from_this()] {
    auto who = weak.lock();
    if (!who || !who->waits) return;
    auto ticket = who->waits->ticket;
    left(*who);
    ++stats.failed;
    who->out.fill(ticket, "-Timeout\r\n");
    who->blocked = false;
    who->wake();
  });
  c.waits = w;
  c.blocked = true;
  waiting_[{w.space, w.row}].push_back(&c);
}

void commands::left(client& c) {
  if (c.guess) guard_.leave(*std::exchange(c.guess, std::nullopt));
  if (c.waits) {
    env_.timers->cancel(c.waits->end);
    auto it = waiting_.find({c.waits->space, c.waits->row});
    if (it != waiting_.end()) {
      std::erase(it->second, &c);
      if (it->second.empty()) waiting_.erase(it);
    }
    c.waits.reset();
  }
  if (c.mirror) {
    c.mirror = false;
    std::erase_if(mirrors_, [&](auto& m) {
      auto who = m.lock();
      return !who || who.get() == &c;
    });
  }
}

void commands::tell_waiting(const client& source, const name_space* space, std::size_t ran) {
  for (auto watched : {ran, every_command}) {
    auto it = waiting_.find({space, watched});
    if (it == waiting_.end()) continue;
    auto all = it->second; // left() changes it
    for (auto* who : all) {
      if (who == &source) continue; // its own WAIT
      auto ticket = who->waits->ticket;
      left(*who);
      who->out.fill(ticket, fmt::format("+{}\r\n", table()[ran].name));
      who->blocked = false;
      who->wake();
    }
    if (ran == every_command) return;
  }
}

// -- mirrors --------------------------------------------------------------------------------------

void commands::mirror(client& c, arguments) {
  c.out.simple("Starting mirroring");
  if (std::exchange(c.mirror, true)) return;
  mirrors_.push_back(c.weak_from_this());
  log::info("zdb", "{} mirrors what clients do", c.peer.empty() ? "a local client" : c.peer);
}

void commands::master(client& c, arguments) {
  c.master = true;
  c.out.simple("Hello, master");
}

/// What a mirror gets; nothing for what only concerns the connection it was said on.
std::string commands::encode_copy(const client& source, arguments args, std::size_t at) const {
  auto run = table()[at].run;
  if (owner_ == 0 || run == &commands::auth || run == &commands::wait || run == &commands::mirror ||
      run == &commands::master || run == &commands::invalid)
    return {};
  std::string_view name = source.space->settings().name;
  if (run == &commands::select && args.size() > 2) args = args.first(2); // no password
  if (run == &commands::select && args.size() > 1) name = args[1].text();
  auto now = std::chrono::duration_cast<std::chrono::seconds>(env_.time->wall().time_since_epoch());
  auto out = fmt::format("*{}\r\n:{}\r\n${}\r\n", args.size() + 3, now.count(), name.size());
  out.append(name);
  out += fmt::format("\r\n:{}\r\n", owner_);
  for (auto& a : args) {
    out += fmt::format("${}\r\n", a.size());
    out.append(a.text()).append("\r\n");
  }
  return out;
}

void commands::tell_mirrors(const client* source, std::string_view copy) {
  auto all = mirrors_; // drop() changes it
  for (auto& weak : all) {
    auto who = weak.lock();
    if (!who || who.get() == source || !who->mirror) continue;
    if (who->out.bytes() + copy.size() > options_.mirror_bytes_max) {
      log::warning("zdb", "a mirror ({}) does not keep up: dropped",
                   who->peer.empty() ? "local" : who->peer);
      who->drop();
      continue;
    }
    who->out.add(copy);
    who->wake();
  }
}

// -- hooks and metrics ----------------------------------------------------------------------------

void commands::hook(std::string_view type, std::vector<std::string> details) {
  if (env_.hooks != nullptr) env_.hooks->run(std::string{type}, std::move(details));
}

void commands::hooks(client& c, arguments) {
  auto all = env_.hooks != nullptr ? env_.hooks->list() : std::vector<hook_run>{};
  c.out.array(all.size());
  for (auto& h : all) {
    c.out.array(6);
    c.out.bulk(h.type);
    c.out.array(h.arguments.size());
    for (auto& a : h.arguments) c.out.bulk(a);
    c.out.integer(h.pid);
    c.out.integer(h.created);
    c.out.integer(h.finished);
    c.out.integer(h.status);
  }
}

void commands::metrics(metrics_text& out) const {
  auto counter = [&](std::string_view name, std::string_view help, std::uint64_t value) {
    out.head(name, "counter", help);
    out.value(name, value);
  };
  auto gauge = [&](std::string_view name, std::string_view help, std::uint64_t value) {
    out.head(name, "gauge", help);
    out.value(name, value);
  };
  counter("zdb_clients_accepted_total", "Connections accepted.", stats.clients);
  counter("zdb_commands_total", "Commands received.", stats.executed);
  counter("zdb_commands_failed_total", "Commands answered with an error.", stats.failed);
  counter("zdb_commands_unauthorized_total", "Commands refused for lack of rights.",
          stats.unauthorized);
  counter("zdb_wrong_passwords_total", "Passwords that were wrong.", stats.wrong_passwords);
  counter("zdb_network_received_bytes_total", "Bytes received.", stats.received_bytes);
  counter("zdb_network_sent_bytes_total", "Bytes sent.", stats.sent_bytes);
  counter("zdb_syncs_total",
          "Times a namespace was brought to the disk: for SYNC, for --sync, after a full file.",
          stats.syncs);
  counter("zdb_disk_read_bytes_total", "Bytes read from data files.", store_.files().bytes_read);
  counter("zdb_disk_written_bytes_total", "Bytes written to data files.",
          store_.files().bytes_written);
  if (env_.hooks != nullptr) {
    counter("zdb_hooks_failed_total", "Hooks that ended with an error.", env_.hooks->failed());
    counter("zdb_hooks_dropped_total", "Hooks not run because too many waited.",
            env_.hooks->dropped());
  }
  std::uint64_t entries = 0;
  std::uint64_t memory = 0;
  std::uint64_t read_errors = 0;
  std::uint64_t write_errors = 0;
  std::uint64_t waiting = 0;
  space_usage sum;
  for (auto& [name, space] : store_.all()) {
    auto u = space->usage();
    entries += space->entries();
    memory += space->index_bytes();
    read_errors += space->read_errors;
    write_errors += space->write_errors;
    waiting += space->waiters.size();
    sum.live_payload += u.live_payload;
    sum.dead += u.dead;
    sum.tombstones += u.tombstones;
    sum.disk += u.disk;
    sum.files += u.files;
  }
  gauge("zdb_namespaces", "Namespaces.", store_.all().size());
  gauge("zdb_namespaces_failed", "Those of them that cannot be opened and are not served.",
        store_.failed());
  gauge("zdb_entries", "Live keys of all namespaces.", entries);
  auto& ids = store_.files().ids;
  gauge("zdb_index_memory_bytes", "Memory of the index.", memory + ids.memory_bytes());
  gauge("zdb_index_file_bytes", "Pages of sequential indexes in the temporary file.",
        ids.file_bytes());
  auto& cache = store_.files().cache;
  gauge("zdb_cache_bytes", "Memory of small values kept to be read again.", cache.bytes());
  gauge("zdb_cache_max_bytes", "What they may take together.", cache.budget());
  counter("zdb_cache_hits_total", "Records found in memory.", cache.hits);
  counter("zdb_cache_misses_total", "Records looked for there and not found.", cache.misses);
  gauge("zdb_live_payload_bytes", "Payload that can be read: what quotas count.", sum.live_payload);
  gauge("zdb_dead_bytes", "Overwritten and deleted records, to be freed by compaction.", sum.dead);
  gauge("zdb_tombstone_bytes", "Records that say that a key is deleted.", sum.tombstones);
  gauge("zdb_disk_bytes", "Size of all data files.", sum.disk);
  gauge("zdb_data_files", "Data files.", sum.files);
  gauge("zdb_open_data_files", "Data files with a descriptor.", store_.files().open_files());
  gauge("zdb_sync_waiters", "Answers that wait for the disk.", waiting);
  counter("zdb_read_errors_total", "Records that could not be read.", read_errors);
  counter("zdb_write_errors_total", "Writes that failed.", write_errors);
  out.head("zdb_command_seconds", "histogram",
           "From a command's start to its answer, the disk included where it waits for it.");
  for (std::size_t i = 0; i < latencies_.size(); ++i)
    if (latencies_[i].count() > 0)
      out.histogram("zdb_command_seconds", latencies_[i],
                    metrics_text::label("command", table()[i].name));
}

} // namespace qs::zdb
