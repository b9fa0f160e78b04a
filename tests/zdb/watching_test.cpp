// Mirrors, hooks and metrics of the real server.
#include "support/zdb_server.hpp"

#include <ctime>
#include <fcntl.h>
#include <fstream>
#include <map>
#include <sys/stat.h>

#include "base/log.hpp"

namespace qs::zdb {
namespace {

std::string read_until(raw_socket& s, std::string_view end) {
  std::string out;
  while (!out.ends_with(end)) {
    auto more = s.receive(1);
    if (more.empty()) break;
    out += more;
  }
  return out;
}

/// The array a mirror gets, its three first fields apart.
struct copy {
  std::string name_space;
  std::string owner;
  std::vector<std::string> words;
};
copy receive_copy(raw_socket& s) {
  copy out;
  auto line = [&] {
    auto text = read_until(s, "\r\n");
    REQUIRE(text.size() > 2);
    return text.substr(0, text.size() - 2);
  };
  auto bulk = [&] {
    auto size = std::stoul(line().substr(1));
    auto text = s.receive(size + 2);
    return text.substr(0, size);
  };
  auto items = std::stoul(line().substr(1));
  REQUIRE(items > 3);
  CHECK(line().starts_with(":")); // the time
  out.name_space = bulk();
  out.owner = line();
  for (std::size_t i = 3; i < items; ++i) out.words.push_back(bulk());
  return out;
}

using words = std::vector<std::string>;

TEST_CASE("a mirror gets what was done, in order, and no connection's password") {
  temporary_directory dir;
  auto o = local_options(dir.path);
  o.admin_password = "boss";
  server_thread server{o};
  raw_socket mirror{server.address()};
  mirror.talk(command({"AUTH", "boss"}), "+OK\r\n");
  mirror.talk(command({"MIRROR"}), "+Starting mirroring\r\n");
  raw_socket c{server.address()};
  c.talk(command({"AUTH", "boss"}), "+OK\r\n"); // not told
  c.talk(command({"NSNEW", "n"}), "+OK\r\n");   // told when it is done
  c.talk(command({"NSSET", "n", "password", "pw"}), "+OK\r\n");
  c.talk(command({"SELECT", "n", "pw"}), "+OK\r\n"); // told without it
  c.talk(command({"SET", "k", "v"}), "$1\r\nk\r\n");
  c.talk(command({"SET", "k"}), "-Unexpected arguments\r\n"); // failed: not told
  c.talk(command({"del", "k"}), "+OK\r\n");
  auto one = receive_copy(mirror);
  CHECK(one.name_space == "default");
  CHECK(one.words == words{"NSNEW", "n"});
  CHECK(receive_copy(mirror).words == words{"NSSET", "n", "password", "pw"});
  auto selected = receive_copy(mirror);
  CHECK(selected.name_space == "n");
  CHECK(selected.words == words{"SELECT", "n"});
  auto set = receive_copy(mirror);
  CHECK(set.name_space == "n");
  CHECK(set.words == words{"SET", "k", "v"});
  CHECK(set.owner == one.owner);
  CHECK(receive_copy(mirror).words == words{"del", "k"});
  // What a master passes on keeps its owner; what comes back to its owner is not done again.
  raw_socket master{server.address()};
  master.talk(command({"AUTH", "boss"}), "+OK\r\n");
  master.talk(command({"MASTER"}), "+Hello, master\r\n");
  master.talk(command({"SET", "m", "v", "77"}), "$1\r\nm\r\n");
  auto passed = receive_copy(mirror);
  CHECK(passed.owner == ":77");
  CHECK(passed.words == words{"SET", "m", "v"});
  master.talk(command({"SET", "m", "other", std::string_view{one.owner}.substr(1)}), "+OK\r\n");
  master.talk(command({"GET", "m", "77"}), "$1\r\nv\r\n");
  CHECK(receive_copy(mirror).words == words{"GET", "m"});
}

TEST_CASE("a mirror that does not read is dropped, the others go on") {
  log::configure({log::level::off, false, {}});
  temporary_directory dir;
  auto o = local_options(dir.path);
  o.memory_bytes_max = 32 << 20; // a mirror may have a quarter of it
  server_thread server{o};
  raw_socket mirror{server.address()};
  mirror.talk(command({"MIRROR"}), "+Starting mirroring\r\n");
  auto c = server.connect();
  for (int i = 0; i < 40; ++i)
    REQUIRE(c->set(fmt::format("k{}", i), share(buffer(1 << 20, std::byte{1}))).ok());
  auto got = mirror.receive_all(); // what was on its way, then the end
  CHECK(got.size() < 40U << 20U);
  CHECK(c->ping().ok());
  log::configure({log::level::warning, false, {}});
}

std::string text_of_file(const std::filesystem::path& path) {
  auto text = read_file(path);
  return text.ok() ? *text : std::string{};
}

/// A hook that writes down what it was started with.
std::filesystem::path make_hook(const std::filesystem::path& dir, std::string_view more = "") {
  auto path = dir / "hook";
  std::ofstream{path} << "#!/bin/sh\n{ echo \"$@\"; env; ls /proc/self/fd | wc -l; } >> "
                      << (dir / "said").string() << "\n"
                      << more << "\n";
  std::filesystem::permissions(path, std::filesystem::perms::owner_all);
  return path;
}

TEST_CASE("hooks are told what happens, without secrets") {
  log::configure({log::level::off, false, {}});
  temporary_directory dir;
  auto o = local_options(dir.path / "data");
  o.hook = make_hook(dir.path);
  o.admin_password = "bosses secret";
  o.datasize = 512 * kib;
  ::setenv("QS_SECRET_FOR_TEST", "bosses secret", 1);
  {
    server_thread server{o};
    session_options s;
    s.admin_password = o.admin_password;
    auto c = server.connect(s);
    REQUIRE(c->nsnew("n").ok());
    REQUIRE(c->nsset("n", "password", "the other secret").ok());
    REQUIRE(c->nsdel("n").ok());
    for (int i = 0; i < 3; ++i)
      REQUIRE(c->set(fmt::format("k{}", i), share(buffer(300'000, std::byte{1}))).ok());
    raw_socket raw{server.address()};
    raw.talk(command({"AUTH", o.admin_password}), "+OK\r\n");
    raw.talk(command({"RELOAD", "default"}), "+OK\r\n");
    auto id = fmt::format(" tcp://{} ", server.address());
    for (std::string event : {"namespaces-init" + id, "ready" + id.substr(0, id.size() - 1),
                              "namespace-created" + id + "n", "namespace-updated" + id + "n",
                              "namespace-deleted" + id + "n", "jump-index" + id, "jump-data" + id,
                              "namespace-reloaded" + id + "default"}) {
      CAPTURE(event);
      CHECK(eventually(
          [&] { return text_of_file(dir.path / "said").find(event) != std::string::npos; }));
    }
    // HOOKS: an array of six each.
    raw.send(command({"HOOKS"}));
    auto count = read_until(raw, "\r\n");
    CHECK(std::stoul(count.substr(1)) >= 8);
    CHECK(raw.receive(4) == "*6\r\n");
  }
  auto said = text_of_file(dir.path / "said");
  CHECK(said.find("namespace-closing tcp://") != std::string::npos);
  CHECK(said.find("close tcp://") != std::string::npos);
  CHECK(said.find("secret") == std::string::npos);
  ::unsetenv("QS_SECRET_FOR_TEST");
  log::configure({log::level::warning, false, {}});
}

/// One row of the answer to HOOKS.
struct hook_row {
  std::string type;
  words arguments;
  std::int64_t pid;
  std::int64_t created;
  std::int64_t finished;
  std::int64_t status;
};
std::vector<hook_row> ask_hooks(raw_socket& s) {
  s.send(command({"HOOKS"}));
  auto number = [&](char kind) {
    auto line = s.line();
    REQUIRE(line.starts_with(kind));
    return std::stoll(line.substr(1));
  };
  auto bulk = [&] {
    auto size = static_cast<std::size_t>(number('$'));
    return s.receive(size + 2).substr(0, size);
  };
  std::vector<hook_row> out(static_cast<std::size_t>(number('*')));
  for (auto& row : out) {
    REQUIRE(number('*') == 6);
    row.type = bulk();
    row.arguments.resize(static_cast<std::size_t>(number('*')));
    for (auto& a : row.arguments) a = bulk();
    row.pid = number(':');
    row.created = number(':');
    row.finished = number(':');
    row.status = number(':');
  }
  return out;
}

TEST_CASE("HOOKS shows who runs, since when, and how it ended") {
  log::configure({log::level::off, false, {}});
  temporary_directory dir;
  auto o = local_options(dir.path / "data");
  auto held = dir.path / "held"; // whoever writes to it waits for a reader
  REQUIRE(::mkfifo(held.c_str(), 0600) == 0);
  o.hook = make_hook(dir.path, "echo \"$1 $$\" >> \"" + (dir.path / "pids").string() +
                                   "\"\ncase \"$1$3\" in namespace-createdn) exit 7;; "
                                   "namespace-updatedn) echo > \"" +
                                   held.string() + "\";; namespace-deletedn) kill -9 $$;; esac");
  server_thread server{o};
  raw_socket s{server.address()};
  auto now = [] { return static_cast<std::int64_t>(std::time(nullptr)); };
  auto before = now();
  s.talk(command({"NSNEW", "n"}), "+OK\r\n");
  s.talk(command({"NSSET", "n", "maxsize", "1000"}), "+OK\r\n");
  s.talk(command({"NSDEL", "n"}), "+OK\r\n");
  auto row = [&](std::string_view type) {
    for (auto& r : ask_hooks(s))
      if (r.type == type) return r;
    return hook_row{};
  };
  // The hook itself says what its pid is.
  auto pid_of = [&](const std::string& type) {
    auto text = "\n" + text_of_file(dir.path / "pids");
    auto at = text.find("\n" + type + " ");
    auto end = at == std::string::npos ? at : text.find('\n', at + 1);
    if (end == std::string::npos) return std::int64_t{0};
    return static_cast<std::int64_t>(std::stoll(text.substr(at + type.size() + 2)));
  };
  struct ended {
    const char* type;
    std::int64_t status;
  };
  for (auto& want : {ended{"ready", 0}, ended{"namespace-created", 7},
                     ended{"namespace-deleted", 128 + SIGKILL}}) {
    CAPTURE(want.type);
    REQUIRE(eventually([&] { return row(want.type).finished != 0; }));
    auto r = row(want.type);
    CHECK(r.status == want.status);
    CHECK(r.pid == pid_of(want.type));
    CHECK(r.created >= before - (r.type == "ready" ? 60 : 0));
    CHECK(r.finished >= r.created);
    CHECK(r.finished <= now());
    CHECK(r.arguments == (r.type == "ready" ? words{} : words{"n"}));
  }
  REQUIRE(eventually([&] { return pid_of("namespace-updated") != 0; }));
  auto runs = row("namespace-updated");
  CHECK(runs.pid == pid_of("namespace-updated"));
  CHECK(runs.created >= before);
  CHECK(runs.finished == 0);
  CHECK(runs.status == 0);
  CHECK(::kill(static_cast<pid_t>(runs.pid), 0) == 0);
  unique_fd reader{::open(held.c_str(), O_RDONLY | O_NONBLOCK)};
  REQUIRE(reader.valid());
  CHECK(eventually([&] { return row("namespace-updated").finished >= runs.created; }));
  CHECK(row("namespace-updated").status == 0);
  log::configure({log::level::warning, false, {}});
}

TEST_CASE("a hook that says it is not ready, or is not there, ends the server") {
  log::configure({log::level::off, false, {}});
  temporary_directory dir;
  auto o = local_options(dir.path / "data");
  o.hook = make_hook(dir.path, "test \"$1\" != ready");
  server_thread server{o};
  server.wait();
  REQUIRE(!server.ended.ok());
  CHECK(server.ended.err().code == errc::refused);
  o.hook = "/nonexistent/hook";
  o.data = dir.path / "other";
  server_thread none{o};
  none.wait();
  CHECK(!none.ended.ok());
  log::configure({log::level::warning, false, {}});
}

TEST_CASE("a crash is told as well, and stays a crash") {
  temporary_directory dir;
  auto o = local_options(dir.path / "data");
  std::filesystem::create_directory(o.data);
  o.hook = make_hook(dir.path);
  server_process server{o};
  auto id = fmt::format("tcp://{}", server.address());
  CHECK(eventually([&] {
    return text_of_file(dir.path / "said").find("ready " + id) != std::string::npos;
  }));
  CHECK(server.kill(SIGSEGV) == -SIGSEGV);
  CHECK(eventually([&] {
    return text_of_file(dir.path / "said").find("crash " + id) != std::string::npos;
  }));
}

TEST_CASE("Prometheus is answered, and nothing else over HTTP") {
  temporary_directory dir;
  auto o = local_options(dir.path);
  o.metrics = "127.0.0.1:0";
  server_thread server{o};
  auto c = server.connect();
  for (int i = 0; i < 10; ++i) REQUIRE(c->set(fmt::format("k{}", i), "value").ok());
  REQUIRE(c->sync().ok());
  auto ask = [&](std::string_view request) {
    raw_socket s{server.metrics_address()};
    s.send(request);
    return s.receive_all();
  };
  auto answer = ask("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
  CHECK(answer.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4"));
  for (std::string_view line :
       {"\nzdb_entries 10\n", "\nzdb_live_payload_bytes 50\n", "\nzdb_namespaces 1\n",
        "\nzdb_command_seconds_count{command=\"SET\"} 10\n",
        "\nzdb_command_seconds_count{command=\"SYNC\"} 1\n", "\nzdb_clients 1\n",
        "\n# TYPE zdb_command_seconds histogram\n"}) {
    CAPTURE(line);
    CHECK(answer.find(line) != std::string::npos);
  }
  auto length = answer.find("Content-Length: ");
  auto body = answer.find("\r\n\r\n") + 4;
  REQUIRE(length != std::string::npos);
  CHECK(std::stoul(answer.substr(length + 16)) == answer.size() - body);
  CHECK(ask("GET / HTTP/1.0\r\n\r\n").starts_with("HTTP/1.1 404 "));
  CHECK(ask("POST /metrics HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 405 "));
  CHECK(ask("HEAD /metrics HTTP/1.1\r\n\r\n").ends_with("\r\n\r\n"));
  CHECK(ask(std::string(20'000, 'x')).empty());
  CHECK(c->ping().ok());
}

TEST_CASE("overwritten values do not fill the disk: the server compacts by itself") {
  temporary_directory dir;
  auto o = local_options(dir.path);
  o.datasize = 512 * kib;
  o.watch_every = std::chrono::milliseconds{20};
  o.metrics = "127.0.0.1:0";
  server_thread server{o};
  auto c = server.connect();
  for (int i = 0; i < 200; ++i) // 20 MB written, 1 MB of it alive
    REQUIRE(c->set(fmt::format("k{}", i % 10),
                   share(buffer(100'000, static_cast<std::byte>(i / 10 + 1))))
                .ok());
  CHECK(eventually([&] {
    auto line = c->nsinfo("default")->lines["data_disk_size_bytes"];
    return std::stoull(line) < 4'000'000;
  }));
  for (int i = 0; i < 10; ++i) {
    auto value = c->get(fmt::format("k{}", i));
    REQUIRE(value.ok());
    CHECK(**value == buffer(100'000, std::byte{20}));
  }
}

} // namespace
} // namespace qs::zdb
