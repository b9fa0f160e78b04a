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
fs::path taken_over_path(const fs::path& data) { return data / "taken-over"; }

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
      pool_{256, options_.read_only ? fs::path{} : options_.data, options_.id_frames,
            record_cache{options_.cache_bytes, system_random().next_u64()}} {
  pool_.read_only = options_.read_only;
}

result<std::unique_ptr<store>> store::open(store_options options) {
  std::unique_ptr<store> s{new store{std::move(options)}};
  s->hash_key_ = system_random().array<16>();
  if (s->options_.read_only) {
    QS_TRY(s->look());
    return s;
  }
  QS_TRY(make_directories(s->options_.data));
  QS_TRY(s->take_lock());
  QS_TRY(make_directories(spaces_path(s->options_.data)));
  s->drop_leftovers();
  QS_TRY(s->take_over_0db());
  QS_TRY(s->load());
  QS_TRY(s->open_default());
  return s;
}

/// Opens what there is and leaves it as it is.
status store::look() {
  // Where there is no lock no server of ours has ever run.
  if (fs::exists(lock_path(options_.data))) QS_TRY(take_lock());
  if (to_take_over())
    return error{errc::refused,
                 fmt::format("{} holds namespaces of a 0-db, which the first start copies: start "
                             "the server once, and look then; nothing was changed",
                             options_.data.string())};
  if (!fs::exists(spaces_path(options_.data)))
    return error{errc::not_found,
                 fmt::format("{} holds no data of a zdb server", options_.data.string())};
  return load();
}

status store::take_lock() {
  auto path = lock_path(options_.data);
  auto looks = options_.read_only;
  QS_TRY_ASSIGN(lock_, open_file(path, looks ? O_RDONLY : O_RDWR | O_CREAT));
  // An open-file-description lock: it is this open file's, not the process', and dies with it.
  struct flock lock {};
  lock.l_type = looks ? F_RDLCK : F_WRLCK; // others may look, too
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
    if (name.ends_with(".new") || name.ends_with(".gone") || name.starts_with(".names."))
      leftovers.push_back(entry.path());
  }
  for (auto& path : leftovers) {
    fs::remove_all(path, ec);
    if (ec) log::warning("zdb", "delete {}: {}", path.string(), ec.message());
  }
}

/// A marker says that it was done: what is deleted here later must not come back.
bool store::to_take_over() const {
  return !fs::exists(taken_over_path(options_.data)) &&
         holds_0db(options_.data, options_.index);
}

/// Once.
status store::take_over_0db() {
  if (!to_take_over()) return {};
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
  QS_TRY_ASSIGN(auto report, import_0db(options_.data, options_.index, options_.data_alone, pool_,
                                         limits(), target));
  log::info("zdb",
            "took over {} namespaces of 0-db with {} keys and {} bytes, {} damaged ones left out; "
            "its files are as they were",
            report.namespaces, report.keys, report.bytes, report.damaged);
  return write_file_atomic(taken_over_path(options_.data),
                           as_bytes("0-db's namespaces were copied from here\n"));
}

status store::load() {
  std::error_code ec;
  std::map<std::uint32_t, fs::path> found; // in the order in which they were made
  for (auto& entry : fs::directory_iterator{spaces_path(options_.data), ec}) {
    auto name = entry.path().filename().string();
    std::uint32_t number = 0;
    auto [p, bad] = std::from_chars(name.data(), name.data() + name.size(), number, 16);
    if (bad != std::errc{} || name.size() < 8) continue;
    last_directory_ = std::max(last_directory_, number);
    if (name.size() == 8) found.emplace(number, entry.path()); // not what is left of others
  }
  if (ec)
    return error{errc::io,
                 fmt::format("read {}: {}", spaces_path(options_.data).string(), ec.message()),
                 ec.value()};
  names_.read(spaces_path(options_.data) / "names");
  for (auto& [number, path] : found) {
    auto ns = name_space::open(pool_, path, limits());
    ns.ok() ? add(std::move(*ns)) : add_failed(path, ns.err());
  }
  std::map<std::string, std::string> names;
  for (auto& [held_under, ns] : spaces_) {
    auto& name = ns->served() ? held_under : ns->failed_why().name;
    if (!name.empty()) names.emplace(ns->directory().filename().string(), name);
  }
  if (options_.read_only) return {};
  if (auto kept = names_.replace(names); !kept.ok())
    log::warning("zdb", "{}: without it a namespace whose settings are damaged has no name",
                 describe(kept.err()));
  return {};
}

void store::add(std::shared_ptr<name_space> ns) {
  auto [it, fresh] = spaces_.emplace(ns->settings().name, ns);
  if (fresh) return;
  auto why = share_name(it->second, ns->directory());
  stand_in({}, ns->directory(), ns->settings(), {std::move(why), ns->settings().name, true});
}

void store::add_failed(const fs::path& directory, const error& why) {
  namespace_settings settings;
  auto read = read_settings(directory);
  if (read.ok())
    settings = std::move(*read);
  else
    settings.name = names_.name_of(directory.filename().string());
  name_space::not_opened f{describe(why), settings.name, read.ok()};
  auto there = spaces_.find(settings.name);
  if (there == spaces_.end()) return stand_in(settings.name, directory, settings, std::move(f));
  (void)share_name(there->second, directory);
  stand_in({}, directory, settings, std::move(f));
}

/// Which of two of one name was written to last nobody knows: neither is served.
std::string store::share_name(const std::shared_ptr<name_space>& one, const fs::path& other) {
  auto why = fmt::format("{} and {} hold namespaces of one name", one->directory().string(),
                         other.string());
  if (one->served()) {
    auto settings = one->settings(); // it goes when the stand-in comes
    auto directory = one->directory();
    stand_in(settings.name, directory, settings, {why, settings.name, true});
  }
  return why;
}

/// `held_under`: nothing where its name is not known or another has it. Then it is held under the
/// name of its directory: with a '/', which no namespace's name has.
void store::stand_in(std::string held_under, const fs::path& directory, namespace_settings settings,
                     name_space::not_opened why) {
  if (held_under.empty()) held_under = "namespaces/" + directory.filename().string();
  log::error("zdb",
             "namespace {} in {} cannot be opened and is not served: {}. Mend it and RELOAD it, or "
             "NSDEL it",
             held_under, directory.string(), why.why);
  settings.name = held_under;
  ++failed_;
  unnamed_ += why.name.empty() ? 1 : 0;
  auto ns = name_space::stand_in(pool_, directory, limits(), std::move(settings), std::move(why));
  spaces_[held_under] = std::move(ns);
}

/// What stood in is there no more.
void store::stood_in(const name_space::not_opened& why) noexcept {
  --failed_;
  unnamed_ -= why.name.empty() ? 1 : 0;
}

/// --maxsize is the quota of `default`, at each start anew, as in 0-db: NSSET does not change it.
void store::limit(name_space& ns) {
  if (!ns.served() || ns.settings().maxsize == options_.maxsize) return;
  auto changed = ns.settings();
  changed.maxsize = options_.maxsize;
  if (auto saved = name_space::save(ns.directory(), changed); !saved.ok())
    log::warning("zdb", "{}: the quota of default holds until it is reloaded", describe(saved.err()));
  ns.set_settings(std::move(changed));
}

/// Every client begins there. It is not made anew while one that cannot be opened may be it.
status store::open_default() {
  if (auto there = find("default")) {
    limit(*there);
    return {};
  }
  if (unnamed_ > 0) {
    namespace_settings settings;
    settings.name = "default";
    spaces_["default"] = name_space::stand_in(
        pool_, {}, limits(), settings, {"it may be one that cannot be opened", "default", true});
    return {};
  }
  auto made = begin_new("default");
  return finish_new(made, name_space::create(made.directory, made.settings));
}

status store::revive(const std::shared_ptr<name_space>& ns) {
  auto held_under = ns->settings().name;
  if (ns->directory().empty()) { // of open_default()
    if (unnamed_ > 0)
      return error{errc::not_found, "which directory it is in is not known: RELOAD that one"};
    spaces_.erase(held_under);
    auto made = open_default();
    ns->removed = made.ok();
    if (!made.ok()) spaces_[held_under] = ns;
    return made;
  }
  QS_TRY_ASSIGN(auto settings, read_settings(ns->directory()));
  auto name = settings.name;
  if (making_.contains(name)) return error{errc::busy, "a namespace of its name is being made"};
  for (auto& [key, other] : spaces_)
    if (other != ns && !other->directory().empty() &&
        (key == name || other->failed_why().name == name))
      return error{errc::corrupt, fmt::format("{} in {} has its name", key,
                                              other->directory().string())};
  auto was = ns->failed_why();
  QS_TRY(ns->revive(std::move(settings)));
  stood_in(was);
  if (name == held_under) return {};
  spaces_.erase(held_under);
  if (auto it = spaces_.find(name); it != spaces_.end()) it->second->removed = true;
  spaces_[name] = ns;
  names_.add(ns->directory().filename().string(), name);
  return {};
}

std::shared_ptr<name_space> store::find(std::string_view name) {
  auto it = spaces_.find(name);
  return it == spaces_.end() ? nullptr : it->second;
}

bool store::is_taken(std::string_view name) const {
  return unnamed_ > 0 || spaces_.contains(name) || making_.contains(name);
}

store::creation store::begin_new(std::string_view name) {
  making_.emplace(name);
  creation what;
  what.directory = spaces_path(options_.data) / fmt::format("{:08x}", ++last_directory_);
  what.settings.name = name;
  what.settings.maxsize = name == "default" ? options_.maxsize : 0;
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
  names_.add(what.directory.filename().string(), what.settings.name);
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
  if (removed.ok()) {
    if (!ns->served()) stood_in(ns->failed_why());
    return;
  }
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
  return {};
}

bool store::remove_some(const fs::path& directory) {
  constexpr int at_once = 4; // 256 MiB each, unless --datasize says otherwise
  auto gone = directory;
  gone += ".gone";
  std::error_code ec;
  int left = at_once;
  for (fs::directory_iterator it{gone, ec}, end; !ec && it != end && left > 0; it.increment(ec), --left) {
    std::error_code failed;
    fs::remove(it->path(), failed);
    if (failed) return false;
  }
  if (left == 0) return true;
  fs::remove(gone, ec);
  return false;
}

bool store::lock_linked() const {
  struct stat st {};
  if (::lstat(lock_path(options_.data).c_str(), &st) != 0)
    return errno != ENOENT && errno != ENOTDIR; // a disk that cannot answer has not lost it
  return st.st_ino == lock_inode_ && st.st_nlink > 0;
}

bool store::linked() const {
  if (!lock_linked()) return false;
  for (auto& [name, ns] : spaces_) // what is not served has no files that could go
    if (ns->served() && !ns->linked()) return false;
  return true;
}

} // namespace qs::zdb
