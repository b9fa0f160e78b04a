#include "state/wallet.hpp"

#include <cerrno>
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <fmt/format.h>

#include "base/posix.hpp"
#include "state/sqlite.hpp"

namespace qs::state {
namespace {

result<unique_fd> locked(const std::filesystem::path& directory) {
  QS_TRY_ASSIGN(auto fd, open_file(directory / "lock", O_RDWR | O_CREAT | O_NOFOLLOW, 0600));
  while (::flock(fd.get(), LOCK_EX) != 0) // held for one transaction only
    if (errno != EINTR) return errno_error(fmt::format("lock {}", directory.string()), errno);
  return fd;
}

} // namespace

wallet_book::wallet_book(const std::filesystem::path& wallets_root, std::string_view public_id)
    : directory_{wallets_root / public_id} {}

status wallet_book::put_burn(std::string_view volume, model::money per_month) {
  QS_TRY(make_directories(directory_));
  QS_TRY_ASSIGN(auto lock, locked(directory_));
  auto file = directory_ / "wallet.db";
  QS_TRY(open_file(file, O_RDWR | O_CREAT | O_NOFOLLOW, 0600));
  QS_TRY_ASSIGN(auto db, database::open(file, open_mode::read_write));
  QS_TRY(db.execute("PRAGMA journal_mode = DELETE; PRAGMA synchronous = EXTRA;"));
  QS_TRY_ASSIGN(auto t, transaction::begin(db));
  QS_TRY(db.execute("CREATE TABLE IF NOT EXISTS burn (volume TEXT PRIMARY KEY, per_month INTEGER "
                    "NOT NULL) WITHOUT ROWID"));
  if (per_month.units == 0) {
    QS_TRY_ASSIGN(auto erase, db.prepare("DELETE FROM burn WHERE volume = ?"));
    QS_TRY(erase.bind(volume).run());
  } else {
    QS_TRY_ASSIGN(auto insert,
                  db.prepare("INSERT OR REPLACE INTO burn (volume, per_month) VALUES (?, ?)"));
    QS_TRY(insert.bind(volume).bind(per_month.units).run());
  }
  return t.commit();
}

result<std::map<std::string, model::money>> wallet_book::burns() const {
  std::map<std::string, model::money> out;
  auto file = directory_ / "wallet.db";
  if (::access(file.c_str(), F_OK) != 0) return out;
  QS_TRY_ASSIGN(auto lock, locked(directory_));
  QS_TRY_ASSIGN(
      auto db,
      database::open(file, open_mode::read_write)); // may have to roll back what a crash left
  QS_TRY_ASSIGN(auto made, db.number("SELECT count(*) FROM sqlite_master WHERE name = 'burn'"));
  if (made == 0) return out;
  QS_TRY_ASSIGN(auto query, db.prepare("SELECT volume, per_month FROM burn ORDER BY volume"));
  for (;;) {
    QS_TRY_ASSIGN(auto more, query.step());
    if (!more) return out;
    out[query.text(0)] = model::money{query.integer(1)};
  }
}

result<model::money> wallet_book::burn() const {
  QS_TRY_ASSIGN(auto all, burns());
  model::money sum;
  for (const auto& [name, burn] : all) sum += burn;
  return sum;
}

} // namespace qs::state
