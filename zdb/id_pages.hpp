// Pages of the indexes of sequential namespaces, 341 ids each: for all namespaces of a server
// together a bounded number of them in memory, the others in one temporary file without a name,
// in the data directory. The file is never synced and never found again: every start fills it
// anew. So it is not believed either: each page's checksum stays in memory, and a page that comes
// back as another one than was written is an error. What cannot be written stays in memory, beyond
// the bound. One thread.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <vector>

#include "base/posix.hpp"
#include "zdb/record.hpp"

namespace qs::zdb {

class id_pages {
public:
  static constexpr std::size_t page_bytes = 4096;
  static constexpr std::size_t ids_in_page = page_bytes / sizeof(index_entry);
  static constexpr std::size_t frames_usual = 512;
  using page = std::array<index_entry, ids_in_page>;

  struct place {
    std::uint32_t where = 0; ///< 0: no id of it is in use; else a frame, or the file's slot, from 1
    std::uint32_t check = 0; ///< while it is in the file: the checksum of what was written
  };
  /// All pages of one index. It must stay where it is until drop().
  using table = std::vector<place>;

  /// Without a directory everything stays in memory.
  explicit id_pages(std::filesystem::path directory = {}, std::size_t frames = frames_usual);
  id_pages(const id_pages&) = delete;
  id_pages& operator=(const id_pages&) = delete;

  /// Page `at`, good until the next call. Errors: io, corrupt.
  result<const page*> look(table& of, std::size_t at);
  /// The same, to be changed until the next call. It does not fail while the page is in memory,
  /// as it is right after look().
  result<page*> change(table& of, std::size_t at);
  /// One more page behind the others.
  void append(table& of, const page& whole);
  /// All of them are needed no more.
  void drop(table& of) noexcept;

  /// Of the pages in memory.
  [[nodiscard]] std::size_t memory_bytes() const noexcept {
    return frames_.size() * (sizeof(frame) + sizeof(frames_[0]));
  }
  /// Of the pages in the file.
  [[nodiscard]] std::uint64_t file_bytes() const noexcept {
    return std::uint64_t{slots_ - free_.size()} * page_bytes;
  }
  /// What is in memory could not be written.
  [[nodiscard]] bool failing() const noexcept { return failing_; }
  /// -1 while nothing was written.
  [[nodiscard]] int descriptor() const noexcept { return file_.get(); }

private:
  struct frame {
    page ids{};
    table* of = nullptr; ///< null: free
    std::size_t at = 0;
    std::uint32_t number = 0;
    std::uint32_t slot = 0;
    std::uint32_t check = 0;
    bool dirty = false;
    bool recent = false;
  };
  result<frame*> load(table& of, std::size_t at);
  frame& take();
  frame& grow();
  void own(frame& f, table& of, std::size_t at, bool dirty) noexcept;
  void disown(frame& f) noexcept;
  bool let_go(frame& f);
  void shrink();
  bool write(frame& f);
  status write_slot(const page& ids, std::uint32_t slot);
  status read_slot(page& ids, std::uint32_t slot);
  status open();
  void release(std::vector<std::uint32_t>& slots) noexcept;

  std::filesystem::path directory_;
  std::size_t most_;
  unique_fd file_;
  std::vector<std::unique_ptr<frame>> frames_;
  std::size_t owned_ = 0; ///< frames with a page in them
  std::size_t hand_ = 0;
  std::uint32_t slots_ = 0; ///< that the file has
  std::vector<std::uint32_t> free_;
  bool failing_ = false; ///< said once on the log
  std::chrono::steady_clock::time_point retry_at_{};
};

} // namespace qs::zdb
