#include "volume/row_store.hpp"

#include <rocksdb/db.h>
#include <rocksdb/cache.h>
#include <rocksdb/filter_policy.h>
#include <rocksdb/listener.h>
#include <rocksdb/options.h>
#include <rocksdb/table.h>
#include <rocksdb/write_batch.h>

#include <cerrno>
#include <mutex>
#include <shared_mutex>

#include "volume/row_cache.hpp"

namespace qs::volume {

namespace {

rocksdb::Slice slice(std::string_view text) { return {text.data(), text.size()}; }
rocksdb::Slice slice(byte_span bytes) { return slice(as_text(bytes)); }

error failed(std::string_view doing, const rocksdb::Status& s) {
  return {s.IsCorruption() ? errc::corrupt : s.IsNoSpace() ? errc::no_space : errc::io,
          std::string{doing} + ": " + s.ToString(), s.IsNoSpace() ? ENOSPC : EIO};
}

class flush_listener final : public rocksdb::EventListener {
public:
  flush_listener(std::function<void()> before, std::function<void()> after)
      : before_{std::move(before)}, after_{std::move(after)} {}
  void OnFlushBegin(rocksdb::DB*, const rocksdb::FlushJobInfo&) override {
    if (before_) before_();
  }
  void OnFlushCompleted(rocksdb::DB*, const rocksdb::FlushJobInfo&) override {
    if (after_) after_();
  }

private:
  std::function<void()> before_, after_;
};

/// A few hundred operations: rows that change with each are written once for all of them. The most is what may pile up before
/// writers wait for it. Bytes count because an xattr may have 64 KiB.
constexpr std::size_t drain_rows = 512;
constexpr std::size_t drain_rows_max = 4096;
constexpr std::size_t drain_bytes = 1 << 20;
constexpr std::size_t drain_bytes_max = 8 << 20;

std::size_t bytes_of(const row_changes& rows) {
  std::size_t sum = 0;
  for (const auto& [key, value] : rows) sum += key.size() + (value ? value->size() : 0);
  return sum;
}

bool any_in(const row_changes& rows, std::string_view from, std::string_view end) {
  auto first = rows.lower_bound(from);
  return first != rows.end() && first->first < end;
}

/// What is in `from` becomes the last word on its keys in `to`; no row is copied.
void move_over(row_changes& to, row_changes& from) {
  while (!from.empty()) {
    auto node = from.extract(from.begin());
    auto put = to.insert(std::move(node));
    if (!put.inserted) put.position->second = std::move(put.node.mapped());
  }
}

} // namespace

class row_store::impl {
public:
  std::unique_ptr<rocksdb::DB> db;
  row_cache cache{32'768}; // 10 MiB at most, as rows go
  rocksdb::WriteOptions write;
  row_key applied_key = local_key("applied_seq");

  std::mutex drain_mutex; ///< before the next
  mutable std::shared_mutex waiting_mutex;
  row_changes waiting;          ///< newest
  std::size_t waiting_bytes = 0; ///< as they came: a row that came twice counts twice
  row_changes draining;         ///< on their way into RocksDB; only who drains changes them
  std::uint64_t waiting_upto = 0; ///< the last operation in `waiting`, and what `draining` has is older; 0: nothing ever waited

  /// Null: RocksDB has the last word.
  [[nodiscard]] const std::optional<buffer>* unwritten(std::string_view key) const {
    if (auto it = waiting.find(key); it != waiting.end()) return &it->second;
    if (auto it = draining.find(key); it != draining.end()) return &it->second;
    return nullptr;
  }

  status write_batch(const row_changes& changes, std::uint64_t upto) {
    rocksdb::WriteBatch batch;
    rocksdb::Status s;
    for (const auto& [key, value] : changes) {
      s = value ? batch.Put(slice(key), slice(byte_span{*value})) : batch.Delete(slice(key));
      if (!s.ok()) return failed("make a batch of rows", s);
    }
    std::array<std::byte, 8> seq;
    store_le(seq.data(), upto);
    s = batch.Put(slice(applied_key), slice(byte_span{seq}));
    if (!s.ok()) return failed("make a batch of rows", s);
    s = db->Write(write, &batch);
    if (!s.ok()) return failed("write rows", s);
    return {};
  }

  status drain() {
    std::lock_guard turn{drain_mutex};
    std::uint64_t upto = 0;
    {
      std::unique_lock lock{waiting_mutex};
      if (waiting.empty() && draining.empty()) return {};
      move_over(draining, waiting); // there are some in it only after a failure
      waiting_bytes = 0;
      upto = waiting_upto;
    }
    QS_TRY(write_batch(draining, upto));
    row_changes written; // freed without the lock
    std::unique_lock lock{waiting_mutex};
    for (auto& [key, value] : draining) cache.put(key, std::move(value));
    written.swap(draining);
    return {};
  }

  result<std::uint64_t> sequence(rocksdb::ReadTier tier) const {
    rocksdb::ReadOptions options;
    options.read_tier = tier;
    std::string value;
    auto s = db->Get(options, slice(applied_key), &value);
    if (s.IsNotFound()) return std::uint64_t{0};
    if (!s.ok()) return failed("read the applied sequence", s);
    if (value.size() != 8) return error{errc::corrupt, "the applied sequence is damaged"};
    return load_le<std::uint64_t>(as_bytes(value).data());
  }
};

row_store::row_store(std::unique_ptr<impl> i) : impl_{std::move(i)} {}
row_store::~row_store() = default;

result<std::unique_ptr<row_store>> row_store::open(const std::filesystem::path& directory, bool create,
                                                   std::function<void()> before_flush,
                                                   std::function<void()> after_flush) {
  rocksdb::Options options;
  options.create_if_missing = create;
  options.error_if_exists = false;
  options.write_buffer_size = 32 << 20;
  options.max_write_buffer_number = 4;
  options.max_background_jobs = 2;
  options.atomic_flush = true;
  options.avoid_flush_during_shutdown = true; // a destructor alone is a crash: the log brings back what is not flushed
  options.keep_log_file_num = 2;
  options.max_log_file_size = 1 << 20;
  options.max_open_files = 256;
  options.info_log_level = rocksdb::WARN_LEVEL;
  options.compression = rocksdb::kNoCompression;
  options.listeners.push_back(
    std::make_shared<flush_listener>(std::move(before_flush), std::move(after_flush)));
  rocksdb::BlockBasedTableOptions table;
  table.block_cache = rocksdb::NewLRUCache(32 << 20);
  table.cache_index_and_filter_blocks = true; // bounds the memory of many files
  table.filter_policy.reset(rocksdb::NewBloomFilterPolicy(10));
  options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));

  auto made = std::make_unique<impl>();
  rocksdb::DB* db = nullptr;
  auto s = rocksdb::DB::Open(options, directory.string(), &db);
  if (!s.ok()) return failed("open the rows in " + directory.string(), s);
  made->db.reset(db);
  made->write.disableWAL = true;
  return std::unique_ptr<row_store>{new row_store{std::move(made)}};
}

status scan_over(const row_changes& over, std::string_view from, std::string_view end,
                 const std::function<status(const row_visitor&)>& base, const row_visitor& visit) {
  auto own = over.lower_bound(from);
  auto own_end = over.lower_bound(end);
  if (own == own_end) return base(visit);
  bool stopped = false;
  auto give_own_before = [&](std::string_view key, bool all) {
    for (; own != own_end && !stopped && (all || own->first < key); ++own)
      if (own->second && !visit(own->first, *own->second)) stopped = true;
  };
  QS_TRY(base([&](std::string_view key, byte_span value) {
    give_own_before(key, false);
    if (stopped) return false;
    if (own != own_end && own->first == key) {
      if (own->second && !visit(key, *own->second)) stopped = true;
      ++own;
    } else if (!visit(key, value)) {
      stopped = true;
    }
    return !stopped;
  }));
  give_own_before({}, true);
  return {};
}

result<std::optional<buffer>> row_store::get(std::string_view key) const {
  {
    std::shared_lock lock{impl_->waiting_mutex};
    if (const auto* value = impl_->unwritten(key)) return *value;
  }
  auto known = impl_->cache.find(key);
  if (known.known) return std::move(known.value);
  rocksdb::PinnableSlice value;
  auto s = impl_->db->Get(rocksdb::ReadOptions{}, impl_->db->DefaultColumnFamily(), slice(key), &value);
  std::optional<buffer> found;
  if (s.ok()) found = to_buffer(std::string_view{value.data(), value.size()});
  else if (!s.IsNotFound()) return failed("read a row", s);
  impl_->cache.fill(key, found, known.version);
  return found;
}

status row_store::scan(std::string_view from, std::string_view end, const row_visitor& visit) const {
  bool hidden = false;
  {
    std::shared_lock lock{impl_->waiting_mutex};
    hidden = any_in(impl_->waiting, from, end) || any_in(impl_->draining, from, end);
  }
  row_changes over; // what cannot be written, on a full disk: reading does not depend on that
  rocksdb::ReadOptions options;
  auto bound = slice(end);
  options.iterate_upper_bound = &bound;
  std::shared_lock same_moment{impl_->waiting_mutex, std::defer_lock};
  if (hidden && !impl_->drain().ok()) {
    same_moment.lock();
    for (const auto* rows : {&impl_->waiting, &impl_->draining}) // newest first: the first word on a key stays
      over.insert(rows->lower_bound(from), rows->lower_bound(end));
  }
  std::unique_ptr<rocksdb::Iterator> at{impl_->db->NewIterator(options)};
  if (same_moment.owns_lock()) same_moment.unlock();
  return scan_over(over, from, end, [&](const row_visitor& give) -> status {
    for (at->Seek(slice(from)); at->Valid(); at->Next()) {
      auto value = at->value();
      if (!give({at->key().data(), at->key().size()}, as_bytes({value.data(), value.size()}))) return {};
    }
    if (!at->status().ok()) return failed("read rows", at->status());
    return {};
  }, visit);
}

void row_store::apply(row_changes changes, std::uint64_t sequence) {
  auto bytes = bytes_of(changes);
  std::unique_lock lock{impl_->waiting_mutex};
  move_over(impl_->waiting, changes);
  impl_->waiting_upto = sequence;
  impl_->waiting_bytes += bytes;
}

bool row_store::wants_drain() const {
  std::shared_lock lock{impl_->waiting_mutex};
  return impl_->waiting.size() >= drain_rows || impl_->waiting_bytes >= drain_bytes;
}

bool row_store::must_drain() const {
  std::shared_lock lock{impl_->waiting_mutex};
  return impl_->waiting.size() >= drain_rows_max || impl_->waiting_bytes >= drain_bytes_max;
}

status row_store::drain() { return impl_->drain(); }

result<std::uint64_t> row_store::applied_sequence() const {
  {
    std::shared_lock lock{impl_->waiting_mutex};
    if (impl_->waiting_upto != 0) return impl_->waiting_upto;
  }
  return impl_->sequence(rocksdb::kReadAllTier);
}
result<std::uint64_t> row_store::flushed_sequence() const { return impl_->sequence(rocksdb::kPersistedTier); }

status row_store::flush(bool wait) {
  QS_TRY(impl_->drain());
  rocksdb::FlushOptions options;
  options.wait = wait;
  options.allow_write_stall = true; // never waits for a stall to pass: the caller may hold up others
  auto s = impl_->db->Flush(options);
  if (!s.ok()) return failed("flush the rows", s);
  return {};
}

} // namespace qs::volume
