// The control socket: for its owner alone, made without touching what other threads make meanwhile.
#include "grid_world.hpp"

#include <atomic>

#include <dlfcn.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "base/posix.hpp"

#include "actors/control.hpp"

namespace {
std::atomic<int> umasks{0};
}

/// In front of the C library's: a umask is the whole process's, and other threads make files at any time.
extern "C" mode_t umask(mode_t mask) noexcept {
  ++umasks;
  auto* real = reinterpret_cast<mode_t (*)(mode_t)>(::dlsym(RTLD_NEXT, "umask"));
  return real(mask);
}

namespace {

using namespace qs;
using namespace qs::actors;
using namespace qs::test;

struct with_control : with_grid {
  std::unique_ptr<control_server> make() {
    control_config c;
    c.shared = shared;
    c.feed = std::make_shared<event_feed>();
    c.system = &sys;
    c.stop = [] {};
    return make_control(std::move(c));
  }
};

TEST_CASE_FIXTURE(with_control, "control: the socket is its owner's alone, and no file mask changes for it") {
  ::umask(022);
  auto before = umasks.load();
  auto server = make();
  auto started = server->start(supervisor_actor{});
  CHECK_MESSAGE(started.ok(), (started.ok() ? "" : describe(started.err())));
  CHECK(umasks.load() == before);
  struct ::stat made {};
  REQUIRE(::stat(control_socket(directory).c_str(), &made) == 0);
  CHECK((made.st_mode & 0777) == 0600);
  // It serves.
  unique_fd client{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};
  ::sockaddr_un address{};
  address.sun_family = AF_UNIX;
  auto path = control_socket(directory).string();
  REQUIRE(path.size() < sizeof address.sun_path);
  path.copy(address.sun_path, path.size());
  REQUIRE(::connect(client.get(), reinterpret_cast<const ::sockaddr*>(&address), sizeof address) == 0);
  REQUIRE(write_all(client.get(), as_bytes("GET / HTTP/1.0\r\n\r\n")).ok());
  char first = 0;
  CHECK(::read(client.get(), &first, 1) == 1);
  CHECK(first == 'H');
  client.reset();
  server->stop();
}

TEST_CASE_FIXTURE(with_control, "control: what was started a moment ago can be stopped") {
  for (auto i = 0; i < 200; ++i) {
    auto server = make();
    REQUIRE(server->start(supervisor_actor{}).ok());
    REQUIRE(server->listen("127.0.0.1:0").ok());
    server->stop(); // hung where a thread had not come to serve yet
  }
}

} // namespace
