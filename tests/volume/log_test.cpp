// The parts below the volume: log files, records, ranges over an extent, rows of segments.
#include <doctest/doctest.h>

#include <sys/resource.h>
#include <thread>
#include <unistd.h>

#include "support/memory_nodes.hpp"
#include "volume/extents.hpp"
#include "volume/log.hpp"
#include "volume/log_layout.hpp"
#include "volume/log_record.hpp"
#include "volume/segment_row.hpp"

using namespace qs;
using namespace qs::volume;
using qs::test::noise;
using qs::test::scratch_directory;

namespace {

write_log::options options_in(const std::filesystem::path& directory, byte_count file_bytes = 4096) {
  write_log::options o;
  o.directory = directory;
  o.volume.fill(std::byte{3});
  o.file_bytes = file_bytes;
  return o;
}

struct reopened {
  std::unique_ptr<write_log> log;
  log_recovery found;
  std::vector<std::uint64_t> sequences;
};
reopened reopen(const std::filesystem::path& directory) {
  reopened r;
  auto log = write_log::open(options_in(directory));
  REQUIRE(log.ok());
  r.log = std::move(*log);
  REQUIRE(r.log->replay([&](const found_record& f) -> status {
    r.sequences.push_back(f.sequence);
    return {};
  }, r.found).ok());
  return r;
}

} // namespace

TEST_CASE("records come back in order over many files; the front goes when nobody needs it") {
  scratch_directory dir;
  auto r = reopen(dir.path());
  REQUIRE(r.log->start(0).ok());
  for (std::uint64_t s = 1; s <= 50; ++s) {
    auto data = noise(s, 300);
    std::array<byte_span, 2> pieces{byte_span{data}.first(100), byte_span{data}.subspan(100)};
    auto place = r.log->append(s, as_bytes("body"), pieces);
    REQUIRE(place.ok());
    buffer back(300);
    REQUIRE(r.log->file(place->file)->read(place->offset, back).ok());
    CHECK(back == data);
  }
  auto again = reopen(dir.path());
  CHECK(again.sequences.size() == 50);
  CHECK(again.found.last_sequence == 50);
  CHECK(!again.found.corrupt);
  again.log.reset();
  auto before = r.log->bytes();
  REQUIRE(r.log->sync().ok());
  CHECK(r.log->synced_sequence() == 50);
  r.log->retain(2);
  CHECK(r.log->trim(50) == write_log::waits_for::users); // the second file is needed, the first not
  CHECK(r.log->bytes() < before);
  CHECK(r.log->file(1) == nullptr);
  auto held = r.log->file(2);
  r.log->release(2);
  CHECK(r.log->trim(20) == write_log::waits_for::flush); // the rest waits for the rows
  CHECK(r.log->trim(50) == write_log::waits_for::users);
  buffer head(log_layout::file_header_bytes);
  CHECK(held->read(0, head).ok()); // who holds the file can still read it
  auto third = reopen(dir.path());
  CHECK(third.found.last_sequence == 50);
}

TEST_CASE("a file whose release is not synced stays: after a power cut it would be needed again (invariant 7)") {
  scratch_directory dir;
  auto log = std::move(reopen(dir.path()).log);
  REQUIRE(log->start(0).ok());
  auto data = noise(1, 5000); // longer than a file: the next record begins a new one
  std::array<byte_span, 1> pieces{byte_span{data}};
  auto first = log->append(1, as_bytes("body"), pieces);
  REQUIRE(first.ok());
  log->retain(first->file);
  REQUIRE(log->append(2, as_bytes("body"), pieces).ok());
  REQUIRE(log->sync().ok());
  REQUIRE(log->append(3, as_bytes("this record says that the bytes of 1 are not needed"), {}).ok());
  log->release(first->file);
  CHECK(log->trim(2) == write_log::waits_for::sync);
  CHECK(log->first_file() == first->file);
  REQUIRE(log->sync().ok());
  log->trim(2);
  CHECK(log->first_file() != first->file);
}

TEST_CASE("a start does not read what the log keeps only to save reads") {
  for (bool marked : {true, false}) {
    CAPTURE(marked);
    scratch_directory dir;
    std::uint64_t needed = 0;
    {
      auto log = std::move(reopen(dir.path()).log);
      REQUIRE(log->start(0).ok());
      auto data = noise(1, 5000); // longer than a file
      std::array<byte_span, 1> pieces{byte_span{data}};
      for (std::uint64_t s = 1; s <= 20; ++s) {
        auto at = log->append(s, as_bytes("body"), pieces);
        REQUIRE(at.ok());
        if (s == 15) needed = at->file;
      }
      log->retain(needed);
      REQUIRE(log->sync().ok());
      log->trim(20, gib);
      CHECK(log->first_file() == 1); // all kept
      CHECK(log->needed_bytes() < log->bytes());
    } // as kill -9 would
    if (!marked) { // damaged: everything is read
      auto text = read_file(dir.path() / "front", kib);
      REQUIRE(text.ok());
      text->back() = static_cast<char>(text->back() ^ 1);
      REQUIRE(write_file_atomic(dir.path() / "front", as_bytes(*text)).ok());
    }
    auto again = reopen(dir.path());
    CHECK(again.sequences.front() == (marked ? 15 : 1));
    CHECK(again.found.last_sequence == 20);
    CHECK(!again.found.corrupt);
    CHECK(again.log->first_file() == (marked ? needed : 1));
    REQUIRE(again.log->start(20).ok());
    REQUIRE(again.log->append(21, as_bytes("goes on"), {}).ok());
    again.log.reset();
    CHECK(reopen(dir.path()).found.last_sequence == 21);
  }
}

TEST_CASE("another volume's log is refused") {
  scratch_directory dir;
  auto r = reopen(dir.path());
  REQUIRE(r.log->start(0).ok());
  auto o = options_in(dir.path());
  o.volume.fill(std::byte{4});
  auto log = write_log::open(o);
  REQUIRE(log.ok());
  log_recovery found;
  auto read = (*log)->replay([](const found_record&) -> status { return {}; }, found);
  REQUIRE(!read.ok());
  CHECK(read.err().code == errc::refused);
}

TEST_CASE("a torn file is cut, a new one begun, and both read back") {
  scratch_directory dir;
  {
    auto r = reopen(dir.path());
    REQUIRE(r.log->start(0).ok());
    for (std::uint64_t s = 1; s <= 5; ++s) REQUIRE(r.log->append(s, as_bytes("body"), {}).ok());
  }
  auto file = dir.path() / log_layout::file_name(1);
  std::filesystem::resize_file(file, std::filesystem::file_size(file) - 3);
  {
    auto r = reopen(dir.path());
    CHECK(r.sequences == std::vector<std::uint64_t>{1, 2, 3, 4});
    CHECK(r.found.torn_bytes > 0);
    CHECK(!r.found.corrupt);
    REQUIRE(r.log->start(4).ok());
    REQUIRE(r.log->append(9, as_bytes("later"), {}).ok());
  }
  auto r = reopen(dir.path());
  CHECK(r.sequences == std::vector<std::uint64_t>{1, 2, 3, 4, 9});
}

TEST_CASE("a file in the middle is torn: those behind it go, and what comes after is found again") {
  scratch_directory dir;
  auto data = noise(1, 5000); // a file full
  std::array<byte_span, 1> pieces{byte_span{data}};
  {
    auto r = reopen(dir.path());
    REQUIRE(r.log->start(0).ok());
    for (std::uint64_t s = 1; s <= 4; ++s) REQUIRE(r.log->append(s, as_bytes("body"), pieces).ok());
  }
  auto file = dir.path() / log_layout::file_name(2);
  std::filesystem::resize_file(file, std::filesystem::file_size(file) - 3);
  {
    auto r = reopen(dir.path());
    CHECK(r.sequences == std::vector<std::uint64_t>{1});
    CHECK(!r.found.corrupt);
    REQUIRE(r.log->start(1).ok());
    for (std::uint64_t s = 7; s <= 9; ++s) REQUIRE(r.log->append(s, as_bytes("later"), pieces).ok());
    REQUIRE(r.log->sync().ok());
  }
  auto r = reopen(dir.path());
  CHECK(r.sequences == std::vector<std::uint64_t>{1, 7, 8, 9});
  CHECK(!r.found.corrupt);
  CHECK(r.found.torn_bytes == 0);
}

TEST_CASE("a power cut takes the name of a file that was begun and not synced: what was synced before is there") {
  scratch_directory dir;
  auto data = noise(1, 5000);
  std::array<byte_span, 1> pieces{byte_span{data}};
  {
    auto r = reopen(dir.path());
    REQUIRE(r.log->start(0).ok());
    REQUIRE(r.log->append(1, as_bytes("body"), pieces).ok());
    REQUIRE(r.log->append(2, as_bytes("body"), pieces).ok());
    REQUIRE(r.log->sync().ok());
    REQUIRE(r.log->append(3, as_bytes("body"), pieces).ok()); // begins file 3
    REQUIRE(r.log->append(4, as_bytes("body"), pieces).ok());
  }
  SUBCASE("the last one") { std::filesystem::remove(dir.path() / log_layout::file_name(4)); }
  SUBCASE("the one before it") { std::filesystem::remove(dir.path() / log_layout::file_name(3)); }
  auto r = reopen(dir.path());
  CHECK(r.sequences.size() >= 2);
  CHECK(r.sequences.size() <= 3);
  CHECK(!r.found.corrupt);
  REQUIRE(r.log->start(r.sequences.back()).ok());
  REQUIRE(r.log->append(9, as_bytes("later"), pieces).ok());
  auto want = r.sequences;
  want.push_back(9);
  CHECK(reopen(dir.path()).sequences == want);
}

TEST_CASE("many wait for one sync") {
  scratch_directory dir;
  auto r = reopen(dir.path());
  REQUIRE(r.log->start(0).ok());
  std::mutex one; // the operation lock
  std::uint64_t sequence = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&] {
      for (int i = 0; i < 20; ++i) {
        std::uint64_t mine = 0;
        {
          std::lock_guard lock{one};
          mine = ++sequence;
          if (!r.log->append(mine, as_bytes("x"), {}).ok()) return;
        }
        if (!r.log->sync().ok() || r.log->synced_sequence() < mine) return;
      }
    });
  for (auto& t : threads) t.join();
  CHECK(sequence == 80);
  CHECK(r.log->synced_sequence() == 80);
}

TEST_CASE("a record's body goes there and back, and what reaches beyond the data is refused") {
  log_record r;
  r.sequence = 77;
  r.rows["key"] = to_buffer(std::string_view{"value"});
  r.rows["gone"] = std::nullopt;
  r.drops.push_back({1, 2, 3});
  r.ranges.push_back({1, 2, 10, 20, 5});
  r.ranges.push_back({1, 2, 20, 30, no_data});
  frame_section f;
  f.segment = {3, 4};
  f.entry.stored_length = 50;
  f.entry.plain_length = 60;
  f.entry.sequence = 77;
  f.data_at = 15;
  r.frames.push_back(f);
  r.opened = codec::segment_info{{{1, {}}, 2}, {}, 1, codec::cipher_id::aes256_gcm};
  r.sealed = to_buffer(std::string_view{"seal"});
  auto body = encode_body(r);
  auto back = decode_body(77, body, 65);
  REQUIRE(back.ok());
  CHECK(*back == r);
  CHECK(!decode_body(77, body, 64).ok());
  for (std::size_t n = 0; n < body.size(); ++n) // cut anywhere: an error or fewer sections, never an overrun
    [[maybe_unused]] auto cut = decode_body(77, byte_span{body}.first(n), 65);
  body.push_back(std::byte{99});
  CHECK(decode_body(77, body, 65).err().code == errc::version_mismatch);
}

TEST_CASE("ranges over an extent: newer bytes lie on top, files are kept as long as they are needed") {
  std::map<std::uint64_t, int> uses;
  extent_map map{{[&](std::uint64_t f) { ++uses[f]; }, [&](std::uint64_t f) { --uses[f]; }}};
  seeded_random random{1};
  std::vector<int> model(extent_bytes, -1);
  auto now = boot_time{1};
  for (int i = 1; i < 300; ++i) {
    auto from = static_cast<std::uint32_t>(random.below(extent_bytes));
    auto to = static_cast<std::uint32_t>(from + 1 + random.below(extent_bytes - from));
    if (random.below(4) == 0) {
      map.drop(5, from, to);
      std::fill(model.begin() + from, model.begin() + to, -1);
    } else {
      byte_range r{from, to, false, {static_cast<std::uint64_t>(i), 1000}, static_cast<std::uint64_t>(i)};
      map.add({5, 0}, r, now);
      std::fill(model.begin() + from, model.begin() + to, i);
    }
    std::vector<int> got(extent_bytes, -1);
    std::map<std::uint64_t, int> held;
    if (const auto* e = map.find({5, 0}))
      for (const auto& r : e->ranges) {
        CHECK(r.from < r.to);
        ++held[r.where.file];
        std::fill(got.begin() + r.from, got.begin() + r.to, static_cast<int>(r.sequence));
      }
    CHECK(got == model);
    std::erase_if(uses, [](const auto& u) { return u.second == 0; });
    CHECK(held == uses);
  }
  map.drop_upto({5, 0}, 150);
  if (const auto* e = map.find({5, 0}))
    for (const auto& r : e->ranges) CHECK(r.sequence > 150);
  map.drop(5, 0, ~std::uint64_t{0});
  CHECK(map.extents() == 0);
  CHECK(map.bytes() == 0);
  CHECK(map.ranges() == 0);
}

TEST_CASE("rows of segments and groups go there and back; unknown fields stay (invariant 16)") {
  segment_row row;
  row.state = segment_state::stored;
  row.data_shards = 4;
  row.parity_shards = 2;
  row.used_shards = 3;
  row.shard_length = 8192;
  row.group = 7;
  row.confirmed = 0b110111;
  row.live_bytes = 12345;
  row.unknown.push_back({0x55, to_buffer(std::string_view{"later"})});
  auto back = decode_segment(encode(row));
  REQUIRE(back.ok());
  CHECK(*back == row);
  CHECK(row.required() == 0b110111U); // shard 3 is implied
  CHECK(row.missing() == 0);
  row.data_shards = 33;
  CHECK(!decode_segment(encode(row)).ok());
  std::vector<model::node_id> slots{{1}, {9}, {3}};
  CHECK(*decode_slots(encode_slots(slots)) == slots);
  CHECK(!decode_slots({}).ok());
}

TEST_CASE("a log file that cannot be made costs one record: the next one begins it, and a sync needs no descriptor") {
  scratch_directory dir;
  auto r = reopen(dir.path());
  REQUIRE(r.log->start(0).ok());
  auto data = noise(1, 5000); // a file full
  std::array<byte_span, 1> pieces{byte_span{data}};
  REQUIRE(r.log->append(1, as_bytes("body"), pieces).ok());
  auto lowest = ::dup(STDIN_FILENO);
  REQUIRE(lowest >= 0);
  ::close(lowest);
  ::rlimit limit{};
  REQUIRE(::getrlimit(RLIMIT_NOFILE, &limit) == 0);
  auto none = limit;
  none.rlim_cur = static_cast<rlim_t>(lowest);
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &none) == 0);
  auto refused = r.log->append(2, as_bytes("body"), pieces);
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &limit) == 0);
  CHECK(!refused.ok());
  CHECK(!r.log->broken());
  auto again = r.log->append(3, as_bytes("body"), pieces);
  CHECK_MESSAGE(again.ok(), describe(again.err()));
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &none) == 0); // the name of the new file is synced here
  auto synced = r.log->sync();
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &limit) == 0);
  CHECK_MESSAGE(synced.ok(), describe(synced.err()));
  auto found = reopen(dir.path());
  CHECK(found.sequences == std::vector<std::uint64_t>{1, 3});
}
