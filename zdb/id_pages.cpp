#include "zdb/id_pages.hpp"

#include <algorithm>
#include <cerrno>
#include <fcntl.h>
#include <limits>
#include <unistd.h>

#include <fmt/format.h>

#include "base/log.hpp"
#include "zdb/crc32c.hpp"

namespace qs::zdb {

namespace {
constexpr std::uint32_t in_frame = 1U << 31U;
constexpr std::size_t steps_while_failing = 32;
constexpr std::size_t shrunk_at_once = 4;
constexpr std::chrono::seconds retry_every{1};
/// Shorter runs of freed slots are not given back to the disk: they are used again.
constexpr std::size_t given_back_least = 16;

static_assert(sizeof(index_entry) == 12 && sizeof(id_pages::page) <= id_pages::page_bytes);
static_assert(std::is_trivially_copyable_v<index_entry>);

mutable_byte_span bytes_of(id_pages::page& p) noexcept {
  return std::as_writable_bytes(std::span{p});
}
byte_span bytes_of(const id_pages::page& p) noexcept { return std::as_bytes(std::span{p}); }

constexpr id_pages::page none{};

bool is_empty(const id_pages::page& p) noexcept {
  return std::none_of(p.begin(), p.end(), [](auto& e) { return e.place.valid(); });
}
} // namespace

id_pages::id_pages(std::filesystem::path directory, std::size_t frames)
    : directory_{std::move(directory)},
      most_{directory_.empty() ? std::numeric_limits<std::size_t>::max() : frames} {}

// -- for the indexes ------------------------------------------------------------------------------

result<const id_pages::page*> id_pages::look(table& of, std::size_t at) {
  if (of[at].where == 0) return &none;
  QS_TRY_ASSIGN(auto* f, load(of, at));
  return &f->ids;
}

result<id_pages::page*> id_pages::change(table& of, std::size_t at) {
  QS_TRY_ASSIGN(auto* f, load(of, at));
  f->dirty = true;
  return &f->ids;
}

void id_pages::append(table& of, const page& whole) {
  of.push_back({});
  if (is_empty(whole)) return;
  auto& f = take();
  f.ids = whole;
  own(f, of, of.size() - 1, true);
}

void id_pages::drop(table& of) noexcept {
  std::vector<std::uint32_t> slots;
  for (auto& p : of) {
    auto slot = p.where;
    if ((p.where & in_frame) != 0) {
      auto& f = *frames_[p.where & ~in_frame];
      slot = f.slot;
      disown(f);
    }
    if (slot != 0) slots.push_back(slot);
  }
  of.clear();
  if (owned_ == 0) frames_ = std::vector<std::unique_ptr<frame>>{};
  release(slots);
}

// -- frames ---------------------------------------------------------------------------------------

void id_pages::own(frame& f, table& of, std::size_t at, bool dirty) noexcept {
  f.of = &of;
  f.at = at;
  f.slot = of[at].where;
  f.check = of[at].check;
  f.dirty = dirty;
  f.recent = true;
  of[at] = {in_frame | f.number, 0};
  ++owned_;
}

void id_pages::disown(frame& f) noexcept {
  f.of = nullptr;
  --owned_;
}

result<id_pages::frame*> id_pages::load(table& of, std::size_t at) {
  if ((of[at].where & in_frame) != 0) {
    auto& f = *frames_[of[at].where & ~in_frame];
    f.recent = true;
    return &f;
  }
  auto& f = take();
  auto from = of[at];
  if (from.where == 0) {
    f.ids = {};
  } else {
    QS_TRY(read_slot(f.ids, from.where));
    if (crc32c(bytes_of(f.ids)) != from.check)
      return error{errc::corrupt,
                   fmt::format("{}: a page of the sequential index is not what was written: RELOAD "
                               "the namespace, or start the server anew",
                               directory_.string())};
  }
  own(f, of, at, false);
  return &f;
}

id_pages::frame& id_pages::grow() {
  frames_.push_back(std::make_unique<frame>());
  frames_.back()->number = static_cast<std::uint32_t>(frames_.size() - 1);
  return *frames_.back();
}

/// A free frame: a new one, or that of the page which was not used for longest, roughly. Where
/// pages cannot be written, one more than there should be.
id_pages::frame& id_pages::take() {
  shrink();
  if (frames_.size() < most_) return grow();
  auto steps = failing_ ? steps_while_failing : 2 * frames_.size() + 1;
  for (; steps > 0; --steps) {
    hand_ = (hand_ + 1) % frames_.size();
    auto& f = *frames_[hand_];
    if (f.of == nullptr) return f;
    if (!std::exchange(f.recent, false) && let_go(f)) return f;
    if (failing_) steps = std::min(steps, steps_while_failing);
  }
  return grow();
}

/// Back within the bound, once pages can be written again.
void id_pages::shrink() {
  for (std::size_t i = 0; i < shrunk_at_once && frames_.size() > most_; ++i) {
    auto& f = *frames_.back();
    if (f.of != nullptr && !let_go(f)) return;
    frames_.pop_back();
  }
}

/// False: its page could not be written.
bool id_pages::let_go(frame& f) {
  if (f.dirty && !write(f)) return false;
  (*f.of)[f.at] = {f.slot, f.check};
  disown(f);
  return true;
}

// -- the file -------------------------------------------------------------------------------------

bool id_pages::write(frame& f) {
  if (failing_ && std::chrono::steady_clock::now() < retry_at_) return false;
  if (is_empty(f.ids)) {
    if (f.slot != 0) free_.push_back(f.slot);
    f.slot = f.check = 0;
    f.dirty = false;
    return true;
  }
  auto fresh = f.slot == 0;
  auto slot = !fresh ? f.slot : !free_.empty() ? free_.back() : slots_ + 1;
  auto written = write_slot(f.ids, slot);
  if (!written.ok()) {
    if (!std::exchange(failing_, true))
      log::error("zdb", "{}: the index of sequential namespaces stays in memory until it can be "
                        "written",
                 describe(written.err()));
    retry_at_ = std::chrono::steady_clock::now() + retry_every;
    return false;
  }
  if (std::exchange(failing_, false))
    log::info("zdb", "the index of sequential namespaces can be written again");
  if (fresh && slot > slots_)
    slots_ = slot;
  else if (fresh)
    free_.pop_back();
  f.slot = slot;
  f.check = crc32c(bytes_of(f.ids));
  f.dirty = false;
  return true;
}

/// It has no name: nothing of it is left when the server ends, however it ends.
status id_pages::open() {
  auto made = open_file(directory_, O_RDWR | O_TMPFILE);
  if (!made.ok()) { // a file system that has no such files
    auto path = directory_ / "ids";
    ::unlink(path.c_str());
    QS_TRY_ASSIGN(made, open_file(path, O_RDWR | O_CREAT | O_EXCL));
    ::unlink(path.c_str());
  }
  file_ = std::move(*made);
  return {};
}

status id_pages::write_slot(const page& ids, std::uint32_t slot) {
  if (slot >= in_frame)
    return error{errc::no_space, "the sequential index has more pages than can be counted"};
  if (!file_.valid()) QS_TRY(open());
  // All of the slot, so that the kernel never has to read it first.
  std::array<std::byte, page_bytes> whole{};
  auto bytes = bytes_of(ids);
  std::copy(bytes.begin(), bytes.end(), whole.begin());
  auto at = std::uint64_t{slot - 1} * page_bytes;
  for (std::size_t done = 0; done < whole.size();) {
    auto n = ::pwrite(file_.get(), whole.data() + done, whole.size() - done,
                      static_cast<off_t>(at + done));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0)
      return errno_error(fmt::format("write the index file of {}", directory_.string()),
                         n < 0 ? errno : ENOSPC);
    done += static_cast<std::size_t>(n);
  }
  return {};
}

status id_pages::read_slot(page& ids, std::uint32_t slot) {
  auto got = read_exactly(file_.get(), bytes_of(ids), std::uint64_t{slot - 1} * page_bytes);
  if (!got.ok())
    return std::move(got).err().with(
        fmt::format("read the index file of {}", directory_.string()));
  return {};
}

void id_pages::release(std::vector<std::uint32_t>& slots) noexcept {
  free_.insert(free_.end(), slots.begin(), slots.end());
  if (slots.empty()) return;
  if (free_.size() == slots_) {
    free_ = std::vector<std::uint32_t>{};
    slots_ = 0;
    (void)!::ftruncate(file_.get(), 0); // what stays is written over
    return;
  }
  std::sort(slots.begin(), slots.end());
  for (std::size_t i = 0; i < slots.size();) {
    auto end = i + 1;
    while (end < slots.size() && slots[end] == slots[end - 1] + 1) ++end;
    if (end - i >= given_back_least)
      (void)::fallocate(file_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                        static_cast<off_t>(slots[i] - 1) * static_cast<off_t>(page_bytes),
                        static_cast<off_t>(end - i) * static_cast<off_t>(page_bytes));
    i = end;
  }
}

} // namespace qs::zdb
