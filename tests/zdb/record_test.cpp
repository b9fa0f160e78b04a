#include <doctest/doctest.h>

#include <string>

#include "zdb/crc32c.hpp"
#include "zdb/record.hpp"

namespace qs::zdb {
namespace {

TEST_CASE("golden bytes of file and record header") {
  auto file = encode_file_header({3, true, true});
  CHECK(to_hex(byte_span{file}.first(24)) == "51535a44420d0a1a010000000300000001000000"
                                             "01000000");
  auto back = decode_file_header(file);
  REQUIRE(back.ok());
  CHECK((back->id == 3 && back->flushes && back->sequential));
  record_header h;
  h.payload_length = 1;
  h.payload_crc = crc32c(as_bytes("1"));
  h.timestamp = 1;
  h.key_length = 1;
  auto record = encode_record_header(h, as_bytes("a"), 64);
  CHECK(to_hex(byte_span{record}.subspan(4)) ==
        "01000000b2ca88c2010000000000000000000000400000000101"
        "0000");
  CHECK(record_header_fits(record, as_bytes("a"), 64));
  CHECK(!record_header_fits(record, as_bytes("b"), 64));
  CHECK(!record_header_fits(record, as_bytes("a"), 65)); // elsewhere it is no record
  for (std::size_t bit = 0; bit < record.size() * 8; ++bit) {
    auto damaged = record;
    damaged[bit / 8] ^= static_cast<std::byte>(1 << (bit % 8));
    CHECK(!record_header_fits(damaged, as_bytes("a"), 64));
  }
  std::array<std::byte, record_header_bytes> zeros{};
  CHECK(!record_header_fits(zeros, {}, 0));
  for (std::size_t i = 0; i < file.size(); ++i) {
    auto damaged = file;
    damaged[i] ^= std::byte{1};
    CHECK(!decode_file_header(damaged).ok());
  }
}

} // namespace
} // namespace qs::zdb
