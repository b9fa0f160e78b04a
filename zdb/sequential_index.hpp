// Where the live version of every id of a sequential namespace is. Next to nothing of it is in
// memory: the last ids, up to 341 of them, and 8 bytes for every 341 before; the rest is pages of
// the server's (id_pages.hpp). Rebuilt from the data files at start. One thread.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "zdb/id_pages.hpp"

namespace qs::zdb {

/// Ids 0, 1, 2, …: never reused, deleted ones stay as holes.
class sequential_index {
public:
  explicit sequential_index(id_pages& pages) : pages_{&pages} {}
  ~sequential_index();
  sequential_index(sequential_index&& other) noexcept;
  sequential_index& operator=(sequential_index&& other) noexcept;

  [[nodiscard]] std::uint64_t next_id() const noexcept { return in_pages() + last_.size(); }
  /// Nothing (file 0) when unknown or deleted. Errors: io, corrupt (what it is cannot be said).
  result<index_entry> find(std::uint64_t id);
  /// Ids skipped on the way become holes. Errors as find; never right after a find of the same id,
  /// and never for a new one.
  status put(std::uint64_t id, index_entry entry);
  status erase(std::uint64_t id);
  /// The next new id brings the last ones into a page.
  [[nodiscard]] bool last_is_full() const noexcept { return last_.size() == id_pages::ids_in_page; }
  /// The newest id was never given out. It must not be in a page.
  void take_back() noexcept;
  /// Ids below are used up.
  void skip_to(std::uint64_t id);
  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  /// Without the pages.
  [[nodiscard]] std::size_t memory_bytes() const noexcept;

private:
  [[nodiscard]] std::uint64_t in_pages() const noexcept {
    return table_ ? std::uint64_t{table_->size()} * id_pages::ids_in_page : 0;
  }
  id_pages::table& table();
  void make_room(std::size_t more);

  id_pages* pages_;
  std::unique_ptr<id_pages::table> table_; ///< none while all ids are in last_
  std::vector<index_entry> last_;          ///< the ids behind the pages
  std::size_t size_ = 0;
};

} // namespace qs::zdb
