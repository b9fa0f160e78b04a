// A directory tree in memory as POSIX has it, written apart from volume/: what random operations
// are compared with. Not fast, not thread-safe.
#pragma once

#include <algorithm>
#include <cerrno>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/random.hpp"
#include "volume/names.hpp"

namespace qs::test {

class tree_model {
public:
  struct node {
    bool directory = false;
    std::map<std::string, std::shared_ptr<node>> children;
    std::weak_ptr<node> parent;
    std::uint32_t mode = 0;
    std::map<std::string, std::string> xattrs;
  };
  using node_ptr = std::shared_ptr<node>;

  tree_model() : root_{std::make_shared<node>()} {
    root_->directory = true;
    root_->parent = root_;
  }

  node_ptr root() const { return root_; }

  int make(const node_ptr& dir, const std::string& name, bool directory, std::uint32_t mode) {
    if (dir->children.contains(name)) return EEXIST;
    auto n = std::make_shared<node>();
    n->directory = directory;
    n->parent = dir;
    n->mode = mode;
    dir->children[name] = n;
    return 0;
  }
  int link(const node_ptr& from, const node_ptr& dir, const std::string& name) {
    if (from->directory) return EPERM;
    if (dir->children.contains(name)) return EEXIST;
    dir->children[name] = from;
    return 0;
  }
  int unlink(const node_ptr& dir, const std::string& name) {
    auto it = dir->children.find(name);
    if (it == dir->children.end()) return ENOENT;
    if (it->second->directory) return EISDIR;
    dir->children.erase(it);
    return 0;
  }
  int rmdir(const node_ptr& dir, const std::string& name) {
    auto it = dir->children.find(name);
    if (it == dir->children.end()) return ENOENT;
    if (!it->second->directory) return ENOTDIR;
    if (!it->second->children.empty()) return ENOTEMPTY;
    dir->children.erase(it);
    return 0;
  }
  int rename(const node_ptr& from, const std::string& name, const node_ptr& to,
             const std::string& new_name, unsigned flags) {
    auto source = from->children.find(name);
    if (source == from->children.end()) return ENOENT;
    auto target = to->children.find(new_name);
    bool there = target != to->children.end();
    auto moved = source->second;
    if (flags == 2) {
      if (!there) return ENOENT;
      auto other = target->second;
      if (moved == other) return 0;
      if (moved->directory && from != to && below(to, moved)) return EINVAL;
      if (other->directory && from != to && below(from, other)) return EINVAL;
      std::swap(source->second, target->second);
      if (moved->directory) moved->parent = to;
      if (other->directory) other->parent = from;
      return 0;
    }
    if (there && flags == 1) return EEXIST;
    if (there && target->second == moved) return 0;
    if (moved->directory && from != to && below(to, moved)) return EINVAL;
    if (there) {
      if (moved->directory && !target->second->directory) return ENOTDIR;
      if (!moved->directory && target->second->directory) return EISDIR;
      if (!target->second->children.empty()) return ENOTEMPTY;
    }
    to->children[new_name] = moved;
    from->children.erase(name);
    if (moved->directory) moved->parent = to;
    return 0;
  }

  /// "path type nlink mode xattrs" of everything, sorted: two trees are the same if their lines
  /// are.
  std::vector<std::string> lines() const {
    std::map<const node*, int> links;
    count(root_, links);
    std::vector<std::string> out;
    list(root_, "", links, out);
    std::sort(out.begin(), out.end());
    return out;
  }

  static std::string line(const std::string& path, bool directory, std::uint64_t nlink,
                          std::uint32_t mode, const std::string& xattrs) {
    return path + (directory ? " d " : " f ") + std::to_string(nlink) + " " + std::to_string(mode) +
           " " + xattrs;
  }

private:
  static bool below(node_ptr dir, const node_ptr& ancestor) {
    while (dir != ancestor) {
      auto up = dir->parent.lock();
      if (up == dir) return false;
      dir = up;
    }
    return true;
  }
  static void count(const node_ptr& dir, std::map<const node*, int>& links) {
    links[dir.get()] += 2;
    for (const auto& [name, child] : dir->children) {
      if (child->directory) {
        links[dir.get()] += 1;
        count(child, links);
      } else {
        links[child.get()] += 1;
      }
    }
  }
  static void list(const node_ptr& dir, const std::string& path,
                   const std::map<const node*, int>& links, std::vector<std::string>& out) {
    for (const auto& [name, child] : dir->children) {
      std::string xattrs;
      for (const auto& [key, value] : child->xattrs) xattrs += key + "=" + value + ";";
      out.push_back(line(path + "/" + name, child->directory,
                         static_cast<std::uint64_t>(links.at(child.get())), child->mode, xattrs));
      if (child->directory) list(child, path + "/" + name, links, out);
    }
  }

  node_ptr root_;
};

/// The same lines of a real tree. `Files` is a volume::names or a volume::filesystem.
template <class Files>
void list_tree(Files& files, volume::inode_number dir, const std::string& path,
               std::vector<std::string>& out) {
  std::uint64_t cookie = 2;
  for (;;) {
    auto page = files.readdir(dir, cookie, 17, true);
    if (!page.ok()) {
      out.push_back(path + " readdir failed: " + describe(page.err()));
      return;
    }
    if (page->empty()) return;
    for (const auto& entry : *page) {
      cookie = entry.cookie;
      auto here = path + "/" + entry.name;
      auto found = files.lookup(dir, entry.name);
      if (!entry.attr || !found.ok() || found->inode != entry.inode ||
          (entry.attr->mode & 0170000U) != entry.type) {
        out.push_back(here + " is listed but not what is found");
        continue;
      }
      std::string xattrs;
      if (auto names = files.listxattr(entry.inode); names.ok()) {
        std::sort(names->begin(), names->end());
        for (const auto& name : *names)
          xattrs += name + "=" + to_string(*files.getxattr(entry.inode, name)) + ";";
      }
      bool directory = (entry.type & 0170000U) == 0040000U;
      out.push_back(
          tree_model::line(here, directory, entry.attr->nlink, entry.attr->mode & 07777U, xattrs));
      if (directory) list_tree(files, entry.inode, here, out);
    }
  }
}

template <class Files>
std::vector<std::string> tree_lines(Files& files) {
  std::vector<std::string> out;
  list_tree(files, volume::root_inode, "", out);
  std::sort(out.begin(), out.end());
  return out;
}

/// Does random operations on both, and says where they differ (empty: nowhere).
template <class Files>
class tree_walker {
public:
  tree_walker(Files& files, tree_model& model, std::uint64_t seed)
      : files_{files}, model_{model}, random_{seed} {}

  /// One operation; an explanation if the two answered differently.
  std::string step() {
    auto a = pick_directory();
    auto b = pick_directory();
    auto name = pick_name();
    auto other = pick_name();
    int wanted = 0;
    int got = 0;
    std::string what;
    switch (random_.below(9)) {
    case 0:
    case 1:
      what = "mknod";
      wanted = model_.make(a.node, name, false, 0640);
      got = sys(files_.mknod(a.inode, name, 0100640, 0, {}));
      break;
    case 2:
      what = "mkdir";
      wanted = model_.make(a.node, name, true, 0750);
      got = sys(files_.mkdir(a.inode, name, 0750, {}));
      break;
    case 3: {
      what = "link";
      auto source = b.node->children.find(other);
      auto inode = files_.lookup(b.inode, other);
      if ((source == b.node->children.end()) != !inode.ok())
        return "lookup of " + other + " differs";
      if (!inode.ok()) return {};
      wanted = model_.link(source->second, a.node, name);
      got = sys(files_.link(inode->inode, a.inode, name));
      break;
    }
    case 4:
      what = "unlink";
      wanted = model_.unlink(a.node, name);
      got = sys(files_.unlink(a.inode, name));
      break;
    case 5:
      what = "rmdir";
      wanted = model_.rmdir(a.node, name);
      got = sys(files_.rmdir(a.inode, name));
      break;
    case 6:
    case 7: {
      what = "rename";
      auto flags = static_cast<unsigned>(random_.below(3));
      if (a.node == b.node && name == other) return {};
      wanted = model_.rename(a.node, name, b.node, other, flags);
      got = sys(files_.rename(a.inode, name, b.inode, other, flags));
      break;
    }
    default: {
      what = "chmod and setxattr";
      auto target = a.node->children.find(name);
      auto inode = files_.lookup(a.inode, name);
      if ((target == a.node->children.end()) != !inode.ok())
        return "lookup of " + name + " differs";
      if (!inode.ok()) return {};
      volume::attribute_changes changes;
      changes.mode = target->second->mode = static_cast<std::uint32_t>(random_.below(01000));
      got = sys(files_.setattr(inode->inode, changes));
      auto value = std::to_string(random_.below(100));
      target->second->xattrs["user." + other] = value;
      got = std::max(got, sys(files_.setxattr(inode->inode, "user." + other, as_bytes(value),
                                              volume::xattr_mode::either)));
      break;
    }
    }
    if (wanted == got) return {};
    return what + " " + name + " " + other + ": wanted errno " + std::to_string(wanted) + ", got " +
           std::to_string(got);
  }

private:
  struct place {
    tree_model::node_ptr node;
    volume::inode_number inode;
  };
  template <class T>
  static int sys(const result<T>& r) {
    return r.ok() ? 0 : r.err().sys;
  }
  std::string pick_name() { return std::string(1, static_cast<char>('a' + random_.below(6))); }
  /// Goes down from the root, up to four levels.
  place pick_directory() {
    place at{model_.root(), volume::root_inode};
    for (auto depth = random_.below(5); depth > 0; --depth) {
      auto child = at.node->children.find(pick_name());
      if (child == at.node->children.end() || !child->second->directory) continue;
      auto inode = files_.lookup(at.inode, child->first);
      if (!inode.ok()) return at;
      at = {child->second, inode->inode};
    }
    return at;
  }

  Files& files_;
  tree_model& model_;
  seeded_random random_;
};

} // namespace qs::test
