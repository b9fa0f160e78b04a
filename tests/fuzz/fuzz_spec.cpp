// fuzz_spec: any text as storage.yaml. Nothing may crash, hang or be accepted with errors; what is
// accepted must survive its own canonical form; an edit must change what it says or refuse. Corpus:
// tests/golden/spec/*.yaml and examples/*.yaml.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "spec/edit.hpp"
#include "spec/load.hpp"
#include "spec/report.hpp"

using namespace qs;

namespace {

void require(bool condition) {
  if (!condition) std::abort();
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const spec::fixed_environment env{
      {{"~", "/home/me"}, {"${env:A}", "1.2.3.4:5"}, {"${file:/f}", "x"}}};
  std::string_view text{reinterpret_cast<const char*>(data), size};
  auto got = spec::validate(text, env);
  require(got.spec.has_value() == !has_errors(got.problems));
  render(got.problems, "f", text);
  spec::to_json(got.problems, "f", text);
  if (got.spec) {
    auto again = spec::load(spec::to_canonical(*got.spec), env);
    require(again.spec.has_value() && *again.spec == *got.spec);
    if (auto edited = spec::set_capacity(text, "40GiB"); edited.ok()) {
      auto after = spec::load(*edited, env);
      require(after.spec.has_value() && after.spec->storage.capacity == 40 * gib);
    }
  }
  auto nodes = spec::set_nodes(text, 48);
  require(nodes.ok() || !nodes.err().message.empty());
  return 0;
}
