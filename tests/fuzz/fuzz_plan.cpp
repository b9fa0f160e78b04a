// fuzz_plan: any text as a saved plan. Nothing may crash; what is accepted has the hash it says and writes itself again.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "controller/render.hpp"

using namespace qs;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  auto read = controller::from_document({reinterpret_cast<const char*>(data), size});
  if (!read.ok()) return 0;
  if (controller::hash_of(*read) != read->hash) std::abort();
  auto again = controller::from_document(controller::to_document(*read));
  if (!again.ok() || again->hash != read->hash) std::abort();
  controller::render(*read);
  return 0;
}
