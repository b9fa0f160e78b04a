#include "volume/log.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <fmt/format.h>

#include "codec/checksum.hpp"
#include "volume/log_layout.hpp"

namespace qs::volume {

using namespace log_layout;

write_log::~write_log() = default;

status write_log::begin_file() {
  auto number = next_number_;
  auto path = options_.directory / file_name(number);
  QS_TRY_ASSIGN(auto fd, open_file(path, O_RDWR | O_CREAT | O_EXCL, 0600));
  auto header = encode_file_header({options_.volume, number, appended_, synced_, chain_});
  if (auto written = write_all(fd.get(), header); !written.ok()) {
    ::unlink(path.c_str());
    return std::move(written).err().with("begin a log file");
  }
  ++next_number_;
  entry e;
  e.file = std::make_shared<log_file>(number, path, std::move(fd));
  e.length = file_header_bytes;
  e.last_sequence = appended_;
  e.dirty = true;
  files_.emplace(number, std::move(e));
  bytes_ += file_header_bytes;
  return {};
}

status write_log::start(std::uint64_t last_sequence) {
  std::lock_guard lock{mutex_};
  QS_ASSERT(!started_);
  if (cut_file_ != 0) {
    for (auto it = files_.upper_bound(cut_file_); it != files_.end(); it = files_.erase(it)) {
      if (::unlink(it->second.file->path().c_str()) != 0)
        return errno_error("delete a log file behind a torn one", errno);
      bytes_ -= it->second.length;
    }
    auto& torn = files_.at(cut_file_);
    if (cut_length_ == 0 && ::unlink(torn.file->path().c_str()) != 0)
      return errno_error("delete a log file without a header", errno);
    if (::ftruncate(torn.file->fd(), static_cast<off_t>(cut_length_)) != 0)
      return errno_error("cut the torn end of " + torn.file->path().string(), errno);
    bytes_ -= torn.length - cut_length_;
    torn.length = cut_length_;
    if (::fdatasync(torn.file->fd()) != 0) return errno_error("sync a cut log file", errno);
    if (cut_length_ == 0) files_.erase(cut_file_);
  }
  appended_ = std::max(appended_, last_sequence);
  // What was read back may still be in the page cache only; the new file's chain builds on it, so it goes to disk with it.
  for (auto& [number, e] : files_) e.dirty = true;
  QS_TRY_ASSIGN(watermark_, open_file(options_.directory / "watermark", O_RDWR | O_CREAT, 0600));
  QS_TRY_ASSIGN(front_file_, open_file(options_.directory / "front", O_RDWR | O_CREAT, 0600));
  QS_TRY(begin_file());
  auto& first = files_.rbegin()->second;
  QS_TRY_ASSIGN(directory_, open_file(options_.directory, O_RDONLY | O_DIRECTORY));
  if (::fsync(directory_.get()) != 0) return errno_error("sync " + options_.directory.string(), errno);
  if (::fdatasync(first.file->fd()) != 0) return errno_error("sync a new log file", errno);
  for (auto& [number, e] : files_) e.durable = true; // the others were synced when they were opened
  started_ = true;
  return {};
}

result<log_position> write_log::append(std::uint64_t sequence, byte_span body, std::span<const byte_span> data) {
  record_header header;
  header.sequence = sequence;
  header.body_bytes = static_cast<std::uint32_t>(body.size());
  std::uint64_t data_bytes = 0;
  std::uint64_t sum = 0;
  for (auto piece : data) {
    sum = codec::checksum64(piece, sum);
    data_bytes += piece.size();
  }
  QS_ASSERT(body.size() <= body_bytes_max && data_bytes <= data_bytes_max);
  header.data_bytes = static_cast<std::uint32_t>(data_bytes);
  header.data_checksum = sum;

  std::unique_lock lock{mutex_};
  if (!started_ || broken_) return error{errc::io, "the log takes no more records", EIO};
  QS_ASSERT(sequence > appended_);
  if (files_.rbegin()->second.length >= options_.file_bytes) QS_TRY(begin_file());
  auto& at = files_.rbegin()->second;
  header.synced = synced_;
  auto bytes = encode_record_header(header, body, chain_);

  std::vector<iovec> pieces;
  pieces.reserve(data.size() + 2);
  auto add = [&](byte_span piece) {
    if (!piece.empty()) pieces.push_back({const_cast<std::byte*>(piece.data()), piece.size()});
  };
  add(bytes);
  add(body);
  for (auto piece : data) add(piece);
  auto total = bytes.size() + body.size() + data_bytes;
  if (auto written = write_pieces(at.file->fd(), at.length, pieces); !written.ok()) {
    // Nothing of a failed record may stay: what comes next must follow the last sound one.
    if (::ftruncate(at.file->fd(), static_cast<off_t>(at.length)) != 0) broken_ = true;
    return std::move(written).err();
  }
  log_position place{at.file->number(), at.length + bytes.size() + body.size()};
  at.length += total;
  at.last_sequence = sequence;
  at.dirty = true;
  bytes_ += total;
  appended_ = sequence;
  chain_ = record_chain(bytes);
  return place;
}

status write_log::sync() {
  std::uint64_t target = 0;
  {
    std::lock_guard lock{mutex_};
    target = appended_;
    if (broken_) return error{errc::io, "the log could not be synced", EIO};
  }
  std::unique_lock turn{sync_mutex_};
  for (;;) {
    {
      std::lock_guard lock{mutex_};
      if (broken_) return error{errc::io, "the log could not be synced", EIO};
      // A file without records counts too: trim() asks for a sync until the newest one is on the disk.
      if (synced_ >= target && !files_.empty() && files_.rbegin()->second.durable) return {};
    }
    if (!syncing_) break;
    sync_done_.wait(turn);
  }
  syncing_ = true;
  turn.unlock();

  std::vector<std::shared_ptr<const log_file>> dirty;
  std::uint64_t upto = 0;
  std::uint64_t chain = 0;
  bool named = true; // all of them are in the directory that is on the disk
  {
    std::lock_guard lock{mutex_};
    upto = appended_;
    chain = chain_;
    for (auto& [number, e] : files_)
      if (e.dirty) {
        dirty.push_back(e.file);
        e.dirty = false;
        named = named && e.durable;
      }
  }
  status outcome;
  // Here and not where a file begins: there whoever writes would wait for everything that the disk has still to do.
  if (!named && ::fsync(directory_.get()) != 0) outcome = errno_error("sync " + options_.directory.string(), errno);
  for (const auto& file : dirty) {
    if (!outcome.ok()) break;
    if (::fdatasync(file->fd()) != 0) outcome = errno_error("sync " + file->path().string(), errno);
  }
  {
    std::lock_guard lock{mutex_};
    if (outcome.ok()) {
      synced_ = std::max(synced_, upto);
      for (const auto& file : dirty)
        if (auto it = files_.find(file->number()); it != files_.end()) it->second.durable = true;
      write_watermark(upto, chain);
    } else {
      broken_ = true; // the kernel may have dropped the pages: trying again would lie
    }
  }
  turn.lock();
  syncing_ = false;
  sync_done_.notify_all();
  return outcome;
}

void write_log::write_watermark(std::uint64_t sequence, std::uint64_t chain) {
  auto bytes = encode_watermark({options_.volume, sequence, chain});
  // Itself unsynced and best effort: records carry the same number.
  [[maybe_unused]] auto n = ::pwrite(watermark_.get(), bytes.data(), bytes.size(), 0);
}

void write_log::write_front_mark(std::uint64_t number) {
  if (number <= front_ || !started_) return;
  front_ = number;
  auto bytes = encode_front_mark({options_.volume, number});
  // Unsynced and best effort: an older one only means more to read.
  [[maybe_unused]] auto n = ::pwrite(front_file_.get(), bytes.data(), bytes.size(), 0);
}

std::uint64_t write_log::synced_sequence() const {
  std::lock_guard lock{mutex_};
  return synced_;
}

std::uint64_t write_log::appended_sequence() const {
  std::lock_guard lock{mutex_};
  return appended_;
}

bool write_log::broken() const {
  std::lock_guard lock{mutex_};
  return broken_;
}

void write_log::retain(std::uint64_t file) {
  std::lock_guard lock{mutex_};
  auto it = files_.find(file);
  QS_ASSERT(it != files_.end());
  ++it->second.uses;
}

void write_log::release(std::uint64_t file) {
  std::lock_guard lock{mutex_};
  auto it = files_.find(file);
  QS_ASSERT(it != files_.end() && it->second.uses > 0);
  --it->second.uses;
  it->second.released = appended_;
}

std::shared_ptr<const log_file> write_log::file(std::uint64_t number) const {
  std::lock_guard lock{mutex_};
  auto it = files_.find(number);
  return it == files_.end() ? nullptr : it->second.file;
}

byte_count write_log::bytes() const {
  std::lock_guard lock{mutex_};
  return bytes_;
}

byte_count write_log::needed_bytes() const {
  std::lock_guard lock{mutex_};
  return bytes_ - spare_;
}

byte_count write_log::held_bytes() const {
  std::lock_guard lock{mutex_};
  auto held = bytes_;
  for (const auto& [number, e] : files_) {
    if (e.uses != 0) break;
    held -= e.length;
  }
  return held;
}

std::uint64_t write_log::first_file() const {
  std::lock_guard lock{mutex_};
  return files_.empty() ? next_number_ : files_.begin()->first;
}

write_log::waits_for write_log::trim(std::uint64_t flushed, byte_count keep) {
  // Closed after the lock is given back: the kernel frees what it has of a file then, and nobody has to wait for that.
  std::vector<std::shared_ptr<const log_file>> gone;
  std::lock_guard lock{mutex_};
  spare_ = 0;
  // The file that says where the log stands must survive a power cut before the ones in front of it go.
  auto stands = files_.end();
  for (auto it = files_.begin(); it != files_.end() && it->second.durable; ++it) stands = it;
  if (stands == files_.end()) return waits_for::sync;
  auto over = files_.begin();
  auto waits = waits_for::users;
  for (; over != stands; ++over) {
    const auto& e = over->second;
    if (e.uses == 0 && e.last_sequence > flushed)
      waits = waits_for::flush;
    else if (e.uses == 0 && e.released > synced_)
      waits = waits_for::sync;
    if (e.uses != 0 || waits != waits_for::users) break;
    spare_ += e.length;
  }
  if (over == stands && std::next(stands) != files_.end()) waits = waits_for::sync;
  write_front_mark(over->first);
  while (files_.begin() != over && bytes_ > keep) {
    auto& front = files_.begin()->second;
    if (::unlink(front.file->path().c_str()) != 0 && errno != ENOENT) break;
    bytes_ -= front.length;
    spare_ -= front.length;
    gone.push_back(std::move(front.file));
    files_.erase(files_.begin());
  }
  return waits;
}

status write_log::rotate() {
  std::lock_guard lock{mutex_};
  if (!started_ || broken_) return error{errc::io, "the log takes no more records", EIO};
  if (files_.rbegin()->second.length <= file_header_bytes) return {};
  return begin_file();
}

} // namespace qs::volume
