// A whole volume::filesystem in memory: the real names half over memory_core, and bytes in vectors.
// For tests of fuse/ and as the null back end that shows what the FUSE path itself costs. Nothing
// of it is ever part of qs.
#pragma once

#include <algorithm>
#include <atomic>
#include <thread>
#include <unordered_map>

#include <sys/stat.h>
#include <unistd.h>

#include "support/memory_core.hpp"
#include "volume/names.hpp"

namespace qs::test {

class memory_files final : public volume::filesystem {
public:
  memory_files() : names_{core} {
    core.reap_at_once = true;
    core.drop = [this](volume::inode_number inode, std::uint64_t from, std::uint64_t) {
      std::lock_guard lock{bytes_mutex_};
      auto it = bytes_.find(inode);
      if (it != bytes_.end() && from < it->second.size()) it->second.resize(from);
      if (from == 0) bytes_.erase(inode);
    };
  }

  using inode_number = volume::inode_number;
  using attributes = volume::attributes;
  using creator = volume::creator;

  result<attributes> lookup(inode_number parent, std::string_view name) override {
    return names_.lookup(parent, name);
  }
  result<attributes> getattr(inode_number inode) override { return names_.getattr(inode); }
  result<attributes> setattr(inode_number inode,
                             const volume::attribute_changes& changes) override {
    return names_.setattr(inode, changes);
  }
  result<attributes> mknod(inode_number parent, std::string_view name, std::uint32_t mode,
                           std::uint32_t rdev, creator who) override {
    return names_.mknod(parent, name, mode, rdev, who);
  }
  result<attributes> mkdir(inode_number parent, std::string_view name, std::uint32_t mode,
                           creator who) override {
    return names_.mkdir(parent, name, mode, who);
  }
  result<attributes> symlink(inode_number parent, std::string_view name, std::string_view target,
                             creator who) override {
    return names_.symlink(parent, name, target, who);
  }
  result<std::string> readlink(inode_number inode) override { return names_.readlink(inode); }
  result<attributes> link(inode_number inode, inode_number parent, std::string_view name) override {
    return names_.link(inode, parent, name);
  }
  status unlink(inode_number parent, std::string_view name) override {
    return names_.unlink(parent, name);
  }
  status rmdir(inode_number parent, std::string_view name) override {
    return names_.rmdir(parent, name);
  }
  status rename(inode_number parent, std::string_view name, inode_number new_parent,
                std::string_view new_name, unsigned flags) override {
    return names_.rename(parent, name, new_parent, new_name, flags);
  }
  result<std::vector<volume::directory_entry>> readdir(inode_number inode, std::uint64_t cookie,
                                                       std::size_t most,
                                                       bool with_attributes) override {
    return names_.readdir(inode, cookie, most, with_attributes);
  }
  void remember(inode_number inode, std::uint64_t lookups) override {
    names_.remember(inode, lookups);
  }
  void forget(inode_number inode, std::uint64_t lookups) override { names_.forget(inode, lookups); }
  std::vector<inode_number> remembered() const override { return names_.remembered(); }
  result<buffer> getxattr(inode_number inode, std::string_view name) override {
    ++getxattrs;
    return names_.getxattr(inode, name);
  }
  result<std::vector<std::string>> listxattr(inode_number inode) override {
    return names_.listxattr(inode);
  }
  status setxattr(inode_number inode, std::string_view name, byte_span value,
                  volume::xattr_mode mode) override {
    return names_.setxattr(inode, name, value, mode);
  }
  status removexattr(inode_number inode, std::string_view name) override {
    return names_.removexattr(inode, name);
  }

  void read(inode_number inode, std::uint64_t offset, std::size_t length, read_done done) override {
    ++reads;
    auto answer = [this, inode, offset, length]() -> result<buffer> {
      if (fail_reads) return posix_error(EIO);
      auto attr = getattr(inode);
      if (!attr) return std::move(attr).err();
      if (offset >= attr->size) return buffer{};
      buffer out(std::min<std::uint64_t>(length, attr->size - offset));
      std::lock_guard lock{bytes_mutex_};
      const auto& data = bytes_[inode];
      if (offset < data.size())
        std::copy_n(data.begin() + static_cast<std::ptrdiff_t>(offset),
                    std::min<std::uint64_t>(out.size(), data.size() - offset), out.begin());
      return out;
    };
    if (!late_reads) return done(answer());
    // As a miss that nodes answer: later, on a thread of somebody else.
    std::lock_guard lock{late_mutex_};
    late_.emplace_back([done = std::move(done), answer] { done(answer()); });
  }
  void write(inode_number inode, std::uint64_t offset, byte_span data, bool append,
             bool kill_privileges, write_done done) override {
    done([&]() -> result<std::size_t> {
      QS_TRY_ASSIGN(auto op, core.begin(volume::purpose::grow));
      QS_TRY_ASSIGN(auto value, op->get(volume::inode_key(inode)));
      if (!value) return posix_error(ENOENT);
      QS_TRY_ASSIGN(auto row, volume::decode_inode(*value));
      auto at = append ? row.size : offset;
      {
        std::lock_guard lock{bytes_mutex_};
        auto& bytes = bytes_[inode];
        if (bytes.size() < at + data.size()) bytes.resize(at + data.size());
        std::copy(data.begin(), data.end(), bytes.begin() + static_cast<std::ptrdiff_t>(at));
      }
      row.size = std::max<std::uint64_t>(row.size, at + data.size());
      row.allocated = row.size;
      if (kill_privileges) {
        row.mode &= ~std::uint32_t{S_ISUID};
        if ((row.mode & S_IXGRP) != 0) row.mode &= ~std::uint32_t{S_ISGID};
      }
      row.mtime = row.ctime = op->now();
      op->put(volume::inode_key(inode), volume::encode(row));
      QS_TRY(op->commit());
      return data.size();
    }());
  }
  status fallocate(inode_number inode, int mode, std::uint64_t offset,
                   std::uint64_t length) override {
    constexpr int keep_size = 1;
    constexpr int punch = 2;
    constexpr int zero = 16;
    if ((mode & ~(keep_size | punch | zero)) != 0) return posix_error(EOPNOTSUPP);
    QS_TRY_ASSIGN(auto attr, getattr(inode));
    if ((mode & (punch | zero)) != 0) {
      std::lock_guard lock{bytes_mutex_};
      auto& bytes = bytes_[inode];
      for (auto i = offset; i < std::min<std::uint64_t>(offset + length, bytes.size()); ++i)
        bytes[i] = std::byte{};
    }
    if ((mode & keep_size) == 0 && offset + length > attr.size) {
      volume::attribute_changes changes;
      changes.size = offset + length;
      QS_TRY_ASSIGN([[maybe_unused]] auto grown, names_.setattr(inode, changes));
    }
    return {};
  }
  result<std::uint64_t> seek(inode_number inode, std::uint64_t offset, int whence) override {
    QS_TRY_ASSIGN(auto attr, getattr(inode));
    if (offset >= attr.size) return posix_error(ENXIO);
    std::uint64_t data_end = 0;
    {
      std::lock_guard lock{bytes_mutex_};
      data_end = std::min<std::uint64_t>(bytes_[inode].size(), attr.size);
    }
    if (whence == SEEK_HOLE) return offset < data_end ? data_end : offset;
    if (offset < data_end) return offset;
    return posix_error(ENXIO);
  }
  status fsync() override {
    ++fsyncs;
    return {};
  }
  volume::space statfs() override {
    return {4096, 1 << 30, 1 << 29, static_cast<std::uint64_t>(core.inodes), 1 << 20};
  }

  /// Answers every read that waits; returns how many.
  std::size_t answer_late_reads() {
    std::vector<std::function<void()>> waiting;
    {
      std::lock_guard lock{late_mutex_};
      waiting.swap(late_);
    }
    for (auto& one : waiting) one();
    return waiting.size();
  }

  memory_core core;
  std::atomic<std::uint64_t> reads{0};
  std::atomic<std::uint64_t> fsyncs{0};
  std::atomic<std::uint64_t> getxattrs{0};
  std::atomic<bool> late_reads{false};
  std::atomic<bool> fail_reads{false};

private:
  volume::names names_;
  std::mutex bytes_mutex_;
  std::unordered_map<inode_number, buffer> bytes_;
  std::mutex late_mutex_;
  std::vector<std::function<void()>> late_;
};

} // namespace qs::test
