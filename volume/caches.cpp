#include "volume/caches.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <fmt/format.h>
#include <vector>

#include "base/posix.hpp"

namespace qs::volume {

buffer_ptr frame_cache::find(const frame_key& key) {
  auto& p = of(key);
  std::lock_guard lock{p.mutex};
  auto it = p.map.find(key);
  if (it == p.map.end()) return nullptr;
  p.order.splice(p.order.begin(), p.order, it->second);
  return it->second->second;
}

void frame_cache::put(const frame_key& key, buffer_ptr plain) {
  auto& p = of(key);
  std::lock_guard lock{p.mutex};
  if (p.map.contains(key) || plain->size() > limit_ / parts) return;
  p.bytes += plain->size();
  p.order.emplace_front(key, std::move(plain));
  p.map[key] = p.order.begin();
  while (p.bytes > limit_ / parts) {
    p.bytes -= p.order.back().second->size();
    p.map.erase(p.order.back().first);
    p.order.pop_back();
  }
}

void frame_cache::clear() {
  for (auto& p : parts_) {
    std::lock_guard lock{p.mutex};
    p.map.clear();
    p.order.clear();
    p.bytes = 0;
  }
}

shard_cache::shard_cache(std::filesystem::path directory, byte_count limit, byte_count memory_limit)
    : directory_{std::move(directory)}, limit_{limit}, memory_limit_{memory_limit} {
  if (directory_.empty()) return;
  if (!make_directories(directory_).ok()) directory_.clear();
  else list_directory();
}

std::filesystem::path shard_cache::path_of(const shard_key& key) const {
  // Spread over 256 folders: directories of a million files are slow to list.
  return directory_ / fmt::format("{:02x}", key.segment.counter & 0xff) /
         fmt::format("{:x}-{:x}-{:x}", key.segment.epoch, key.segment.counter, key.index);
}

void shard_cache::list_directory() {
  struct found {
    shard_key key;
    byte_count bytes;
    std::int64_t used;
  };
  std::vector<found> all;
  std::error_code ec;
  for (std::filesystem::recursive_directory_iterator it{directory_, ec}, end; !ec && it != end; it.increment(ec)) {
    unsigned epoch = 0;
    unsigned long long counter = 0;
    unsigned index = 0;
    auto name = it->path().filename().string();
    if (!it->is_regular_file(ec)) continue;
    if (std::sscanf(name.c_str(), "%x-%llx-%x", &epoch, &counter, &index) != 3 || index > 47) continue;
    shard_key key{{epoch, counter}, static_cast<std::uint8_t>(index)};
    struct stat st {};
    if (path_of(key) != it->path() || ::stat(it->path().c_str(), &st) != 0) {
      std::filesystem::remove(it->path(), ec); // a temporary file of a process that died
      continue;
    }
    all.push_back({key, static_cast<byte_count>(st.st_size), st.st_mtim.tv_sec});
  }
  std::sort(all.begin(), all.end(), [](const found& a, const found& b) { return a.used < b.used; });
  for (const auto& f : all) {
    order_.push_front({f.key, f.bytes, nullptr, true});
    map_[f.key] = order_.begin();
    disk_ += f.bytes;
  }
  shrink();
}

void shard_cache::forget(order::iterator it) {
  if (it->on_disk) {
    ::unlink(path_of(it->key).c_str());
    disk_ -= it->bytes;
  }
  if (it->value) {
    memory_ -= it->bytes;
    in_memory_.remove(it->key);
  }
  map_.erase(it->key);
  order_.erase(it);
}

void shard_cache::shrink() {
  while (memory_ > memory_limit_ && !in_memory_.empty()) {
    auto it = map_.at(in_memory_.back());
    in_memory_.pop_back();
    memory_ -= it->bytes;
    it->value = nullptr;
    if (!it->on_disk) {
      map_.erase(it->key);
      order_.erase(it);
    }
  }
  while (disk_ > limit_ && !order_.empty()) {
    auto it = std::prev(order_.end());
    forget(it);
  }
}

std::optional<buffer> shard_cache::read(const shard_key& key, std::uint64_t offset, std::size_t length) {
  {
    std::lock_guard lock{mutex_};
    auto it = map_.find(key);
    if (it == map_.end()) return {};
    order_.splice(order_.begin(), order_, it->second);
    if (const auto& v = it->second->value) {
      if (offset + length > v->size()) return {};
      auto part = byte_span{*v}.subspan(offset, length);
      return to_buffer(part);
    }
  }
  auto fd = open_file(path_of(key), O_RDONLY);
  buffer out(length);
  if (!fd.ok() || !read_exactly(fd->get(), out, offset).ok()) {
    erase(key);
    return {};
  }
  return out;
}

buffer_ptr shard_cache::value(const shard_key& key, std::size_t most) {
  {
    std::lock_guard lock{mutex_};
    auto it = map_.find(key);
    if (it == map_.end()) return nullptr;
    if (it->second->value) return it->second->value;
  }
  auto text = read_file(path_of(key), most);
  if (!text.ok()) {
    erase(key);
    return nullptr;
  }
  return share(to_buffer(*text));
}

bool shard_cache::contains(const shard_key& key) const {
  std::lock_guard lock{mutex_};
  return map_.contains(key);
}

void shard_cache::remember(const shard_key& key, const buffer_ptr& value) {
  std::lock_guard lock{mutex_};
  if (memory_limit_ == 0 || map_.contains(key)) return;
  order_.push_front({key, value->size(), value, false});
  map_.emplace(key, order_.begin());
  memory_ += value->size();
  in_memory_.push_front(key);
  shrink();
}

void shard_cache::put(const shard_key& key, const buffer_ptr& value) {
  bool written = false;
  if (!directory_.empty() && value->size() <= limit_) {
    {
      std::lock_guard lock{mutex_};
      if (auto it = map_.find(key); it != map_.end() && it->second->on_disk) return;
    }
    auto path = path_of(key);
    auto temporary = path;
    temporary += fmt::format(".{:x}", reinterpret_cast<std::uintptr_t>(value.get()));
    if (make_directories(path.parent_path()).ok()) {
      auto fd = open_file(temporary, O_WRONLY | O_CREAT | O_TRUNC, 0600);
      written = fd.ok() && write_all(fd->get(), *value).ok() && ::rename(temporary.c_str(), path.c_str()) == 0;
      if (!written) ::unlink(temporary.c_str());
    }
  }
  std::lock_guard lock{mutex_};
  auto it = map_.find(key);
  if (it == map_.end()) {
    order_.push_front({key, value->size(), nullptr, false});
    it = map_.emplace(key, order_.begin()).first;
  }
  auto& i = *it->second;
  if (written && !i.on_disk) {
    i.on_disk = true;
    disk_ += i.bytes;
  }
  if (!i.value && memory_limit_ > 0) {
    i.value = value;
    memory_ += i.bytes;
    in_memory_.push_front(key);
  } else if (!i.value && !i.on_disk) {
    forget(it->second);
    return;
  }
  shrink();
}

void shard_cache::erase(const shard_key& key) {
  std::lock_guard lock{mutex_};
  if (auto it = map_.find(key); it != map_.end()) forget(it->second);
}

void shard_cache::clear() {
  std::lock_guard lock{mutex_};
  while (!order_.empty()) forget(order_.begin());
}

byte_count shard_cache::disk_bytes() const {
  std::lock_guard lock{mutex_};
  return disk_;
}

} // namespace qs::volume
