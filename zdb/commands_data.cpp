// Commands on keys.
#include <charconv>

#include <fmt/format.h>

#include "base/limits.hpp"
#include "zdb/commands.hpp"
#include "zdb/crc32c.hpp"

namespace qs::zdb {

namespace {
template <class T>
bool parse_number(std::string_view text, T& out) {
  auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), out);
  return ec == std::errc{} && end == text.data() + text.size();
}

/// So long an MGET may take before the others get their turn, and so much may be unread of it.
constexpr auto values_time = std::chrono::milliseconds{2};
constexpr std::size_t unread_most = 4 << 20;
constexpr std::chrono::milliseconds unread_pause{5};
} // namespace

bool commands::key_fits(client& c, const argument& key, std::string_view text) {
  return key.size() <= limits::zdb_key_bytes_max || deny(c, text);
}

bool commands::may_read(client& c) {
  return !c.space->frozen || deny(c, "Namespace is temporarily frozen (read-write disabled)");
}

bool commands::may_write(client& c) {
  if (!c.writable) return deny(c, "Namespace is in read-only mode");
  if (c.space->frozen) return deny(c, "Namespace is temporarily frozen (read-write disabled)");
  return (!c.space->locked && !c.space->changing_mode) ||
         deny(c, "Namespace is temporarily locked (read-only)");
}

std::optional<std::uint32_t> commands::timestamp(client& c, arguments args, std::size_t at) {
  if (args.size() <= at)
    return static_cast<std::uint32_t>(
        std::chrono::duration_cast<std::chrono::seconds>(env_.time->wall().time_since_epoch())
            .count());
  auto text = args[at].text();
  std::uint32_t value = 0;
  if (parse_number(text, value)) return value;
  deny(c, "Invalid argument");
  return std::nullopt;
}

std::string commands::bulk_text(std::string_view id) {
  char digits[8];
  auto end = std::to_chars(digits, digits + sizeof(digits), id.size()).ptr;
  std::string text;
  text.reserve(id.size() + 12);
  text += '$';
  text.append(digits, end).append("\r\n").append(id).append("\r\n");
  return text;
}

std::string_view commands::refusal(write_answer answer) noexcept {
  switch (answer) {
  case write_answer::stored:
  case write_answer::gathered:
  case write_answer::identical:
  case write_answer::exists:
    return {};
  case write_answer::worm:
    return "Namespace is protected by worm mode";
  case write_answer::no_space:
    return "No space left on this namespace";
  case write_answer::key_needed:
    return "Invalid argument, key needed";
  case write_answer::update_only:
    return "Invalid key, only update authorized";
  case write_answer::missing:
  case write_answer::failed:
    break;
  }
  return "Cannot write data right now";
}

/// Files that were filled go to the disk in the background, so that no SYNC finds many of them.
void commands::write_behind(const std::shared_ptr<name_space>& space) {
  if (!space->syncing && space->end().file > space->synced().file + 1)
    sync(space, [](const status&) {});
}

void commands::written(client& c, std::string_view reply) {
  write_behind(c.space);
  if (!options_.sync_always) return c.out.add(reply);
  sync(c.space, [this, p = promise_answer(c), reply = std::string{reply}](const status& s) {
    answer(p, s.ok() ? reply : std::string{"-Cannot write data right now\r\n"});
  }, copy_ ? copy_->size() : 0);
}

void commands::write(client& c, arguments args, bool only_new) {
  auto when = timestamp(c, args, 3);
  if (!when) return;
  if (!key_fits(c, args[1], "Key too large") || !may_write(c)) return;
  std::string id;
  // A mirror is only told of what has succeeded, and who waits for the disk waits for more.
  auto gather = gathering_ && mirrors_.empty() && !options_.sync_always;
  auto done = c.space->set(args[1].bytes(), args[2].bytes(), *when, only_new, id, gather);
  if (done == write_answer::gathered) return doubtful(c, id);
  if (auto refused = refusal(done); !refused.empty()) {
    fail(c, refused);
    if (done == write_answer::failed || done == write_answer::missing) disk_trouble();
    return;
  }
  // These two say nil, and both promise as much as a write that was done.
  auto nil = done == write_answer::identical || done == write_answer::exists;
  written(c, nil ? std::string{"$-1\r\n"} : bulk_text(id));
}

void commands::set(client& c, arguments args) {
  if (args.size() == 4 && !c.admin) return refuse(c);
  write(c, args, false);
}

void commands::setnx(client& c, arguments args) { write(c, args, true); }

std::size_t commands::one_value(client& c, byte_span key) {
  value_block value;
  switch (c.space->get(key, value)) {
  case read_answer::found: {
    auto bytes = value.size();
    c.out.bulk(std::move(value));
    return bytes;
  }
  case read_answer::missing:
    c.out.nil();
    return 0;
  case read_answer::damaged:
    fail(c, "Internal Error");
    return 0;
  case read_answer::unreadable:
    break;
  }
  disk_trouble();
  fail(c, gone_ ? gone_text : "Internal Error");
  return 0;
}

std::size_t commands::answer_bytes(client& c, arguments args) {
  constexpr std::size_t page = 1 << 20;
  auto at = find(args.front().text());
  if (!at) return 0;
  auto run = table()[*at].run;
  if (run == &commands::mget) return options_.answer_bytes_max;
  if (run == &commands::history || run == &commands::data) return request_bulk_max;
  if (run == &commands::scan || run == &commands::rscan || run == &commands::kscan ||
      run == &commands::nslist)
    return page;
  if ((run != &commands::get && run != &commands::getrange) || args.size() < 2 || c.space->removed)
    return 0;
  record_header header;
  auto seen = c.space->look(args[1].bytes(), header);
  return seen == read_answer::found ? header.payload_length : 0;
}

void commands::get(client& c, arguments args) {
  if (!key_fits(c, args[1], "Invalid key") || !may_read(c)) return;
  (void)one_value(c, args[1].bytes());
}

void commands::getrange(client& c, arguments args) {
  if (!key_fits(c, args[1], "Invalid key")) return;
  std::uint64_t offset = 0;
  std::uint64_t length = 0;
  if (!parse_number(args[2].text(), offset) || !parse_number(args[3].text(), length))
    return fail(c, "Invalid argument");
  if (!may_read(c)) return;
  value_block value;
  switch (c.space->get_range(args[1].bytes(), offset, length, value)) {
  case read_answer::found:
    return c.out.bulk(std::move(value));
  case read_answer::missing:
    return c.out.nil();
  case read_answer::damaged:
    return fail(c, "Internal Error");
  case read_answer::unreadable:
    break;
  }
  disk_trouble();
  fail(c, gone_ ? gone_text : "Internal Error");
}

void commands::mget(client& c, arguments args) {
  if (args.size() < 2) return fail(c, "Invalid arguments");
  for (auto& key : args.subspan(1))
    if (!key_fits(c, key, "Invalid key")) return;
  if (!may_read(c)) return;
  c.out.array(args.size() - 1);
  auto until = std::chrono::steady_clock::now() + values_time;
  std::size_t done = 1;
  std::size_t bytes = 0;
  // What others do would come between the values of a client that hears of it.
  for (; done < args.size() && (c.mirror || more_fits(c, until)); ++done)
    next_value(c, args[done].bytes(), bytes);
  if (done == args.size()) return;
  // The others' turn. It holds the keys as it would hold an answer.
  promised_ = true;
  auto s = std::make_shared<multi_get>(
      multi_get{c.weak_from_this(), row_, since_, copy_, failed_, bytes});
  for (auto& key : args.subspan(done)) {
    c.gathered.push_back(static_cast<char>(key.size()));
    c.gathered.append(key.text());
  }
  c.blocked = true;
  c.holds();
  in_turn(s->who, [this, s] { more_values(s); });
}

/// Time for one more value of an MGET, and room: in what its client has not read, too.
bool commands::more_fits(const client& c, std::chrono::steady_clock::time_point until) const {
  return std::chrono::steady_clock::now() < until && c.out.bytes() <= unread_most;
}

/// Bounded: past the limit the rest is an error for each key, which a client answers by asking
/// again. `bytes`: of the values of this MGET so far.
void commands::next_value(client& c, byte_span key, std::size_t& bytes) {
  if (key.empty()) return c.out.nil();
  if (bytes > options_.answer_bytes_max) return fail(c, "Payload too big");
  bytes += one_value(c, key);
}

void commands::more_values(const std::shared_ptr<multi_get>& s) {
  auto who = s->who.lock();
  if (!who) return; // its client is gone
  auto again = [&](std::chrono::milliseconds pause) {
    in_turn(s->who, [this, s] { more_values(s); }, pause);
  };
  if (who->out.bytes() > unread_most) return again(unread_pause);
  if (env_.fits && !env_.fits(request_bulk_max)) return again(memory_pause);
  failed_ = false;
  auto until = std::chrono::steady_clock::now() + values_time;
  auto& keys = who->gathered;
  while (s->at < keys.size() && more_fits(*who, until)) {
    auto length = static_cast<unsigned char>(keys[s->at]);
    auto key = std::string_view{keys}.substr(s->at + 1, length);
    if (who->space->removed) fail(*who, removed_text);
    else if (!who->space->served()) fail(*who, not_served_text);
    else next_value(*who, as_bytes(key), s->bytes);
    s->at += 1U + length;
  }
  s->failed = s->failed || failed_;
  if (s->at < keys.size()) {
    again({});
  } else {
    std::string{}.swap(keys); // to assign an empty one would keep its memory
    who->blocked = false;
    latencies_[s->row].add(std::chrono::steady_clock::now() - s->since);
    if (s->copy && !s->failed) tell_mirrors(who.get(), *s->copy);
  }
  who->wake();
}

void commands::del(client& c, arguments args) {
  if (args.size() == 3 && !c.admin) return refuse(c);
  if (args[1].size() == 0) return fail(c, "Invalid argument");
  auto when = timestamp(c, args, 2);
  if (!when) return;
  if (!key_fits(c, args[1], "Invalid key") || !may_write(c)) return;
  if (c.space->settings().worm)
    return fail(c, "Cannot delete a key when namespace is in worm mode");
  switch (c.space->erase(args[1].bytes(), *when)) {
  case write_answer::stored:
    return written(c, "+OK\r\n");
  case write_answer::missing:
    return fail(c, "Key not found");
  default:
    break;
  }
  fail(c, "Cannot delete key (data)");
  disk_trouble();
}

void commands::exists(client& c, arguments args) {
  if (!key_fits(c, args[1], "Invalid key") || !may_read(c)) return;
  auto seen = c.space->exists(args[1].bytes());
  // A damaged value is one that SETNX does not replace.
  if (seen != read_answer::unreadable) return c.out.integer(seen == read_answer::missing ? 0 : 1);
  fail(c, "Internal Error");
  disk_trouble();
}

void commands::check(client& c, arguments args) {
  if (!key_fits(c, args[1], "Invalid key") || !may_read(c)) return;
  value_block value;
  switch (c.space->get(args[1].bytes(), value, name_space::source::disk)) {
  case read_answer::found:
    return c.out.integer(1);
  case read_answer::missing:
    return c.out.nil();
  case read_answer::damaged:
    return c.out.integer(0);
  case read_answer::unreadable:
    break;
  }
  c.out.integer(-1);
  disk_trouble();
}

void commands::length(client& c, arguments args) {
  if (!key_fits(c, args[1], "Invalid key") || !may_read(c)) return;
  record_header header;
  auto seen = c.space->look(args[1].bytes(), header);
  if (seen == read_answer::found) return c.out.integer(header.payload_length);
  if (seen == read_answer::missing) return c.out.nil();
  fail(c, "Internal Error");
  if (seen == read_answer::unreadable) disk_trouble();
}

void commands::keytime(client& c, arguments args) {
  if (!key_fits(c, args[1], "Invalid key") || !may_read(c)) return;
  record_header header;
  auto seen = c.space->look(args[1].bytes(), header);
  if (seen == read_answer::found) return c.out.integer(header.timestamp);
  if (seen == read_answer::missing) return c.out.nil();
  fail(c, "Internal Error");
  if (seen == read_answer::unreadable) disk_trouble();
}

void commands::flush(client& c, arguments) {
  auto& settings = c.space->settings();
  if (settings.is_public || settings.password.empty())
    return fail(c, "Flushing public namespace denied");
  if (!may_write(c)) return;
  if (settings.worm) return fail(c, "Namespace is protected by worm mode");
  auto old = c.space->flush();
  if (!old.ok()) {
    fail(c, "Cannot write data right now");
    return disk_trouble();
  }
  // The file that says "nothing before me counts" is on disk before anything is deleted.
  auto p = promise_answer(c);
  ++c.space->deleting_files;
  sync(c.space, [this, p, space = c.space, paths = std::move(*old)](const status& done) {
    if (!done.ok()) {
      --space->deleting_files;
      return answer(p, "-Cannot write data right now\r\n");
    }
    delete_flushed(space, std::make_shared<std::vector<std::filesystem::path>>(paths), true, [this, p] {
      answer(p, "+OK\r\n");
    });
  });
}

/// One file after the other, so that others' syncs get their turn between two. What cannot be
/// deleted is deleted at the next start.
void commands::delete_flushed(const std::shared_ptr<name_space>& space, const paths_ptr& paths,
                              bool all, std::function<void()> then) {
  if (paths->empty()) {
    if (--space->deleting_files == 0 && all) space->flushed();
    return then();
  }
  auto path = paths->back();
  paths->pop_back();
  auto deleted = std::make_shared<bool>(false);
  env_.disk(
      [path, deleted] {
        std::error_code why;
        std::filesystem::remove(path, why);
        *deleted = !why;
      },
      [this, space, paths, all, deleted, then = std::move(then)]() mutable {
        delete_flushed(space, paths, all && *deleted, std::move(then));
      });
}

} // namespace qs::zdb
