// The flags of `qs zdb`, named as 0-db names them.
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>

#include "base/posix.hpp"
#include "zdb/server.hpp"

namespace qs::zdb {

namespace {

constexpr std::string_view usage = R"(qs zdb: a zdb server, usable alone

usage: qs zdb --data DIR [options]

  --data DIR            where the data is; made if missing (default ./zdb-data)
  --index DIR           where 0-db kept its index, when DIR holds 0-db's data
  --listen ADDRESS      numeric address to listen on (default 127.0.0.1)
  --port PORT           default 9900; 0: the kernel chooses, DIR/endpoint tells
  --socket PATH         unix socket instead of TCP; with --dualnet both
  --dualnet             the unix socket and TCP
  --admin-file FILE     admin password from a file only its owner can read; else QS_ZDB_ADMIN
  --admin PASSWORD      the same on the command line, visible to everybody on this machine
  --protect             namespace `default` is read-only without the admin password
  --hide-namespaces     names of namespaces only to admins and to who is in them
  --maxsize SIZE        quota of the namespace `default` (default none)
  --mode user|seq       one key mode for all new namespaces (default: user, NSSET mode)
  --datasize SIZE       size at which a data file is rotated (default 256M)
  --compaction RATE     bytes a second that giving space back may read and write; off: never
                        (default 32M)
  --rotate SECONDS      age at which a data file is rotated (default any)
  --sync[=WHEN]         always (the default of --sync alone), never, or an interval as 500ms, 10s
  --synctime SECONDS    the same as --sync=SECONDSs
  --secure              accepted; rotated files are synced anyway
  --hook PROGRAM        run at events: PROGRAM EVENT ID ARGUMENTS...
  --metrics ADDRESS     answer Prometheus at ADDRESS, as 127.0.0.1:9901
  --memory SIZE         what requests and replies of all clients may hold (default 256M)
  --cache SIZE          small values kept in memory at most (default 64M; off or 0: none)
  --clients NUMBER      connections at once (default 10000)
  --silence TIME        who has sent a part of a request and then nothing for so long is dropped
                        (default 60s; off: nobody)
  --logfile FILE        log to a file instead of stderr
  --log-format FORMAT   text (default) or json
  --background          return when it listens; it goes on in a process of its own
  --dump                load, print what there is, end; changes nothing
  --verbose, --version, --help

Sizes take k, M, G, T and KiB ... TiB. Without an admin password every client is admin.
)";

error bad(std::string_view flag, std::string_view value, std::string_view wanted) {
  return {errc::invalid_argument, fmt::format("--{} {}: {} is expected", flag, value, wanted)};
}

result<byte_count> parse_size(std::string_view flag, std::string_view text) {
  std::string spelled{text};
  if (!spelled.empty()) {
    switch (spelled.back()) { // 0-db's single letters
    case 'k':
    case 'K':
      spelled.back() = 'K';
      spelled += "iB";
      break;
    case 'M':
    case 'G':
    case 'T':
      spelled += "iB";
      break;
    default:
      break;
    }
  }
  auto parsed = parse_bytes(spelled);
  if (!parsed.ok()) return bad(flag, text, "a size such as 256M");
  return parsed;
}

template <class T>
bool parse_number(std::string_view text, T& out) {
  auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), out);
  return ec == std::errc{} && end == text.data() + text.size();
}

result<std::string> read_password(const std::string& path) {
  QS_TRY_ASSIGN(auto fd, open_file(path, O_RDONLY));
  struct stat st {};
  if (::fstat(fd.get(), &st) != 0) return errno_error(fmt::format("stat {}", path), errno);
  // systemd's credentials are shown to their service by an ACL, whose mask stands in the group's
  // place.
  auto* credentials = std::getenv("CREDENTIALS_DIRECTORY");
  auto from_systemd = credentials != nullptr && *credentials != '\0' &&
                      path.starts_with(std::string{credentials} + '/');
  if ((st.st_mode & (from_systemd ? 07U : 077U)) != 0)
    return error{errc::refused,
                 fmt::format("--admin-file {}: others may read it; chmod 600 {}", path, path)};
  QS_TRY_ASSIGN(auto text, read_file(path, 4096));
  while (text.ends_with('\n') || text.ends_with('\r')) text.pop_back();
  if (text.empty() || text.size() > 128)
    return error{errc::invalid_argument,
                 fmt::format("--admin-file {}: a password of 1 to 128 bytes is expected", path)};
  return text;
}

result<bool> apply_switch(server_options& o, std::string_view name) {
  if (name == "dualnet")
    o.dual_net = true;
  else if (name == "protect")
    o.protect = true;
  else if (name == "hide-namespaces")
    o.hide_namespaces = true;
  else if (name == "background")
    o.background = true;
  else if (name == "dump")
    o.dump = true;
  else if (name == "secure")
    return true; // rotated files are synced anyway
  else if (name == "sync")
    o.sync = sync_mode::always;
  else if (name == "verbose")
    o.verbose = true;
  else if (name == "help")
    o.show_help = true;
  else if (name == "version")
    o.show_version = true;
  else
    return false;
  return true;
}

status apply_sync(server_options& o, std::string_view flag, std::string_view value) {
  if (value == "always")
    o.sync = sync_mode::always;
  else if (value == "never")
    o.sync = sync_mode::never;
  else {
    auto every = parse_duration(value);
    if (!every.ok() || *every < std::chrono::milliseconds{1})
      return bad(flag, value, "always, never or an interval such as 10s");
    o.sync = sync_mode::interval;
    o.sync_interval = *every;
  }
  return {};
}

status apply_metrics(server_options& o, const std::string& value) {
  auto colon = value.rfind(':');
  std::uint16_t port = 0;
  // A port alone is one of this machine.
  if (colon == std::string::npos && parse_number(value, port)) {
    o.metrics = "127.0.0.1:" + value;
    return {};
  }
  if (colon == std::string::npos || colon == 0 ||
      !parse_number(std::string_view{value}.substr(colon + 1), port))
    return bad("metrics", value, "an address such as 127.0.0.1:9901");
  o.metrics = value;
  return {};
}

status apply_limit(server_options& o, std::string_view name, const std::string& value) {
  if (name == "memory") {
    QS_TRY_ASSIGN(auto bytes, parse_size(name, value));
    if (bytes < 32 * mib) return bad(name, value, "32M or more");
    o.memory_bytes_max = bytes;
  } else if (name == "cache") {
    o.cache_bytes = 0;
    if (value != "off") {
      QS_TRY_ASSIGN(o.cache_bytes, parse_size(name, value));
    }
  } else if (name == "silence") {
    o.silence = std::chrono::milliseconds{0};
    if (value != "off") {
      auto time = parse_duration(value);
      if (!time.ok() || *time < std::chrono::seconds{1})
        return bad(name, value, "off, or a time such as 60s, of 1s or more");
      o.silence = *time;
    }
  } else if (name == "clients") {
    if (!parse_number(value, o.clients_max) || o.clients_max == 0)
      return bad(name, value, "a number of connections");
  } else if (name == "compaction") {
    o.compaction = 0;
    if (value != "off") {
      QS_TRY_ASSIGN(o.compaction, parse_size(name, value));
      if (o.compaction == 0) return bad(name, value, "off or a rate such as 32M");
    }
  } else if (name == "rotate") {
    std::uint32_t seconds = 0;
    if (!parse_number(value, seconds)) return bad(name, value, "a number of seconds");
    o.rotate = std::chrono::seconds{seconds};
  } else {
    if (value != "text" && value != "json") return bad(name, value, "text or json");
    o.log_json = value == "json";
  }
  return {};
}

status apply_value(server_options& o, std::string_view name, const std::string& value) {
  if (name == "data")
    o.data = value;
  else if (name == "index")
    o.index = value;
  else if (name == "listen")
    o.listen = value;
  else if (name == "socket")
    o.socket = value;
  else if (name == "logfile")
    o.logfile = value;
  else if (name == "hook")
    o.hook = value;
  else if (name == "metrics")
    return apply_metrics(o, value);
  else if (name == "memory" || name == "cache" || name == "clients" || name == "rotate" ||
           name == "compaction" || name == "silence" || name == "log-format")
    return apply_limit(o, name, value);
  else if (name == "sync")
    return apply_sync(o, name, value);
  else if (name == "synctime")
    return apply_sync(o, name, value + "s");
  else if (name == "port") {
    if (!parse_number(value, o.port)) return bad(name, value, "a port from 0 to 65535");
  } else if (name == "admin") {
    if (value.empty() || value.size() > 128) return bad(name, "…", "a password of 1 to 128 bytes");
    o.admin_password = value;
    o.warnings.emplace_back("--admin is visible to everybody on this machine; --admin-file is not");
  } else if (name == "admin-file") {
    QS_TRY_ASSIGN(o.admin_password, read_password(value));
  } else if (name == "maxsize") {
    QS_TRY_ASSIGN(o.maxsize, parse_size(name, value));
  } else if (name == "datasize") {
    QS_TRY_ASSIGN(o.datasize, parse_size(name, value));
    if (o.datasize < 512 * kib || o.datasize > 4 * gib - 16 * mib)
      return bad(name, value, "512K to 4080M");
  } else if (name == "mode") {
    if (value == "user")
      o.mode = key_mode::user;
    else if (value == "seq")
      o.mode = key_mode::sequential;
    else
      return bad(name, value, "user or seq");
  } else {
    return error{errc::invalid_argument, fmt::format("--{}: no such flag; see --help", name)};
  }
  return {};
}

} // namespace

std::string_view server_usage() noexcept { return usage; }

result<server_options> options_from_args(std::span<const std::string> args) {
  server_options o;
  o.data = "zdb-data";
  if (auto* env = std::getenv("QS_ZDB_ADMIN"); env != nullptr) {
    o.admin_password = env;
    // Whatever is started from here does not get it, and /proc/PID/environ does not keep it.
    ::explicit_bzero(env, o.admin_password.size());
    ::unsetenv("QS_ZDB_ADMIN");
    // Without a password everybody is admin: never because a variable was left empty.
    if (o.admin_password.empty() || o.admin_password.size() > 128)
      return error{errc::invalid_argument, "QS_ZDB_ADMIN: a password of 1 to 128 bytes is expected"};
  }
  for (std::size_t i = 0; i < args.size(); ++i) {
    std::string_view arg = args[i];
    if (!arg.starts_with("--") || arg.size() < 3)
      return error{errc::invalid_argument,
                   fmt::format("\"{}\": a flag is expected; see --help", arg)};
    arg.remove_prefix(2);
    auto equals = arg.find('=');
    auto name = arg.substr(0, equals);
    if (equals == std::string_view::npos) {
      QS_TRY_ASSIGN(auto taken, apply_switch(o, name));
      if (taken) continue;
      if (i + 1 == args.size())
        return error{errc::invalid_argument,
                     fmt::format("--{}: a value is expected; see --help", name)};
      QS_TRY(apply_value(o, name, args[++i]));
    } else {
      QS_TRY(apply_value(o, name, std::string{arg.substr(equals + 1)}));
    }
  }
  if (o.protect && o.admin_password.empty() && !o.show_help && !o.show_version)
    return error{errc::invalid_argument, "--protect needs an admin password: --admin-file FILE"};
  if (o.data.empty()) return error{errc::invalid_argument, "--data: a directory is expected"};
  auto local = o.listen.starts_with("127.") || o.listen == "::1" || o.listen == "localhost";
  if (!local && !o.protect && (o.socket.empty() || o.dual_net))
    o.warnings.push_back(fmt::format(
        "everybody who reaches {} may fill the disk through the namespace `default`; --protect{} "
        "prevents it",
        o.listen, o.admin_password.empty() ? " with --admin-file" : ""));
  return o;
}

} // namespace qs::zdb
