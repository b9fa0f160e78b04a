// One engine per state directory, freed by the kernel; the wallet's book of burns.
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <doctest/doctest.h>
#include <fmt/format.h>

#include "state/lock.hpp"
#include "state/wallet.hpp"

using namespace qs;
namespace fs = std::filesystem;

namespace {

struct directory {
  directory() {
    std::string name = (fs::temp_directory_path() / "qs-lock-XXXXXX").string();
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    path = name;
  }
  ~directory() {
    std::error_code ignored;
    fs::remove_all(path, ignored);
  }
  fs::path path;
};

} // namespace

TEST_CASE("the second to take the lock is told who has it; a look does not get in the way") {
  directory d;
  CHECK(!state::lock_holder(d.path));
  {
    auto first = state::state_lock::take(d.path / "v");
    REQUIRE(first.ok());
    auto second = state::state_lock::take(d.path / "v");
    REQUIRE(!second.ok());
    CHECK(second.err().code == errc::busy);
    CHECK(second.err().message.find(fmt::format("process {}", ::getpid())) != std::string::npos);
    CHECK(state::lock_holder(d.path / "v") == ::getpid());
    auto moved = std::move(*first);
    CHECK(state::lock_holder(d.path / "v") == ::getpid());
  }
  CHECK(!state::lock_holder(d.path / "v"));
  CHECK(state::state_lock::take(d.path / "v").ok());
  struct ::stat info {};
  REQUIRE(::stat((d.path / "v").c_str(), &info) == 0);
  CHECK((info.st_mode & 0777) == 0700);
  REQUIRE(::stat((d.path / "v" / "lock").c_str(), &info) == 0);
  CHECK((info.st_mode & 0777) == 0600);
}

TEST_CASE("the watcher's lock is another one, found the same way") {
  directory d;
  CHECK(!state::watch_holder(d.path));
  auto engine = state::state_lock::take(d.path);
  REQUIRE(engine.ok());
  CHECK(!state::watch_holder(d.path));
  {
    auto watcher = state::state_lock::take_watch(d.path);
    REQUIRE(watcher.ok());
    CHECK(state::watch_holder(d.path) == ::getpid());
    CHECK(!state::state_lock::take_watch(d.path).ok());
  }
  CHECK(!state::watch_holder(d.path));
  CHECK(state::lock_holder(d.path) == ::getpid());
}

TEST_CASE("the lock of a process that was killed is free") {
  directory d;
  int ready[2];
  REQUIRE(::pipe(ready) == 0);
  auto child = ::fork();
  if (child == 0) {
    auto held = state::state_lock::take(d.path);
    char ok = held.ok() ? 'y' : 'n';
    if (::write(ready[1], &ok, 1) == 1) ::pause();
    ::_exit(1);
  }
  REQUIRE(child > 0);
  char answer = 0;
  REQUIRE(::read(ready[0], &answer, 1) == 1);
  CHECK(answer == 'y');
  CHECK(state::lock_holder(d.path) == child);
  CHECK(state::state_lock::take(d.path).err().code == errc::busy);
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  ::close(ready[0]);
  ::close(ready[1]);
  CHECK(!state::lock_holder(d.path));
  CHECK(state::state_lock::take(d.path).ok());
}

TEST_CASE("burns of several volumes add up") {
  directory d;
  state::wallet_book a{d.path, "0123456789abcdef"};
  state::wallet_book b{d.path, "0123456789abcdef"};
  CHECK(a.burn()->units == 0);
  CHECK(!fs::exists(a.directory()));
  REQUIRE(a.put_burn("photos", {30}).ok());
  REQUIRE(b.put_burn("music", {12}).ok());
  REQUIRE(a.put_burn("photos", {40}).ok());
  CHECK(a.burn()->units == 52);
  CHECK(b.burns()->at("photos").units == 40);
  REQUIRE(b.put_burn("photos", {0}).ok());
  CHECK(a.burn()->units == 12);
  CHECK(!b.burns()->contains("photos"));
  struct ::stat info {};
  REQUIRE(::stat((a.directory() / "wallet.db").c_str(), &info) == 0);
  CHECK((info.st_mode & 0777) == 0600);
}
