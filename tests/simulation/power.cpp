#include "power.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <mutex>
#include <set>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "base/result.hpp"

namespace {

namespace fs = std::filesystem;
using file_id = std::pair<dev_t, ino_t>;

struct lost_name {
  std::string path, kept_as;
};

/// What the watched calls have done. RocksDB calls from threads of its own.
struct watch {
  std::mutex mutex;
  std::string root; ///< empty: nobody looks
  std::map<file_id, std::uint64_t> synced;
  std::vector<lost_name> unlinked; ///< and their directory not synced since
  std::set<std::string> named;     ///< log files that were there when their directory was synced
  std::uint64_t names = 0;
};
watch& watched() {
  static watch w;
  return w;
}

std::string path_of(int fd) {
  std::array<char, 512> text{};
  auto n = ::readlink(fmt::format("/proc/self/fd/{}", fd).c_str(), text.data(), text.size());
  return n > 0 ? std::string{text.data(), static_cast<std::size_t>(n)} : std::string{};
}

void synced(int fd) {
  auto& w = watched();
  std::lock_guard lock{w.mutex};
  struct stat st {};
  if (w.root.empty() || ::fstat(fd, &st) != 0) return;
  if (!S_ISDIR(st.st_mode)) {
    w.synced[{st.st_dev, st.st_ino}] = static_cast<std::uint64_t>(st.st_size);
    return;
  }
  auto directory = path_of(fd);
  std::error_code ignored;
  for (const auto& item : fs::directory_iterator{directory, ignored})
    if (item.path().filename().string().starts_with("log-")) w.named.insert(item.path().string());
  std::erase_if(w.unlinked, [&](const lost_name& l) {
    if (fs::path{l.path}.parent_path() != directory) return false;
    ::syscall(SYS_unlinkat, AT_FDCWD, l.kept_as.c_str(), 0);
    return true;
  });
}

/// Keeps what a log file was, in case the name comes back.
void unlinking(const char* path) {
  auto& w = watched();
  std::lock_guard lock{w.mutex};
  auto file = fs::path{path};
  if (w.root.empty() || !file.string().starts_with(w.root) || !file.filename().string().starts_with("log-")) return;
  auto kept = fmt::format("{}/graveyard-{}", w.root, ++w.names);
  if (::link(path, kept.c_str()) == 0) w.unlinked.push_back({file.string(), kept});
}

} // namespace

// In the whole program, instead of libc's.
extern "C" int fdatasync(int fd) {
  auto r = static_cast<int>(::syscall(SYS_fdatasync, fd));
  if (r == 0) synced(fd);
  return r;
}
extern "C" int fsync(int fd) {
  auto r = static_cast<int>(::syscall(SYS_fsync, fd));
  if (r == 0) synced(fd);
  return r;
}
extern "C" int unlink(const char* path) noexcept {
  unlinking(path);
  return static_cast<int>(::syscall(SYS_unlinkat, AT_FDCWD, path, 0));
}

namespace qs::test {

simulated_disk::simulated_disk(const fs::path& root) : root_{root} {
  auto& w = watched();
  std::lock_guard lock{w.mutex};
  QS_ASSERT(w.root.empty());
  w.root = root.string();
}

simulated_disk::~simulated_disk() {
  auto& w = watched();
  std::lock_guard lock{w.mutex};
  w.root.clear();
  w.synced.clear();
  w.unlinked.clear();
  w.named.clear();
}

void simulated_disk::cut(random_source& from) {
  // A stream of its own: how many files there are is up to RocksDB's threads, and must not change what comes later.
  seeded_random random{from.next_u64()};
  auto& w = watched();
  std::lock_guard lock{w.mutex};
  ++counters["power cuts"];
  // Deletions that were not synced may not have happened: the latest of them.
  auto back = random.below(w.unlinked.size() + 1);
  for (auto i = w.unlinked.size(); i > 0; --i) {
    const auto& l = w.unlinked[i - 1];
    std::error_code ec;
    if (w.unlinked.size() - i < back && !fs::exists(l.path, ec)) {
      fs::rename(l.kept_as, l.path, ec);
      ++counters["log files that are back after a power cut"];
    } else {
      fs::remove(l.kept_as, ec);
    }
  }
  w.unlinked.clear();

  std::vector<fs::path> files;
  for (const auto& item : fs::recursive_directory_iterator{root_})
    if (item.is_regular_file()) files.push_back(item.path());
  std::sort(files.begin(), files.end());
  for (const auto& file : files) {
    struct stat st {};
    if (::stat(file.c_str(), &st) != 0) continue;
    auto size = static_cast<std::uint64_t>(st.st_size);
    auto it = w.synced.find({st.st_dev, st.st_ino});
    auto safe = std::min(size, it == w.synced.end() ? 0 : it->second);
    auto name = file.filename().string();
    if (name.starts_with("log-") && !w.named.contains(file.string()) && random.below(2) == 0) {
      fs::remove(file); // its name never came to the disk
      ++counters["new log files lost in power cuts"];
      continue;
    } else if (name.starts_with("log-")) {
      cut_log(file, safe, size, random);
    } else if (name == "watermark" || name == "front") { // never synced: any of their states, or none
      if (random.below(3) == 0) fs::resize_file(file, random.below(size + 1));
    } else if (safe < size) {
      fs::resize_file(file, safe);
      ++counters["other files shorter after a power cut"];
    }
    struct stat now {};
    if (::stat(file.c_str(), &now) == 0) w.synced[{now.st_dev, now.st_ino}] = static_cast<std::uint64_t>(now.st_size);
  }
}

void simulated_disk::cut_log(const fs::path& file, std::uint64_t safe, std::uint64_t size, seeded_random& random) {
  if (safe == size) return;
  counters["bytes of log lost in power cuts"] += static_cast<long>(size - safe);
  auto kind = random.below(4);
  if (kind == 0) return fs::resize_file(file, safe);
  if (kind == 1) return fs::resize_file(file, safe + random.below(size - safe + 1));
  if (kind == 2) { // all the length, and the data of the end never came
    fs::resize_file(file, safe + random.below(size - safe + 1));
    return fs::resize_file(file, size);
  }
  // A hole in the middle: pages are written in any order.
  std::vector<char> zeros(1 + random.below(std::min<std::uint64_t>(size - safe, 4096)));
  auto fd = ::open(file.c_str(), O_WRONLY | O_CLOEXEC);
  QS_ASSERT(fd >= 0);
  auto n = ::pwrite(fd, zeros.data(), zeros.size(), static_cast<off_t>(safe + random.below(size - safe - zeros.size() + 1)));
  QS_ASSERT(n == static_cast<ssize_t>(zeros.size()));
  ::close(fd);
}

} // namespace qs::test
