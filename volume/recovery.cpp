// Making a volume's local half, and opening it again after anything (volume.md 4).
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "volume/engine.hpp"

namespace qs::volume {

namespace {

constexpr int identity_format = 1;

std::filesystem::path identity_path(const volume_options& o) { return o.state_directory / "volume.json"; }
std::filesystem::path log_path(const volume_options& o) {
  return o.staging_directory.empty() ? o.state_directory / "log" : o.staging_directory;
}

/// volume.json: what must be known before rows and log can be read.
struct identity {
  std::string name;
  std::string volume;
  buffer wrapped;
  std::uint32_t epoch = 0;
  bool ready = false;
};

result<identity> read_identity(const volume_options& options) {
  auto path = identity_path(options);
  auto text = read_file(path, 1 << 20);
  if (!text.ok()) {
    std::error_code ec;
    if (!std::filesystem::exists(path, ec) && !ec)
      return error{errc::not_found, "there is no volume in " + options.state_directory.string()};
    return std::move(text).err();
  }
  try {
    auto json = nlohmann::json::parse(*text);
    identity id;
    if (json.at("format_version").get<int>() != identity_format || json.at("incompat").get<std::uint64_t>() != 0)
      return error{errc::version_mismatch, path.string() + " was made by a newer version of qs"};
    id.name = json.at("name").get<std::string>();
    id.volume = json.at("volume").get<std::string>();
    id.epoch = json.at("epoch").get<std::uint32_t>();
    id.ready = json.at("ready").get<bool>();
    auto wrapped = from_hex(json.at("wrapped_keys").get<std::string>());
    if (!wrapped) return error{errc::corrupt, path.string() + ": the wrapped keys are damaged"};
    id.wrapped = std::move(*wrapped);
    return id;
  } catch (const nlohmann::json::exception& e) {
    return error{errc::corrupt, path.string() + " does not parse: " + e.what()};
  }
}

status save_identity(const volume_options& options, const identity& id, bool create) {
  nlohmann::json json{{"format_version", identity_format},
                      {"incompat", 0},
                      {"name", id.name},
                      {"volume", id.volume},
                      {"wrapped_keys", to_hex(id.wrapped)},
                      {"epoch", id.epoch},
                      {"ready", id.ready}};
  auto text = json.dump(2) + "\n";
  if (create) return create_file_atomic(identity_path(options), as_bytes(text));
  return write_file_atomic(identity_path(options), as_bytes(text));
}

} // namespace

status engine::create(const volume_options& options, const volume_environment& env) {
  QS_TRY(make_directories(options.state_directory));
  auto keys = codec::volume_keys::derive(options.root, options.name);
  auto found = read_identity(options);
  if (found.ok() && found->ready)
    return error{errc::already_exists, "there is a volume in " + options.state_directory.string() + " already"};
  if (!found.ok() && found.err().code != errc::not_found) return std::move(found).err();
  std::error_code ec;
  auto rows = options.state_directory / "rows";
  if (!found.ok() && std::filesystem::exists(rows, ec))
    return error{errc::already_exists,
                 rows.string() + " holds rows of a volume whose volume.json is missing; nothing was changed"};
  // mount.staging.path is a directory of the user's: another volume's log may lie there, and its only copy of what is not on nodes yet.
  auto log_directory = log_path(options);
  QS_TRY_ASSIGN(auto owner, write_log::owner_of(log_directory, keys.id()));
  if (owner == log_owner::another)
    return error{errc::refused, log_directory.string() + " holds the log of another volume; nothing was changed. Give each volume a "
                                                         "mount.staging.path of its own"};
  if (!found.ok() && owner == log_owner::ours)
    return error{errc::already_exists,
                 log_directory.string() + " holds the log of this volume, but its volume.json is missing; nothing was changed"};
  if (found.ok()) { // an earlier attempt that did not come to its end: nothing was ever in it
    std::filesystem::remove_all(rows, ec);
    if (ec) return errno_error("delete what is left of an unfinished volume in " + rows.string(), ec.value());
    if (auto gone = write_log::erase(log_directory, keys.id()); !gone.ok())
      return std::move(gone).err().with("delete what is left of an unfinished volume in " + log_directory.string());
  }
  locked_random random{*env.random};
  std::vector<codec::volume_key> list{codec::volume_key::make(1, random)};
  identity id;
  id.name = options.name;
  id.volume = to_hex(keys.id());
  id.wrapped = codec::wrap_volume_keys(keys, list, random);
  QS_TRY(save_identity(options, id, !found.ok()));

  std::shared_ptr<engine> e{new engine{options, env}};
  e->ring_.emplace(std::move(keys), std::move(list));
  QS_TRY(e->recover(true));
  QS_TRY(e->close());
  id.ready = true;
  id.epoch = e->session_.epoch;
  return save_identity(options, id, false);
}

result<std::shared_ptr<engine>> engine::open(const volume_options& options, const volume_environment& env) {
  auto keys = codec::volume_keys::derive(options.root, options.name);
  QS_TRY_ASSIGN(auto id, read_identity(options));
  if (!id.ready)
    return error{errc::not_found, "the volume in " + options.state_directory.string() + " was never finished"};
  if (id.volume != to_hex(keys.id()))
    return error{errc::refused, "the 24 words do not fit the volume in " + options.state_directory.string()};
  QS_TRY_ASSIGN(auto list, codec::unwrap_volume_keys(keys, id.wrapped));
  std::shared_ptr<engine> e{new engine{options, env}};
  e->ring_.emplace(std::move(keys), std::move(list));
  QS_TRY(e->recover(false));
  return e;
}

status engine::begin_session(bool fresh) {
  QS_TRY_ASSIGN(auto id, read_identity(options_));
  session_.epoch = id.epoch + 1;
  if (session_.epoch >= codec::epoch_limit) return error{errc::no_space, "the volume's epochs are used up"};
  session_.writer = random_.array<16>();
  id.epoch = session_.epoch;
  // On the disk before anything of it is used: inode numbers, sequences and segment ids come from it.
  QS_TRY(save_identity(options_, id, false));
  sequence_ = std::uint64_t{session_.epoch} << 40;
  writers_[session_.epoch] = session_.writer;

  QS_TRY_ASSIGN(auto op, begin_internal());
  session_row row;
  row.writer = session_.writer;
  row.started_ms = wall_ms();
  op->put(session_key(session_.epoch), encode(row));
  if (fresh) {
    inode_row root;
    root.generation = op->sequence();
    root.mode = S_IFDIR | 0755;
    root.nlink = 2;
    root.uid = ::getuid();
    root.gid = ::getgid();
    root.atime = root.mtime = root.ctime = root.btime = op->now();
    root.parent = root_inode;
    op->put(inode_key(root_inode), encode(root));
    op->count_inodes(1);
  }
  return op->commit();
}

status engine::recover(bool fresh) {
  QS_TRY_ASSIGN(rows_, row_store::open(options_.state_directory / "rows", fresh,
                                       [this] {
                                         // An unsynced record must never be behind a row that is on the disk.
                                         if (log_ && !log_->sync().ok()) go_read_only("the log could not be synced");
                                       },
                                       {}));
  QS_TRY_ASSIGN(auto applied, rows_->applied_sequence());
  write_log::options lo;
  lo.directory = log_path(options_);
  lo.volume = ring_->volume().id();
  lo.file_bytes = std::min<byte_count>(options_.log_file_bytes, std::max<byte_count>(options_.staging_bytes / 16, mib));
  QS_TRY_ASSIGN(log_, write_log::open(lo));
  sequence_ = applied;
  log_recovery found;
  QS_TRY(log_->replay([this](const found_record& r) { return replay(r); }, found));
  std::string damage;
  if (found.corrupt) damage = found.what;
  else if (applied > found.last_sequence && !fresh)
    damage = fmt::format("the rows know operation {:x}, but the log ends at {:x}", applied, found.last_sequence);
  if (found.torn_bytes > 0 && damage.empty())
    note("info", "LogTornTail", fmt::format("{} bytes of unfinished records were cut: {}", found.torn_bytes, found.what));
  QS_TRY(load_tables());
  QS_TRY_ASSIGN(auto root, rows_->get(inode_key(root_inode)));
  if (!fresh && !root && damage.empty()) damage = "the root directory is missing";
  if (!damage.empty()) {
    go_read_only("the local log or the rows are damaged: " + damage);
    return {};
  }
  QS_TRY(log_->start(std::max(found.last_sequence, applied)));
  QS_TRY(begin_session(fresh));
  return settle_segments();
}

status engine::replay(const found_record& found) {
  QS_TRY_ASSIGN(auto record, decode_body(found.sequence, found.body, found.data_bytes));
  if (record.sequence > sequence_) {
    rows_->apply(std::move(record.rows), record.sequence); // exactly once: the sequence is in the same batch (invariant 6)
    if (rows_->must_drain()) QS_TRY(rows_->drain());
    sequence_ = record.sequence;
  }
  if (record.opened) {
    auto segment = std::make_shared<local_segment>(*record.opened, options_.data_shards);
    if (auto cipher = codec::make_frame_cipher(*ring_, *record.opened); cipher.ok())
      segment->cipher = std::move(*cipher);
    log_->retain(found.data.file);
    segment->record_files.push_back(found.data.file);
    segments_[segment->ref()] = segment;
  }
  if (record.sealed) {
    QS_TRY_ASSIGN(auto seal, codec::decode_seal_record(*record.sealed));
    if (auto it = segments_.find(seal.info.id.ref()); it != segments_.end()) {
      log_->retain(found.data.file);
      it->second->record_files.push_back(found.data.file);
      it->second->record = std::move(seal);
    }
  }
  apply_sections(record, found.data);
  return {};
}

void engine::apply_sections(const log_record& record, log_position data) {
  for (const auto& d : record.drops) extents_.drop(d.inode, d.from, d.to);
  for (const auto& f : record.frames) {
    extent_place place{f.entry.inode, f.entry.extent_index};
    if (f.ranges_upto != 0) extents_.drop_upto(place, f.ranges_upto);
    auto it = segments_.find(f.segment);
    if (it == segments_.end()) continue;
    std::lock_guard lock{it->second->mutex};
    local_frame frame{{data.file, data.offset + f.data_at}, f.entry.stored_length, f.entry.position, f.shard,
                      f.entry.inode, f.entry.extent_index};
    if (!it->second->frames.emplace(f.entry.frame_number, frame).second) continue;
    log_->retain(data.file);
    it->second->bytes += frame.stored;
  }
  if (!record.ranges.empty()) {
    if (extents_.extents() == 0) dirty_since_ = now();
    last_range_ = now();
  }
  for (const auto& r : record.ranges) {
    byte_range range{r.from, r.to, r.data_at == no_data, {}, record.sequence};
    if (!range.zero) range.where = {data.file, data.offset + r.data_at};
    extent_place place{r.inode, r.extent};
    std::uint32_t base = extent_bytes;
    if (!extents_.find(place)) {
      auto value = rows_->get(extent_key(r.inode, r.extent));
      if (value.ok() && !*value) base = 0;
      else if (value.ok())
        if (auto row = decode_extent(**value); row.ok()) base = row->visible;
    }
    extents_.add(place, range, now(), base);
  }
}

status engine::load_tables() {
  auto all = [&](row_kind kind, const row_visitor& visit) {
    auto from = kind_prefix(kind);
    return rows_->scan(from, prefix_end(from), visit);
  };
  status bad;
  QS_TRY(all(row_kind::session, [&](std::string_view key, byte_span value) {
    auto epoch = parse_session_key(key);
    auto row = decode_session(value);
    if (!row.ok()) bad = std::move(row).err();
    else if (epoch) writers_[*epoch] = row->writer;
    return bad.ok();
  }));
  std::vector<model::group> groups;
  QS_TRY(all(row_kind::group, [&](std::string_view key, byte_span value) {
    auto id = parse_group_key(key);
    auto slots = decode_slots(value);
    if (!slots.ok()) bad = std::move(slots).err();
    else if (id) groups.push_back({id->first, id->second, std::move(*slots)});
    return bad.ok();
  }));
  QS_TRY(std::move(bad));
  table_.add_groups(groups);
  status worse;
  QS_TRY(all(row_kind::segment, [&](std::string_view key, byte_span value) {
    auto ref = parse_segment_key(key);
    auto row = decode_segment(value);
    if (!row.ok()) worse = std::move(row).err();
    else if (ref) table_.update(*ref, &*row);
    return worse.ok();
  }));
  QS_TRY(std::move(worse));
  QS_TRY(count_stale());
  QS_TRY_ASSIGN(auto count, rows_->get(local_key("inodes")));
  if (count && count->size() == 8) inodes_ = static_cast<std::int64_t>(load_le<std::uint64_t>(count->data()));
  inodes_seen_ = inodes_;
  return {};
}

status engine::settle_segments() {
  std::vector<std::pair<model::segment_ref, bool>> done;
  for (const auto& [ref, segment] : segments_) {
    QS_TRY_ASSIGN(auto row, segment_row_of(ref));
    if (!row || row->state == segment_state::stored) {
      done.emplace_back(ref, row.has_value());
      continue;
    }
    if (row->state != segment_state::sealed || !segment->record) continue;
    segment->generation = row->group_generation;
    segment->acked = segment->confirmed = row->confirmed;
    // Frames that were superseded before it was sealed are in no directory and in no shard.
    QS_TRY_ASSIGN(const auto* key, ring_->find(segment->info.generation));
    std::unordered_set<std::uint32_t> in_it;
    const auto& record = *segment->record;
    for (unsigned i = 0; i < record.directories.size(); ++i) {
      QS_TRY_ASSIGN(auto entries, codec::open_directory(ring_->volume().id(), *key, segment->info.id, i,
                                                        record.shard_length, record.directories[i]));
      for (const auto& e : entries) in_it.insert(e.frame_number);
    }
    std::erase_if(segment->frames, [&, &bytes = segment->bytes](const auto& f) {
      if (in_it.contains(f.first)) return false;
      log_->release(f.second.where.file);
      bytes -= f.second.stored;
      return true;
    });
  }
  for (auto [ref, stored] : done) forget_local(ref, stored);
  return {};
}

void engine::start() {
  if (read_only_) return;
  std::vector<segment_ptr> all;
  for (const auto& [ref, segment] : segments_) all.push_back(segment);
  for (const auto& segment : all) {
    if (segment->ours) continue;
    if (segment->record) queue_send(segment);
    else post([segment](engine& e) { e.move_frames(segment); }); // the old id is never used again
  }
  auto orphans = kind_prefix(row_kind::orphan);
  std::vector<inode_number> left;
  auto found = rows_->scan(orphans, prefix_end(orphans), [&](std::string_view key, byte_span) {
    if (auto inode = parse_inode_key(key)) left.push_back(*inode);
    return true;
  });
  for (auto inode : left) reap_orphan(inode);
  start_reaping();
  auto trims = local_key("trim/");
  std::vector<inode_number> cut;
  auto looked = rows_->scan(trims, prefix_end(trims), [&](std::string_view key, byte_span) {
    if (key.size() == trims.size() + 8) cut.push_back(load_be<std::uint64_t>(as_bytes(key.substr(trims.size())).data()));
    return true;
  });
  for (auto inode : cut) post_trim(inode);
  if (!found.ok() || !looked.ok()) note("error", "RowsUnreadable", "orphans could not be listed");
}

} // namespace qs::volume
