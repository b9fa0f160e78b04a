#include <doctest/doctest.h>

#include <fmt/format.h>

#include "zdb/crc32c.hpp"
#include "zdb/request.hpp"
#include "zdb/resp.hpp"

namespace qs::zdb {
namespace {

std::string shown(const reply& r) {
  switch (r.kind) {
  case reply_kind::simple:
    return "+" + r.text;
  case reply_kind::error:
    return "-" + r.text;
  case reply_kind::integer:
    return fmt::format(":{}", r.number);
  case reply_kind::bulk:
    return fmt::format("<{}>", r.string());
  case reply_kind::nil:
    return "nil";
  case reply_kind::array:
    break;
  }
  std::string out = "[";
  for (auto& i : r.items) out += shown(i) + " ";
  return out + "]";
}

TEST_CASE("replies are the same however their bytes are split") {
  std::string wire = "+PONG\r\n-No more data\r\n:-1\r\n$3\r\na\r\n\r\n$0\r\n\r\n$-1\r\n*0\r\n"
                     "*2\r\n$2\r\nab\r\n*1\r\n*3\r\n$1\r\nk\r\n:5\r\n:1700000000\r\n+OK\n*-1\r\n";
  std::string want =
      "+PONG|-No more data|:-1|<a\r\n>|<>|nil|[]|[<ab> [[<k> :5 :1700000000 ] ] ]|+OK|nil|";
  for (std::size_t step = 1; step <= wire.size(); ++step) {
    reply_parser parser;
    std::string got;
    for (std::size_t at = 0; at < wire.size(); at += step)
      REQUIRE(parser
                  .feed(as_bytes(std::string_view{wire}.substr(at, step)),
                        [&](reply&& r) { got += shown(r) + "|"; })
                  .ok());
    CHECK(got == want);
    CHECK(parser.idle());
  }
}

TEST_CASE("a peer that does not speak the protocol is refused, and stays refused") {
  for (auto* text :
       {"HTTP/1.1 400\r\n", "$abc\r\n", "$-2\r\n", ":1x\r\n", "\r\n", "*9999999999\r\n",
        "$3\r\nabcXY", "$99999999999\r\n", "*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n+a\r\n"}) {
    CAPTURE(text);
    reply_parser parser;
    auto fed = parser.feed(as_bytes(text), [](reply&&) { FAIL("no reply"); });
    REQUIRE(!fed.ok());
    CHECK(fed.err().code == errc::protocol);
    CHECK(!parser.feed(as_bytes("+OK\r\n"), [](reply&&) {}).ok());
  }
  reply_parser parser;
  CHECK(!parser.feed(as_bytes("+" + std::string(20'000, 'x')), [](reply&&) {}).ok());
}

TEST_CASE("requests carry payloads without copying them") {
  auto payload = share(buffer(100'000, std::byte{'p'}));
  output out;
  add_request_header(out, 3);
  add_argument(out, "SET");
  add_argument(out, "key");
  add_argument(out, payload);
  auto pieces = out.take();
  REQUIRE(pieces.size() == 3);
  CHECK(pieces[0].text == "*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$100000\r\n");
  CHECK(pieces[1].payload == payload);
  CHECK(pieces[2].text == "\r\n");
  CHECK(out.empty());
}

TEST_CASE("requests are read the same however they are split") {
  std::string big(70'000, 'b');
  std::string wire =
      "*1\r\n$4\r\nPING\r\n*2\r\n$3\r\nGET\r\n$0\r\n\r\n*3\n$3\nSET\r\n$1\r\nk\r\n$70000\r\n" +
      big + "XY*1\r\n$1\r\nP\r\n";
  std::string want = "PING,|GET,,|SET,k," + big + ",|P,|";
  for (std::size_t step : {1UL, 2UL, 3UL, 7UL, 64UL, 8192UL, wire.size()}) {
    for (bool direct : {false, true}) {
      request_parser parser;
      std::string got;
      for (std::size_t at = 0; at < wire.size();) {
        auto n = std::min(step, wire.size() - at);
        auto part = as_bytes(std::string_view{wire}.substr(at, n));
        if (auto space = parser.body_space(); direct && !space.empty()) {
          n = std::min(n, space.size());
          std::copy_n(part.data(), n, space.data());
          parser.body_filled(n);
          at += n;
          continue;
        }
        at += n;
        while (!part.empty()) {
          std::size_t used = 0;
          if (parser.feed(part, used)) {
            for (auto& a : parser.arguments()) got += std::string{a.text()} + ",";
            got += "|";
          }
          REQUIRE(!parser.failed());
          part = part.subspan(used);
        }
      }
      CHECK(got == want);
      CHECK(parser.idle());
    }
  }
}

TEST_CASE("malformed requests get the texts of the protocol") {
  struct row {
    std::string in, text;
  };
  for (auto& [in, text] : std::initializer_list<row>{
           {"PING\r\n", "Malformed request, array expected"},
           {"*x\r\n", "Malformed request, array expected"},
           {"*0\r\n", "Missing arguments"},
           {"*1025\r\n", "Too many arguments"},
           {"*-1\r\n", "Internal memory error"},
           {"*1\r\n+PING\r\n", "Malformed query string"},
           {"*1\r\n$x\r\n", "Malformed query string"},
           {"*1\r\n$-5\r\n", "Malformed query string"},
           {"*1\r\n$8388609\r\n", "Payload too big"},
           {"*" + std::string(100, '1'), "Malformed request, array expected"}}) {
    auto request = std::string_view{in};
    CAPTURE(request);
    request_parser parser;
    std::size_t used = 0;
    CHECK(!parser.feed(as_bytes(in), used));
    CHECK(parser.error() == text);
  }
  request_parser parser;
  std::size_t used = 0;
  CHECK(!parser.feed(as_bytes("*1024\r\n$8388608\r\n"), used));
  CHECK(!parser.failed());
  CHECK(parser.body_space().size() == 8388608);
}

TEST_CASE("a reply that comes later holds its place") {
  reply_queue q;
  auto sent = [&] {
    std::string all;
    for (iovec parts[4]; auto n = q.gather(parts, 4);) {
      std::string_view first{static_cast<char*>(parts[0].iov_base), parts[0].iov_len};
      (void)n;
      all += first.substr(0, 1); // a byte at a time
      q.sent(1);
    }
    return all;
  };
  q.simple("a");
  auto t = q.hold();
  q.bulk("b");
  auto u = q.hold();
  value_block block{2000};
  std::fill(block.bytes().begin(), block.bytes().end(), std::byte{'c'});
  q.bulk(std::move(block));
  CHECK(sent() == "+a\r\n");
  q.fill(u, "+u\r\n");
  CHECK(sent().empty());
  q.fill(t, "+t\r\n");
  CHECK(sent() == "+t\r\n$1\r\nb\r\n+u\r\n$2000\r\n" + std::string(2000, 'c') + "\r\n");
  CHECK(q.empty());
  CHECK(q.bytes() == 0);
  CHECK(q.held() == 0);
}

/// Bit by bit, from the polynomial: slow and beyond doubt.
std::uint32_t crc32c_by_bits(byte_span bytes, std::uint32_t crc) {
  for (auto b : bytes) {
    crc ^= std::to_integer<std::uint32_t>(b);
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82f63b78U : 0U);
  }
  return crc;
}

TEST_CASE("crc32c is the protocol's") {
  CHECK(crc32c(as_bytes("1")) == 0xc288cab2);
  CHECK(crc32c(as_bytes("2")) == 0xd1d83946);
  CHECK(crc32c(as_bytes("hello")) == 0xdf03cd79);
  buffer bytes(1000);
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i * 7);
  for (std::size_t n = 0; n < bytes.size(); n += 13)
    CHECK(crc32c(byte_span{bytes}.first(n), 5) == crc32c_by_bits(byte_span{bytes}.first(n), 5));
}

} // namespace
} // namespace qs::zdb
