// A file system so simple that it is right: names to bytes in one directory. The volume is compared with it.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <string>
#include <vector>

#include <linux/falloc.h>
#include <sys/stat.h>

#include "codec/checksum.hpp"
#include "support/memory_nodes.hpp"

namespace qs::test {

using file_state = std::map<std::string, buffer>;

/// What the volume shows, or nothing if something cannot be read.
inline std::optional<file_state> look_at(volume_fixture& f) {
  file_state out;
  auto list = f.fs().readdir(volume::root_inode, 0, 10'000, false);
  if (!list.ok()) return {};
  for (const auto& e : *list) {
    if (e.name == "." || e.name == "..") continue;
    auto attr = f.fs().getattr(e.inode);
    if (!attr.ok()) return {};
    auto data = f.read(e.inode, 0, attr->size + 10);
    if (!data.ok() || data->size() != attr->size) return {};
    out[e.name] = std::move(*data);
  }
  return out;
}

inline std::string first_difference(const file_state& want, const file_state& got) {
  for (const auto& [name, data] : want) {
    auto it = got.find(name);
    if (it == got.end()) return name + " is missing";
    if (it->second == data) continue;
    if (it->second.size() != data.size())
      return name + " has " + std::to_string(it->second.size()) + " bytes instead of " + std::to_string(data.size());
    auto at = static_cast<std::size_t>(std::mismatch(data.begin(), data.end(), it->second.begin()).first - data.begin());
    return name + " differs at byte " + std::to_string(at) + ", got " + std::to_string(static_cast<int>(it->second[at])) +
           ", want " + std::to_string(static_cast<int>(data[at]));
  }
  for (const auto& [name, data] : got)
    if (!want.contains(name)) return name + " should not be there";
  return {};
}

inline std::uint64_t fingerprint(const file_state& state) {
  std::uint64_t sum = 1;
  for (const auto& [name, data] : state) {
    sum = codec::checksum64(as_bytes(name), sum);
    std::array<std::byte, 8> size;
    store_le(size.data(), std::uint64_t{data.size()});
    sum = codec::checksum64(size, sum);
    sum = codec::checksum64(data, sum);
  }
  return sum;
}

/// One random operation on both; false if it was not answered with success (then neither changed).
class random_operations {
public:
  random_operations(volume_fixture& f, std::uint64_t seed, std::uint64_t most = 400'000) : f_{f}, random_{seed}, most_{most} {}
  file_state state;
  std::string last;

  void step() {
    auto name = "f" + std::to_string(random_.below(6));
    auto it = state.find(name);
    if (it == state.end()) {
      last = "create " + name;
      auto made = f_.make_file(name);
      REQUIRE_MESSAGE(made.ok(), describe(made.err()));
      state[name] = {};
      return;
    }
    auto found = f_.fs().lookup(volume::root_inode, name);
    REQUIRE(found.ok());
    auto inode = found->inode;
    f_.fs().remember(inode, 1);
    change(name, inode);
    f_.fs().forget(inode, 1);
  }

private:
  buffer bytes(std::size_t n) {
    buffer out(n);
    if (random_.below(3) != 0) random_.fill(out);
    else std::fill(out.begin(), out.end(), static_cast<std::byte>(random_.below(3)));
    return out;
  }
  void change(const std::string& name, volume::inode_number inode) {
    auto& data = state[name];
    switch (random_.below(12)) {
      case 0:
      case 1:
      case 2:
      case 3: { // write somewhere
        auto at = random_.below(most_);
        if (random_.below(3) == 0) at = at / 65536 * 65536;
        auto n = random_.below(4) == 0 ? 1 + random_.below(200'000) : 1 + random_.below(5000);
        auto what = bytes(n);
        last = "write " + name + " " + std::to_string(at) + " +" + std::to_string(n);
        auto done = f_.write(inode, at, what);
        REQUIRE_MESSAGE(done.ok(), describe(done.err()));
        if (data.size() < at + n) data.resize(at + n);
        std::copy(what.begin(), what.end(), data.begin() + static_cast<std::ptrdiff_t>(at));
        break;
      }
      case 4:
      case 5: {
        auto what = bytes(1 + random_.below(70'000));
        last = "append " + name + " " + std::to_string(what.size());
        if (data.size() > 2 * most_) break;
        REQUIRE(f_.write(inode, 0, what, true).ok());
        data.insert(data.end(), what.begin(), what.end());
        break;
      }
      case 6:
      case 7: {
        auto size = random_.below(3) == 0 ? random_.below(most_) : random_.below(data.size() + 1);
        last = "truncate " + name + " " + std::to_string(size);
        volume::attribute_changes c;
        c.size = size;
        auto done = f_.fs().setattr(inode, c);
        REQUIRE_MESSAGE(done.ok(), describe(done.err()));
        data.resize(size);
        break;
      }
      case 8:
      case 9: {
        auto at = random_.below(most_);
        auto n = 1 + random_.below(150'000);
        bool zero = random_.below(2) == 0;
        last = (zero ? "zero " : "punch ") + name + " " + std::to_string(at) + " +" + std::to_string(n);
        auto done = f_.fs().fallocate(inode, zero ? FALLOC_FL_ZERO_RANGE : FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, n);
        REQUIRE_MESSAGE(done.ok(), describe(done.err()));
        if (zero && data.size() < at + n) data.resize(at + n);
        for (auto i = at; i < std::min<std::uint64_t>(data.size(), at + n); ++i) data[i] = std::byte{0};
        break;
      }
      case 10: {
        auto other = "f" + std::to_string(random_.below(6));
        last = "rename " + name + " " + other;
        if (other == name) break;
        REQUIRE(f_.fs().rename(volume::root_inode, name, volume::root_inode, other, 0).ok());
        auto moved = std::move(data);
        state.erase(name);
        state[other] = std::move(moved);
        break;
      }
      default:
        last = "unlink " + name;
        REQUIRE(f_.fs().unlink(volume::root_inode, name).ok());
        state.erase(name);
    }
  }

  volume_fixture& f_;
  seeded_random random_;
  std::uint64_t most_;
};

} // namespace qs::test
