// The zdb wire from both sides. First byte: which parser. Requests go on into the command table
// with a real store, so that the table's checks are fuzzed as well. Whatever the split, the outcome
// must be the same.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <unistd.h>

#include <fmt/format.h>

#include "base/clock.hpp"
#include "base/log.hpp"
#include "zdb/commands.hpp"
#include "zdb/session.hpp"

namespace {

using namespace qs;
using namespace qs::zdb;

std::string shown(const reply& r) {
  auto out = fmt::format("{}:{}:{}:{}(", static_cast<int>(r.kind), r.text, r.number, r.string());
  for (auto& i : r.items) out += shown(i);
  return out + ")";
}

std::string replies(byte_span in, std::size_t step) {
  reply_parser parser;
  std::string all;
  for (std::size_t at = 0; at < in.size(); at += step) {
    auto fed = parser.feed(in.subspan(at, std::min(step, in.size() - at)),
                           [&](reply&& r) { all += shown(r); });
    if (!fed.ok()) return all + "!";
  }
  return all;
}

/// One that asks for memory takes the same and says the same as one that does not.
std::string requests(byte_span in, std::size_t step) {
  request_parser parser{step % 2 == 0};
  std::string all;
  for (std::size_t at = 0; at < in.size(); at += step) {
    auto part = in.subspan(at, std::min(step, in.size() - at));
    while (!part.empty()) {
      std::size_t used = 0;
      if (parser.feed(part, used))
        for (auto& a : parser.arguments()) all += fmt::format("<{}>", a.text());
      if (parser.failed()) return all + std::string{parser.error()};
      if (parser.wanted() > 0) parser.grant();
      part = part.subspan(used);
    }
  }
  return all;
}

struct test_client : client {
  void wake() override {}
  void drop() override { closing = true; }
};

struct world {
  std::filesystem::path path;
  timer_queue timers;
  manual_clock time; ///< else who guesses would really be waited for
  std::unique_ptr<store> all;
  std::unique_ptr<commands> table;
  world() {
    log::configure({log::level::off, false, {}});
    // In memory where there is such a place: namespaces are synced when they are made.
    auto base = std::filesystem::is_directory("/dev/shm") ? std::filesystem::path{"/dev/shm"}
                                                          : std::filesystem::temp_directory_path();
    std::string name = (base / "qs-fuzz-zdb-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) std::abort();
    path = name;
    store_options o;
    o.data = path;
    auto opened = store::open(o);
    QS_ASSERT(opened.ok());
    all = std::move(*opened);
    environment env;
    env.disk = [](std::function<void()> work, std::function<void()> then) {
      work();
      then();
    };
    env.gone = [] {};
    env.timers = &timers;
    env.time = &time;
    command_options c;
    c.admin_password = "p"; // guessable: both sides of the check are reached
    table = std::make_unique<commands>(*all, c, env);
  }
  ~world() {
    table.reset();
    all.reset();
    std::error_code ec;
    std::filesystem::remove_all(path, ec);
  }
};

void execute(byte_span in) {
  static world w;
  static std::size_t runs = 0;
  auto c = std::make_shared<test_client>();
  w.table->greet(*c);
  c->admin = runs++ % 2 == 0;
  request_parser parser;
  while (!in.empty() && !c->closing) {
    std::size_t used = 0;
    if (parser.feed(in, used)) {
      w.table->execute(*c, parser.arguments());
      QS_ASSERT(!c->out.empty()); // everything is answered
      // What waits for a time: now. A namespace that is busy asks several times.
      while (auto next = w.timers.next()) {
        w.time.advance(std::max(*next - w.time.boot(), boot_time{0}));
        w.timers.run(boot_time::max());
      }
      QS_ASSERT(c->out.held() == 0);
      QS_ASSERT(!c->blocked);
    }
    if (parser.failed()) break;
    in = in.subspan(used);
  }
  w.table->left(*c);
  // What it says, our own client understands.
  reply_parser back;
  iovec parts[256];
  for (std::size_t n = 0; (n = c->out.gather(parts, 256)) > 0;) {
    std::size_t total = 0;
    for (std::size_t i = 0; i < n; ++i) {
      QS_ASSERT(
          back.feed({static_cast<std::byte*>(parts[i].iov_base), parts[i].iov_len}, [](reply&&) {})
              .ok());
      total += parts[i].iov_len;
    }
    c->out.sent(total);
  }
  QS_ASSERT(back.idle());
}

/// A session that has asked for one of everything meets a peer that says anything: each callback
/// once.
void answer(byte_span in) {
  session s{{}};
  int asked = 0;
  int answered = 0;
  auto done = [&](auto&&) { ++answered; };
  auto ask = [&](auto&& start) {
    ++asked;
    start();
  };
  ask([&] { s.handshake(done); });
  auto value = share(to_buffer("v"));
  ask([&] { s.set("k", value, done); });
  ask([&] { s.get("k", done); });
  ask([&] { s.del("k", done); });
  ask([&] { s.exists("k", done); });
  ask([&] { s.scan("", done); });
  ask([&] { s.nsinfo("n", done); });
  ask([&] { s.sync(done); });
  ask([&] { s.nslist(done); });
  ask([&] { s.append(value, done); });
  for (std::size_t at = 0; at < in.size() && !s.closed(); at += 7) {
    (void)s.take_output();
    (void)s.receive(in.subspan(at, std::min<std::size_t>(7, in.size() - at)));
  }
  s.connection_lost({errc::unreachable, "end"});
  QS_ASSERT(asked == answered);
  QS_ASSERT(s.bytes_in_flight() == 0);
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 2) return 0;
  byte_span in{reinterpret_cast<const std::byte*>(data) + 1, size - 1};
  auto step = std::size_t{1} + (data[0] >> 2);
  switch (data[0] & 3) {
  case 0:
    QS_ASSERT(replies(in, step) == replies(in, in.size()));
    break;
  case 1:
    QS_ASSERT(requests(in, step) == requests(in, in.size()));
    break;
  case 2:
    execute(in);
    break;
  default:
    answer(in);
    break;
  }
  return 0;
}
