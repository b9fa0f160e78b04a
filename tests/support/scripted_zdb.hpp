// A zdb server's side of a conversation as a value: bytes in, replies out, with faults on demand. Replies as 0-db gives them
// (zdb-protocol), the extensions as ours does. For tests; the real server is zdb/server.hpp.
#pragma once

#include <algorithm>
#include <deque>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include <fmt/format.h>

#include "zdb/session.hpp"

namespace qs::test {

class scripted_zdb {
public:
  using command = std::vector<std::string>;

  std::string name_space = "ns";
  std::string password = "secret";
  std::string instance = "instance-1";
  std::string extensions = "SYNC SETNX"; ///< empty: as 0-db
  bool knows_challenge = true;
  bool silent = false;                   ///< takes everything, answers nothing
  std::set<std::string> hold;            ///< these commands wait for release(), and those behind them
  std::map<std::string, std::string> instead; ///< command → this reply (with its line end)
  std::map<std::string, std::string> objects;
  std::vector<std::string> log;          ///< command names in order of arrival

  void connected() {
    in_.clear();
    waiting_.clear();
  }
  std::string feed(std::string_view bytes) {
    in_ += bytes;
    command c;
    while (parse(c)) {
      log.push_back(c[0]);
      waiting_.push_back(std::move(c));
      c = {};
    }
    return drain();
  }
  /// Answers what was held.
  std::string release() {
    hold.clear();
    silent = false;
    return drain();
  }
  /// Arrived, not answered.
  [[nodiscard]] std::size_t waiting() const { return waiting_.size(); }
  [[nodiscard]] std::size_t count(std::string_view name) const {
    return static_cast<std::size_t>(std::count(log.begin(), log.end(), name));
  }

private:
  static constexpr std::string_view challenge = "0123456789abcdef";

  bool parse(command& out) {
    std::size_t at = 0;
    auto line = [&](char type, std::size_t& number) {
      auto end = in_.find("\r\n", at);
      if (end == std::string::npos || in_[at] != type) return false;
      number = std::stoul(in_.substr(at + 1, end - at - 1));
      at = end + 2;
      return true;
    };
    std::size_t n = 0;
    if (in_.empty() || !line('*', n)) return false;
    for (std::size_t i = 0; i < n; ++i) {
      std::size_t length = 0;
      if (at >= in_.size() || !line('$', length) || in_.size() < at + length + 2) return false;
      out.push_back(in_.substr(at, length));
      at += length + 2;
    }
    in_.erase(0, at);
    return true;
  }
  std::string drain() {
    std::string out;
    while (!silent && !waiting_.empty() && !hold.contains(waiting_.front()[0])) {
      out += answer(waiting_.front());
      waiting_.pop_front();
    }
    return out;
  }
  static std::string bulk(std::string_view text) { return fmt::format("${}\r\n{}\r\n", text.size(), text); }

  std::string answer(const command& c) {
    if (auto i = instead.find(c[0]); i != instead.end()) return i->second;
    if (c[0] == "AUTH") return knows_challenge ? fmt::format("+{}\r\n", challenge) : "-Unauthorized\r\n";
    if (c[0] == "SELECT") {
      if (c[1] != name_space) return "-Namespace not found\r\n";
      auto good = c.size() == 4 ? c[3] == zdb::challenge_answer(challenge, password)
                                : c.size() == 3 && c[2] == password;
      return good ? "+OK\r\n" : "-Access denied\r\n";
    }
    if (c[0] == "INFO")
      return bulk(fmt::format("# server\ninstance_id: {}\nboot_time: 1\n{}", instance,
                              extensions.empty() ? "" : "extensions: " + extensions + "\n"));
    if (c[0] == "NSINFO")
      return bulk(fmt::format("# namespace\nname: {}\nentries: {}\ndata_size_bytes: 4096\n"
                              "data_limits_bytes: 1048576\ndata_disk_freespace_bytes: 999\n",
                              name_space, objects.size()));
    if (c[0] == "PING") return "+PONG\r\n";
    if (c[0] == "SYNC") return extensions.empty() ? "-Command not supported\r\n" : "+OK\r\n";
    auto object = objects.find(c.size() > 1 ? c[1] : "");
    if (c[0] == "SET") {
      if (object != objects.end() && object->second == c[2]) return "$-1\r\n";
      objects[c[1]] = c[2];
      return bulk(c[1]);
    }
    if (c[0] == "GET") return object == objects.end() ? "$-1\r\n" : bulk(object->second);
    if (c[0] == "CHECK") return object == objects.end() ? "-Key not found\r\n" : ":1\r\n";
    if (c[0] == "DEL") {
      if (object == objects.end()) return "-Key not found\r\n";
      objects.erase(object);
      return "+OK\r\n";
    }
    return "-Command not supported\r\n";
  }

  std::string in_;
  std::deque<command> waiting_;
};

} // namespace qs::test
