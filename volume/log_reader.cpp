// Reading the log back at start (volume.md 4): oldest first, up to the first record that is not sound. What is found bad at or below
// the synced sequence is corruption; beyond it a torn tail that start() will cut.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <fmt/format.h>

#include "codec/checksum.hpp"
#include "volume/log.hpp"
#include "volume/log_layout.hpp"

namespace qs::volume {

using namespace log_layout;

namespace {

/// nobody: too short for a header, so its making was cut off.
result<log_owner> owner_of_file(const std::filesystem::path& path, const model::volume_id& volume) {
  QS_TRY_ASSIGN(auto fd, open_file(path, O_RDONLY));
  buffer bytes(file_header_bytes);
  auto n = ::pread(fd.get(), bytes.data(), bytes.size(), 0);
  if (n < 0) return errno_error("read " + path.string(), errno);
  if (static_cast<std::size_t>(n) < bytes.size()) return log_owner::nobody;
  auto header = decode_file_header(bytes);
  return header.ok() && header->volume == volume ? log_owner::ours : log_owner::another;
}

result<std::vector<std::filesystem::path>> log_files(const std::filesystem::path& directory) {
  std::vector<std::filesystem::path> out;
  std::error_code ec;
  if (!std::filesystem::exists(directory, ec) && !ec) return out;
  for (const auto& item : std::filesystem::directory_iterator{directory, ec})
    if (parse_file_name(item.path().filename().string())) out.push_back(item.path());
  if (ec) return errno_error("list " + directory.string(), ec.value());
  return out;
}

status unlink_file(const std::filesystem::path& path) {
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) return errno_error("delete " + path.string(), errno);
  return {};
}

} // namespace

result<log_owner> write_log::owner_of(const std::filesystem::path& directory, const model::volume_id& volume) {
  QS_TRY_ASSIGN(auto files, log_files(directory));
  auto owner = log_owner::nobody;
  for (const auto& path : files) {
    QS_TRY_ASSIGN(auto whose, owner_of_file(path, volume));
    if (whose == log_owner::another) return whose;
    if (whose == log_owner::ours) owner = whose;
  }
  return owner;
}

status write_log::erase(const std::filesystem::path& directory, const model::volume_id& volume) {
  QS_TRY_ASSIGN(auto files, log_files(directory));
  bool shared = false;
  for (const auto& path : files) {
    QS_TRY_ASSIGN(auto whose, owner_of_file(path, volume));
    if (whose == log_owner::another) shared = true;
    else QS_TRY(unlink_file(path));
  }
  for (const auto* name : {"watermark", "front"}) {
    auto path = directory / name;
    std::error_code ec;
    if (shared || !std::filesystem::exists(path, ec)) continue;
    QS_TRY_ASSIGN(auto text, read_file(path, 4096));
    auto mark = decode_watermark(as_bytes(text));
    auto front = decode_front_mark(as_bytes(text));
    auto foreign = (mark && mark->volume != volume) || (front && front->volume != volume);
    if (!foreign) QS_TRY(unlink_file(path));
  }
  if (::rmdir(directory.c_str()) != 0 && errno != ENOENT && errno != ENOTEMPTY && errno != EEXIST && errno != EBUSY)
    return errno_error("delete " + directory.string(), errno);
  return {};
}

result<std::unique_ptr<write_log>> write_log::open(options opt) {
  QS_TRY(make_directories(opt.directory));
  std::unique_ptr<write_log> log{new write_log{std::move(opt)}};
  std::error_code ec;
  for (const auto& item : std::filesystem::directory_iterator{log->options_.directory, ec}) {
    auto number = parse_file_name(item.path().filename().string());
    if (!number) continue;
    QS_TRY_ASSIGN(auto fd, open_file(item.path(), O_RDWR));
    struct stat st {};
    if (::fdatasync(fd.get()) != 0) return errno_error("sync " + item.path().string(), errno);
    if (::fstat(fd.get(), &st) != 0) return errno_error("look at " + item.path().string(), errno);
    entry e;
    e.file = std::make_shared<log_file>(*number, item.path(), std::move(fd));
    e.length = static_cast<std::uint64_t>(st.st_size);
    log->files_.emplace(*number, std::move(e));
  }
  if (ec) return error{errc::io, "list the log directory: " + ec.message(), ec.value()};
  QS_TRY(log->drop_unneeded());
  // The name of the newest may not be on the disk yet, and rows that follow from it may be there before start().
  QS_TRY(sync_directory(log->options_.directory));
  return log;
}

status write_log::drop_unneeded() {
  auto text = read_file(options_.directory / "front", 4096);
  if (!text.ok()) return {};
  auto mark = decode_front_mark(as_bytes(*text));
  if (!mark || mark->volume != options_.volume || files_.lower_bound(mark->number) == files_.end()) return {};
  while (files_.begin()->first < mark->number) {
    if (::unlink(files_.begin()->second.file->path().c_str()) != 0 && errno != ENOENT)
      return errno_error("delete " + files_.begin()->second.file->path().string(), errno);
    files_.erase(files_.begin());
  }
  return {};
}

std::uint64_t write_log::read_watermark() const {
  auto text = read_file(options_.directory / "watermark", 4096);
  if (!text.ok()) return 0;
  auto mark = decode_watermark(as_bytes(*text));
  return mark && mark->volume == options_.volume ? mark->sequence : 0;
}

status write_log::replay(const std::function<status(const found_record&)>& each, log_recovery& out) {
  out = {};
  out.synced_sequence = read_watermark();
  bool first = true;
  bool stopped = false;
  for (auto& [number, e] : files_) {
    next_number_ = number + 1;
    bytes_ += e.length;
    if (stopped) {
      // What lies behind the first bad record never happened, but its header may know what was synced.
      buffer bytes(file_header_bytes);
      if (e.length >= file_header_bytes && e.file->read(0, bytes).ok())
        if (auto header = decode_file_header(bytes); header.ok() && header->volume == options_.volume)
          out.synced_sequence = std::max(out.synced_sequence, header->synced);
      out.torn_bytes += e.length;
      continue;
    }
    buffer bytes(std::min<std::uint64_t>(file_header_bytes, e.length));
    QS_TRY(e.file->read(0, bytes));
    auto header = decode_file_header(bytes);
    if (!header.ok() && header.err().code == errc::version_mismatch) return std::move(header).err();
    // Numbers may leave a gap (files behind a torn one went, and none is used again); sequence and chain may not.
    bool follows = header.ok() && header->number == number &&
                   (first || (header->before == out.last_sequence && header->chain == chain_));
    if (header.ok() && header->volume != options_.volume)
      return error{errc::refused, e.file->path().string() + " is the log of another volume"};
    if (!follows) {
      stopped = true;
      out.what = e.file->path().string() + " does not follow the file before it, or its header is damaged";
      cut_file_ = first ? 0 : std::prev(files_.find(number))->first;
      cut_length_ = first ? 0 : files_.at(cut_file_).length;
      if (first) {
        cut_file_ = number;
        cut_length_ = 0;
      }
      out.torn_bytes += e.length;
      continue;
    }
    if (first) {
      out.last_sequence = header->before;
      chain_ = header->chain;
    }
    first = false;
    out.synced_sequence = std::max(out.synced_sequence, header->synced);
    QS_TRY_ASSIGN(bool whole, read_one(e, each, out));
    if (!whole) stopped = true;
  }
  appended_ = out.last_sequence;
  synced_ = std::min(out.synced_sequence, out.last_sequence);
  out.corrupt = stopped && out.synced_sequence > out.last_sequence;
  // Records may all be sound and yet some be missing that the watermark knows of.
  if (!stopped && out.synced_sequence > out.last_sequence) {
    out.corrupt = true;
    out.what = fmt::format("the log ends at operation {:x}, but {:x} was synced", out.last_sequence,
                           out.synced_sequence);
  }
  return {};
}

result<bool> write_log::read_one(entry& e, const std::function<status(const found_record&)>& each,
                                 log_recovery& out) {
  std::uint64_t at = file_header_bytes;
  e.last_sequence = out.last_sequence;
  auto bad = [&](std::string_view why) {
    out.what = fmt::format("{} at byte {}: {}", e.file->path().string(), at, why);
    out.torn_bytes += e.length - at;
    cut_file_ = e.file->number();
    cut_length_ = at;
    return false;
  };
  buffer head(record_header_bytes);
  buffer body;
  buffer chunk;
  while (at < e.length) {
    if (e.length - at < record_header_bytes) return bad("a record's header is cut short");
    QS_TRY(e.file->read(at, head));
    auto header = decode_record_header(head);
    if (!header) return bad("not a record");
    auto total = record_header_bytes + header->body_bytes + header->data_bytes;
    if (e.length - at < total) return bad("a record is cut short");
    body.resize(header->body_bytes);
    QS_TRY(e.file->read(at + record_header_bytes, body));
    if (chain_of(head, body, chain_) != header->chain) return bad("a record's checksum is wrong");
    if (header->sequence <= out.last_sequence) return bad("records are out of order");
    std::uint64_t sum = 0;
    auto data_at = at + record_header_bytes + header->body_bytes;
    for (std::uint64_t done = 0; done < header->data_bytes; done += chunk.size()) {
      chunk.resize(std::min<std::uint64_t>(mib, header->data_bytes - done));
      QS_TRY(e.file->read(data_at + done, chunk));
      sum = codec::checksum64(chunk, sum);
    }
    if (sum != header->data_checksum) return bad("the checksum of a record's data is wrong");
    QS_TRY(each({header->sequence, body, header->data_bytes, {e.file->number(), data_at}}));
    chain_ = header->chain;
    out.last_sequence = header->sequence;
    out.synced_sequence = std::max(out.synced_sequence, header->synced);
    ++out.records;
    e.last_sequence = header->sequence;
    at += total;
  }
  return true;
}

} // namespace qs::volume
