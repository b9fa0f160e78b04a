// A 0-db of 2.0.7 as far as an administrator sees it, on a port of this machine: its namespace
// commands with its replies and error texts (zdb-protocol 1.5, 1.6, 1.8), no extensions, and
// faults on demand: a connection that ends before or after a command was carried out. For tests.
#pragma once

#include <atomic>
#include <chrono>
#include <map>
#include <mutex>
#include <netinet/in.h>
#include <poll.h>
#include <string>
#include <sys/socket.h>
#include <thread>
#include <unistd.h>
#include <vector>

#include <doctest/doctest.h>
#include <fmt/format.h>

#include "base/posix.hpp"
#include "zdb/session.hpp"

namespace qs::test {

class old_zdb {
public:
  struct space {
    std::string password;
    bool is_public = true;
    std::uint64_t maxsize = 0, entries = 0, used = 0;
    std::string mode = "userkey";
    bool locked = false;
  };
  enum class fault {
    none,
    before,
    after
  }; ///< the connection ends before, after it was carried out

  // Set before a client comes, or between two.
  std::string admin = "admin-word";
  bool knows_challenge = true;
  std::uint64_t disk_free = 100ULL << 30;
  std::string on;          ///< the command …
  int nth = 0;             ///< … of which the nth (from 0) …
  fault how = fault::none; ///< … fails so, once
  std::string garbage;     ///< answered to `on` instead, if not empty
  std::chrono::milliseconds pace{0}; ///< each answer takes so long

  old_zdb() {
    listener_ = unique_fd{::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    sockaddr_in a{};
    a.sin_family = AF_INET;
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof a;
    REQUIRE(::bind(listener_.get(), reinterpret_cast<sockaddr*>(&a), sizeof a) == 0);
    REQUIRE(::listen(listener_.get(), 64) == 0);
    REQUIRE(::getsockname(listener_.get(), reinterpret_cast<sockaddr*>(&a), &size) == 0);
    port_ = ntohs(a.sin_port);
    thread_ = std::thread{[this] { run(); }};
  }
  ~old_zdb() {
    stopping_ = true;
    thread_.join();
  }
  old_zdb(const old_zdb&) = delete;
  old_zdb& operator=(const old_zdb&) = delete;

  [[nodiscard]] std::string address() const { return fmt::format("127.0.0.1:{}", port_); }
  std::map<std::string, space> spaces() {
    std::lock_guard lock{mutex_};
    return spaces_;
  }
  void put(const std::string& name, space s) {
    std::lock_guard lock{mutex_};
    spaces_[name] = std::move(s);
  }
  /// Commands in the order in which they were carried out.
  std::vector<std::string> log() {
    std::lock_guard lock{mutex_};
    return log_;
  }
  /// Every word that any client sent, for looking for passwords.
  std::string heard() {
    std::lock_guard lock{mutex_};
    return heard_;
  }
  /// This command is answered with "Try again" and not carried out; "": all are.
  void is_busy_with(std::string what) {
    std::lock_guard lock{mutex_};
    busy_ = std::move(what);
  }
  void break_at(std::string what, int which, fault kind) {
    std::lock_guard lock{mutex_};
    on = std::move(what);
    nth = which;
    how = kind;
  }

private:
  struct connection {
    unique_fd fd;
    std::string in;
    bool is_admin = false;
  };
  using command = std::vector<std::string>;

  void run() {
    std::vector<connection> all;
    while (!stopping_) {
      std::vector<pollfd> p{{listener_.get(), POLLIN, 0}};
      for (auto& c : all) p.push_back({c.fd.get(), POLLIN, 0});
      ::poll(p.data(), p.size(), 20);
      auto known = all.size();
      if ((p[0].revents & POLLIN) != 0) {
        unique_fd fd{::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC)};
        if (fd.valid()) all.push_back({std::move(fd), {}, admin.empty()});
      }
      for (std::size_t i = known; i-- > 0;) // from the end, so that erasing keeps what is to come
        if (p[i + 1].revents != 0 && !serve(all[i]))
          all.erase(all.begin() + static_cast<std::ptrdiff_t>(i));
    }
  }

  bool serve(connection& c) {
    char buffer[65536];
    auto n = ::recv(c.fd.get(), buffer, sizeof buffer, MSG_DONTWAIT);
    if (n <= 0) return n < 0 && errno == EAGAIN;
    c.in.append(buffer, static_cast<std::size_t>(n));
    std::lock_guard lock{mutex_};
    heard_.append(buffer, static_cast<std::size_t>(n));
    command words;
    while (parse(c.in, words)) {
      auto broken = fault::none;
      if (words[0] == on && nth-- == 0) broken = std::exchange(how, fault::none);
      if (broken == fault::before) return false;
      if (pace.count() > 0) ::poll(nullptr, 0, static_cast<int>(pace.count())); // the pace of the thing
      auto reply = words[0] == busy_ ? std::string{"-Try again\r\n"} : answer(c, words);
      if (words[0] == on && !garbage.empty()) reply = garbage;
      if (broken == fault::after) return false;
      if (::send(c.fd.get(), reply.data(), reply.size(), MSG_NOSIGNAL) < 0) return false;
      words.clear();
    }
    return true;
  }

  static bool parse(std::string& in, command& out) {
    std::size_t at = 0;
    auto number = [&](char type, std::size_t& value) {
      auto end = in.find("\r\n", at);
      if (end == std::string::npos || in[at] != type) return false;
      value = std::stoul(in.substr(at + 1, end - at - 1));
      at = end + 2;
      return true;
    };
    std::size_t count = 0;
    if (in.empty() || !number('*', count)) return false;
    for (std::size_t i = 0; i < count; ++i) {
      std::size_t length = 0;
      if (at >= in.size() || !number('$', length) || in.size() < at + length + 2) return false;
      out.push_back(in.substr(at, length));
      at += length + 2;
    }
    in.erase(0, at);
    return true;
  }

  std::string answer(connection& c, const command& w) {
    log_.push_back(w[0]);
    auto ok = std::string{"+OK\r\n"};
    if (w[0] == "PING") return "+PONG\r\n";
    if (w[0] == "AUTH") {
      if (w.size() == 3 && w[2] == "CHALLENGE")
        return knows_challenge ? "+0123456789abcdef\r\n" : "-Unexpected arguments\r\n";
      if (admin.empty()) return "-Authentication disabled\r\n";
      auto good = w.size() == 3 ? w[2] == zdb::challenge_answer("0123456789abcdef", admin)
                                : w.size() == 2 && w[1] == admin;
      c.is_admin = c.is_admin || good;
      return good ? ok : "-Access denied\r\n";
    }
    if (w[0] == "NSLIST") {
      auto out = fmt::format("*{}\r\n$7\r\ndefault\r\n", spaces_.size() + 1);
      for (auto& [name, s] : spaces_) out += fmt::format("${}\r\n{}\r\n", name.size(), name);
      return out;
    }
    if (w[0] == "NSINFO") return nsinfo(w.at(1));
    if (w[0] == "SELECT") return select(w);
    if (!c.is_admin) return "-Permission denied\r\n";
    auto there = spaces_.find(w.size() > 1 ? w[1] : "");
    if (w[0] == "NSNEW") {
      if (there != spaces_.end()) return "-This namespace is not available\r\n";
      spaces_[w.at(1)] = {};
      return ok;
    }
    if (w[0] == "NSDEL") {
      if (there == spaces_.end()) return "-This namespace doesn't exists\r\n";
      spaces_.erase(there);
      return ok;
    }
    if (w[0] == "NSSET") {
      if (there == spaces_.end()) return "-Namespace not found\r\n";
      if (w.at(2) == "maxsize")
        there->second.maxsize = std::stoull(w.at(3));
      else if (w[2] == "password")
        there->second.password = w.at(3);
      else if (w[2] == "public")
        there->second.is_public = w.at(3) == "1";
      else if (w[2] == "mode")
        there->second.mode = w.at(3) == "user" ? "userkey" : "sequential";
      else
        return "-Invalid property\r\n";
      return ok;
    }
    return "-Command not supported\r\n";
  }

  std::string nsinfo(const std::string& name) {
    space s;
    if (name != "default") {
      auto there = spaces_.find(name);
      if (there == spaces_.end()) return "-Namespace not found\r\n";
      s = there->second;
    }
    auto yes = [](bool b) { return b ? "yes" : "no"; };
    auto text = fmt::format(
        "# namespace\nname: {}\nentries: {}\npublic: {}\nworm: no\nlocked: {}\npassword: {}\n"
        "data_size_bytes: {}\ndata_limits_bytes: {}\nmode: {}\ndata_disk_freespace_bytes: {}\n",
        name, s.entries, yes(s.is_public), yes(s.locked), yes(!s.password.empty()), s.used,
        s.maxsize, s.mode, disk_free);
    return fmt::format("${}\r\n{}\r\n", text.size(), text);
  }

  std::string select(const command& w) {
    auto there = spaces_.find(w.at(1));
    if (there == spaces_.end()) return "-Namespace not found\r\n";
    const auto& s = there->second;
    if (s.password.empty()) return "+OK\r\n"; // further arguments are ignored
    auto good = w.size() == 4 ? w[3] == zdb::challenge_answer("0123456789abcdef", s.password)
                              : w.size() == 3 && w[2] == s.password;
    return good ? "+OK\r\n" : "-Access denied\r\n";
  }

  unique_fd listener_;
  std::uint16_t port_ = 0;
  std::atomic<bool> stopping_{false};
  std::mutex mutex_;
  std::map<std::string, space> spaces_;
  std::vector<std::string> log_;
  std::string heard_;
  std::string busy_;
  std::thread thread_; ///< last: it uses the others
};

} // namespace qs::test
