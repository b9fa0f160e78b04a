// All there is below a directory: names, kinds, bytes and when they were changed. To show that
// something changed nothing.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <sys/stat.h>

#include <doctest/doctest.h>
#include <fmt/format.h>

#include "base/posix.hpp"

namespace qs::zdb {

inline std::map<std::string, std::string> disk_snapshot(const std::filesystem::path& root) {
  std::map<std::string, std::string> out;
  auto add = [&](const std::filesystem::path& path) {
    struct stat st {};
    REQUIRE(::lstat(path.c_str(), &st) == 0);
    auto text = fmt::format("{:o} {} {} {}.{:09} ", st.st_mode, st.st_ino, st.st_size,
                            st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
    if (S_ISREG(st.st_mode)) text += *read_file(path);
    out[path.string()] = std::move(text);
  };
  add(root);
  for (auto& e : std::filesystem::recursive_directory_iterator{root}) add(e.path());
  return out;
}

} // namespace qs::zdb
