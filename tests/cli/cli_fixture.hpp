// For tests of cli: a temporary directory that goes away, files in it, golden files. QS_UPDATE_GOLDEN=1 writes golden files anew.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include <doctest/doctest.h>

#include "cli/paths.hpp"

namespace qs::test {

namespace fs = std::filesystem;

class temporary_directory {
public:
  temporary_directory() {
    auto pattern = (fs::temp_directory_path() / "qs-cli-XXXXXX").string();
    path_ = ::mkdtemp(pattern.data());
  }
  temporary_directory(const temporary_directory&) = delete;
  temporary_directory& operator=(const temporary_directory&) = delete;
  ~temporary_directory() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  [[nodiscard]] const fs::path& path() const { return path_; }

private:
  fs::path path_;
};

inline void spill(const fs::path& file, const std::string& text) {
  fs::create_directories(file.parent_path());
  std::ofstream{file, std::ios::binary} << text;
}

inline std::string slurp(const fs::path& file) {
  std::ostringstream out;
  out << std::ifstream{file, std::ios::binary}.rdbuf();
  return out.str();
}

/// A person whose home is the temporary directory.
struct machine {
  temporary_directory root;
  cli::surroundings around;
  machine() {
    around.home = root.path() / "home";
    around.config_home = root.path() / "config";
    around.state_home = root.path() / "state";
    around.cache_home = root.path() / "cache";
    around.system_root = root.path() / "var/lib/qs";
    around.grid_dir = around.state_home / "qs/grid-local";
    fs::create_directories(root.path() / "work");
  }
  [[nodiscard]] fs::path work() const { return root.path() / "work"; }
};

inline void check_golden(const std::string& name, const std::string& text) {
  auto file = fs::path{QS_SOURCE_DIR} / "tests/golden/cli" / name;
  CAPTURE(name);
  if (std::getenv("QS_UPDATE_GOLDEN") != nullptr) spill(file, text);
  CHECK(slurp(file) == text);
}

} // namespace qs::test
