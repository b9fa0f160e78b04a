// Commands that walk over records: SCAN and its relatives, HISTORY, and what looks into the files.
#include <algorithm>
#include <cctype>
#include <charconv>
#include <iterator>

#include <fmt/format.h>

#include "zdb/commands.hpp"

namespace qs::zdb {

namespace {
/// KSCAN gives this much in one answer; the rest follows from the cursor in it.
constexpr std::size_t prefix_bytes_max = 1 << 20;
/// What one page of it may add.
constexpr std::size_t page_bytes_max = 1 << 20;

/// Into no more memory than it takes: a string that grows by itself takes twice that.
void add_keys(std::string& to, const std::vector<found_key>& items) {
  std::size_t more = 0;
  for (auto& item : items) more += item.key.size() + sizeof("$255\r\n\r\n");
  std::string all;
  all.reserve(to.size() + more);
  all = to;
  for (auto& item : items) {
    all += fmt::format("${}\r\n", item.key.size());
    all.append(item.key).append("\r\n");
  }
  to = std::move(all);
}

/// The answer to SCAN and RSCAN.
std::string page_text(const name_space::page& page) {
  auto text = fmt::format("*2\r\n${}\r\n{}\r\n*{}\r\n", page.cursor.size(), page.cursor,
                          page.items.size());
  for (auto& item : page.items)
    fmt::format_to(std::back_inserter(text), "*3\r\n${}\r\n{}\r\n:{}\r\n:{}\r\n", item.key.size(),
                   item.key, item.length, item.timestamp);
  return text;
}

bool is_word(std::string_view given, std::string_view word) {
  return given.size() == word.size() &&
         std::equal(given.begin(), given.end(), word.begin(), [](char a, char b) {
           return std::toupper(static_cast<unsigned char>(a)) == b;
         });
}

template <class T>
bool parse_number(std::string_view text, T& out) {
  auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), out);
  return ec == std::errc{} && end == text.data() + text.size();
}
} // namespace

struct commands::scan_under_way {
  promise reply;
  std::shared_ptr<name_space> space;
  std::string cursor;
  std::optional<scan_order> walking; ///< SCAN or RSCAN; nothing: KSCAN
  std::string prefix;
  std::size_t count = 0; ///< of keys in client::gathered, as they go out
};

void commands::scan(client& c, arguments args) { walk(c, args, scan_order::oldest_first); }
void commands::rscan(client& c, arguments args) { walk(c, args, scan_order::newest_first); }

void commands::walk(client& c, arguments args, scan_order order) {
  if (!may_read(c)) return;
  auto page = c.space->scan(args.size() > 1 ? args[1].bytes() : byte_span{}, order);
  if (!page.ok()) {
    fail(c, page.err().code == errc::invalid_argument ? "Invalid key format" : "Internal Error");
    if (page.err().code != errc::invalid_argument) disk_trouble();
    return;
  }
  if (page->cursor.empty()) return fail(c, "No more data");
  if (page->items.empty()) {
    // Clients count on an item: it is looked for further on, while others get their turn.
    auto s = std::make_shared<scan_under_way>();
    s->space = c.space;
    s->cursor = std::move(page->cursor);
    s->walking = order;
    s->reply = promise_answer(c);
    c.blocked = true;
    return again(s);
  }
  c.out.add(page_text(*page));
}

void commands::again(const scan_ptr& s, std::chrono::milliseconds pause) {
  in_turn(s->reply.who, [this, s] { go_on(s); }, pause);
}

void commands::go_on_walking(const scan_ptr& s) {
  auto who = s->reply.who.lock();
  if (!who) return; // its client is gone
  auto end = [&](std::string_view reply) {
    who->blocked = false;
    answer(s->reply, reply);
  };
  if (s->space->removed) return end(fmt::format("-{}\r\n", removed_text));
  if (!s->space->served()) return end(fmt::format("-{}\r\n", not_served_text));
  if (env_.fits && !env_.fits(page_bytes_max))
    return again(s, memory_pause);
  auto page = s->space->scan(as_bytes(s->cursor), *s->walking);
  if (!page.ok()) {
    end("-Internal Error\r\n");
    return disk_trouble();
  }
  if (page->cursor.empty()) return end("-No more data\r\n");
  if (page->items.empty()) {
    s->cursor = std::move(page->cursor);
    return again(s);
  }
  end(page_text(*page));
}

void commands::kscan(client& c, arguments args) {
  if (c.space->settings().sequential)
    return fail(c, "Index running mode doesn't support this feature");
  if (args[1].size() == 0) return fail(c, "Invalid argument");
  if (!may_read(c)) return;
  auto s = std::make_shared<scan_under_way>();
  s->space = c.space;
  s->prefix = args[1].text();
  if (args.size() > 2) s->cursor = args[2].text();
  s->reply = promise_answer(c);
  c.blocked = true;
  go_on(s);
}

/// A page of at most some milliseconds, then the others get their turn. Where memory has run out it
/// ends with what there is, and the cursor says that there is more; where there is nothing yet, it
/// waits.
void commands::go_on(const scan_ptr& s) {
  if (s->walking) return go_on_walking(s);
  auto who = s->reply.who.lock();
  if (!who) return; // its client is gone
  auto& keys = who->gathered;
  auto end = [&](std::string_view reply) {
    who->blocked = false;
    answer(s->reply, reply);
    std::string{}.swap(keys); // to assign an empty one would keep its memory
    who->holds();
  };
  auto give = [&](bool more) {
    auto next = more ? s->cursor : std::string{"0"};
    auto head = fmt::format("*2\r\n${}\r\n", next.size()) + next +
                fmt::format("\r\n*{}\r\n", s->count);
    end(head + keys);
  };
  if (env_.fits && !env_.fits(page_bytes_max)) {
    if (s->count > 0) return give(true);
    return again(s, memory_pause);
  }
  auto page = s->space->scan_prefix(as_bytes(s->prefix), as_bytes(s->cursor));
  if (!page.ok())
    return end(page.err().code == errc::invalid_argument ? "-Invalid key format\r\n"
                                                         : "-Internal Error\r\n");
  add_keys(keys, page->items);
  s->count += page->items.size();
  who->holds();
  auto more = !page->cursor.empty();
  if (more) s->cursor = page->cursor;
  if (more && keys.size() < prefix_bytes_max) {
    return again(s);
  }
  if (s->count == 0) return end("-No keys match\r\n");
  give(more);
}

void commands::in_turn(const std::weak_ptr<client>& who, std::function<void()> go_on,
                       std::chrono::milliseconds pause) {
  auto held = who.lock();
  if (!held) return;
  if (pause.count() > 0) {
    env_.timers->add(env_.time->boot() + pause, [this, who, go_on = std::move(go_on)]() mutable {
      in_turn(who, std::move(go_on));
    });
    return;
  }
  unfinished_.add(held->space.get(), std::make_shared<unfinished>(unfinished{who, std::move(go_on)}));
  next_in_turn();
}

/// One piece of one answer in a pass of the loop, however many there are.
void commands::next_in_turn() {
  if (unfinished_.empty() || std::exchange(unfinished_due_, true)) return;
  env_.timers->add(env_.time->boot(), [this] {
    unfinished_due_ = false;
    // Those whose client is gone take no turn: they would pile up behind the others.
    auto next = unfinished_.next();
    while (next && next->who.expired()) next = unfinished_.next();
    if (next) next->go_on();
    next_in_turn();
  });
}

void commands::keycur(client& c, arguments args) {
  if (!key_fits(c, args[1], "Key not found") || !may_read(c)) return;
  std::string cursor;
  auto seen = c.space->cursor_of(args[1].bytes(), cursor);
  if (seen == read_answer::found) return c.out.bulk(cursor);
  if (seen == read_answer::missing) return fail(c, "Key not found");
  fail(c, "Internal Error");
  if (seen == read_answer::unreadable) disk_trouble();
}

void commands::history(client& c, arguments args) {
  if (args.size() != 2 && args.size() != 3) return fail(c, "Invalid arguments");
  if (!key_fits(c, args[1], "Key not found") || !may_read(c)) return;
  std::optional<record_place> at;
  if (args.size() == 3) {
    at = decode_reference(args[2].bytes());
    if (!at) return fail(c, "Invalid arguments");
    if (*at == record_place{}) return fail(c, "No more history");
  }
  key_version version;
  switch (c.space->history(args[1].bytes(), at, version)) {
  case history_answer::found:
    c.out.array(3);
    if (version.previous.valid())
      c.out.bulk(encode_reference(version.previous));
    else
      c.out.nil();
    c.out.bulk(fmt::format("{}", version.timestamp));
    return c.out.bulk(std::move(version.payload));
  case history_answer::missing:
    return fail(c, "Key not found");
  case history_answer::no_more:
    return fail(c, "No more history");
  case history_answer::bad_reference:
    return fail(c, "Invalid arguments (index query)");
  case history_answer::other_key:
    return fail(c, "Invalid arguments (invalid key)");
  case history_answer::failed:
    break;
  }
  fail(c, "Internal Error");
  disk_trouble();
}

void commands::index(client& c, arguments args) {
  if (!is_word(args[1].text(), "DIRTY")) return fail(c, "Unknown INDEX subcommand");
  if (args.size() == 3) {
    if (!is_word(args[2].text(), "RESET")) return fail(c, "Unknown INDEX DIRTY subcommand");
    c.space->forget_changed_files();
    return c.out.simple("OK");
  }
  auto files = c.space->changed_files();
  c.out.array(files.size());
  for (auto id : files) c.out.integer(id);
}

void commands::data(client& c, arguments args) {
  if (!is_word(args[1].text(), "RAW")) return fail(c, "Unknown DATA subcommand");
  std::uint32_t id = 0;
  std::uint64_t offset = 0;
  if (args.size() != 4) return fail(c, "Unexpected arguments");
  if (!parse_number(args[2].text(), id) || !parse_number(args[3].text(), offset))
    return fail(c, "Invalid Request");
  raw_record record;
  switch (c.space->raw(id, offset, record)) {
  case raw_answer::end_of_file:
    return fail(c, "EOF");
  case raw_answer::bad_request:
    return fail(c, "Invalid Request");
  case raw_answer::failed:
    return fail(c, "Unexpected Internal Error");
  case raw_answer::found:
    break;
  }
  auto erased = record.header.kind == record_kind::erase;
  c.out.array(6);
  c.out.bulk(record.key);
  c.out.integer(record.header.previous.file == id ? record.header.previous.offset : 0);
  c.out.bulk(fmt::format("0x{:08x}", record.header.payload_crc));
  c.out.integer(erased ? 1 : 0);
  c.out.integer(record.header.timestamp);
  if (erased)
    c.out.nil();
  else
    c.out.bulk(std::move(record.payload));
}

} // namespace qs::zdb
