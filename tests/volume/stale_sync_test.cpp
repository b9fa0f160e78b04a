// The sweep of old copies (volume/stale.cpp): what makes them needless is on this machine's disk before a node forgets them.
#include "base/posix.hpp"
#include "file_model.hpp"
#include "volume/log_layout.hpp"

using namespace qs;
using namespace qs::test;

TEST_CASE("the old copy of a moved shard goes only after the move itself is on the disk (invariant 7)") {
  volume_fixture f{4, 2, 8, false};
  f.groups.resize(1);
  REQUIRE(f.create().ok());
  REQUIRE(f.open().ok());
  auto synced = [&] {
    auto text = read_file(f.options.state_directory / "log" / "watermark", kib);
    REQUIRE(text.ok());
    auto mark = volume::log_layout::decode_watermark(as_bytes(*text));
    REQUIRE(mark.has_value());
    return mark->sequence;
  };
  auto inode = f.make_file("a");
  REQUIRE(f.write(*inode, 0, noise(1, 6 * mib)).ok());
  REQUIRE(f.drain());
  auto old = f.ports[3].objects.size();
  REQUIRE(old > 0);
  f.ports[3].reachable = false; // live, but away
  f.see_nodes();
  f.groups[0].generation = 2;
  f.groups[0].slots[2] = {7};
  REQUIRE(f.opened->set_groups(f.groups).ok());
  REQUIRE(f.repair_all());
  f.pass(std::chrono::seconds{15});
  REQUIRE(f.ports[3].objects.size() == old);
  REQUIRE(f.fs().fsync().ok());
  REQUIRE(f.make_file("b").ok()); // something that a power cut may take
  auto before = synced();
  f.ports[3].reachable = true;
  f.see_nodes();
  for (int i = 0; i < 300 && !f.ports[3].objects.empty(); ++i) f.pass(std::chrono::milliseconds{200});
  CHECK(f.ports[3].objects.empty());
  CHECK(synced() > before);
}
