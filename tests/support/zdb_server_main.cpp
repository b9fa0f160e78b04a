// A program that is nothing but `qs zdb`, for tests that need real servers before or without the
// whole qs. Started as `zdb_server_for_tests zdb --data DIR …`.
#include <cstdio>
#include <span>
#include <string>
#include <vector>

#include "zdb/server.hpp"

int main(int argc, char** argv) {
  std::vector<std::string> words{argv + 1, argv + argc};
  if (words.empty() || words.front() != "zdb") return 64;
  auto options = qs::zdb::options_from_args(std::span<const std::string>{words}.subspan(1));
  if (!options) {
    std::fprintf(stderr, "%s\n", qs::describe(options.err()).c_str());
    return 64;
  }
  return qs::zdb::run_server(*options);
}
