// What a crash, a second server or a hand that deletes files leave behind.
#include "support/zdb_server.hpp"

#include <fcntl.h>
#include <map>
#include <sys/mount.h>
#include <sys/resource.h>

#include "base/log.hpp"
#include "base/random.hpp"
#include "zdb/store.hpp"

namespace qs::zdb {
namespace {

namespace fs = std::filesystem;

write_answer put(name_space& ns, std::string_view key, std::string_view value) {
  std::string id;
  return ns.set(as_bytes(key), as_bytes(value), 1, false, id);
}
std::optional<std::string> value_of(name_space& ns, std::string_view key) {
  value_block out;
  if (ns.get(as_bytes(key), out) != read_answer::found) return std::nullopt;
  return to_string(out.bytes());
}
result<std::unique_ptr<store>> open_store(const fs::path& data) {
  store_options o;
  o.data = data;
  return store::open(o);
}
fs::path first_file(const fs::path& data) {
  return data / "namespaces" / "00000001" / "00000001.data";
}
fs::path mark_file(const fs::path& data) { return data / "namespaces" / "00000001" / "synced"; }

struct quiet {
  quiet() { log::configure({log::level::off, false, {}}); }
  ~quiet() { log::configure({log::level::warning, false, {}}); }
};

TEST_CASE("a torn tail is cut, at every byte of the last record") {
  quiet no_log;
  temporary_directory dir;
  std::uint64_t before = 0;
  {
    auto s = open_store(dir.path);
    REQUIRE(s.ok());
    auto ns = (*s)->find("default");
    REQUIRE(put(*ns, "first", "the first value") == write_answer::stored);
    before = ns->disk_bytes();
    REQUIRE(put(*ns, "last", "the last value") == write_answer::stored);
  }
  auto whole = read_file(first_file(dir.path));
  REQUIRE(whole.ok());
  for (auto size = before; size <= whole->size(); ++size) {
    CAPTURE(size);
    REQUIRE(
        write_file_atomic(first_file(dir.path), as_bytes(std::string_view{*whole}.substr(0, size)))
            .ok());
    auto s = open_store(dir.path);
    REQUIRE(s.ok());
    auto ns = (*s)->find("default");
    CHECK(value_of(*ns, "first") == "the first value");
    CHECK(value_of(*ns, "last") ==
          (size == whole->size() ? std::optional<std::string>{"the last value"} : std::nullopt));
    CHECK(ns->disk_bytes() == (size == whole->size() ? size : before));
    CHECK(ns->entries() == (size == whole->size() ? 2 : 1));
    // It goes on from there.
    REQUIRE(put(*ns, "more", "m") == write_answer::stored);
    CHECK(value_of(*ns, "more") == "m");
  }
  // Any one byte of the last record changed is found as well.
  for (auto at = before; at < whole->size(); ++at) {
    CAPTURE(at);
    auto damaged = *whole;
    damaged[at] = static_cast<char>(damaged[at] ^ 0x40);
    REQUIRE(write_file_atomic(first_file(dir.path), as_bytes(damaged)).ok());
    auto s = open_store(dir.path);
    REQUIRE(s.ok());
    auto ns = (*s)->find("default");
    CHECK(value_of(*ns, "first") == "the first value");
    CHECK(!value_of(*ns, "last"));
  }
}

TEST_CASE("damage where all was synced is stepped over, never cut") {
  quiet no_log;
  temporary_directory dir;
  std::uint64_t first_end = 0;
  std::uint64_t end = 0;
  {
    auto s = open_store(dir.path);
    auto ns = (*s)->find("default");
    REQUIRE(put(*ns, "a", "1") == write_answer::stored);
    first_end = ns->disk_bytes();
    REQUIRE(put(*ns, "b", "2") == write_answer::stored);
    REQUIRE(put(*ns, "c", "3") == write_answer::stored);
    end = ns->disk_bytes();
    auto job = ns->make_sync_job();
    REQUIRE(job.ok());
    REQUIRE(job->run().ok());
    ns->sync_done(*job, {});
    CHECK(!ns->dirty());
  }
  auto bytes = *read_file(first_file(dir.path));
  bytes[first_end + 5] = static_cast<char>(bytes[first_end + 5] ^ 1); // b's header
  REQUIRE(write_file_atomic(first_file(dir.path), as_bytes(bytes)).ok());
  auto s = open_store(dir.path);
  REQUIRE(s.ok());
  auto ns = (*s)->find("default");
  CHECK(value_of(*ns, "a") == "1");
  CHECK(!value_of(*ns, "b"));
  CHECK(value_of(*ns, "c") == "3");
  CHECK(ns->disk_bytes() == end);
  CHECK(ns->read_errors > 0);
}

TEST_CASE("a damaged payload is an error, never wrong bytes") {
  quiet no_log;
  temporary_directory dir;
  {
    server_thread server{local_options(dir.path)};
    auto c = server.connect();
    REQUIRE(c->set("k", "the payload").ok());
    REQUIRE(c->sync().ok());
  }
  {
    auto bytes = *read_file(first_file(dir.path));
    bytes.back() ^= 1;
    REQUIRE(write_file_atomic(first_file(dir.path), as_bytes(bytes)).ok());
  }
  server_thread server{local_options(dir.path)};
  auto c = server.connect();
  CHECK(c->get("k").err().code == errc::io);
  CHECK(*c->check("k") == false);
  CHECK(*c->set("k", "the payload") == set_outcome::stored); // the same bytes again mend it
  CHECK(text_of(*c->get("k")) == "the payload");
}

TEST_CASE("without its synced mark, or with a damaged one, everything is still there") {
  temporary_directory dir;
  {
    server_thread server{local_options(dir.path)};
    auto c = server.connect();
    for (int i = 0; i < 50; ++i) REQUIRE(c->set(fmt::format("k{}", i), fmt::format("v{}", i)).ok());
    REQUIRE(c->sync().ok());
  }
  for (auto* content : {"", "short", "this text is not a mark."}) {
    REQUIRE(write_file_atomic(mark_file(dir.path), as_bytes(content)).ok());
    auto s = open_store(dir.path);
    REQUIRE(s.ok());
    CHECK((*s)->find("default")->entries() == 50);
  }
}

TEST_CASE("settings: what is damaged or newer is refused") {
  namespace_settings s;
  s.name = std::string{"a\nb\0c", 5};
  s.password = "secret";
  s.maxsize = 12345;
  s.worm = true;
  s.sequential = true;
  s.is_public = false;
  auto text = encode_settings(s);
  auto back = decode_settings(text);
  REQUIRE(back.ok());
  CHECK(back->name == s.name);
  CHECK(back->password == s.password);
  CHECK(back->maxsize == s.maxsize);
  CHECK((back->worm && back->sequential && !back->is_public));
  for (std::size_t i = 0; i < text.size(); ++i) {
    auto damaged = text;
    damaged[i] = static_cast<char>(damaged[i] ^ 4);
    CHECK(!decode_settings(damaged).ok());
    CHECK(!decode_settings(std::string_view{text}.substr(0, i)).ok());
  }
}

TEST_CASE("a full disk is an error, the server lives, and nothing is half there") {
  // A file size limit stands in for the disk: the write that crosses it is cut short, as on a full
  // disk.
  quiet no_log;
  temporary_directory dir;
  auto child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    std::signal(SIGXFSZ, SIG_IGN);
    auto s = open_store(dir.path);
    auto ns = (*s)->find("default");
    rlimit limit{100'000, 100'000};
    if (::setrlimit(RLIMIT_FSIZE, &limit) != 0) ::_exit(2);
    std::string big(60'000, 'x');
    if (put(*ns, "fits", big) != write_answer::stored) ::_exit(3);
    auto size = ns->disk_bytes();
    if (put(*ns, "does not", big + "y") != write_answer::failed) ::_exit(4);
    if (ns->disk_bytes() != size || fs::file_size(first_file(dir.path)) != size) ::_exit(5);
    if (value_of(*ns, "does not") || value_of(*ns, "fits") != big) ::_exit(6);
    if (put(*ns, "small", "s") != write_answer::stored || value_of(*ns, "small") != "s") ::_exit(7);
    ::_exit(0);
  }
  int state = 0;
  REQUIRE(::waitpid(child, &state, 0) == child);
  CHECK(WIFEXITED(state));
  CHECK(WEXITSTATUS(state) == 0);
}

TEST_CASE(
    "a really full disk: writes are refused as no space, all else goes on, also after a restart") {
  quiet no_log;
  temporary_directory dir;
  auto small = dir.path / "small";
  fs::create_directory(small);
  if (::mount("tmpfs", small.c_str(), "tmpfs", 0, "size=2m") != 0) {
    MESSAGE("skipped: cannot mount a small tmpfs here");
    return;
  }
  auto o = local_options(small / "data");
  o.datasize = 512 * kib;
  auto value = [](int i) { return share(buffer(100'000, static_cast<std::byte>(i))); };
  int stored = 0;
  for (int round = 0; round < 2; ++round) {
    server_thread server{o};
    auto c = server.connect();
    if (round == 0) {
      for (;; ++stored) {
        auto set = c->set(fmt::format("k{}", stored), value(stored));
        if (set.ok()) continue;
        CHECK(set.err().code == errc::no_space);
        break;
      }
      CHECK(stored > 10);
      CHECK(c->sync().ok());
    }
    CHECK(c->get(fmt::format("k{}", stored)).err().code == errc::not_found);
    CHECK(c->set("another", value(99)).err().code == errc::no_space);
    for (int i = 0; i < stored; ++i) {
      auto got = c->get(fmt::format("k{}", i));
      REQUIRE(got.ok());
      CHECK(**got == *value(i));
    }
    CHECK(*c->dbsize() == static_cast<std::uint64_t>(stored));
  }
  { // What is deleted makes room again: for that there is always some.
    server_thread server{o};
    auto c = server.connect();
    for (int i = 0; i < stored; ++i) REQUIRE(c->del(fmt::format("k{}", i)).ok());
    CHECK(eventually([&] { return c->set("another", value(99)).ok(); }));
  }
  CHECK(::umount2(small.c_str(), MNT_DETACH) == 0);
}

TEST_CASE(
    "kill -9 in the middle of writing: every acknowledged key is right afterwards, 20 rounds") {
  temporary_directory dir;
  std::map<std::string, std::string> manifest; // outside: what was acknowledged
  seeded_random random{42};
  auto o = local_options(dir.path / "data");
  o.datasize = 512 * kib;
  REQUIRE(make_directories(o.data).ok());
  for (int round = 0; round < 20; ++round) {
    CAPTURE(round);
    server_process server{o};
    auto c = blocking_client::connect(server.address(), {});
    REQUIRE(c.ok());
    for (auto& [key, value] : manifest) {
      auto got = (*c)->get(key);
      if (value.empty()) {
        CHECK(got.err().code == errc::not_found);
        continue;
      }
      REQUIRE(got.ok());
      CHECK(text_of(*got) == value);
    }
    auto stop_after = 20 + random.below(200);
    std::size_t acknowledged = 0;
    bool killed = false;
    std::size_t pending = 0;
    auto next = [&] {
      auto key = fmt::format("key{}", random.below(300));
      ++pending;
      if (random.below(8) == 0) {
        (*c)->raw().del(key, [&, key](status s) {
          --pending;
          if (s.ok() || s.err().code == errc::not_found)
            manifest[key] = "", ++acknowledged;
          else
            manifest.erase(key); // unknown: either is right
        });
        return;
      }
      auto value = fmt::format("{} {} {}", key, round, std::string(random.below(6000), 'v'));
      (*c)->raw().set(key, share(to_buffer(value)), [&, key, value](result<set_outcome> r) {
        --pending;
        if (r.ok())
          manifest[key] = value, ++acknowledged;
        else
          manifest.erase(key);
      });
    };
    while (!killed) {
      while (pending < 16) next();
      auto driven = (*c)->run_until([&] { return pending < 16; });
      if (!driven.ok()) break;
      if (acknowledged >= stop_after) {
        CHECK(server.kill(SIGKILL) == -SIGKILL);
        killed = true;
      }
    }
    REQUIRE(killed);
    (void)(*c)->run_until(
        [&] { return pending == 0; }); // what was answered before the end, then the loss
    REQUIRE(pending == 0);
  }
  CHECK(manifest.size() > 100);
}

TEST_CASE("stopped in order: exit 0, endpoint gone, everything synced, and it starts again") {
  temporary_directory dir;
  auto o = local_options(dir.path / "data");
  REQUIRE(make_directories(o.data).ok());
  {
    server_process server{o};
    auto c = blocking_client::connect(server.address(), {});
    REQUIRE(c.ok());
    REQUIRE((*c)->set("k", "v").ok());
    CHECK(server.kill(SIGTERM) == 0);
    CHECK(!fs::exists(o.data / "endpoint"));
  }
  auto s = open_store(o.data);
  REQUIRE(s.ok());
  auto ns = (*s)->find("default");
  CHECK(!ns->dirty());
  CHECK(value_of(*ns, "k") == "v");
}

TEST_CASE("a second server on the same directory is refused, and the first goes on") {
  temporary_directory dir;
  auto o = local_options(dir.path / "data");
  REQUIRE(make_directories(o.data).ok());
  server_process first{o};
  auto address = first.address();
  auto second = server::open(o);
  REQUIRE(!second.ok());
  CHECK(second.err().code == errc::busy);
  CHECK(second.err().message.find("another zdb server runs on") != std::string::npos);
  CHECK(fs::exists(o.data / "endpoint"));
  auto pid = ::fork();
  REQUIRE(pid >= 0);
  if (pid == 0) {
    auto quietly = o;
    quietly.logfile = dir.path / "second.log";
    ::_exit(run_server(quietly));
  }
  int state = 0;
  REQUIRE(::waitpid(pid, &state, 0) == pid);
  CHECK(WEXITSTATUS(state) == 5);
  CHECK(fs::exists(o.data / "endpoint"));
  auto c = blocking_client::connect(address, {});
  REQUIRE(c.ok());
  CHECK((*c)->ping().ok());
  first.kill(SIGKILL);
  CHECK(server::open(o).ok()); // the lock died with its holder
}

TEST_CASE("data deleted behind its back: SYNC says so, and the server ends") {
  quiet no_log;
  temporary_directory dir;
  for (bool lock_only : {false, true}) {
    CAPTURE(lock_only);
    auto o = local_options(dir.path / (lock_only ? "a" : "b"));
    server_thread server{o};
    auto c = server.connect();
    REQUIRE(c->set("k", "v").ok());
    REQUIRE(c->sync().ok());
    if (lock_only)
      fs::remove(o.data / "lock");
    else
      fs::remove_all(o.data);
    auto synced = c->sync();
    REQUIRE(!synced.ok());
    CHECK(synced.err().code == errc::data_lost);
    server.wait();
    REQUIRE(!server.ended.ok());
    CHECK(server.ended.err().code == errc::data_lost);
  }
}

TEST_CASE("data deleted or replaced: found out without a SYNC, too") {
  quiet no_log;
  temporary_directory dir;
  auto o = local_options(dir.path / "data");
  o.watch_every = std::chrono::milliseconds{20};
  {
    server_thread server{o};
    REQUIRE(server.connect()->set("k", "v").ok());
    auto copy = *read_file(first_file(o.data));
    REQUIRE(write_file_atomic(first_file(o.data), as_bytes(copy))
                .ok()); // same path and bytes, another file
    server.wait();
    CHECK(server.ended.err().code == errc::data_lost);
  }
  server_process process{o};
  (void)process.address();
  fs::remove_all(o.data);
  CHECK(process.wait() == 1);
}

TEST_CASE("instance and boot: a restart shows") {
  temporary_directory dir;
  std::string before;
  {
    server_thread server{local_options(dir.path)};
    before = server.connect()->server().instance_id;
  }
  server_thread server{local_options(dir.path)};
  auto c = server.connect();
  CHECK(!before.empty());
  CHECK(c->server().instance_id != before);
  CHECK(c->server().boot_time > 1'600'000'000);
}

} // namespace
} // namespace qs::zdb
