// qs init: asks what is needed or takes flags, writes storage.yaml and its schema, makes the 24 words. Overwrites nothing.
#include <netinet/in.h>
#include <sys/socket.h>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/posix.hpp"
#include "cli/commands.hpp"
#include "cli/exit_codes.hpp"
#include "cli/phrase_file.hpp"
#include "cli/volume_choice.hpp"
#include "spec/schema.hpp"
#include "spec/template.hpp"

namespace qs::cli {
namespace {

namespace fs = std::filesystem;

/// A port nobody listens on now, from 9480 on; 0 if there is none near.
std::uint16_t free_port() {
  for (std::uint16_t port = 9480; port < 9580; ++port) {
    unique_fd fd{::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    ::sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int on = 1;
    ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (fd.valid() && ::bind(fd.get(), reinterpret_cast<const ::sockaddr*>(&address), sizeof address) == 0) return port;
  }
  return 0;
}

result<std::string> asked(terminal& t, bool quiet, const std::string& question, const std::string& fallback, const char* flag) {
  if (quiet) return fallback;
  QS_TRY_ASSIGN(auto said, t.ask(fmt::format("{} [{}]: ", question, fallback), fmt::format("{} (or --yes for the defaults)", flag)));
  return said.empty() ? fallback : said;
}

result<int> asked_number(terminal& t, bool quiet, const std::string& question, int fallback, const char* flag) {
  QS_TRY_ASSIGN(auto said, asked(t, quiet, question, std::to_string(fallback), flag));
  if (said.empty() || said.size() > 4 || said.find_first_not_of("0123456789") != std::string::npos)
    return error{errc::invalid_argument, fmt::format("'{}' is no number; pass {}", said, flag)};
  return std::stoi(said);
}

/// The directory's name, as far as it can be a volume's.
std::string name_from(const fs::path& directory) {
  std::string out;
  for (char c : directory.filename().string()) {
    auto lower = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    auto fits = (lower >= 'a' && lower <= 'z') || (lower >= '0' && lower <= '9') || lower == '-';
    if (fits && out.size() < 32) out += lower;
  }
  return out.empty() ? "archive" : out;
}

/// Flags alone decide what is not asked: whoever passes --name and --capacity wants no questions about the rest.
result<spec::template_options> gather(const init_options& o, const fs::path& directory, terminal& t) {
  spec::template_options out;
  auto quiet = o.yes || (!o.name.empty() && !o.capacity.empty());
  out.name = o.name;
  if (out.name.empty()) {
    QS_TRY_ASSIGN(out.name, asked(t, quiet, "Name of the volume", name_from(directory), "--name"));
  }
  out.capacity = o.capacity;
  if (out.capacity.empty()) {
    QS_TRY_ASSIGN(out.capacity, asked(t, quiet, "Usable capacity", "20GiB", "--capacity"));
  }
  if (o.data) out.data_shards = *o.data;
  else {
    QS_TRY_ASSIGN(out.data_shards, asked_number(t, quiet, "Data shards", 4, "--data"));
  }
  if (o.parity) out.parity_shards = *o.parity;
  else {
    QS_TRY_ASSIGN(out.parity_shards, asked_number(t, quiet, "Parity shards: so many nodes may be lost", 2, "--parity"));
  }
  out.nodes = o.nodes;
  if (!o.no_mount) {
    auto path = o.mount;
    if (path.empty() && !quiet) {
      QS_TRY_ASSIGN(path, asked(t, quiet, "Where to mount it ('-' for nowhere)", "~/" + out.name, "--mount or --no-mount"));
    }
    if (path.empty()) path = "~/" + out.name;
    if (path != "-") out.mount = path.rfind("~/", 0) == 0 ? path : fs::absolute(path).lexically_normal().string();
  }
  if (!o.cache.empty()) out.cache = o.cache;
  if (!o.staging.empty()) out.staging = o.staging;
  if (!o.interval.empty()) out.interval = o.interval;
  if (!o.failed_after.empty()) out.failed_after = o.failed_after;
  if (!o.replace_after.empty()) out.replace_after = o.replace_after;
  out.protect = !o.no_protect;
  if (o.listen.empty()) {
    if (auto port = free_port(); port != 0) out.listen = fmt::format("127.0.0.1:{}", port);
  } else if (o.listen != "off") {
    out.listen = o.listen;
  }
  return out;
}

/// Words that are there already are the person's: taken as they are.
result<bool> make_words(const surroundings& around, const std::string& name, root_secret& root) {
  auto known = read_phrase(around, name);
  if (known.ok()) {
    root = *known;
    return false;
  }
  if (known.err().code != errc::not_found || !around.phrase_file.empty()) return std::move(known).err();
  root = new_root(system_random());
  QS_TRY(write_phrase(around, name, root));
  return true;
}

void show(const surroundings& around, const std::string& name, const root_secret& root, bool made, const init_options& o, terminal& t) {
  auto path = phrase_path(around, name).string();
  if (!made) {
    t.note(fmt::format("The 24 words that are there already are used: {}", find_phrase(around, name).value_or(path).string()));
    return;
  }
  if (t.facts().out_tty || o.show_words) {
    t.print("\nThese 24 words are the only key to this volume and its wallet. Write them down on paper, now;\n"
            "nobody can give them back to you. They are shown once.\n\n" +
            show_words(root) + "\n");
    t.note(fmt::format("They are also in {} (readable by you alone).", path));
  } else {
    t.note(fmt::format("The 24 words are in {} (readable by you alone); 'qs key show {}' shows them on a terminal. Write them down on paper.", path, name));
  }
}

} // namespace

int command_init(const init_options& o, terminal& t) {
  auto around = look_around(o.common.state_dir);
  if (!around.ok()) return t.fail(around.err());
  std::error_code failed;
  auto directory = fs::absolute(o.directory, failed).lexically_normal();
  if (!directory.has_filename()) directory = directory.parent_path();
  auto file = directory / "storage.yaml";
  if (fs::exists(file, failed))
    return t.fail(exit_failed, fmt::format("{} exists already and is never overwritten; edit it, or choose another directory", file.string()));
  auto options = gather(o, directory, t);
  if (!options.ok()) return t.fail(options.err().code == errc::invalid_argument ? exit_usage : exit_of(options.err().code), describe(options.err()));
  auto text = spec::make_template(*options);
  auto checked = spec::validate(text, real_environment{around->home, directory});
  if (!checked.spec) {
    t.note(render(checked.problems, "storage.yaml", text));
    return t.fail(exit_usage, "with these values the file would not be valid; nothing was written");
  }
  if (auto made = make_directories(directory, 0755); !made.ok()) return t.fail(made.err());
  root_secret root;
  auto made = false;
  if (!o.no_key) {
    auto words = make_words(*around, options->name, root);
    if (!words.ok()) return t.fail(words.err());
    made = *words;
  }
  if (auto written = create_file_atomic(file, as_bytes(text), 0644); !written.ok()) return t.fail(written.err());
  auto schema = spec::schema_json();
  if (auto written = write_file_atomic(directory / "storage.schema.json", as_bytes(schema), 0644); !written.ok()) return t.fail(written.err());
  // So that the next command is apply and not mkdir; a place that cannot be made is apply's to speak about.
  if (checked.spec->mount) (void)make_directories(checked.spec->mount->path.value, 0755);
  if (o.common.json)
    t.print(nlohmann::json{{"format_version", 1}, {"file", file.string()}, {"name", options->name}, {"phrase_made", made}}.dump() + "\n");
  else
    t.print(fmt::format("{} written for the volume '{}'.\n", file.string(), options->name));
  if (!o.no_key) show(*around, options->name, root, made, o, t);
  auto where = o.directory == "." ? std::string{} : fmt::format(" {}", file.string());
  t.note(fmt::format("Next: 'qs diff{}' shows what would be made, 'qs apply{}' makes it.", where, where));
  return t.broken() ? exit_failed : exit_done;
}

} // namespace qs::cli
