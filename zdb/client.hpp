// One connection as the commands see it: its rights, its namespace, its replies, and what it waits
// for. The socket is connection.hpp's. I/O thread only.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "zdb/name_space.hpp"
#include "zdb/password_guard.hpp"
#include "zdb/request.hpp"
#include "zdb/timer_queue.hpp"

namespace qs::zdb {

struct client : std::enable_shared_from_this<client> {
  virtual ~client() = default;
  /// A held reply has been filled in, something was sent to a mirror, or `blocked` has ended.
  virtual void wake() = 0;
  /// Closes it now, whatever it has not been sent.
  virtual void drop() = 0;

  /// What it holds has changed without a reply.
  virtual void holds() {}
  /// It waits, and nobody is there any more to hear the answer.
  [[nodiscard]] virtual bool abandoned() const noexcept { return false; }

  std::shared_ptr<name_space> space;
  bool admin = false;
  bool writable = true;
  bool master = false; ///< the last argument of each request is the instance it comes from
  bool mirror = false; ///< gets a copy of what others do
  std::optional<std::string> challenge; ///< good for one attempt
  std::string peer;                     ///< address without port; empty: a unix socket
  reply_queue out;
  std::string gathered; ///< for an answer under way (KSCAN, MGET); counts like a reply
  bool blocked = false; ///< the next command waits for the answer of this one
  bool closing = false; ///< no more commands; close when the replies are sent

  /// A password of it that waits to be judged.
  std::optional<password_guard::place> guess;

  /// WAIT under way.
  struct waiting {
    const name_space* space = nullptr;
    std::size_t row = 0;
    reply_queue::ticket ticket = 0;
    timer_queue::token end;
  };
  std::optional<waiting> waits;
};

} // namespace qs::zdb
