#include "zdb/compactor.hpp"

#include <algorithm>
#include <fcntl.h>
#include <unistd.h>

#include <fmt/format.h>

#include "base/log.hpp"
#include "zdb/crc32c.hpp"

namespace qs::zdb {

namespace {
constexpr std::size_t batch_records = 1024;
constexpr std::uint64_t batch_bytes = 1 << 20;
constexpr std::uint64_t sync_every = 8 << 20; // so that no sync of the helper thread takes long
constexpr std::chrono::seconds full_disk_pause{60};

status write_exactly(int fd, const std::filesystem::path& path, byte_span bytes,
                     std::uint64_t offset) {
  while (!bytes.empty()) {
    auto n = ::pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      auto why = n < 0 ? errno : ENOSPC;
      auto failed = errno_error(fmt::format("write {}", path.string()), why);
      if (why == ENOSPC || why == EDQUOT) failed.code = errc::no_space;
      return failed;
    }
    bytes = bytes.subspan(static_cast<std::size_t>(n));
    offset += static_cast<std::uint64_t>(n);
  }
  return {};
}
} // namespace

/// One pass. Its members are touched by one thread at a time: the helper thread during a job, the
/// I/O thread between jobs.
struct compactor::pass : std::enable_shared_from_this<compactor::pass> {
  /// A piece of an input: where it begins there and in the output, and which records were taken.
  struct piece {
    std::size_t input = 0;
    std::uint64_t from = 0;
    std::uint64_t end = 0;
    std::uint64_t to = 0;
    std::vector<bool> kept;
  };

  compactor* owner; ///< null: stopped, and `space` with it
  std::shared_ptr<name_space> space;
  compaction_plan plan;
  std::function<void(const status&)> done;
  user_index hashes;
  std::filesystem::path making;
  std::filesystem::path final_path;
  unique_fd out;
  std::uint64_t out_size = file_header_bytes;
  std::uint64_t unsynced = 0;
  std::vector<piece> pieces;
  std::size_t changed_over = 0;
  std::vector<compaction_record> batch; ///< of pieces.back(), or of pieces[changed_over]
  std::uint64_t moved_bytes = 0;        ///< since the last pause
  bool named = false;                   ///< the output has its final name

  pass(compactor* o, std::shared_ptr<name_space> s, compaction_plan p,
       std::function<void(const status&)> d)
      : owner{o}, space{std::move(s)}, plan{std::move(p)}, done{std::move(d)},
        hashes{plan.hash_key},
        making{plan.directory / fmt::format("{:08x}.packing", plan.output.id)},
        final_path{data_file_path(plan.directory, plan.output.id)} {}

  // -- on the helper thread -----------------------------------------------------------------------

  status begin() {
    QS_TRY_ASSIGN(out, open_file(making, O_RDWR | O_CREAT | O_TRUNC));
    return write_exactly(out.get(), making, encode_file_header(plan.output), 0);
  }

  /// Fills `batch` with the records from `from` on; where it ended.
  result<std::uint64_t> read_batch(std::size_t input, std::uint64_t from, std::uint64_t most_end) {
    auto& in = plan.inputs[input];
    batch.clear();
    auto visit = [&](const record_header& header, byte_span key, std::uint32_t offset) {
      if (batch.size() >= batch_records || offset - from >= batch_bytes) return false;
      std::uint64_t id = hashes.hash(key);
      if (plan.output.sequential) id = is_sequential_key(key) ? id_of(key) : ~std::uint64_t{0};
      batch.push_back({header, offset, id, false});
      return true;
    };
    QS_TRY_ASSIGN(auto end, walk_records(in.file->get(), in.path, most_end, from, most_end, visit));
    if (end == from) // it had none, though there should be some
      return error{errc::corrupt, fmt::format("{} at {}: damaged", in.path.string(), from)};
    return end;
  }

  /// The next piece, or false at the end of the last input.
  result<bool> next_piece() {
    std::size_t input = pieces.empty() ? 0 : pieces.back().input;
    std::uint64_t from = pieces.empty() ? file_header_bytes : pieces.back().end;
    while (input < plan.inputs.size() && from >= plan.inputs[input].size) {
      ++input;
      from = file_header_bytes;
    }
    if (input == plan.inputs.size()) return false;
    QS_TRY_ASSIGN(auto end, read_batch(input, from, plan.inputs[input].size));
    pieces.push_back({input, from, end, out_size, {}});
    return true;
  }

  /// Copies what is to be kept of the last piece.
  status copy() {
    auto& p = pieces.back();
    p.kept.resize(batch.size());
    std::uint64_t first = 0;
    std::uint64_t last = 0;
    for (std::size_t i = 0; i < batch.size(); ++i) {
      auto& r = batch[i];
      p.kept[i] = r.keep;
      if (!r.keep) continue;
      if (first == 0) first = r.offset;
      last = r.offset + r.header.record_bytes();
    }
    if (last == 0) return {};
    auto& in = plan.inputs[p.input];
    buffer bytes(static_cast<std::size_t>(last - first));
    iovec part{bytes.data(), bytes.size()};
    QS_TRY(read_exactly(in.file->get(), in.path, {&part, 1}, first));
    buffer copied;
    copied.reserve(bytes.size());
    for (auto& r : batch) {
      if (!r.keep) continue;
      auto whole = byte_span{bytes}.subspan(static_cast<std::size_t>(r.offset - first),
                                            static_cast<std::size_t>(r.header.record_bytes()));
      auto key = whole.subspan(record_header_bytes, r.header.key_length);
      auto payload = whole.subspan(record_header_bytes + key.size());
      if (!record_header_fits(whole.first(record_header_bytes), key, r.offset) ||
          crc32c(payload) != r.header.payload_crc)
        return error{errc::corrupt, fmt::format("{} at {}: the record is damaged; the file stays",
                                                in.path.string(), r.offset)};
      auto header = r.header;
      header.previous = r.header.origin({in.id, r.offset});
      header.moved = true;
      auto head = encode_record_header(header, key,
                                       static_cast<std::uint32_t>(out_size + copied.size()));
      copied.insert(copied.end(), head.begin(), head.end());
      copied.insert(copied.end(), whole.begin() + record_header_bytes, whole.end());
    }
    QS_TRY(write_exactly(out.get(), making, copied, out_size));
    out_size += copied.size();
    unsynced += copied.size();
    moved_bytes += bytes.size() + copied.size();
    if (unsynced >= sync_every) QS_TRY(sync_output());
    return {};
  }

  status sync_output() {
    unsynced = 0;
    if (::fdatasync(out.get()) != 0)
      return errno_error(fmt::format("sync {}", making.string()), errno);
    return {};
  }

  status give_name() {
    QS_TRY(sync_output());
    if (::rename(making.c_str(), final_path.c_str()) != 0)
      return errno_error(fmt::format("rename {}", making.string()), errno);
    named = true;
    out.reset();
    return sync_directory(plan.directory);
  }

  /// The records of a piece again, for the change-over.
  status read_again(const piece& p) {
    QS_TRY_ASSIGN(auto end, read_batch(p.input, p.from, p.end));
    if (end != p.end || batch.size() != p.kept.size())
      return error{errc::corrupt, fmt::format("{} changed while it was compacted",
                                              plan.inputs[p.input].path.string())};
    for (std::size_t i = 0; i < batch.size(); ++i) batch[i].keep = p.kept[i];
    return {};
  }

  // -- on the I/O thread --------------------------------------------------------------------------

  /// `work` on the helper thread, then `next` here unless it failed, or the pass has lost its sense.
  void go(std::function<status()> work, std::function<void()> next) {
    auto outcome = std::make_shared<status>();
    owner->env_.disk([work = std::move(work), outcome] { *outcome = work(); },
                     [self = shared_from_this(), outcome, next = std::move(next)] {
                       if (self->owner == nullptr) return;
                       if (!outcome->ok()) return self->fail(outcome->err());
                       if (!self->space->still_valid(self->plan))
                         return self->fail({errc::cancelled, "the namespace was emptied or removed"});
                       next();
                     });
  }

  void start() {
    auto more = std::make_shared<bool>(false);
    go(
        [this, more]() -> status {
          QS_TRY(begin());
          QS_TRY_ASSIGN(*more, next_piece());
          return {};
        },
        [this, more] { *more ? choose() : finish(); });
  }

  void choose() {
    if (space->versions_stay())
      return fail({errc::cancelled, "the namespace is to be a worm namespace"});
    if (auto known = space->choose_live(plan, pieces.back().input, batch); !known.ok())
      return fail(known.err());
    auto more = std::make_shared<bool>(false);
    go(
        [this, more]() -> status {
          QS_TRY(copy());
          QS_TRY_ASSIGN(*more, next_piece());
          return {};
        },
        [this, more] {
          pause([this, more] { *more ? choose() : finish(); });
        });
  }

  /// As long as what was moved lately may take.
  void pause(std::function<void()> next) {
    auto rate = owner->options_.bytes_per_second;
    auto bytes = std::exchange(moved_bytes, 0);
    std::chrono::milliseconds wait{rate == 0 ? 0 : static_cast<std::int64_t>(bytes * 1000 / rate)};
    if (wait.count() == 0) {
      moved_bytes = rate == 0 ? 0 : bytes; // adds up
      return next();
    }
    owner->env_.after(wait, [self = shared_from_this(), next = std::move(next)] {
      if (self->owner == nullptr) return;
      if (!self->space->still_valid(self->plan))
        return self->fail({errc::cancelled, "the namespace was emptied or removed"});
      next();
    });
  }

  /// What overwrote or deleted a record must be on the disk before the record is gone from it.
  void finish() {
    auto job = space->make_sync_job();
    if (!job.ok()) return fail(std::move(job).err());
    auto shared = std::make_shared<sync_job>(std::move(*job));
    auto outcome = std::make_shared<status>();
    owner->env_.disk([shared, outcome] { *outcome = shared->run(); },
                     [self = shared_from_this(), shared, outcome] {
                       if (self->owner == nullptr) return; // the end: all is synced once more
                       self->space->sync_done(*shared, *outcome);
                       if (!outcome->ok()) return self->fail(outcome->err());
                       if (!self->space->still_valid(self->plan))
                         return self->fail({errc::cancelled, "the namespace was emptied or removed"});
                       // The last moment: once the output has its name the pass goes to its end,
                       // and who wants to have old versions stay waits for it.
                       if (self->space->versions_stay())
                         return self->fail({errc::cancelled, "the namespace is to be worm"});
                       self->name();
                     });
  }

  void name() {
    go([this] { return give_name(); },
       [this] {
         if (auto adopted = space->adopt(plan); !adopted.ok()) return fail(adopted.err());
         change_over();
       });
  }

  void change_over() {
    if (changed_over == pieces.size()) return retire();
    go([this] { return read_again(pieces[changed_over]); },
       [this] {
         auto& p = pieces[changed_over];
         auto to = p.to;
         for (auto& r : batch) {
           if (!r.keep) continue;
           auto known = space->moved(plan, p.input, r, static_cast<std::uint32_t>(to));
           if (!known.ok()) return fail(known.err());
           to += r.header.record_bytes();
         }
         ++changed_over;
         change_over();
       });
  }

  void retire() {
    auto paths = space->retire_inputs(plan);
    std::uint64_t before = 0;
    for (auto& in : plan.inputs) before += in.size;
    auto& stats = owner->stats_;
    ++stats.passes;
    stats.files_removed += paths.size();
    stats.bytes_copied += out_size;
    stats.bytes_freed += before - std::min(before, out_size);
    log::info("zdb", "namespace {}: compacted {} files, {} of {} bytes are left",
              space->settings().name, paths.size(), out_size, before);
    plan.inputs.clear(); // closes them: only then the space is free
    owner->env_.disk(
        [paths = std::move(paths)] {
          for (auto& p : paths) ::unlink(p.c_str()); // what stays is deleted at the next start
        },
        [self = shared_from_this()] { self->end({}); });
  }

  void fail(const error& why) {
    if (why.code != errc::cancelled) {
      ++owner->stats_.failures;
      log::warning("zdb", "namespace {}: compaction: {}", space->settings().name, describe(why));
    }
    if (why.code == errc::no_space)
      owner->not_before_ = std::chrono::steady_clock::now() + full_disk_pause;
    // Once named it replaces the inputs at the next start, and what it has pointed at must stay.
    auto in_use = space->compacting_into(plan);
    owner->env_.disk(
        [self = shared_from_this(), in_use] {
          ::unlink(self->making.c_str());
          if (self->named && !in_use) ::unlink(self->final_path.c_str());
        },
        [self = shared_from_this(), why] { self->end(why); });
  }

  void end(const status& outcome) {
    if (owner == nullptr) return;
    auto broken = !outcome.ok() && outcome.err().code != errc::cancelled &&
                  outcome.err().code != errc::no_space;
    space->end_compaction(plan, broken || (!outcome.ok() && named));
    auto tell = std::move(done);
    owner->pass_.reset();
    if (tell) tell(outcome);
  }
};

compactor::compactor(compaction_options options, compaction_environment env)
    : options_{options}, env_{std::move(env)} {}

compactor::~compactor() { stop(); }

bool compactor::consider(const std::shared_ptr<name_space>& space, bool anyway,
                         std::function<void(const status&)> done) {
  if (stopped_ || pass_ || std::chrono::steady_clock::now() < not_before_) return false;
  auto plan = space->plan_compaction(options_.dead_percent, options_.least_bytes, anyway);
  if (!plan) return false;
  pass_ = std::make_shared<pass>(this, space, std::move(*plan), std::move(done));
  pass_->start();
  return true;
}

std::shared_ptr<name_space> compactor::working_on() const noexcept {
  return pass_ ? pass_->space : nullptr;
}

void compactor::stop() noexcept {
  stopped_ = true;
  if (!pass_) return;
  pass_->owner = nullptr;
  pass_->space.reset(); // a job that is still queued must not outlive the store with it
  pass_.reset();
}

} // namespace qs::zdb
