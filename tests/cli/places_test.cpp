// Where things lie, which volume is meant, and the 24 words on disk.
#include <map>

#include <sys/stat.h>

#include "base/posix.hpp"
#include "cli/exit_codes.hpp"
#include "cli/phrase_file.hpp"
#include "cli/volume_choice.hpp"
#include "cli_fixture.hpp"
#include "state/store.hpp"

using namespace qs;
using namespace qs::test;

namespace {

cli::variable_reader from(std::map<std::string, std::string> values) {
  return [values = std::move(values)](const char* name) -> std::optional<std::string> {
    auto found = values.find(name);
    return found == values.end() ? std::nullopt : std::optional{found->second};
  };
}

/// A state database that says nothing yet: what makes a volume known on this machine.
void make_state(const fs::path& directory) {
  fs::create_directories(directory);
  REQUIRE(state::open_store(directory / "state.db", system_random(), system_clock()).ok());
}

std::string yaml(const std::string& name) { return "version: 1\nname: " + name + "\nstorage: {capacity: 1GiB}\n"; }

} // namespace

TEST_CASE("cli paths: XDG variables, their defaults, and overrides") {
  auto plain = cli::look_around("", from({{"HOME", "/home/ann"}}));
  REQUIRE(plain.ok());
  CHECK(plain->config_home == "/home/ann/.config");
  CHECK(plain->wallets() == "/home/ann/.local/state/qs/wallets");
  CHECK(plain->cache_of("a") == "/home/ann/.cache/qs/a");
  CHECK(plain->grid_dir == "/home/ann/.local/state/qs/grid-local");
  CHECK(plain->state_dir.empty());
  CHECK(plain->phrase_file.empty());

  auto set = cli::look_around("", from({{"HOME", "/home/ann"}, {"XDG_STATE_HOME", "/s"}, {"XDG_CONFIG_HOME", "relative"}, {"QS_STATE_DIR", "/x"},
                                        {"QS_GRID_DIR", "/g"}, {"QS_PHRASE_FILE", "/p"}}));
  REQUIRE(set.ok());
  CHECK(set->state_home == "/s");
  CHECK(set->config_home == "/home/ann/.config"); // what is not absolute is ignored
  CHECK(set->state_dir == "/x");
  CHECK(set->grid_dir == "/g");
  CHECK(set->phrase_file == "/p");

  auto flag = cli::look_around("/flag", from({{"HOME", "/home/ann"}, {"QS_STATE_DIR", "/x"}}));
  REQUIRE(flag.ok());
  CHECK(flag->state_dir == "/flag");
  CHECK(cli::look_around("", from({}), "/root")->state_home == "/root/.local/state"); // cron and containers have no HOME
  CHECK(!cli::look_around("", from({})).ok());
}

TEST_CASE("cli words: written once, for their owner alone, and refused when others can read them") {
  machine m;
  auto root = new_root(system_random());
  CHECK(cli::read_phrase(m.around, "a").err().code == errc::not_found);
  CHECK(describe(cli::read_phrase(m.around, "a").err()).find("qs key new a") != std::string::npos);
  REQUIRE(cli::write_phrase(m.around, "a", root).ok());
  auto file = cli::phrase_path(m.around, "a");
  struct ::stat info {};
  REQUIRE(::stat(file.c_str(), &info) == 0);
  CHECK((info.st_mode & 0777U) == 0600);
  REQUIRE(::stat(file.parent_path().c_str(), &info) == 0);
  CHECK((info.st_mode & 0777U) == 0700);
  CHECK(cli::read_phrase(m.around, "a")->operator==(root));
  CHECK(cli::write_phrase(m.around, "a", new_root(system_random())).err().code == errc::already_exists);
  CHECK(cli::read_phrase(m.around, "a")->operator==(root));
  for (auto mode : {0644U, 0640U, 0604U}) {
    ::chmod(file.c_str(), mode);
    CHECK(cli::read_phrase(m.around, "a").err().code == errc::access_denied);
  }
}

TEST_CASE("cli words: QS_PHRASE_FILE before the credential before the configuration") {
  machine m;
  auto put = [&](const fs::path& file, const root_secret& root, unsigned mode) {
    spill(file, to_phrase(root));
    ::chmod(file.c_str(), mode);
  };
  auto own = new_root(system_random());
  auto credential = new_root(system_random());
  auto named = new_root(system_random());
  REQUIRE(cli::write_phrase(m.around, "a", own).ok());
  m.around.credentials = m.root.path() / "credentials";
  CHECK(*cli::read_phrase(m.around, "a") == own);
  put(m.around.credentials / "qs-phrase", credential, 0440); // as systemd hands them out
  CHECK(*cli::read_phrase(m.around, "a") == credential);
  m.around.phrase_file = m.root.path() / "words";
  CHECK(cli::read_phrase(m.around, "a").err().code == errc::not_found); // named and not there: no silent fallback
  put(m.around.phrase_file, named, 0600);
  CHECK(*cli::read_phrase(m.around, "a") == named);
  put(m.around.phrase_file, named, 0644);
  CHECK(cli::read_phrase(m.around, "a").err().code == errc::access_denied);
}

TEST_CASE("cli words: a mistake is told by its place and never by printing the words") {
  machine m;
  m.around.phrase_file = m.root.path() / "words";
  spill(m.around.phrase_file, "abandon abandon nonsense");
  ::chmod(m.around.phrase_file.c_str(), 0600);
  auto read = cli::read_phrase(m.around, "a");
  REQUIRE(!read.ok());
  CHECK(read.err().code == errc::invalid_argument);
  CHECK(describe(read.err()).find("abandon abandon") == std::string::npos);
}

TEST_CASE("cli words: twenty-four, numbered") {
  auto root = root_secret{}; // all zeros: 23 times abandon, then art
  auto text = cli::show_words(root);
  CHECK(text.find("   1 abandon") != std::string::npos);
  CHECK(text.find("  24 art\n") != std::string::npos);
  CHECK(std::count(text.begin(), text.end(), '\n') == 6);
}

TEST_CASE("cli volume: the file here, the one named, --volume, the only one") {
  machine m;
  using cli::need;
  cli::common_flags flags;
  auto choose = [&](need what) { return cli::choose_volume(flags, what, m.around, m.work()); };
  CHECK(describe(choose(need::name).err()).find("qs init") != std::string::npos);

  make_state(m.around.volumes_root() / "one");
  make_state(m.around.volumes_root() / "two");
  fs::create_directories(m.around.volumes_root() / "wallets"); // not a volume
  CHECK(cli::known_volumes(m.around) == std::vector<std::string>{"one", "two"});
  auto several = choose(need::name);
  REQUIRE(!several.ok());
  CHECK(describe(several.err()).find("one, two") != std::string::npos);

  flags.volume = "two";
  REQUIRE(choose(need::name).ok());
  CHECK(choose(need::name)->state_directory == m.around.volumes_root() / "two");
  CHECK(choose(need::file).err().code == errc::not_found);
  flags.volume = "no/volume";
  CHECK(choose(need::name).err().code == errc::invalid_argument);

  flags.volume.clear();
  fs::remove_all(m.around.volumes_root() / "two");
  CHECK(choose(need::name)->name == "one");

  spill(m.work() / "storage.yaml", yaml("three"));
  CHECK(choose(need::file)->name == "three"); // what lies here is meant before what is known
  flags.volume = "one";
  CHECK(choose(need::name)->text.empty());
  flags.file = "storage.yaml";
  CHECK(choose(need::name).err().code == errc::invalid_argument); // the two do not agree
  flags.volume = "three";
  CHECK(choose(need::file)->file == m.work() / "storage.yaml");
  flags.file = "nowhere.yaml";
  CHECK(choose(need::name).err().code == errc::not_found);
}

TEST_CASE("cli volume: --volume finds the file that was applied, as long as it is about it") {
  machine m;
  cli::common_flags flags;
  flags.file = "storage.yaml";
  spill(m.work() / "storage.yaml", yaml("one"));
  make_state(m.around.volumes_root() / "one");
  auto applied = cli::choose_volume(flags, cli::need::file, m.around, m.work());
  REQUIRE(applied.ok());
  cli::remember_file(*applied);
  flags.file.clear();
  flags.volume = "one";
  auto elsewhere = cli::choose_volume(flags, cli::need::file, m.around, m.root.path());
  REQUIRE(elsewhere.ok());
  CHECK(elsewhere->file == m.work() / "storage.yaml");
  spill(m.work() / "storage.yaml", yaml("other"));
  CHECK(!cli::choose_volume(flags, cli::need::file, m.around, m.root.path()).ok());
}

TEST_CASE("cli volume: two state directories are an error that says so") {
  machine m;
  make_state(m.around.volumes_root() / "one");
  make_state(m.around.system_root / "one");
  cli::common_flags flags;
  flags.volume = "one";
  CHECK(!cli::choose_volume(flags, cli::need::name, m.around, m.work()).ok());
  m.around.state_dir = m.root.path() / "explicit";
  CHECK(cli::choose_volume(flags, cli::need::name, m.around, m.work())->state_directory == m.around.state_dir);
}

TEST_CASE("cli volume: the name is found in files with mistakes") {
  struct {
    const char* text;
    const char* name;
  } table[] = {{"name: a\n", "a"},         {"version: 1\nname:   \"b-1\"   # mine\n", "b-1"}, {"name: 'c'\r\n", "c"}, {"names: x\n", ""},
               {"  name: nested\n", ""},   {"storage: [\nname: d\n", "d"},                      {"", ""}};
  for (const auto& row : table) {
    CAPTURE(row.text);
    CHECK(cli::name_in(row.text) == row.name);
  }
}

TEST_CASE("cli exit codes: every error leads to one of interface.md") {
  CHECK(cli::exit_of(errc::none) == 0);
  for (auto c : {errc::refused, errc::version_mismatch, errc::over_budget}) CHECK(cli::exit_of(c) == 3);
  for (auto c : {errc::busy, errc::timed_out, errc::unreachable, errc::no_quorum, errc::maybe_delivered}) CHECK(cli::exit_of(c) == 5);
  for (auto c : {errc::invalid_argument, errc::not_found, errc::already_exists, errc::io, errc::no_space, errc::corrupt, errc::access_denied,
                 errc::data_lost, errc::unsupported, errc::protocol})
    CHECK(cli::exit_of(c) == 1);
  CHECK(cli::exit_of(errc::cancelled) == 130);
}
