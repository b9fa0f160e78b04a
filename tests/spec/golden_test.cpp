// tests/golden/spec: NAME.yaml with NAME.diag, what `qs validate` must say about it. A new case
// needs no C++: write the .yaml, run with QS_GOLDEN_WRITE=1, read the .diag it makes, commit both.
// A .yaml without .diag must be accepted without a word.
#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include <doctest/doctest.h>

#include "base/diagnostic.hpp"
#include "spec/codes.hpp"
#include "spec/load.hpp"

namespace fs = std::filesystem;
using namespace qs;

namespace {

std::string slurp(const fs::path& path) {
  std::ifstream in{path, std::ios::binary};
  std::ostringstream out;
  out << in.rdbuf();
  return out.str();
}

const spec::fixed_environment& golden_environment() {
  static const spec::fixed_environment env{{{"~", "/home/someone"},
                                            {"${env:NAS_ADMIN}", "s3cret-of-nas"},
                                            {"${env:TG_TOKEN}", "s3cret-token"},
                                            {"${env:EMPTY}", ""},
                                            {"${file:/run/password}", "s3cret-from-file\n"}}};
  return env;
}

std::vector<fs::path> cases() {
  std::vector<fs::path> out;
  for (const auto& entry : fs::directory_iterator{fs::path{QS_SOURCE_DIR} / "tests/golden/spec"})
    if (entry.path().extension() == ".yaml") out.push_back(entry.path());
  std::sort(out.begin(), out.end());
  return out;
}

} // namespace

TEST_CASE("golden diagnostics") {
  auto write = std::getenv("QS_GOLDEN_WRITE") != nullptr;
  int good = 0;
  int bad = 0;
  std::set<std::string> seen;
  for (const auto& path : cases()) {
    CAPTURE(path.filename().string());
    auto text = slurp(path);
    auto loaded = spec::validate(text, golden_environment());
    auto said = render(loaded.problems, "storage.yaml", text);
    CHECK(loaded.spec.has_value() == !has_errors(loaded.problems));
    CHECK(said.find("s3cret") == std::string::npos);
    auto diag = fs::path{path}.replace_extension(".diag");
    if (write && !said.empty()) std::ofstream{diag, std::ios::binary} << said;
    CHECK(said == (fs::exists(diag) ? slurp(diag) : std::string{}));
    has_errors(loaded.problems) ? ++bad : ++good;
    for (const auto& d : loaded.problems) seen.insert(d.code);
    if (loaded.spec) {
      auto canonical = spec::to_canonical(*loaded.spec);
      CAPTURE(canonical);
      auto again = spec::load(canonical, golden_environment());
      REQUIRE(again.spec.has_value());
      CHECK(*again.spec == *loaded.spec);
      CHECK(spec::canonical_hash(*again.spec) == spec::canonical_hash(*loaded.spec));
      CHECK(canonical.find("s3cret") == std::string::npos);
    }
  }
  CHECK(good >= 15);
  CHECK(bad >= 40);
  // Every code that can be given is given by a case, and none that is not in the list.
  for (const auto& info : spec::codes()) {
    CAPTURE(info.code);
    if (info.code == "QS0001") continue; // too big a file to keep: limits_test
    CHECK(seen.erase(std::string{info.code}) == 1);
  }
  for (const auto& code : seen) FAIL_CHECK("not in codes(): " << code);
}
