#include "volume/volume.hpp"

#include "volume/engine.hpp"
#include "volume/names.hpp"

namespace qs::volume {

namespace {

/// The file system of one volume: names and bytes put together.
class files_of final : public filesystem {
public:
  explicit files_of(std::shared_ptr<engine> e)
      : engine_{std::move(e)}, owner_{std::make_shared<names>(*engine_)}, names_{*owner_} {
    engine_->keep(owner_); // a job of the engine may call it after the volume is gone
  }

  result<attributes> lookup(inode_number p, std::string_view n) override { return names_.lookup(p, n); }
  result<attributes> getattr(inode_number i) override { return names_.getattr(i); }
  result<attributes> setattr(inode_number i, const attribute_changes& c) override { return names_.setattr(i, c); }
  result<attributes> mknod(inode_number p, std::string_view n, std::uint32_t mode, std::uint32_t rdev, creator who) override {
    return names_.mknod(p, n, mode, rdev, who);
  }
  result<attributes> mkdir(inode_number p, std::string_view n, std::uint32_t mode, creator who) override {
    return names_.mkdir(p, n, mode, who);
  }
  result<attributes> symlink(inode_number p, std::string_view n, std::string_view target, creator who) override {
    return names_.symlink(p, n, target, who);
  }
  result<std::string> readlink(inode_number i) override { return names_.readlink(i); }
  result<attributes> link(inode_number i, inode_number p, std::string_view n) override { return names_.link(i, p, n); }
  status unlink(inode_number p, std::string_view n) override { return names_.unlink(p, n); }
  status rmdir(inode_number p, std::string_view n) override { return names_.rmdir(p, n); }
  status rename(inode_number p, std::string_view n, inode_number np, std::string_view nn, unsigned flags) override {
    return names_.rename(p, n, np, nn, flags);
  }
  result<std::vector<directory_entry>> readdir(inode_number i, std::uint64_t cookie, std::size_t most, bool attr) override {
    return names_.readdir(i, cookie, most, attr);
  }
  void remember(inode_number i, std::uint64_t n) override { names_.remember(i, n); }
  void forget(inode_number i, std::uint64_t n) override { names_.forget(i, n); }
  std::vector<inode_number> remembered() const override { return names_.remembered(); }

  void read(inode_number i, std::uint64_t offset, std::size_t length, read_done done) override {
    engine_->read(i, offset, length, std::move(done));
  }
  void write(inode_number i, std::uint64_t offset, byte_span data, bool append, bool kill, write_done done) override {
    engine_->write(i, offset, data, append, kill, std::move(done));
  }
  status fallocate(inode_number i, int mode, std::uint64_t offset, std::uint64_t length) override {
    return engine_->fallocate(i, mode, offset, length);
  }
  result<std::uint64_t> seek(inode_number i, std::uint64_t offset, int whence) override {
    return engine_->seek(i, offset, whence);
  }
  status fsync() override { return engine_->fsync(); }

  result<buffer> getxattr(inode_number i, std::string_view n) override { return names_.getxattr(i, n); }
  result<std::vector<std::string>> listxattr(inode_number i) override { return names_.listxattr(i); }
  status setxattr(inode_number i, std::string_view n, byte_span v, xattr_mode m) override {
    return names_.setxattr(i, n, v, m);
  }
  status removexattr(inode_number i, std::string_view n) override { return names_.removexattr(i, n); }
  space statfs() override { return engine_->statfs(); }

private:
  std::shared_ptr<engine> engine_;
  std::shared_ptr<names> owner_;
  names& names_;
};

class opened_volume final : public volume {
public:
  explicit opened_volume(std::shared_ptr<engine> e) : engine_{std::move(e)}, files_{engine_} { engine_->start(); }

  filesystem& files() override { return files_; }
  status set_groups(const std::vector<model::group>& groups) override { return engine_->set_groups(groups); }
  std::vector<model::group> groups() const override { return engine_->groups(); }
  void set_capacity(byte_count usable) override { engine_->set_capacity(usable); }
  void set_nodes(const std::vector<node_view>& nodes) override { engine_->set_nodes(nodes); }
  void unconfirm(model::node_id node, wall_time since) override { engine_->unconfirm(node, since); }
  void tick() override { engine_->tick(); }
  std::size_t repair(std::size_t most) override { return engine_->repair(most); }
  void drain(std::chrono::milliseconds deadline, std::function<void(status)> done) override {
    engine_->drain(deadline, std::move(done));
  }
  status drop_caches() override { return engine_->drop_caches(); }
  volume_stats stats() const override { return engine_->stats(); }
  std::vector<model::group_health> health() const override { return engine_->table().health(engine_->parity()); }
  std::vector<model::node_id> indispensable() const override { return engine_->table().indispensable(); }
  std::vector<model::node_id> sources() const override { return engine_->table().sources(); }
  byte_count live_bytes(model::segment_ref ref) const override {
    auto e = engine_->table().find(ref);
    return e ? e->live_bytes : 0;
  }
  byte_count bytes_on(model::node_id node) const override { return engine_->table().bytes_on(node); }
  status close() override { return engine_->close(); }

private:
  std::shared_ptr<engine> engine_;
  files_of files_;
};

} // namespace

status create_volume(const volume_options& options, const volume_environment& env) {
  return engine::create(options, env);
}

result<std::unique_ptr<volume>> open_volume(const volume_options& options, const volume_environment& env) {
  QS_TRY_ASSIGN(auto e, engine::open(options, env));
  return std::unique_ptr<volume>{std::make_unique<opened_volume>(std::move(e))};
}

} // namespace qs::volume
