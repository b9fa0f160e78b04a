// What a command line says, as plain values: filled in by parse.cpp, read by the commands. No CLI11 here.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace qs::cli {

/// What every command takes.
struct common_flags {
  std::string file;      ///< [FILE]; "" = not given
  std::string volume;    ///< --volume
  std::string state_dir; ///< --state-dir
  std::string color = "auto";
  bool json = false;
};

struct init_options {
  common_flags common;
  std::string directory = ".";
  std::string name;
  std::string capacity;
  std::optional<int> data;
  std::optional<int> parity;
  std::optional<int> nodes;
  std::string mount;
  bool no_mount = false;
  std::string cache;
  std::string staging;
  std::string listen; ///< host:port, "off", or "" for a free port
  bool no_protect = false;
  std::string interval;
  std::string failed_after;
  std::string replace_after;
  bool yes = false;
  bool show_words = false;
  bool no_key = false;
};

struct key_options {
  common_flags common;
  std::string name;
  std::string from; ///< import: file, "-" = standard input
  bool show_words = false;
};

struct plan_options {
  common_flags common;
  bool detailed_exitcode = false;
  bool offline = false;
};

struct start_options {
  common_flags common;
  std::string timeout = "15m";
};

struct apply_options {
  common_flags common;
  bool cancel = false;
  bool auto_approve = false;
  std::string wait = "ready";
  std::string timeout = "30m";
  std::string confirm; ///< destroy: the name
  bool abandon = false; ///< destroy: what cannot be deleted is given up
};

struct run_options {
  common_flags common;
  bool follow = false;
  std::string log_file;
  std::string log_level = "info";
  bool log_json = false;
  int ready_fd = -1;   ///< of the watcher
  bool watch = false;  ///< be the watcher
  int leash_fd = -1;   ///< the other end of the leash; of the watcher: take over the engine there
  int engine_pid = 0;  ///< of the engine to take over
};

struct status_options {
  common_flags common;
  bool watch = false;
  std::string wait_for;
  std::string timeout = "10m";
  std::string interval = "2s";
};

struct stop_options {
  common_flags common;
  std::string timeout = "15m";
};

struct logs_options {
  common_flags common;
  bool follow = false;
  int lines = 50;
};

struct node_options {
  common_flags common;
  std::string node;
  bool yes = false;
  bool abandon = false; ///< delete: though nobody says that it is gone
  std::string timeout = "5m"; ///< delete
};

struct size_options {
  apply_options apply;
  std::string size; ///< grow
  int nodes = 0;    ///< add-nodes
};

struct wallet_options {
  common_flags common;
  std::string amount;
};

struct events_options {
  common_flags common;
  bool follow = false;
  int last = 50;
};

struct grid_options {
  common_flags common;
  std::string node;
  bool wipe = false;
};

struct text_options {
  common_flags common;
  std::string what; ///< completion: the shell
};

} // namespace qs::cli
