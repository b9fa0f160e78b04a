// When sealed segments leave (decision 0014): who writes fast has the machine, for as long as little waits and nobody waits for it.
#include "file_model.hpp"

using namespace qs;
using namespace qs::test;

namespace {

constexpr byte_count segment_payload = 2 * mib; // at least: 4 shards of 516 KiB

struct fast_writer {
  explicit fast_writer(byte_count staging) {
    f.options.staging_bytes = staging;
    f.begin();
    auto made = f.make_file("a");
    REQUIRE(made.ok());
    inode = *made;
  }
  /// So many times what fills a segment and a little more, and everything that may run runs; no time passes.
  void write(unsigned segments) {
    for (unsigned i = 0; i < segments; ++i) {
      REQUIRE(f.write(inode, end, noise(end, segment_payload + 64 * kib)).ok());
      end += segment_payload + 64 * kib;
      f.settle();
    }
  }
  void let_pass(std::chrono::milliseconds by) {
    f.time.advance(by);
    f.settle();
  }
  /// Every segment has a shard on every node.
  [[nodiscard]] std::uint64_t sent() { return f.ports[1].sets; }

  volume_fixture f;
  volume::inode_number inode = 0;
  byte_count end = 0;
};

} // namespace

TEST_CASE("behind somebody who writes fast segments leave by turns, and the others when he pauses") {
  fast_writer w{gib};
  w.write(10);
  CHECK(w.sent() == 3); // two turns were left over from before
  w.let_pass(std::chrono::milliseconds{30});
  w.write(1);
  CHECK(w.sent() == 3);
  w.let_pass(std::chrono::milliseconds{10}); // the next turn: 50 MiB/s
  w.write(1);
  CHECK(w.sent() == 4);
  w.let_pass(std::chrono::milliseconds{40});
  w.f.opened->tick(); // also without a new one
  w.f.settle();
  CHECK(w.sent() == 5);
  w.let_pass(std::chrono::milliseconds{40}); // nobody has filled a segment for two turns
  w.f.opened->tick();
  w.f.settle();
  CHECK(w.sent() >= 12);
  CHECK(w.f.opened->stats().segments_in_flight == 0);
  REQUIRE(w.f.drain());
  CHECK(w.f.opened->stats().bytes_at_risk == 0);
}

TEST_CASE("behind somebody who writes slower than that every segment leaves at once, or a turn later") {
  for (int every : {41, 39, 27}) {
    CAPTURE(every);
    fast_writer w{gib};
    unsigned due = 0;
    for (int i = 1; i <= 40; ++i) {
      w.let_pass(std::chrono::milliseconds{every});
      w.write(1);
      due = static_cast<unsigned>(std::min(i, i * every / 40 + 2));
      CHECK(w.sent() >= due); // no turn is lost
    }
  }
}

TEST_CASE("what cannot be sent takes nobody's turn: a node is away, its shards stay in the log") {
  fast_writer w{gib};
  w.f.ports[2].reachable = false;
  w.f.see_nodes();
  w.write(40);
  w.f.pass(std::chrono::seconds{2});
  REQUIRE(w.sent() >= 40);
  REQUIRE(w.f.opened->stats().log_bytes >= 80 * mib);
  auto before = w.sent();
  for (unsigned i = 1; i <= 40; ++i) {
    w.let_pass(std::chrono::milliseconds{41});
    w.f.opened->tick();
    w.write(1);
    CHECK(w.sent() >= before + i);
  }
  before = w.sent();
  w.write(20);
  CHECK(w.sent() <= before + 4); // and the writer has the machine as ever
  w.f.ports[2].reachable = true;
  w.f.see_nodes();
  REQUIRE(w.f.drain());
}

TEST_CASE("what was sent out of turn, in a pause, is nobody's debt") {
  fast_writer w{gib};
  w.write(30);
  w.f.pass(std::chrono::seconds{1}); // a pause: all of them are sent
  REQUIRE(w.sent() >= 30);
  auto before = w.sent();
  for (unsigned i = 1; i <= 20; ++i) {
    w.let_pass(std::chrono::milliseconds{41});
    w.write(1);
    CHECK(w.sent() >= before + i - 1);
  }
}

TEST_CASE("no more waits for the writer than a sixteenth of the log") {
  fast_writer w{256 * mib};
  w.write(8);
  CHECK(w.sent() == 3);
  w.write(32);
  CHECK(w.sent() >= 40 - 8);
  CHECK(w.f.opened->stats().segments_in_flight <= 8); // invariant 14
}

TEST_CASE("who waits until everything is safe does not wait for the writer") {
  fast_writer w{gib};
  w.write(10);
  CHECK(w.sent() == 3);
  std::optional<status> outcome;
  w.f.opened->drain(std::chrono::seconds{30}, [&](status s) { outcome = std::move(s); });
  w.f.opened->tick(); // no time passes
  w.f.settle();
  CHECK(w.sent() >= 10);
  w.f.pass();
  REQUIRE(outcome);
  CHECK(outcome->ok());
}
