#include "state/sqlite.hpp"

#include <sqlite3.h>

#include <fmt/format.h>

namespace qs::state {
namespace {

/// What went wrong, as something a caller can react to.
error to_error(int code, const std::filesystem::path& file, std::string_view text) {
  auto name = file.string();
  switch (code & 0xff) {
  case SQLITE_BUSY:
  case SQLITE_LOCKED:
    return {errc::busy, fmt::format("{} is being written by somebody else; try again", name)};
  case SQLITE_NOTADB:
  case SQLITE_CORRUPT:
    return {errc::corrupt,
            fmt::format(
                "{} is damaged ({}); put back a copy of it",
                name, text)};
  case SQLITE_FULL:
    return {errc::no_space, fmt::format("no space left to write {}", name)};
  case SQLITE_CANTOPEN:
  case SQLITE_IOERR:
    return {errc::io, fmt::format("{}: {}", name, text)};
  case SQLITE_READONLY:
    if (code == SQLITE_READONLY_ROLLBACK || code == SQLITE_READONLY_RECOVERY)
      return {errc::busy,
              fmt::format("{} was left in the middle of a write; 'qs start' puts it right", name)};
    return {errc::io, fmt::format("{} cannot be written", name)};
  default:
    return {errc::io, fmt::format("{}: {} (SQLite {})", name, text, code)};
  }
}

error last_error(sqlite3* db) {
  const auto* file = sqlite3_db_filename(db, "main");
  return to_error(sqlite3_extended_errcode(db), file == nullptr ? "" : file, sqlite3_errmsg(db));
}

/// A path as SQLite's URI wants it: everything but the plain characters in percent.
std::string to_uri(const std::filesystem::path& file, std::string_view mode) {
  std::string out = "file:";
  for (char c : std::filesystem::absolute(file).string()) {
    auto plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                 c == '/' || c == '.' || c == '-' || c == '_';
    if (plain)
      out += c;
    else
      out += fmt::format("%{:02x}", static_cast<unsigned char>(c));
  }
  return out + "?mode=" + std::string{mode};
}

} // namespace

void statement::finalize::operator()(sqlite3_stmt* s) const noexcept { sqlite3_finalize(s); }
void database::close::operator()(sqlite3* db) const noexcept { sqlite3_close_v2(db); }

statement& statement::bind(std::int64_t value) {
  failure_ |= sqlite3_bind_int64(handle_.get(), ++bound_, value);
  return *this;
}

statement& statement::bind(std::string_view text) {
  // A null pointer would bind NULL, not the empty text.
  failure_ |=
      sqlite3_bind_text64(handle_.get(), ++bound_, text.data() == nullptr ? "" : text.data(),
                          text.size(), SQLITE_TRANSIENT, SQLITE_UTF8);
  return *this;
}

statement& statement::bind_blob(byte_span bytes) {
  failure_ |= bytes.empty() ? sqlite3_bind_zeroblob(handle_.get(), ++bound_, 0)
                            : sqlite3_bind_blob64(handle_.get(), ++bound_, bytes.data(),
                                                  bytes.size(), SQLITE_TRANSIENT);
  return *this;
}

statement& statement::bind_null() {
  failure_ |= sqlite3_bind_null(handle_.get(), ++bound_);
  return *this;
}

result<bool> statement::step() {
  QS_ASSERT(failure_ == SQLITE_OK); // binding fails only for lack of memory or a wrong count
  auto code = sqlite3_step(handle_.get());
  if (code == SQLITE_ROW) return true;
  if (code == SQLITE_DONE) return false;
  return last_error(sqlite3_db_handle(handle_.get()));
}

status statement::run() {
  for (;;) {
    QS_TRY_ASSIGN(auto more, step());
    if (!more) break;
  }
  sqlite3_reset(handle_.get());
  bound_ = 0;
  return {};
}

std::int64_t statement::integer(int column) const {
  return sqlite3_column_int64(handle_.get(), column);
}

std::string statement::text(int column) const {
  const auto* from = reinterpret_cast<const char*>(sqlite3_column_text(handle_.get(), column));
  return from == nullptr
             ? std::string{}
             : std::string{from,
                           static_cast<std::size_t>(sqlite3_column_bytes(handle_.get(), column))};
}

buffer statement::blob(int column) const {
  const auto* from = static_cast<const std::byte*>(sqlite3_column_blob(handle_.get(), column));
  if (from == nullptr) return {};
  return {from, from + sqlite3_column_bytes(handle_.get(), column)};
}

bool statement::is_null(int column) const {
  return sqlite3_column_type(handle_.get(), column) == SQLITE_NULL;
}

result<database> database::open(const std::filesystem::path& file, open_mode mode) {
  auto writing = mode == open_mode::read_write;
  sqlite3* raw = nullptr;
  auto flags = (writing ? SQLITE_OPEN_READWRITE : SQLITE_OPEN_READONLY) | SQLITE_OPEN_URI |
               SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE;
  auto code = sqlite3_open_v2(to_uri(file, writing ? "rw" : "ro").c_str(), &raw, flags, nullptr);
  database db;
  db.handle_.reset(raw);
  db.file_ = file;
  if (code != SQLITE_OK)
    return to_error(code, file, raw == nullptr ? "out of memory" : sqlite3_errmsg(raw));
  // Readers (`qs diff`) hold their lock for milliseconds; a writer's commit waits for them.
  sqlite3_busy_timeout(raw, writing ? 10'000 : 2'000);
  return db;
}

result<statement> database::prepare(std::string_view sql) {
  sqlite3_stmt* raw = nullptr;
  auto code =
      sqlite3_prepare_v2(handle_.get(), sql.data(), static_cast<int>(sql.size()), &raw, nullptr);
  if (code != SQLITE_OK) return last_error(handle_.get());
  return statement{raw};
}

status database::execute(const std::string& sql) {
  if (sqlite3_exec(handle_.get(), sql.c_str(), nullptr, nullptr, nullptr) != SQLITE_OK)
    return last_error(handle_.get());
  return {};
}

result<std::int64_t> database::number(std::string_view sql) {
  QS_TRY_ASSIGN(auto query, prepare(sql));
  QS_TRY_ASSIGN(auto found, query.step());
  return found ? query.integer(0) : 0;
}

result<transaction> transaction::begin(database& db) {
  QS_TRY(db.execute("BEGIN IMMEDIATE"));
  return transaction{db};
}

transaction::~transaction() {
  if (db_ != nullptr) (void)db_->execute("ROLLBACK");
}

status transaction::commit() {
  QS_TRY(db_->execute("COMMIT"));
  db_ = nullptr;
  return {};
}

} // namespace qs::state
