// fuzz_log: any bytes as what this machine keeps between starts: log records, file headers, the watermark, rows. Nothing may
// crash; what is read must be what writing it again gives.
#include <cstdint>
#include <cstdlib>

#include "volume/log_layout.hpp"
#include "volume/log_record.hpp"
#include "volume/rows.hpp"

using namespace qs;

namespace {

void require(bool condition) {
  if (!condition) std::abort();
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  byte_span bytes{reinterpret_cast<const std::byte*>(data), size};
  if (size == 0) return 0;
  auto body = bytes.subspan(1);
  // The first byte chooses how much data the record claims to have.
  std::uint64_t data_bytes = static_cast<std::uint64_t>(data[0]) * 1024;
  if (auto record = volume::decode_body(7, body, data_bytes); record.ok()) {
    auto again = volume::decode_body(7, volume::encode_body(*record), data_bytes);
    require(again.ok() && *again == *record);
  }
  static_cast<void>(volume::log_layout::decode_file_header(body));
  static_cast<void>(volume::log_layout::decode_record_header(body));
  static_cast<void>(volume::log_layout::decode_watermark(body));
  return 0;
}
