#include "zdb/import_0db.hpp"

#include <algorithm>
#include <charconv>
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <fmt/format.h>

#include "base/limits.hpp"
#include "base/log.hpp"
#include "zdb/crc32c.hpp"

namespace qs::zdb {

namespace {

namespace fs = std::filesystem;

constexpr std::size_t data_header_bytes = 28;
constexpr std::size_t index_header_bytes = 29;
constexpr std::size_t entry_bytes = 18;
constexpr std::size_t item_bytes = 34;
constexpr std::uint32_t data_version = 3;
constexpr std::uint32_t index_version = 4;
constexpr std::uint64_t sync_every = 256ULL << 20;

/// `letter`0, `letter`1, … in their order.
std::vector<std::pair<std::uint32_t, fs::path>> numbered(const fs::path& directory, char letter) {
  std::vector<std::pair<std::uint32_t, fs::path>> found;
  std::error_code ec;
  for (auto& e : fs::directory_iterator{directory, ec}) {
    auto name = e.path().filename().string();
    std::uint32_t n = 0;
    if (name.size() < 2 || name[0] != letter) continue;
    auto [p, bad] = std::from_chars(name.data() + 1, name.data() + name.size(), n);
    if (bad == std::errc{} && p == name.data() + name.size()) found.emplace_back(n, e.path());
  }
  std::sort(found.begin(), found.end());
  return found;
}

/// A file of 0-db, read only.
class old_file {
public:
  static result<old_file> open(const fs::path& path, std::string_view magic, std::uint32_t version,
                               std::size_t header_bytes) {
    old_file f;
    f.path_ = path;
    QS_TRY_ASSIGN(f.fd_, open_file(path, O_RDONLY));
    auto size = ::lseek(f.fd_.get(), 0, SEEK_END);
    if (size < 0) return errno_error(fmt::format("seek {}", path.string()), errno);
    f.size_ = static_cast<std::uint64_t>(size);
    QS_TRY_ASSIGN(f.header_, f.read(0, header_bytes));
    if (as_text(byte_span{f.header_}.first(4)) != magic)
      return error{errc::corrupt, fmt::format("{} is not a file of 0-db", path.string())};
    if (auto v = load_le<std::uint32_t>(f.header_.data() + 4); v != version)
      return error{errc::version_mismatch, fmt::format("{} has version {}, {} can be taken over",
                                                       path.string(), v, version)};
    return f;
  }
  /// errc::corrupt past the end.
  result<buffer> read(std::uint64_t offset, std::size_t n) {
    if (offset + n > size_)
      return error{errc::corrupt, fmt::format("{} ends before {}", path_.string(), offset + n)};
    buffer out(n);
    iovec part{out.data(), out.size()};
    QS_TRY(read_exactly(fd_.get(), path_, {&part, n > 0 ? 1U : 0U}, offset));
    return out;
  }
  [[nodiscard]] std::uint64_t size() const noexcept { return size_; }
  [[nodiscard]] byte_span header() const noexcept { return header_; }

private:
  fs::path path_;
  unique_fd fd_;
  std::uint64_t size_ = 0;
  buffer header_;
};

struct entry {
  std::string key;
  buffer payload;
  std::uint32_t timestamp = 0;
  bool erased = false;
  std::uint64_t next = 0;
};

/// errc::corrupt: its checksum does not fit or it is cut.
result<entry> read_entry(old_file& f, std::uint64_t offset) {
  QS_TRY_ASSIGN(auto head, f.read(offset, entry_bytes));
  byte_reader in{head};
  auto key_length = in.get<std::uint8_t>();
  auto length = in.get<std::uint32_t>();
  (void)in.get<std::uint32_t>();
  auto crc = in.get<std::uint32_t>();
  auto flags = in.get<std::uint8_t>();
  entry e;
  e.timestamp = in.get<std::uint32_t>();
  e.erased = (flags & 1) != 0;
  if (length > limits::zdb_payload_bytes_max) return error{errc::corrupt, "too large a payload"};
  QS_TRY_ASSIGN(auto key, f.read(offset + entry_bytes, key_length));
  QS_TRY_ASSIGN(e.payload, f.read(offset + entry_bytes + key_length, length));
  e.key = to_string(key);
  e.next = offset + entry_bytes + key_length + length;
  if (!e.erased && crc32c(e.payload) != crc)
    return error{errc::corrupt, "the checksum does not fit"};
  return e;
}

result<namespace_settings> read_descriptor(const fs::path& path) {
  QS_TRY_ASSIGN(auto text, read_file(path, 4096));
  auto bytes = as_bytes(text);
  error damaged{errc::corrupt, fmt::format("{} is damaged", path.string())};
  if (bytes.size() < 15) return damaged;
  byte_reader in{bytes};
  if (auto v = in.get<std::uint32_t>(); v != 1)
    return error{errc::version_mismatch, fmt::format("{} has version {}", path.string(), v)};
  std::size_t name_length = in.get<std::uint8_t>();
  std::size_t password_length = in.get<std::uint8_t>();
  namespace_settings s;
  s.maxsize = in.get<std::uint64_t>();
  auto flags = in.get<std::uint8_t>();
  if (bytes.size() < 15 + name_length + password_length || name_length == 0) return damaged;
  s.is_public = (flags & 1) != 0;
  s.worm = (flags & 2) != 0;
  s.name = text.substr(15, name_length);
  s.password = text.substr(15 + name_length, password_length);
  return s;
}

/// One namespace being taken over.
class taking {
public:
  taking(fs::path data, fs::path index, bool data_alone, import_report& report)
      : data_{std::move(data)}, index_{std::move(index)}, data_alone_{data_alone},
        report_{report} {}

  status run(file_pool& pool, const name_space::limits& lim, namespace_settings settings,
             const fs::path& target) {
    auto indexes = numbered(index_, 'i');
    bool from_index = !indexes.empty();
    if (from_index) {
      auto first = old_file::open(indexes.front().second, "IDX0", index_version, index_header_bytes);
      if (first.ok())
        settings.sequential = first->header()[28] == std::byte{1};
      else if (first.err().code == errc::corrupt)
        from_index = false;
      else
        return std::move(first).err();
    }
    // Served as names, the ids of sequential mode would answer with other values or none.
    if (!from_index && !data_alone_)
      return error{errc::corrupt,
                   fmt::format("namespace {}: it has no index that can be read in {}, and its data "
                               "does not tell whether its keys are names or ids. Put the index "
                               "back, or start with --mode user if they are names",
                               settings.name, index_.string())};
    // Under a name that the next start removes, until it is whole.
    auto making = target;
    making += ".new";
    QS_TRY(name_space::create(making, settings));
    {
      QS_TRY_ASSIGN(space_, name_space::open(pool, making, lim));
      QS_TRY(from_index ? by_index(indexes, settings.sequential) : by_data());
      QS_TRY(sync());
      space_.reset();
    }
    if (::rename(making.c_str(), target.c_str()) != 0)
      return errno_error(fmt::format("rename {}", making.string()), errno);
    ++report_.namespaces;
    return sync_directory(target.parent_path());
  }

private:
  /// The index says what is alive.
  status by_index(const std::vector<std::pair<std::uint32_t, fs::path>>& files, bool sequential) {
    std::uint64_t next_id = 0;
    std::uint32_t expected = 0;
    for (auto& [number, path] : files) {
      // Without one of them deleted keys would come back, and ids would be other values'.
      if (number != expected++)
        return error{errc::corrupt, fmt::format("{}: i{} is missing, i{} is there", index_.string(),
                                                expected - 1, number)};
      QS_TRY_ASSIGN(auto f, old_file::open(path, "IDX0", index_version, index_header_bytes));
      std::uint64_t at = index_header_bytes;
      while (at + item_bytes <= f.size()) {
        QS_TRY_ASSIGN(auto item, f.read(at, item_bytes));
        byte_reader in{item};
        auto key_length = in.get<std::uint8_t>();
        auto offset = in.get<std::uint32_t>();
        (void)in.get<std::uint32_t>(); // the payload's length: the data says it, too
        (void)in.get<std::uint32_t>();
        auto flags = in.get<std::uint8_t>();
        auto file = in.get<std::uint32_t>();
        auto timestamp = in.get<std::uint32_t>();
        at += item_bytes + (sequential ? 8U : key_length);
        if (at > f.size()) break; // torn; counted below
        auto id = next_id++;
        if ((flags & 1) != 0) continue;
        std::string key(8, '\0');
        if (sequential) {
          store_le(reinterpret_cast<std::byte*>(key.data()), id);
        } else {
          QS_TRY_ASSIGN(auto bytes, f.read(at - key_length, key_length));
          key = to_string(bytes);
        }
        QS_TRY(take(key, file, offset, timestamp, sequential));
      }
      if (at == f.size()) continue;
      if (sequential && number != files.back().first) // how many ids it used up is not known
        return error{errc::corrupt, fmt::format("{}: torn, and others follow", path.string())};
      ++report_.damaged;
      log::error("zdb", "{}: its last item is torn: left out", path.string());
    }
    return sequential ? space_->use_up_ids(next_id) : status{};
  }

  status take(const std::string& key, std::uint32_t file, std::uint32_t offset,
              std::uint32_t timestamp, bool sequential) {
    QS_TRY_ASSIGN(auto* f, data_file_of(file));
    auto e = read_entry(*f, offset);
    if (!e.ok() && e.err().code != errc::corrupt) return std::move(e).err();
    if (!e.ok() || e->erased || (!sequential && e->key != key)) {
      ++report_.damaged;
      log::error("zdb", "{}: the entry at {} of d{} is damaged: left out", data_.string(), offset,
                 file);
      return {};
    }
    return store_it(key, e->payload, timestamp);
  }

  /// Without an index: the data in the order in which it was written.
  status by_data() {
    log::warning("zdb", "{}: no index that can be read: taken from the data alone", data_.string());
    for (auto& [number, path] : numbered(data_, 'd')) {
      QS_TRY_ASSIGN(auto f, old_file::open(path, "DAT0", data_version, data_header_bytes));
      for (std::uint64_t at = data_header_bytes; at < f.size();) {
        auto e = read_entry(f, at);
        if (!e.ok() && e.err().code != errc::corrupt) return std::move(e).err();
        if (!e.ok()) { // where the next one stands is not known
          ++report_.damaged;
          log::error("zdb", "{} at {}: damaged; what follows in it is left out", path.string(), at);
          break;
        }
        at = e->next;
        if (!e->erased) {
          QS_TRY(store_it(e->key, e->payload, e->timestamp));
        } else if (space_->erase(as_bytes(e->key), e->timestamp) == write_answer::failed) {
          return error{errc::io, fmt::format("{}: cannot write", space_->directory().string())};
        }
      }
    }
    return {};
  }

  status store_it(const std::string& key, byte_span payload, std::uint32_t timestamp) {
    QS_TRY(space_->restore(as_bytes(key), payload, timestamp));
    ++report_.keys;
    report_.bytes += payload.size();
    unsynced_ += payload.size();
    return unsynced_ >= sync_every ? sync() : status{};
  }

  status sync() {
    unsynced_ = 0;
    QS_TRY_ASSIGN(auto job, space_->make_sync_job());
    auto done = job.run();
    space_->sync_done(job, done);
    return done;
  }

  result<old_file*> data_file_of(std::uint32_t id) {
    if (!open_ || open_id_ != id) {
      QS_TRY_ASSIGN(auto f, old_file::open(data_ / fmt::format("d{}", id), "DAT0", data_version,
                                           data_header_bytes));
      open_ = std::make_unique<old_file>(std::move(f));
      open_id_ = id;
    }
    return open_.get();
  }

  fs::path data_;
  fs::path index_;
  bool data_alone_;
  import_report& report_;
  std::shared_ptr<name_space> space_;
  std::unique_ptr<old_file> open_;
  std::uint32_t open_id_ = 0;
  std::uint64_t unsynced_ = 0;
};

/// 0-db holds these for its life.
result<unique_fd> lock_old(const fs::path& directory) {
  auto path = directory / ".lockfile";
  if (!fs::exists(path)) return unique_fd{};
  QS_TRY_ASSIGN(auto fd, open_file(path, O_RDONLY));
  if (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0)
    return error{errc::busy, fmt::format("a 0-db runs on {} (it holds {})", directory.string(),
                                         path.string())};
  return fd;
}

} // namespace

namespace {
/// Directories of `index` with settings of a namespace.
std::vector<fs::path> described(const fs::path& index) {
  std::vector<fs::path> found;
  if (index.empty()) return found;
  std::error_code ec;
  for (auto& e : fs::directory_iterator{index, ec}) {
    std::error_code ignored;
    if (fs::exists(e.path() / "zdb-namespace", ignored)) found.push_back(e.path().filename());
  }
  std::sort(found.begin(), found.end());
  return found;
}
} // namespace

bool holds_0db(const fs::path& data, const fs::path& index) {
  if (!described(index).empty()) return true;
  std::error_code ec;
  for (auto& e : fs::directory_iterator{data, ec}) {
    std::error_code ignored;
    if (e.path().filename() == "namespaces") continue; // ours
    if (e.is_directory(ignored) && !numbered(e.path(), 'd').empty()) return true;
  }
  return false;
}

result<import_report>
import_0db(const fs::path& data, const fs::path& index, bool data_alone, file_pool& pool,
           const name_space::limits& limits,
           const std::function<fs::path(const std::string& name)>& target) {
  if (index.empty())
    return error{errc::invalid_argument,
                 fmt::format("{} holds data of 0-db; --index DIR is needed to take it over: "
                             "passwords and quotas are there",
                             data.string())};
  QS_TRY_ASSIGN(auto data_lock, lock_old(data));
  QS_TRY_ASSIGN(auto index_lock, lock_old(index));
  import_report report;
  std::vector<fs::path> found;
  std::error_code ec;
  for (auto& e : fs::directory_iterator{data, ec})
    if (e.is_directory(ec) && !numbered(e.path(), 'd').empty()) found.push_back(e.path());
  std::sort(found.begin(), found.end());
  for (auto& name : described(index)) // perhaps its disk is not mounted: it must not begin empty
    if (numbered(data / name, 'd').empty())
      return error{errc::corrupt,
                   fmt::format("namespace {} is described in {} and has no data in {}: give back "
                               "its data, or move its directory out of the index",
                               name.string(), index.string(), (data / name).string())};
  for (auto& path : found) {
    auto name = path.filename();
    auto settings = read_descriptor(index / name / "zdb-namespace");
    // Never without its settings: a private namespace would be open to everybody.
    if (!settings.ok())
      return std::move(settings).err().with(fmt::format("namespace {}", name.string()));
    auto where = target(settings->name);
    if (where.empty()) continue;
    log::info("zdb", "taking over namespace {} of 0-db", settings->name);
    taking one{path, index / name, data_alone, report};
    QS_TRY(one.run(pool, limits, std::move(*settings), where));
  }
  return report;
}

} // namespace qs::zdb
