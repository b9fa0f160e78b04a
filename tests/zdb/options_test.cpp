#include "support/zdb_server.hpp"

namespace qs::zdb {
namespace {

result<server_options> parse(std::vector<std::string> args) { return options_from_args(args); }

TEST_CASE("flags have 0-db's names and meanings") {
  auto none = parse({});
  REQUIRE(none.ok());
  CHECK(none->data == "zdb-data");
  CHECK(none->port == 9900);
  CHECK(none->listen == "127.0.0.1");
  CHECK(none->sync == sync_mode::never);
  auto all = parse({"--data",    "/d",          "--index=/i", "--listen", "::1",        "--port",
                    "0",         "--socket=/s", "--dualnet",  "--admin",  "pw",         "--protect",
                    "--maxsize", "10M",         "--datasize", "512K",     "--mode=seq", "--sync",
                    "--logfile", "/l",          "--verbose"});
  REQUIRE(all.ok());
  CHECK(all->data == "/d");
  CHECK(all->listen == "::1");
  CHECK(all->port == 0);
  CHECK(all->socket == "/s");
  CHECK((all->dual_net && all->protect && all->verbose));
  CHECK(all->admin_password == "pw");
  CHECK(all->maxsize == 10 * mib);
  CHECK(all->datasize == 512 * kib);
  CHECK(all->mode == key_mode::sequential);
  CHECK(all->sync == sync_mode::always);
  CHECK(parse({"--sync=500ms"})->sync_interval == std::chrono::milliseconds{500});
  CHECK(parse({"--synctime", "3"})->sync_interval == std::chrono::seconds{3});
  CHECK(parse({"--sync=500ms"})->sync == sync_mode::interval);
  CHECK(parse({"--synctime", "3"})->sync == sync_mode::interval);
  CHECK(parse({"--sync=never"})->sync == sync_mode::never);
  CHECK(parse({"--maxsize", "1.5GiB"})->maxsize == gib + gib / 2);
  auto ours = parse({"--hook", "/bin/h", "--metrics", "9901", "--hide-namespaces", "--background",
                     "--rotate", "3600", "--memory=64M", "--clients=7", "--cache=8M",
                     "--log-format=json", "--secure", "--dump"});
  REQUIRE(ours.ok());
  CHECK(ours->hook == "/bin/h");
  CHECK(ours->metrics == "127.0.0.1:9901");
  CHECK((ours->hide_namespaces && ours->background && ours->log_json && ours->dump));
  CHECK(ours->rotate == std::chrono::hours{1});
  CHECK(ours->memory_bytes_max == 64 * mib);
  CHECK(ours->clients_max == 7);
  CHECK(ours->cache_bytes == 8 * mib);
  CHECK(parse({"--cache=off"})->cache_bytes == 0);
  CHECK(parse({"--silence=2m"})->silence == std::chrono::minutes{2});
  CHECK(parse({"--silence", "off"})->silence.count() == 0);
  CHECK(parse({})->silence == std::chrono::minutes{1});
  CHECK(parse({"--compaction=off"})->compaction == 0);
  CHECK(parse({"--compaction", "8M"})->compaction == 8 * mib);
  CHECK(parse({"--metrics=[::1]:9"})->metrics == "[::1]:9");
  CHECK(parse({"--admin", "x"})->warnings.size() == 1);
}

TEST_CASE("what is wrong is named") {
  struct row {
    std::vector<std::string> args;
    std::string_view says;
  };
  for (auto& [args, says] :
       std::vector<row>{{{"--port", "70000"}, "--port 70000: a port from 0 to 65535 is expected"},
                        {{"--port"}, "--port: a value is expected"},
                        {{"--silence=10ms"}, "--silence 10ms: off, or a time such as 60s"},
                        {{"data"}, "a flag is expected"},
                        {{"--colour", "red"}, "--colour: no such flag"},
                        {{"--datasize", "5G"}, "512K to 4080M"},
                        {{"--datasize", "1K"}, "512K to 4080M"},
                        {{"--maxsize", "lots"}, "a size such as 256M"},
                        {{"--mode", "direct"}, "user or seq"},
                        {{"--sync=often"}, "always, never or an interval"},
                        {{"--protect"}, "--protect needs an admin password"},
                        {{"--metrics", "nowhere"}, "an address such as"},
                        {{"--memory", "1M"}, "32M or more"},
                        {{"--compaction", "never"}, "a size such as"},
                        {{"--clients", "0"}, "a number of connections"},
                        {{"--rotate", "often"}, "a number of seconds"},
                        {{"--log-format", "xml"}, "text or json"},
                        {{"--admin-file", "/nonexistent"}, "/nonexistent"}}) {
    auto parsed = parse(args);
    REQUIRE(!parsed.ok());
    CAPTURE(describe(parsed.err()));
    CHECK(describe(parsed.err()).find(says) != std::string::npos);
  }
}

TEST_CASE("the admin password comes from a private file or the environment") {
  temporary_directory dir;
  auto file = (dir.path / "admin").string();
  REQUIRE(write_file_atomic(file, as_bytes("secret word\n"), 0600).ok());
  CHECK(parse({"--admin-file", file})->admin_password == "secret word");
  std::filesystem::permissions(file, std::filesystem::perms::others_read,
                               std::filesystem::perm_options::add);
  auto refused = parse({"--admin-file", file});
  REQUIRE(!refused.ok());
  CHECK(refused.err().code == errc::refused);
  // What systemd gives to a service is shown by an ACL: its mask stands where the group's bits do.
  std::filesystem::permissions(file, std::filesystem::perms::owner_read |
                                         std::filesystem::perms::group_read);
  CHECK(!parse({"--admin-file", file}).ok());
  ::setenv("CREDENTIALS_DIRECTORY", dir.path.c_str(), 1);
  CHECK(parse({"--admin-file", file})->admin_password == "secret word");
  ::unsetenv("CREDENTIALS_DIRECTORY");
  ::setenv("QS_ZDB_ADMIN", "from env", 1);
  CHECK(parse({})->admin_password == "from env");
  CHECK(std::getenv("QS_ZDB_ADMIN") == nullptr); // not for hooks and other children
  for (auto& bad : {std::string{}, std::string(129, 'x')}) { // never "everybody is admin"
    ::setenv("QS_ZDB_ADMIN", bad.c_str(), 1);
    auto* in_place = std::getenv("QS_ZDB_ADMIN");
    auto refused_env = parse({});
    REQUIRE(!refused_env.ok());
    CHECK(refused_env.err().message.find("QS_ZDB_ADMIN") != std::string::npos);
    CHECK(refused_env.err().message.find("xxx") == std::string::npos);
    CHECK(std::string_view{in_place}.empty()); // overwritten where it stood
    CHECK(std::getenv("QS_ZDB_ADMIN") == nullptr);
  }
  REQUIRE(write_file_atomic(file, as_bytes("\n"), 0600).ok());
  CHECK(!parse({"--admin-file", file}).ok());
  auto wrong = parse({"--admin", std::string(200, 'x')});
  REQUIRE(!wrong.ok());
  CHECK(wrong.err().message.find("xxx") == std::string::npos); // a secret is not repeated
}

} // namespace
} // namespace qs::zdb
