// The log cut at every record and in the middle of records, damage below the synced sequence, and death between the steps of
// sealing (invariants 1, 2, 6, 7, 8, 13).
#include <fstream>
#include <functional>

#include <sys/stat.h>

#include "base/posix.hpp"
#include "file_model.hpp"
#include "volume/log.hpp"
#include "volume/log_layout.hpp"
#include "volume/log_record.hpp"

using namespace qs;
using namespace qs::test;

namespace {

std::vector<std::filesystem::path> log_files(const std::filesystem::path& state) {
  std::vector<std::filesystem::path> out;
  for (const auto& e : std::filesystem::directory_iterator{state / "log"})
    if (volume::log_layout::parse_file_name(e.path().filename().string())) out.push_back(e.path());
  std::sort(out.begin(), out.end());
  return out;
}

struct boundary {
  std::uint64_t offset = 0; ///< where a record begins
  std::uint64_t sequence = 0;
  std::uint64_t synced = 0;
};

std::vector<boundary> boundaries(const std::filesystem::path& file) {
  auto text = read_file(file, gib);
  REQUIRE(text.ok());
  auto bytes = as_bytes(*text);
  std::vector<boundary> out;
  std::uint64_t at = volume::log_layout::file_header_bytes;
  while (at < bytes.size()) {
    auto h = volume::log_layout::decode_record_header(bytes.subspan(at, volume::log_layout::record_header_bytes));
    REQUIRE(h.has_value());
    out.push_back({at, h->sequence, h->synced});
    at += volume::log_layout::record_header_bytes + h->body_bytes + h->data_bytes;
  }
  out.push_back({at, 0, 0});
  return out;
}

/// Every sound record of the log, in order, with the bytes of its data. Until `visit` says false.
void each_record(const std::filesystem::path& state, const std::function<bool(const volume::log_record&, byte_span)>& visit) {
  for (const auto& file : log_files(state)) {
    auto text = read_file(file, gib);
    REQUIRE(text.ok());
    auto bytes = as_bytes(*text);
    std::uint64_t at = volume::log_layout::file_header_bytes;
    while (at + volume::log_layout::record_header_bytes <= bytes.size()) {
      auto h = volume::log_layout::decode_record_header(bytes.subspan(at, volume::log_layout::record_header_bytes));
      if (!h) break;
      auto body_at = at + volume::log_layout::record_header_bytes;
      auto record = volume::decode_body(h->sequence, bytes.subspan(body_at, h->body_bytes), h->data_bytes);
      REQUIRE(record.ok());
      at = body_at + h->body_bytes + h->data_bytes;
      if (!visit(*record, bytes.subspan(body_at + h->body_bytes, h->data_bytes))) return;
    }
  }
}

/// Which plain bytes a key and nonce sealed cannot be seen; which ciphertext they gave can. Key = salt, nonce = frame number.
class nonce_watch {
public:
  void look(const std::filesystem::path& state) {
    each_record(state, [&](const volume::log_record& record, byte_span data) {
      if (record.opened) salts_[record.opened->id.ref()] = record.opened->salt;
      for (const auto& frame : record.frames) {
        REQUIRE(salts_.contains(frame.segment)); // the salt is in the log before the first frame
        auto sum = codec::checksum64(data.subspan(frame.data_at, frame.entry.stored_length));
        auto [it, fresh] = seen_.emplace(std::pair{salts_.at(frame.segment), frame.entry.frame_number}, sum);
        CHECK(it->second == sum);
        if (fresh) ++frames;
      }
      if (record.sealed) {
        auto seal = volume::segment_key(codec::decode_seal_record(*record.sealed)->info.id.ref());
        auto [it, fresh] = seals_.emplace(seal, *record.sealed);
        CHECK(it->second == *record.sealed); // sealed once
      }
      return true;
    });
  }
  std::size_t frames = 0;

private:
  std::map<model::segment_ref, codec::segment_salt> salts_;
  std::map<std::pair<codec::segment_salt, std::uint32_t>, std::uint64_t> seen_;
  std::map<std::string, buffer> seals_;
};

void copy_tree(const std::filesystem::path& from, const std::filesystem::path& to) {
  std::filesystem::remove_all(to);
  std::filesystem::copy(from, to, std::filesystem::copy_options::recursive);
}

/// The sequence up to which the log said that it is on the disk.
std::uint64_t synced_upto(const std::filesystem::path& state) {
  auto text = read_file(state / "log" / "watermark", 4096);
  if (!text.ok()) return 0;
  auto mark = volume::log_layout::decode_watermark(as_bytes(*text));
  return mark ? mark->sequence : 0;
}

/// The sequence of the record that sealed it; 0: none there.
std::uint64_t sealed_by(const std::filesystem::path& state, model::segment_ref segment) {
  std::uint64_t found = 0;
  each_record(state, [&](const volume::log_record& record, byte_span) {
    if (!record.sealed) return true;
    auto seal = codec::decode_seal_record(*record.sealed);
    REQUIRE(seal.ok());
    if (seal->info.id.ref() == segment) found = record.sequence;
    return found == 0;
  });
  return found;
}

} // namespace

TEST_CASE("no shard leaves before the record that seals its segment is on the disk (invariant 2)") {
  volume_fixture f;
  f.begin();
  std::size_t stores = 0;
  std::string early;
  f.ports.before_store = [&](model::segment_ref segment) {
    ++stores;
    auto sequence = sealed_by(f.options.state_directory, segment);
    if (sequence == 0 || sequence > synced_upto(f.options.state_directory)) early += model::to_string(segment) + " ";
  };
  auto inode = f.make_file("a");
  REQUIRE(inode.ok());
  for (unsigned i = 0; i < 20; ++i) {
    REQUIRE(f.write(*inode, i * mib, noise(i, mib)).ok());
    if (i % 3 == 0) f.pass();
  }
  REQUIRE(f.drain());
  CHECK(stores >= 10);
  CHECK(early == "");
}

TEST_CASE("the log cut anywhere leaves a prefix of the operations, never a mixture (invariants 6, 7, 8)") {
  volume_fixture f;
  REQUIRE(f.create().ok());
  REQUIRE(f.open().ok());
  random_operations ops{f, 5, 150'000};
  std::vector<std::uint64_t> history{fingerprint({})};
  for (int i = 0; i < 60; ++i) {
    ops.step();
    history.push_back(fingerprint(ops.state));
    if (i % 20 == 19) f.pass(std::chrono::milliseconds{400}); // merges, seals and syncs are among the records, too
    if (i == 30) REQUIRE(f.opened->files().fsync().ok());
  }
  f.crash();
  auto state = f.options.state_directory;
  auto saved = f.directory.path() / "saved";
  copy_tree(state, saved);
  auto last = log_files(saved).back();
  auto places = boundaries(last);
  REQUIRE(places.size() > 60);
  std::uint64_t synced = 0;
  {
    auto mark = read_file(saved / "log" / "watermark");
    REQUIRE(mark.ok());
    synced = volume::log_layout::decode_watermark(as_bytes(*mark))->sequence;
  }
  seeded_random random{3};
  std::size_t reached = 0;
  auto try_cut = [&](std::uint64_t at, std::uint64_t last_whole, bool in_the_middle) {
    INFO("cut at " << at);
    copy_tree(saved, state);
    std::filesystem::resize_file(state / "log" / last.filename(), at);
    f.notes.clear();
    auto opened = f.open();
    REQUIRE_MESSAGE(opened.ok(), describe(opened.err()));
    bool below = last_whole < synced;
    CHECK(f.opened->stats().read_only == below);
    auto got = look_at(f);
    if (!below) {
      REQUIRE(got.has_value());
      auto print = fingerprint(*got);
      auto it = std::find(history.begin() + static_cast<std::ptrdiff_t>(in_the_middle ? 0 : reached), history.end(), print);
      CHECK(it != history.end());
      if (!in_the_middle && it != history.end()) reached = static_cast<std::size_t>(it - history.begin());
      // And it goes on from there.
      auto inode = f.make_file("later");
      REQUIRE(inode.ok());
      REQUIRE(f.write(*inode, 0, noise(9, 100'000)).ok());
    } else {
      auto refused = f.fs().mknod(volume::root_inode, "later", 0100644, 0, {});
      REQUIRE(!refused.ok());
      CHECK(refused.err().sys == EROFS);
    }
    f.crash();
  };
  for (std::size_t i = 1; i < places.size(); ++i) {
    if (places[i - 1].sequence < synced && i % 8 != 0) continue; // below the synced sequence all look the same
    try_cut(places[i].offset, places[i - 1].sequence, false);
    auto begin = places[i - 1].offset;
    if (i > 1 && i % 3 == 0)
      try_cut(begin + 1 + random.below(places[i].offset - begin - 1), places[i - 2].sequence, true);
  }
  CHECK(history[reached] == history.back());
}

TEST_CASE("a damaged record below the synced sequence is an error, never a truncation (invariant 8)") {
  volume_fixture f;
  REQUIRE(f.create().ok());
  REQUIRE(f.open().ok());
  auto inode = f.make_file("a");
  REQUIRE(inode.ok());
  for (unsigned i = 0; i < 10; ++i) REQUIRE(f.write(*inode, i * 1000, noise(i, 1000)).ok());
  REQUIRE(f.fs().fsync().ok());
  f.crash();
  auto file = log_files(f.options.state_directory).back();
  auto places = boundaries(file);
  auto flip = [&](std::uint64_t at) {
    std::fstream s{file, std::ios::in | std::ios::out | std::ios::binary};
    s.seekg(static_cast<std::streamoff>(at));
    auto c = static_cast<char>(s.get() ^ 0x40);
    s.seekp(static_cast<std::streamoff>(at));
    s.put(c);
  };
  auto at = places[5].offset + 70;
  auto size = std::filesystem::file_size(file);
  flip(at);
  REQUIRE(f.open().ok());
  auto stats = f.opened->stats();
  CHECK(stats.read_only);
  CHECK(stats.read_only_reason.find("checksum") != std::string::npos);
  CHECK(std::filesystem::file_size(file) == size);
  CHECK(f.fs().getattr(volume::root_inode).ok());
  f.crash();
  flip(at); // mended: all is as it was
  REQUIRE(f.open().ok());
  CHECK(!f.opened->stats().read_only);
  auto got = f.read(*inode, 0, 20'000);
  REQUIRE(got.ok());
  CHECK(got->size() == 10'000);
}

TEST_CASE("rows that know more than the log holds are corruption") {
  volume_fixture f;
  REQUIRE(f.create().ok());
  REQUIRE(f.open().ok());
  REQUIRE(f.make_file("a").ok());
  REQUIRE(f.opened->close().ok());
  f.crash();
  for (const auto& file : log_files(f.options.state_directory)) std::filesystem::remove(file);
  std::filesystem::remove(f.options.state_directory / "log" / "watermark");
  REQUIRE(f.open().ok());
  CHECK(f.opened->stats().read_only);
}

TEST_CASE("killed between every two steps of sealing: no nonce twice, no name with two byte strings (invariants 1, 2, 13)") {
  nonce_watch watch;
  volume_fixture f;
  f.ports.deferred = true;
  REQUIRE(f.create().ok());
  REQUIRE(f.open().ok());
  file_state want;
  for (unsigned step = 0; step < 24; ++step) {
    INFO("step " << step);
    auto name = "f" + std::to_string(step);
    auto inode = f.make_file(name);
    REQUIRE(inode.ok());
    auto data = noise(step, 150'000 + step * 1000);
    want[name] = data;
    REQUIRE(f.write(*inode, 0, data).ok());
    f.time.advance(std::chrono::seconds{6});
    f.opened->tick();
    for (unsigned i = 0; i < step; ++i) { // so many jobs, and some answers of nodes
      if (!f.work.run_one()) f.opened->tick();
      if (step % 3 == 0) f.ports.deliver();
    }
    watch.look(f.options.state_directory);
    f.crash();
    REQUIRE(f.open().ok());
    if (step % 5 == 4) f.pass(std::chrono::milliseconds{200});
    auto got = look_at(f);
    REQUIRE(got.has_value());
    auto difference = first_difference(want, *got);
    CHECK_MESSAGE(difference == "", difference);
    watch.look(f.options.state_directory);
  }
  REQUIRE(f.drain());
  REQUIRE(f.opened->drop_caches().ok());
  auto got = look_at(f);
  REQUIRE(got.has_value());
  CHECK(first_difference(want, *got) == "");
  CHECK(watch.frames > 50);
  CHECK(f.ports.violation == "");
}

TEST_CASE("a state directory restored from a copy never seals with an old key (invariant 1)") {
  nonce_watch watch;
  volume_fixture f;
  REQUIRE(f.create().ok());
  auto saved = f.directory.path() / "saved";
  copy_tree(f.options.state_directory, saved);
  for (int round = 0; round < 3; ++round) {
    copy_tree(saved, f.options.state_directory);
    std::filesystem::remove_all(f.options.cache_directory);
    REQUIRE(f.open().ok());
    auto inode = f.make_file("a");
    REQUIRE(inode.ok());
    REQUIRE(f.write(*inode, 0, noise(static_cast<std::uint64_t>(round), 300'000)).ok());
    watch.look(f.options.state_directory);
    REQUIRE(f.drain());
    auto got = f.read(*inode, 0, 300'000);
    REQUIRE(got.ok());
    CHECK(*got == noise(static_cast<std::uint64_t>(round), 300'000));
    f.crash();
  }
  CHECK(f.ports.violation == "");
}
