// A thin door to SQLite: an owned connection and statements, failures as results. Internal to
// state. One thread at a time.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "base/bytes.hpp"
#include "base/result.hpp"

struct sqlite3;
struct sqlite3_stmt;

namespace qs::state {

enum class open_mode { read_only, read_write };

class statement {
public:
  statement(statement&&) noexcept = default;
  statement& operator=(statement&&) noexcept = default;

  statement& bind(std::int64_t value);
  statement& bind(std::string_view text);
  statement& bind_blob(byte_span bytes);
  statement& bind_null();
  /// True while there is a row.
  result<bool> step();
  /// Runs it to its end and makes it ready for the next set of values.
  status run();

  [[nodiscard]] std::int64_t integer(int column) const;
  [[nodiscard]] std::string text(int column) const;
  [[nodiscard]] buffer blob(int column) const;
  [[nodiscard]] bool is_null(int column) const;

private:
  friend class database;
  struct finalize {
    void operator()(sqlite3_stmt* s) const noexcept;
  };
  explicit statement(sqlite3_stmt* s) : handle_{s} {}
  std::unique_ptr<sqlite3_stmt, finalize> handle_;
  int bound_ = 0;
  int failure_ = 0;
};

class database {
public:
  /// read_only opens mode=ro and writes nothing; read_write expects the file to exist.
  static result<database> open(const std::filesystem::path& file, open_mode mode);

  result<statement> prepare(std::string_view sql);
  status execute(const std::string& sql);
  /// One value of a PRAGMA or SELECT; 0 if there is no row.
  result<std::int64_t> number(std::string_view sql);
  [[nodiscard]] const std::filesystem::path& file() const noexcept { return file_; }

private:
  struct close {
    void operator()(sqlite3* db) const noexcept;
  };
  std::unique_ptr<sqlite3, close> handle_;
  std::filesystem::path file_;
};

/// Rolls back unless committed.
class transaction {
public:
  static result<transaction> begin(database& db);
  transaction(transaction&& other) noexcept : db_{std::exchange(other.db_, nullptr)} {}
  transaction& operator=(transaction&&) = delete;
  transaction(const transaction&) = delete;
  transaction& operator=(const transaction&) = delete;
  ~transaction();
  status commit();

private:
  explicit transaction(database& db) : db_{&db} {}
  database* db_;
};

} // namespace qs::state
