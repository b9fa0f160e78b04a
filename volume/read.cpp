// Reading: ranges over the base frame; the frame from memory, the log, the cache of shards, or the nodes.
#include <algorithm>
#include <cerrno>

#include "volume/engine.hpp"

namespace qs::volume {

namespace {
error as_eio(error e) {
  if (e.sys == 0) e.sys = EIO;
  return e;
}
constexpr std::uint64_t ahead_extents = 128; // 8 MiB
/// After this a read that failed does not look again.
constexpr std::chrono::seconds look_again_most{15};
} // namespace

/// One read on its way. What it will copy is fixed at one moment; frames come when they come.
struct read_job : std::enable_shared_from_this<read_job> {
  struct part {
    std::uint64_t index = 0;
    std::uint32_t low = 0, high = 0; ///< wanted bytes of the extent
    std::optional<extent_row> row;   ///< only if some of its bytes show
    std::vector<byte_range> ranges;
    std::vector<std::shared_ptr<const log_file>> files; ///< of the ranges: they stay readable
    buffer_ptr base;
  };

  read_job(std::weak_ptr<engine> e, inode_number i, std::uint64_t o, std::size_t l, filesystem::read_done d)
      : owner{std::move(e)}, inode{i}, offset{o}, length{l}, done{std::move(d)} {}

  std::weak_ptr<engine> owner;
  inode_number inode;
  std::uint64_t offset;
  std::size_t length;
  filesystem::read_done done;
  std::vector<part> parts;
  std::uint64_t end = 0; ///< of what is read, in the file
  unsigned attempts = 0;
  boot_time began{0};
  std::mutex mutex;
  std::size_t pending = 0;
  std::optional<error> failed;

  void start(engine& e);
  status look(engine& e);
  void arrived(std::size_t part_index, result<buffer_ptr> base);
  void finish();
  result<buffer> assemble() const;
};

status read_job::look(engine& e) {
  parts.clear();
  std::shared_lock view{e.view_mutex_};
  QS_TRY_ASSIGN(auto row, e.inode(inode));
  end = std::min<std::uint64_t>(row.size, offset + length);
  if (offset >= end) {
    end = offset;
    return {};
  }
  for (auto index = offset / extent_bytes; index * extent_bytes < end; ++index) {
    part p;
    p.index = index;
    auto start = index * extent_bytes;
    p.low = offset > start ? static_cast<std::uint32_t>(offset - start) : 0;
    p.high = static_cast<std::uint32_t>(std::min<std::uint64_t>(end - start, extent_bytes));
    auto covered = p.low;
    if (const auto* ranges = e.extents_.find({inode, index}))
      for (const auto& r : ranges->ranges) {
        if (r.to <= p.low || r.from >= p.high) continue;
        p.ranges.push_back(r);
        p.files.push_back(r.zero ? nullptr : e.log_->file(r.where.file));
        if (r.from <= covered) covered = std::max(covered, r.to);
      }
    bool trimmed = index >= row.trim_from && index < row.trim_to;
    if (covered < p.high && !trimmed) {
      QS_TRY_ASSIGN(auto value, e.rows_->get(extent_key(inode, index)));
      if (value) {
        QS_TRY_ASSIGN(auto extent, decode_extent(*value));
        if (extent.visible > covered) p.row = std::move(extent);
      }
    }
    if (p.row || !p.ranges.empty()) parts.push_back(std::move(p));
  }
  return {};
}

void read_job::start(engine& e) {
  if (attempts == 0) began = e.now();
  if (auto looked = look(e); !looked.ok()) return done(std::move(looked).err());
  std::vector<std::size_t> wanted;
  for (std::size_t i = 0; i < parts.size(); ++i)
    if (parts[i].row) wanted.push_back(i);
  failed.reset();
  pending = wanted.size() + 1;
  for (auto i : wanted)
    e.get_frame(*parts[i].row, began,
                [self = shared_from_this(), i](result<buffer_ptr> base) { self->arrived(i, std::move(base)); });
  arrived(parts.size(), buffer_ptr{});
}

void read_job::arrived(std::size_t part_index, result<buffer_ptr> base) {
  {
    std::lock_guard lock{mutex};
    if (part_index < parts.size()) {
      if (base.ok()) parts[part_index].base = *base;
      else if (!failed) failed = std::move(base).err();
    }
    if (--pending != 0) return;
  }
  finish();
}

void read_job::finish() {
  if (failed) {
    // A frame may have been superseded or moved on between the look and the reading: look again (volume.md 6, reclaim).
    auto e = owner.lock();
    bool changed = false;
    if (e && attempts < 4 && e->now() < began + look_again_most)
      for (const auto& p : parts) {
        if (!p.row || p.base) continue;
        auto value = e->rows_->get(extent_key(inode, p.index));
        auto now = value.ok() && *value ? decode_extent(**value) : result<extent_row>{error{errc::not_found, {}}};
        changed = changed || !now.ok() || !(*now == *p.row);
      }
    if (changed) {
      ++attempts;
      return start(*e);
    }
    return done(as_eio(*failed));
  }
  done(assemble());
}

result<buffer> read_job::assemble() const {
  buffer out(end - offset);
  for (const auto& p : parts) {
    auto start = p.index * extent_bytes;
    auto at = [&](std::uint32_t in_extent) { return out.data() + (start + in_extent - offset); };
    if (p.base) {
      auto upto = std::min({p.high, p.row->visible, static_cast<std::uint32_t>(p.base->size())});
      if (upto > p.low) std::memcpy(at(p.low), p.base->data() + p.low, upto - p.low);
    }
    for (std::size_t i = 0; i < p.ranges.size(); ++i) {
      const auto& r = p.ranges[i];
      auto from = std::max(r.from, p.low);
      auto to = std::min(r.to, p.high);
      if (r.zero) {
        std::memset(at(from), 0, to - from);
        continue;
      }
      if (!p.files[i]) return error{errc::io, "a log file is gone that still holds data", EIO};
      auto got = p.files[i]->read(r.where.offset + (from - r.from), {at(from), to - from});
      if (!got.ok()) return as_eio(std::move(got).err());
    }
  }
  return out;
}

void engine::read(inode_number inode, std::uint64_t offset, std::size_t length, filesystem::read_done done) {
  if (closed_) return done(posix_error(EIO));
  if (offset + length < offset) return done(posix_error(EINVAL));
  auto job = std::make_shared<read_job>(weak_from_this(), inode, offset, length, std::move(done));
  bool sequential = false;
  std::uint64_t ahead = 0;
  if (length > 0) {
    std::lock_guard lock{fetch_mutex_};
    if (readers_.size() > 4096) readers_.clear();
    auto& r = readers_[inode];
    sequential = r.next == offset && offset > 0;
    if (!sequential) r.ahead = 0;
    r.next = offset + length;
    auto here = (offset + length) / extent_bytes;
    if (sequential && r.ahead < here + ahead_extents / 2) {
      ahead = std::max(r.ahead, here + 1);
      r.ahead = here + ahead_extents;
    }
  }
  job->start(*this);
  if (ahead != 0) post([inode, ahead](engine& e) { e.read_ahead(inode, ahead, ahead + ahead_extents); });
}

void engine::read_ahead(inode_number inode, std::uint64_t from, std::uint64_t to) {
  auto row = this->inode(inode);
  if (!row.ok()) return;
  to = std::min(to, (row->size + extent_bytes - 1) / extent_bytes);
  shard_key last;
  for (auto index = from; index < to; ++index) {
    auto value = rows_->get(extent_key(inode, index));
    if (!value.ok() || !*value) continue;
    auto extent = decode_extent(**value);
    if (!extent.ok()) continue;
    shard_key key{extent->segment, extent->slot};
    if (key == last) continue;
    last = key;
    {
      std::shared_lock view{view_mutex_};
      if (in_log(*extent)) continue;
    }
    if (shards_.contains(key)) continue;
    get_shard(key, std::nullopt, [](const result<buffer_ptr>&) {});
  }
}

void engine::get_frame(const extent_row& row, boot_time since, frame_done done) {
  frame_key key{row.segment, row.frame_number};
  if (auto plain = frames_.find(key)) return done(plain);
  bool here = false;
  if (auto plain = frame_from_log(row, here); here) {
    if (plain.ok()) frames_.put(key, *plain);
    return done(std::move(plain));
  }
  auto kept = frame_from_kept(row);
  if (auto plain = kept ? kept : frame_from_cache(row)) {
    frames_.put(key, plain);
    return done(plain);
  }
  get_shard({row.segment, row.slot}, since, [weak = weak_from_this(), row, done = std::move(done)](result<buffer_ptr> value) {
    auto e = weak.lock();
    if (!e) return done(posix_error(EIO));
    if (!value.ok()) return done(std::move(value).err());
    auto at = codec::shard_header_bytes + std::uint64_t{row.position};
    if (at + row.stored > (*value)->size()) return done(error{errc::corrupt, "a frame lies outside its shard", EIO});
    auto plain = e->open_frame(row, byte_span{**value}.subspan(at, row.stored));
    if (plain.ok()) e->frames_.put({row.segment, row.frame_number}, *plain);
    done(std::move(plain));
  });
}

result<buffer_ptr> engine::frame_from_log(const extent_row& row, bool& here) {
  std::shared_ptr<const log_file> file;
  std::shared_ptr<const codec::frame_cipher> cipher;
  local_frame frame;
  {
    std::shared_lock view{view_mutex_};
    auto it = segments_.find(row.segment);
    if (it == segments_.end()) return buffer_ptr{};
    std::lock_guard lock{it->second->mutex};
    auto f = it->second->frames.find(row.frame_number);
    if (f == it->second->frames.end()) return buffer_ptr{};
    frame = f->second;
    cipher = it->second->cipher;
    file = log_->file(frame.where.file);
  }
  here = true;
  if (!file || !cipher || frame.stored != row.stored || row.plain > codec::frame_plain_max)
    return error{errc::corrupt, "a frame in the log is not what its row says", EIO};
  buffer stored(frame.stored);
  QS_TRY(file->read(frame.where.offset, stored));
  auto plain = std::make_shared<buffer>(row.plain);
  QS_TRY(cipher->open(row.frame_number, static_cast<codec::frame_codec>(row.codec), stored, *plain));
  return buffer_ptr{std::move(plain)};
}

bool engine::in_log(const extent_row& row) const {
  if (segments_.contains(row.segment)) return true;
  auto it = kept_.find(row.segment);
  return it != kept_.end() && it->second.find(row.frame_number) != nullptr;
}

buffer_ptr engine::frame_from_kept(const extent_row& row) {
  std::shared_ptr<const log_file> file;
  std::shared_ptr<const codec::frame_cipher> cipher;
  log_position where;
  {
    std::shared_lock view{view_mutex_};
    auto it = kept_.find(row.segment);
    const auto* f = it == kept_.end() ? nullptr : it->second.find(row.frame_number);
    if (!f || f->stored != row.stored) return nullptr;
    where = f->where;
    cipher = it->second.cipher;
    file = log_->file(where.file);
  }
  if (!file || row.plain > codec::frame_plain_max) return nullptr;
  buffer stored(row.stored);
  if (!file->read(where.offset, stored).ok()) return nullptr;
  auto plain = std::make_shared<buffer>(row.plain);
  // Whatever happened to the file: the nodes have it (invariant 4: nothing comes out that is not authentic).
  if (!cipher->open(row.frame_number, static_cast<codec::frame_codec>(row.codec), stored, *plain).ok()) return nullptr;
  return plain;
}

result<codec::segment_id> engine::segment_id_of(model::segment_ref ref) const {
  auto it = writers_.find(ref.epoch);
  if (it == writers_.end()) return error{errc::corrupt, "a segment of an unknown session", EIO};
  return codec::segment_id{{ref.epoch, it->second}, ref.counter};
}

result<std::shared_ptr<const codec::frame_cipher>> engine::cipher_of(model::segment_ref ref) {
  {
    std::lock_guard lock{fetch_mutex_};
    if (auto it = cipher_map_.find(ref); it != cipher_map_.end()) {
      ciphers_.splice(ciphers_.begin(), ciphers_, it->second);
      return it->second->second;
    }
  }
  QS_TRY_ASSIGN(auto row, segment_row_of(ref));
  if (!row) return error{errc::not_found, "the segment is gone", EIO};
  QS_TRY_ASSIGN(auto id, segment_id_of(ref));
  codec::segment_info info{id, row->salt, row->key_generation, row->cipher};
  QS_TRY_ASSIGN(auto made, codec::make_frame_cipher(*ring_, info));
  std::shared_ptr<const codec::frame_cipher> cipher{std::move(made)};
  std::lock_guard lock{fetch_mutex_};
  if (!cipher_map_.contains(ref)) {
    ciphers_.emplace_front(ref, cipher);
    cipher_map_[ref] = ciphers_.begin();
    if (ciphers_.size() > 256) {
      cipher_map_.erase(ciphers_.back().first);
      ciphers_.pop_back();
    }
  }
  return cipher;
}

result<buffer_ptr> engine::open_frame(const extent_row& row, byte_span stored) {
  if (row.plain > codec::frame_plain_max) return error{errc::corrupt, "a frame's row is damaged", EIO};
  QS_TRY_ASSIGN(auto cipher, cipher_of(row.segment));
  auto plain = std::make_shared<buffer>(row.plain);
  QS_TRY(cipher->open(row.frame_number, static_cast<codec::frame_codec>(row.codec), stored, *plain));
  return buffer_ptr{std::move(plain)};
}

buffer_ptr engine::frame_from_cache(const extent_row& row) {
  shard_key key{row.segment, row.slot};
  auto stored = shards_.read(key, codec::shard_header_bytes + std::uint64_t{row.position}, row.stored);
  if (!stored) return nullptr;
  auto plain = open_frame(row, *stored);
  if (plain.ok()) return *plain;
  shards_.erase(key); // whatever happened to the file: the nodes have it
  return nullptr;
}

} // namespace qs::volume
