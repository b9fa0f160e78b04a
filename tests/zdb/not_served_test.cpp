// A namespace that cannot be opened: the others are served, it is there by name, never "not found",
// never made anew; RELOAD and NSDEL are the ways out (decisions/0007).
#include "support/zdb_store.hpp"

#include "zdb/session.hpp"

namespace qs::zdb {
namespace {

namespace fs = std::filesystem;

constexpr auto not_served = "-Namespace cannot be opened, see the server's log\r\n";
constexpr auto not_found = "-Namespace not found\r\n";

fs::path directory_of(const server_options& o, const std::string& name) {
  for (auto& e : fs::directory_iterator{o.data / "namespaces"})
    if (auto s = read_settings(e.path()); s.ok() && s->name == name) return e.path();
  FAIL("no namespace ", name);
  return {};
}

void fill(const server_options& o) {
  server_thread server{o};
  auto c = server.connect();
  REQUIRE(c->set("d", "of default").ok());
  for (auto* name : {"good", "bad"}) {
    REQUIRE(c->nsnew(name).ok());
    session_options s;
    s.name_space = name;
    auto in = server.connect(s);
    REQUIRE(in->set("k", name).ok());
  }
}

void damage(const fs::path& file) {
  auto bytes = *read_file(file);
  bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 1);
  REQUIRE(write_file_atomic(file, as_bytes(bytes)).ok());
}

/// A data file that cannot be opened: a directory in its place.
void block(const fs::path& directory, std::uint32_t id) {
  fs::create_directory(data_file_path(directory, id));
}

std::string info_of(const std::string& address) {
  raw_socket s{address};
  s.send(command({"INFO"}));
  std::string head;
  while (!head.ends_with("\n")) head += s.receive(1);
  return s.receive(std::stoul(head.substr(1)));
}

TEST_CASE("a namespace that cannot be opened: the others are served, and it is not lost") {
  quiet no_log;
  for (bool settings : {false, true}) {
    CAPTURE(settings);
    temporary_directory dir;
    auto o = local_options(dir.path);
    o.metrics = "127.0.0.1:0";
    fill(o);
    auto bad = directory_of(o, "bad");
    auto before = *read_file(bad / "namespace");
    if (settings)
      damage(bad / "namespace");
    else
      block(bad, 2);
    server_thread server{o};
    raw_socket s{server.address()};
    s.talk(command({"GET", "d"}), "$10\r\nof default\r\n");
    s.talk(command({"SELECT", "good"}), "+OK\r\n");
    s.talk(command({"GET", "k"}), "$4\r\ngood\r\n");
    for (auto& asked : {command({"SELECT", "bad"}), command({"SELECT", "bad", "word"}),
                        command({"NSINFO", "bad"}), command({"NSSET", "bad", "maxsize", "5"}),
                        command({"RELOAD", "bad"})})
      s.talk(asked, not_served);
    s.talk(command({"NSNEW", "bad"}), "-This namespace is not available\r\n");
    s.talk(command({"NSLIST"}), "*3\r\n$3\r\nbad\r\n$7\r\ndefault\r\n$4\r\ngood\r\n");
    s.talk(command({"SELECT", "none"}), not_found); // its name is known: others are not it
    s.talk(command({"NSNEW", "more"}), "+OK\r\n");
    CHECK(info_of(server.address()).find("namespaces_failed: 1\n") != std::string::npos);
    raw_socket m{server.metrics_address()};
    m.send("GET /metrics HTTP/1.1\r\n\r\n");
    CHECK(m.receive_all().find("\nzdb_namespaces_failed 1\n") != std::string::npos);
    // Mended and told to look again.
    if (settings)
      REQUIRE(write_file_atomic(bad / "namespace", as_bytes(before)).ok());
    else
      fs::remove(data_file_path(bad, 2));
    s.talk(command({"RELOAD", "bad"}), "+OK\r\n");
    s.talk(command({"SELECT", "bad"}), "+OK\r\n");
    s.talk(command({"GET", "k"}), "$3\r\nbad\r\n");
    s.talk(command({"SET", "k", "new"}), "$1\r\nk\r\n");
    CHECK(info_of(server.address()).find("namespaces_failed") == std::string::npos);
  }
}

TEST_CASE("NSDEL is the administrator's word: then its name is free") {
  quiet no_log;
  temporary_directory dir;
  auto o = local_options(dir.path);
  fill(o);
  auto bad = directory_of(o, "bad");
  damage(bad / "namespace");
  {
    server_thread server{o};
    raw_socket s{server.address()};
    s.talk(command({"NSDEL", "bad"}), "+OK\r\n");
    CHECK(!fs::exists(bad));
    s.talk(command({"SELECT", "bad"}), not_found);
    s.talk(command({"NSNEW", "bad"}), "+OK\r\n");
    s.talk(command({"SELECT", "bad"}), "+OK\r\n");
    s.talk(command({"DBSIZE"}), ":0\r\n");
  }
  server_thread again{o};
  raw_socket s{again.address()};
  s.talk(command({"SELECT", "bad"}), "+OK\r\n");
}

TEST_CASE("without a name it may be any: nothing is said not to exist, nothing is made") {
  quiet no_log;
  temporary_directory dir;
  auto o = local_options(dir.path);
  fill(o);
  auto bad = directory_of(o, "bad");
  auto before = *read_file(bad / "namespace");
  damage(bad / "namespace");
  fs::remove(o.data / "namespaces" / "names");
  server_thread server{o};
  raw_socket s{server.address()};
  auto held_under = "namespaces/" + bad.filename().string();
  s.talk(command({"SELECT", "good"}), "+OK\r\n");
  for (auto& asked : {command({"SELECT", "bad"}), command({"SELECT", "none"}),
                      command({"NSINFO", "none"}), command({"NSSET", "none", "public", "1"}),
                      command({"NSDEL", "none"}), command({"RELOAD", "none"}),
                      command({"NSINFO", held_under})})
    s.talk(asked, not_served);
  s.talk(command({"NSNEW", "none"}), "-This namespace is not available\r\n");
  s.talk(command({"NSLIST"}), fmt::format("*3\r\n$7\r\ndefault\r\n$4\r\ngood\r\n$19\r\n{}\r\n",
                                          held_under));
  SUBCASE("mended") {
    REQUIRE(write_file_atomic(bad / "namespace", as_bytes(before)).ok());
    s.talk(command({"RELOAD", held_under}), "+OK\r\n");
    s.talk(command({"SELECT", "bad"}), "+OK\r\n");
    s.talk(command({"GET", "k"}), "$3\r\nbad\r\n");
  }
  SUBCASE("deleted") { s.talk(command({"NSDEL", held_under}), "+OK\r\n"); }
  s.talk(command({"SELECT", held_under}), not_found);
  s.talk(command({"SELECT", "none"}), not_found);
  s.talk(command({"NSNEW", "none"}), "+OK\r\n");
}

TEST_CASE("default that cannot be opened: clients begin there and can go elsewhere") {
  quiet no_log;
  for (bool named : {true, false}) {
    CAPTURE(named);
    temporary_directory dir;
    auto o = local_options(dir.path);
    fill(o);
    auto bad = directory_of(o, "default");
    auto before = *read_file(bad / "namespace");
    damage(bad / "namespace");
    if (!named) fs::remove(o.data / "namespaces" / "names");
    o.watch_every = std::chrono::milliseconds{20};
    {
      server_thread server{o};
      raw_socket s{server.address()};
      // Files that are not served are not looked for: it goes on, however often it looks.
      auto looks = std::chrono::steady_clock::now() + std::chrono::milliseconds{200};
      while (std::chrono::steady_clock::now() < looks) s.talk(command({"PING"}), "+PONG\r\n");
      for (auto& asked :
           {command({"GET", "d"}), command({"SET", "d", "x"}), command({"DBSIZE"}),
            command({"SYNC"}), command({"SCAN"}), command({"EXISTS", "d"}), command({"FLUSH"}),
            command({"NSJUMP"}), command({"SELECT", "default"}), command({"NSINFO", "default"})})
        s.talk(asked, not_served);
      s.talk(command({"PING"}), "+PONG\r\n");
      s.talk(command({"NSDEL", "default"}), "-Cannot remove default namespace\r\n");
      s.talk(command({"SELECT", "good"}), "+OK\r\n");
      s.talk(command({"GET", "k"}), "$4\r\ngood\r\n");
      raw_socket stays{server.address()};
      stays.talk(command({"GET", "d"}), not_served);
      REQUIRE(write_file_atomic(bad / "namespace", as_bytes(before)).ok());
      auto held_under = named ? "default" : "namespaces/" + bad.filename().string();
      s.talk(command({"RELOAD", held_under}), "+OK\r\n");
      if (named) stays.talk(command({"GET", "d"}), "$10\r\nof default\r\n");
      raw_socket fresh{server.address()};
      fresh.talk(command({"GET", "d"}), "$10\r\nof default\r\n");
      CHECK(info_of(server.address()).find("namespaces_failed") == std::string::npos);
    }
    server_thread again{o};
    CHECK(**again.connect()->get("d") == to_buffer(as_bytes("of default")));
  }
}

TEST_CASE("two namespaces of one name: neither is served until one is gone") {
  quiet no_log;
  temporary_directory dir;
  auto o = local_options(dir.path);
  fill(o);
  auto bad = directory_of(o, "bad");
  fs::copy(bad, o.data / "namespaces" / "000000ff", fs::copy_options::recursive);
  server_thread server{o};
  raw_socket s{server.address()};
  s.talk(command({"SELECT", "bad"}), not_served);
  s.talk(command({"RELOAD", "bad"}), not_served);
  s.talk(command({"RELOAD", "namespaces/000000ff"}), not_served);
  s.talk(command({"SELECT", "none"}), not_found);
  s.talk(command({"NSDEL", "bad"}), "+OK\r\n");
  CHECK(!fs::exists(bad));
  s.talk(command({"RELOAD", "namespaces/000000ff"}), "+OK\r\n");
  s.talk(command({"SELECT", "bad"}), "+OK\r\n");
  s.talk(command({"GET", "k"}), "$3\r\nbad\r\n");
}

TEST_CASE("hidden names: hidden where a password can be judged, never denied where not") {
  quiet no_log;
  for (bool settings : {false, true}) {
    CAPTURE(settings);
    temporary_directory dir;
    auto o = local_options(dir.path);
    o.admin_password = "boss";
    o.hide_namespaces = true;
    {
      server_thread server{o};
      raw_socket s{server.address()};
      s.talk(command({"AUTH", "boss"}), "+OK\r\n");
      s.talk(command({"NSNEW", "bad"}), "+OK\r\n");
      s.talk(command({"NSSET", "bad", "password", "word"}), "+OK\r\n");
    }
    auto bad = directory_of(o, "bad");
    settings ? damage(bad / "namespace") : block(bad, 1);
    server_thread server{o};
    raw_socket s{server.address()};
    s.talk(command({"NSINFO", "bad"}), not_found); // as it is of every hidden one
    s.talk(command({"NSLIST"}), "*1\r\n$7\r\ndefault\r\n");
    s.talk(command({"SELECT", "bad", "word"}), not_served);
    s.talk(command({"SELECT", "bad", "wrong"}), settings ? not_served : "-Access denied\r\n");
    s.talk(command({"SELECT", "none", "wrong"}), "-Access denied\r\n");
    s.talk(command({"AUTH", "boss"}), "+OK\r\n");
    s.talk(command({"NSINFO", "bad"}), not_served);
    s.talk(command({"NSLIST"}), "*2\r\n$3\r\nbad\r\n$7\r\ndefault\r\n");
  }
}

TEST_CASE("what our own clients take from it: it is there, and not to be had") {
  auto e = error_from_reply("Namespace cannot be opened, see the server's log");
  CHECK(e.code == errc::io);
}

TEST_CASE("the list of names heals itself, and a torn line costs only itself") {
  quiet no_log;
  storage s;
  auto path = s.options.data / "namespaces" / "names";
  auto whole = *read_file(path);
  auto made = s.all->begin_new("more");
  REQUIRE(s.all->finish_new(made, name_space::create(made.directory, made.settings)).ok());
  auto both = *read_file(path);
  CHECK(both.size() > whole.size());
  for (auto& text : {std::string{}, whole, both.substr(0, both.size() - 5), "junk\n" + both}) {
    REQUIRE(write_file_atomic(path, as_bytes(text)).ok());
    s.reopen();
    s.all.reset();
    name_list names;
    names.read(path);
    CHECK(names.name_of("00000001") == "default");
    CHECK(names.name_of("00000002") == "more");
    s.reopen();
  }
}

} // namespace
} // namespace qs::zdb
