// All namespaces of one data directory, and the lock that says it is ours. Layout:
// <data>/lock (OFD lock for the life of the server), <data>/namespaces/NNNNNNNN/ (name_space.hpp),
// <data>/endpoint. The I/O thread owns it; the *_files functions are for the helper thread.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <set>
#include <string>

#include "zdb/name_list.hpp"
#include "zdb/name_space.hpp"

namespace qs::zdb {

struct store_options {
  std::filesystem::path data;
  std::uint64_t datasize = 256ULL << 20;
  std::uint64_t maxsize = 0; ///< of `default`
  bool sequential = false;   ///< new namespaces are
  bool data_alone = false;   ///< 0-db's data without its index is of user mode, somebody said
  /// Nothing on the disk is changed, not even what every start mends; nothing may be written.
  bool read_only = false;
  std::filesystem::path index = {}; ///< where 0-db's index is, if `data` holds its data
  std::chrono::seconds rotate_after{0}; ///< of data files (--rotate); 0: by size alone
  std::size_t cache_bytes = 0;          ///< small records in memory; 0: none
  std::size_t id_frames = id_pages::frames_usual; ///< pages of sequential indexes in memory
  /// A namespace goes on in a new file (hooks jump-data, jump-index); on the I/O thread.
  std::function<void(name_space&, std::uint32_t left, std::uint32_t now)> jumped = {};
};

class store {
public:
  /// Makes what is missing, takes the lock, opens every namespace; for one that cannot be opened
  /// there is a stand-in (name_space::served()). Errors: busy, io, corrupt, version_mismatch; with
  /// read_only also not_found, and refused where a 0-db's namespaces would have to be copied first.
  static result<std::unique_ptr<store>> open(store_options options);

  /// Null and unnamed() > 0: whether there is one of this name is not known.
  std::shared_ptr<name_space> find(std::string_view name);
  /// Namespaces that cannot be opened, and those of them whose name is not known: it may be any.
  [[nodiscard]] std::size_t failed() const noexcept { return failed_; }
  [[nodiscard]] std::size_t unnamed() const noexcept { return unnamed_; }
  [[nodiscard]] const auto& all() const noexcept { return spaces_; }

  /// Where a new namespace will stand, and its settings; the name is taken until finish_new. Then,
  /// on the helper thread, name_space::create(directory, settings).
  struct creation {
    std::filesystem::path directory;
    namespace_settings settings;
  };
  creation begin_new(std::string_view name);
  status finish_new(const creation& what, const status& made);
  [[nodiscard]] bool is_taken(std::string_view name) const;
  /// Out of sight at once, its name still taken; the directory is then deleted with remove_files on
  /// the helper thread.
  std::filesystem::path begin_remove(const std::shared_ptr<name_space>& ns);
  /// The name is free again, or, when the files could not be removed, the namespace is back.
  void finish_remove(const std::shared_ptr<name_space>& ns, const status& removed);
  static status remove_files(const std::filesystem::path& directory);
  /// What remove_files has left: a few files of it; false when nothing is left, or nothing can be
  /// deleted (then the next start tries again). Any thread.
  static bool remove_some(const std::filesystem::path& directory);

  /// All of a namespace read again from the disk (RELOAD). errc::busy while it is synced or
  /// compacted. One that could not be opened is tried again.
  status reload(const std::shared_ptr<name_space>& ns) {
    return ns->served() ? ns->reload() : revive(ns);
  }

  /// The lock and the data files are still where they were put (control.md 4).
  [[nodiscard]] bool linked() const;
  [[nodiscard]] bool lock_linked() const;
  [[nodiscard]] const store_options& options() const noexcept { return options_; }
  [[nodiscard]] const file_pool& files() const noexcept { return pool_; }

private:
  explicit store(store_options options);
  status look();
  status take_lock();
  void drop_leftovers();
  [[nodiscard]] bool to_take_over() const;
  status take_over_0db();
  status load();
  void add(std::shared_ptr<name_space> ns);
  void add_failed(const std::filesystem::path& directory, const error& why);
  void stand_in(std::string held_under, const std::filesystem::path& directory,
                namespace_settings settings, name_space::not_opened why);
  status revive(const std::shared_ptr<name_space>& ns);
  std::string share_name(const std::shared_ptr<name_space>& one,
                         const std::filesystem::path& other);
  void stood_in(const name_space::not_opened& why) noexcept;
  status open_default();
  void limit(name_space& ns);
  name_space::limits limits() const {
    return {options_.datasize, hash_key_, options_.rotate_after, options_.jumped};
  }

  store_options options_;
  std::array<std::byte, 16> hash_key_{};
  unique_fd lock_;
  std::uint64_t lock_inode_ = 0;
  file_pool pool_; ///< before what uses it
  std::map<std::string, std::shared_ptr<name_space>, std::less<>> spaces_;
  std::set<std::string, std::less<>> making_;
  name_list names_;
  std::size_t failed_ = 0;
  std::size_t unnamed_ = 0;
  std::uint32_t last_directory_ = 0;
};

} // namespace qs::zdb
