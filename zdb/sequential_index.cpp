#include "zdb/sequential_index.hpp"

#include <algorithm>

#include "base/assert.hpp"

namespace qs::zdb {

namespace {
constexpr std::uint64_t in_page = id_pages::ids_in_page;
} // namespace

sequential_index::~sequential_index() {
  if (table_) pages_->drop(*table_);
}

sequential_index::sequential_index(sequential_index&& other) noexcept
    : pages_{other.pages_}, table_{std::move(other.table_)},
      last_{std::exchange(other.last_, {})}, size_{std::exchange(other.size_, 0)} {}

sequential_index& sequential_index::operator=(sequential_index&& other) noexcept {
  if (this == &other) return *this;
  if (table_) pages_->drop(*table_);
  pages_ = other.pages_;
  table_ = std::move(other.table_);
  last_ = std::exchange(other.last_, {});
  size_ = std::exchange(other.size_, 0);
  return *this;
}

id_pages::table& sequential_index::table() {
  if (!table_) table_ = std::make_unique<id_pages::table>();
  return *table_;
}

result<index_entry> sequential_index::find(std::uint64_t id) {
  if (id >= next_id()) return index_entry{};
  if (id >= in_pages()) return last_[static_cast<std::size_t>(id - in_pages())];
  QS_TRY_ASSIGN(auto* page, pages_->look(*table_, static_cast<std::size_t>(id / in_page)));
  return (*page)[id % in_page];
}

/// By halves and to no more than a page: ten thousand small ones are to stay small.
void sequential_index::make_room(std::size_t more) {
  auto need = last_.size() + more;
  if (need <= last_.capacity()) return;
  last_.reserve(std::min<std::size_t>(in_page, std::max(need, last_.size() * 3 / 2 + 2)));
}

void sequential_index::skip_to(std::uint64_t id) {
  while (next_id() < id) {
    if (last_.size() == in_page) {
      id_pages::page whole;
      std::copy(last_.begin(), last_.end(), whole.begin());
      pages_->append(table(), whole);
      last_.clear();
    }
    auto left = id - next_id();
    if (last_.empty() && left > in_page) { // pages of nothing but holes
      table().resize(table().size() + static_cast<std::size_t>((left - 1) / in_page));
      continue;
    }
    auto more = static_cast<std::size_t>(std::min(left, in_page - last_.size()));
    make_room(more);
    last_.resize(last_.size() + more);
  }
}

status sequential_index::put(std::uint64_t id, index_entry entry) {
  skip_to(id + 1);
  index_entry* e = nullptr;
  if (id >= in_pages()) {
    e = &last_[static_cast<std::size_t>(id - in_pages())];
  } else {
    QS_TRY_ASSIGN(auto* page, pages_->change(*table_, static_cast<std::size_t>(id / in_page)));
    e = &(*page)[id % in_page];
  }
  if (!e->place.valid()) ++size_;
  *e = entry;
  return {};
}

status sequential_index::erase(std::uint64_t id) {
  QS_TRY_ASSIGN(auto there, find(id));
  if (!there.place.valid()) return {};
  QS_TRY(put(id, {}));
  --size_;
  return {};
}

void sequential_index::take_back() noexcept {
  QS_ASSERT(!last_.empty());
  if (last_.back().place.valid()) --size_;
  last_.pop_back();
}

std::size_t sequential_index::memory_bytes() const noexcept {
  return last_.capacity() * sizeof(index_entry) +
         (table_ ? table_->capacity() * sizeof(id_pages::place) : 0);
}

} // namespace qs::zdb
