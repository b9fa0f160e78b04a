#include "zdb/store.hpp"

#include <charconv>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>

#include "base/log.hpp"
#include "base/random.hpp"
#include "zdb/import_0db.hpp"

namespace qs::zdb {

namespace {
namespace fs = std::filesystem;

fs::path spaces_path(const fs::path& data) { return data / "namespaces"; }
fs::path lock_path(const fs::path& data) { return data / "lock"; }

/// A namespace that nobody was told about. Out of the way by its name first: what of it cannot be
/// deleted must not be opened by the next start.
void discard(const fs::path& directory) {
  auto gone = directory;
  gone += ".gone";
  std::error_code ignored;
  fs::rename(directory, gone, ignored);
  fs::remove_all(gone, ignored);
  fs::remove_all(directory, ignored);
}
} // namespace

store::store(store_options options)
    : options_{std::move(options)},
      pool_{256, options_.data, options_.id_frames,
            record_cache{options_.cache_bytes, system_random().next_u64()}} {}

result<std::unique_ptr<store>> store::open(store_options options) {
  std::unique_ptr<store> s{new store{std::move(options)}};
  s->hash_key_ = system_random().array<16>();
  QS_TRY(make_directories(s->options_.data));
  QS_TRY(s->take_lock());
  QS_TRY(make_directories(spaces_path(s->options_.data)));
  s->drop_leftovers();
  QS_TRY(s->take_over_0db());
  QS_TRY(s->load());
  if (!s->find("default")) {
    auto made = s->begin_new("default");
    QS_TRY(s->finish_new(made, name_space::create(made.directory, made.settings)));
  }
  return s;
}

status store::take_lock() {
  auto path = lock_path(options_.data);
  QS_TRY_ASSIGN(lock_, open_file(path, O_RDWR | O_CREAT));
  // An open-file-description lock: it is this open file's, not the process', and dies with it.
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  if (::fcntl(lock_.get(), F_OFD_SETLK, &lock) != 0) {
    if (errno == EAGAIN || errno == EACCES)
      return error{errc::busy, fmt::format("another zdb server runs on {} (it holds {})",
                                           options_.data.string(), path.string())};
    return errno_error(fmt::format("lock {}", path.string()), errno);
  }
  struct stat st {};
  if (::fstat(lock_.get(), &st) != 0)
    return errno_error(fmt::format("stat {}", path.string()), errno);
  lock_inode_ = st.st_ino;
  return {};
}

/// What is half made or half deleted goes first: what is taken over may need its space.
void store::drop_leftovers() {
  std::error_code ec;
  std::vector<fs::path> leftovers;
  for (auto& entry : fs::directory_iterator{spaces_path(options_.data), ec}) {
    auto name = entry.path().filename().string();
    if (name.ends_with(".new") || name.ends_with(".gone")) leftovers.push_back(entry.path());
  }
  for (auto& path : leftovers) {
    fs::remove_all(path, ec);
    if (ec) log::warning("zdb", "delete {}: {}", path.string(), ec.message());
  }
}

/// Once: a marker says that it was done, so that what is deleted here later does not come back.
status store::take_over_0db() {
  auto marker = options_.data / "taken-over";
  if (fs::exists(marker) || !holds_0db(options_.data)) return {};
  std::set<std::string> have;
  std::uint32_t last = 0;
  std::error_code ec;
  for (auto& e : fs::directory_iterator{spaces_path(options_.data), ec}) {
    auto name = e.path().filename().string();
    std::uint32_t number = 0;
    auto [p, bad] = std::from_chars(name.data(), name.data() + name.size(), number, 16);
    if (bad != std::errc{} || name.size() < 8) continue;
    last = std::max(last, number);
    if (name.size() != 8) continue;
    QS_TRY_ASSIGN(auto settings, read_settings(e.path()));
    have.insert(settings.name);
  }
  auto target = [&](const std::string& name) {
    if (have.contains(name)) {
      log::warning("zdb", "namespace {} exists here: 0-db's is not taken over", name);
      return fs::path{};
    }
    have.insert(name); // once, whatever 0-db's directories say
    return spaces_path(options_.data) / fmt::format("{:08x}", ++last);
  };
  QS_TRY_ASSIGN(auto report, import_0db(options_.data, options_.index, pool_, limits(), target));
  log::info("zdb",
            "took over {} namespaces of 0-db with {} keys and {} bytes, {} damaged ones left out; "
            "its files are as they were",
            report.namespaces, report.keys, report.bytes, report.damaged);
  return write_file_atomic(marker, as_bytes("0-db's namespaces were copied from here\n"));
}

status store::load() {
  std::error_code ec;
  std::vector<fs::path> found;
  for (auto& entry : fs::directory_iterator{spaces_path(options_.data), ec})
    found.push_back(entry.path());
  if (ec)
    return error{errc::io,
                 fmt::format("read {}: {}", spaces_path(options_.data).string(), ec.message()),
                 ec.value()};
  for (auto& path : found) {
    auto name = path.filename().string();
    std::uint32_t number = 0;
    auto [p, bad] = std::from_chars(name.data(), name.data() + name.size(), number, 16);
    if (bad != std::errc{} || name.size() < 8) continue;
    last_directory_ = std::max(last_directory_, number);
    if (name.size() != 8) continue; // also what drop_leftovers could not delete
    QS_TRY_ASSIGN(auto ns, name_space::open(pool_, path, limits()));
    auto [it, fresh] = spaces_.emplace(ns->settings().name, ns);
    if (!fresh)
      return error{errc::corrupt, fmt::format("two namespaces of one name in {} and {}",
                                              path.string(), it->second->directory().string())};
  }
  return {};
}

std::shared_ptr<name_space> store::find(std::string_view name) {
  auto it = spaces_.find(name);
  return it == spaces_.end() ? nullptr : it->second;
}

bool store::is_taken(std::string_view name) const {
  return spaces_.contains(name) || making_.contains(name);
}

store::creation store::begin_new(std::string_view name) {
  making_.emplace(name);
  creation what;
  what.directory = spaces_path(options_.data) / fmt::format("{:08x}", ++last_directory_);
  what.settings.name = name;
  what.settings.maxsize = name == "default" ? 0 : options_.maxsize;
  what.settings.sequential = options_.sequential;
  return what;
}

status store::finish_new(const creation& what, const status& made) {
  making_.erase(what.settings.name);
  if (!made.ok()) {
    discard(what.directory);
    return made;
  }
  auto ns = name_space::open(pool_, what.directory, limits());
  if (!ns.ok()) { // else the next try makes a second one of the name
    discard(what.directory);
    return std::move(ns).err();
  }
  spaces_.emplace(what.settings.name, std::move(*ns));
  return {};
}

fs::path store::begin_remove(const std::shared_ptr<name_space>& ns) {
  ns->removed = true;
  making_.insert(ns->settings().name);
  spaces_.erase(ns->settings().name);
  return ns->directory();
}

void store::finish_remove(const std::shared_ptr<name_space>& ns, const status& removed) {
  making_.erase(ns->settings().name);
  if (removed.ok()) return;
  ns->removed = false;
  spaces_.emplace(ns->settings().name, ns);
}

status store::remove_files(const fs::path& directory) {
  auto gone = directory;
  gone += ".gone";
  if (::rename(directory.c_str(), gone.c_str()) != 0)
    return errno_error(fmt::format("rename {}", directory.string()), errno);
  // From here on it is removed: it has lost its name, and to say otherwise would be to serve files
  // that are not where they were put.
  if (auto synced = sync_directory(directory.parent_path()); !synced.ok()) {
    // A power cut may bring the name back: then with all that was in it.
    log::error("zdb", "{} is deleted at the next start: {}", gone.string(),
               describe(synced.err()));
    return {};
  }
  std::error_code ec;
  fs::remove_all(gone, ec); // what stays is removed at the next start
  return {};
}

bool store::lock_linked() const {
  struct stat st {};
  if (::lstat(lock_path(options_.data).c_str(), &st) != 0)
    return errno != ENOENT && errno != ENOTDIR; // a disk that cannot answer has not lost it
  return st.st_ino == lock_inode_ && st.st_nlink > 0;
}

bool store::linked() const {
  if (!lock_linked()) return false;
  for (auto& [name, ns] : spaces_)
    if (!ns->linked()) return false;
  return true;
}

} // namespace qs::zdb
