// qs. Everything is in qs::cli::run; here is only the last resort for what must never happen.
#include <cstdio>
#include <exception>

#include "cli/run.hpp"

int main(int argc, char** argv) {
  try {
    return qs::cli::run(argc, argv);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "error: %s; this is a mistake in qs, please report it\n", e.what());
    return 1;
  }
}
