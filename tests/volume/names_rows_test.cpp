#include <doctest/doctest.h>

#include <sys/stat.h>

#include "volume/rows.hpp"

using namespace qs;
using namespace qs::volume;

namespace {

file_time at(std::int64_t ns) { return file_time{std::chrono::nanoseconds{ns}}; }

inode_row sample_inode() {
  inode_row row;
  row.generation = 0x0000'0100'0000'0007;
  row.mode = S_IFDIR | 02755;
  row.nlink = 3;
  row.uid = 1000;
  row.gid = 4'000'000'000U;
  row.rdev = 5;
  row.project = 6;
  row.size = 0x1122334455667788;
  row.allocated = 4096;
  row.atime = at(1'700'000'000'123'456'789);
  row.mtime = at(-1);
  row.ctime = at(2);
  row.btime = at(3);
  row.trim_from = 9;
  row.trim_to = extent_index_end;
  row.parent = root_inode;
  row.xattr_bytes = 12;
  row.target = "over/there";
  return row;
}

} // namespace

TEST_CASE("rows: every row comes back as it was") {
  CHECK(*decode_inode(encode(sample_inode())) == sample_inode());
  CHECK(*decode_inode(encode(inode_row{})) == inode_row{});
  dirent_row entry{77, S_IFREG, std::string(255, 'x'), true, {}};
  CHECK(*decode_dirent(encode(entry)) == entry);
  dirent_row vacant;
  vacant.chained = true;
  CHECK(*decode_dirent(encode(vacant)) == vacant);
  extent_row extent{{3, 17}, 5, 1, 100, 200, 65536, 12, 65000, {}};
  CHECK(*decode_extent(encode(extent)) == extent);
  CHECK(*decode_orphan(encode(orphan_row{9, {}})) == orphan_row{9, {}});
  session_row session;
  session.writer.fill(std::byte{0xab});
  session.started_ms = 1'700'000'000'000;
  CHECK(*decode_session(encode(session)) == session);
}

TEST_CASE("rows: the bytes are those of docs/formats/rows.md") {
  CHECK(to_hex(encode(sample_inode())) == "0700000000010000" // generation
                                          "ed450000"
                                          "03000000"
                                          "e8030000"
                                          "00286bee"
                                          "05000000"
                                          "06000000"
                                          "8877665544332211"
                                          "0010000000000000" // size, allocated
                                          "15cd853dfe9c9717"
                                          "ffffffffffffffff"
                                          "0200000000000000"
                                          "0300000000000000"
                                          "0900000000000000"
                                          "ffffffffffffffff" // trim
                                          "0100"
                                          "08000000"
                                          "0100000000000000" // parent
                                          "0200"
                                          "0a000000"
                                          "6f7665722f7468657265"
                                          "0300"
                                          "04000000"
                                          "0c000000");
  CHECK(to_hex(encode(dirent_row{0x0102, S_IFREG, "ab", true, {}})) == "0201000000000000"
                                                                       "00800000"
                                                                       "02000000"
                                                                       "6162"
                                                                       "0100"
                                                                       "00000000");
  CHECK(to_hex(encode(extent_row{{3, 17}, 5, 1, 100, 200, 300, 12, 250, {}})) == "03000000"
                                                                                 "1100000000000000"
                                                                                 "05"
                                                                                 "01"
                                                                                 "64000000"
                                                                                 "c8000000"
                                                                                 "2c010000"
                                                                                 "0c000000"
                                                                                 "fa000000");
  CHECK(to_hex(encode(orphan_row{0x1234, {}})) == "3412000000000000");
  CHECK(to_hex(as_bytes(inode_key(0x0102))) == "01"
                                               "0000000000000102");
  CHECK(to_hex(as_bytes(dirent_key(1, 0x7f00000000000001))) == "02"
                                                               "0000000000000001"
                                                               "7f00000000000001");
  CHECK(to_hex(as_bytes(xattr_key(1, "user.a"))) == "03"
                                                    "0000000000000001"
                                                    "757365722e61");
  CHECK(to_hex(as_bytes(extent_key(1, 2))) == "04"
                                              "0000000000000001"
                                              "0000000000000002");
  CHECK(to_hex(as_bytes(segment_key({3, 4}))) == "05"
                                                 "00000003"
                                                 "0000000000000004");
  CHECK(to_hex(as_bytes(group_key({5}, 6))) == "06"
                                               "00000005"
                                               "00000006");
  CHECK(to_hex(as_bytes(orphan_key(1))) == "07"
                                           "0000000000000001");
  CHECK(to_hex(as_bytes(session_key(2))) == "08"
                                            "00000002");
}

TEST_CASE("rows: keys parse back, and only as what they are") {
  CHECK(parse_inode_key(inode_key(7)) == 7);
  CHECK(parse_inode_key(orphan_key(7)) == 7);
  CHECK(parse_dirent_key(dirent_key(7, 300))->cookie == 300);
  CHECK(parse_extent_key(extent_key(7, 9))->index == 9);
  CHECK(parse_segment_key(segment_key({1, 2})) == model::segment_ref{1, 2});
  CHECK(parse_group_key(group_key({1}, 2))->second == 2);
  CHECK(parse_session_key(session_key(4)) == 4);
  CHECK(parse_xattr_key(xattr_key(7, "user.x")) == "user.x");
  CHECK(!parse_dirent_key(extent_key(7, 9)));
  CHECK(!parse_extent_key(dirent_key(7, 9)));
  CHECK(!parse_xattr_key(inode_key(7)));
  CHECK(!parse_inode_key(""));
  CHECK(!parse_segment_key(group_key({1}, 2)));
}

TEST_CASE("rows: key order is number order, and prefixes hold what is theirs") {
  CHECK(extent_key(1, 255) < extent_key(1, 256));
  CHECK(extent_key(255, ~0ULL) < extent_key(256, 0));
  auto prefix = inode_prefix(row_kind::dirent, 0x00ff);
  CHECK(prefix_end(prefix) <= inode_prefix(row_kind::dirent, 0x0100));
  CHECK(dirent_key(0xff, ~0ULL) < prefix_end(prefix));
  CHECK(prefix_end(inode_prefix(row_kind::dirent, ~0ULL)) == kind_prefix(row_kind::xattr));
}

TEST_CASE("rows: unknown fields are kept, unless they must be understood (invariant 16)") {
  auto bytes = encode(sample_inode());
  byte_writer out{bytes};
  put_field(out, 0x0777, as_bytes("new"));
  auto row = decode_inode(bytes);
  REQUIRE(row.ok());
  REQUIRE(row->unknown.size() == 1);
  CHECK(row->unknown[0].tag == 0x0777);
  CHECK(encode(*row) == bytes);
  auto entry_bytes = encode(dirent_row{5, S_IFREG, "n", false, {}});
  byte_writer entry_out{entry_bytes};
  put_field(entry_out, 0x7fff, {});
  CHECK(encode(*decode_dirent(entry_bytes)) == entry_bytes);
  put_field(out, 0x8001, as_bytes("must"));
  CHECK(decode_inode(bytes).err().code == errc::version_mismatch);
}

TEST_CASE("rows: no cut of a row is taken for a row, no length is believed (invariant 4)") {
  auto whole = encode(sample_inode());
  for (std::size_t n = 0; n < whole.size(); ++n) {
    auto cut = decode_inode(byte_span{whole}.first(n));
    bool at_a_field = n == 96 || n == 110 || n == 126; // a shorter list of TLVs is a row of its own
    CHECK_MESSAGE(cut.ok() == at_a_field, n);
  }
  auto entry = encode(dirent_row{5, S_IFREG, "name", false, {}});
  for (std::size_t n = 0; n < entry.size(); ++n)
    CHECK(!decode_dirent(byte_span{entry}.first(n)).ok());
  entry[12] = std::byte{0xff}; // name length
  entry[13] = std::byte{0xff};
  CHECK(decode_dirent(entry).err().code == errc::corrupt);
  CHECK(decode_dirent(encode(dirent_row{0, S_IFREG, "name", false, {}})).err().code ==
        errc::corrupt);
  CHECK(decode_dirent(encode(dirent_row{5, S_IFREG, "", false, {}})).err().code == errc::corrupt);
  CHECK(decode_extent(encode(extent_row{{1, 1}, 0, 0, 0, 20, 10, 0, 11, {}})).err().code ==
        errc::corrupt);
  CHECK(decode_inode(encode([] {
          inode_row row;
          row.trim_from = 2;
          row.trim_to = 1;
          return row;
        }()))
            .err()
            .code == errc::corrupt);
}
