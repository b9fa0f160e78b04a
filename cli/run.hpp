// qs as a function: argv in, exit code out. Called once, on the main thread, by main.cpp.
#pragma once

namespace qs::cli {

int run(int argc, char** argv);

} // namespace qs::cli
