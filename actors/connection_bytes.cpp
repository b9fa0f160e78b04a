// A zdb_connection's bytes: out to the kernel directly or through CAF, in to the session, and whether the other side takes any.
#include <cstdint>

#include "actors/zdb_connection.hpp"

#include <caf/all.hpp>
#include <caf/io/all.hpp>

#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <array>
#include <cerrno>
#include <utility>

#include "actors/connection_state.hpp"

namespace qs::actors {

namespace {

/// So much is handed to CAF's write buffer, which copies; the rest stays shared with its owner.
constexpr std::size_t handed_most = 1 << 20;
constexpr std::size_t handed_most_beside_direct = 64 << 10;
constexpr std::size_t pieces_at_once = 64;

} // namespace

/// What the kernel takes goes there straight; of what it does not take yet a little goes through CAF,
/// which says when there is room again.
void connection_state::pump() {
  if (!session || hdl == caf::io::connection_handle{}) return;
  for (auto& p : session->take_output()) outgoing.push_back(std::move(p));
  if (handed == 0 && direct.valid()) write_directly();
  auto most = direct.valid() ? handed_most_beside_direct : handed_most;
  auto wrote = false;
  while (!outgoing.empty() && handed < most) {
    auto bytes = outgoing.front().bytes().subspan(front_given);
    if (direct.valid()) bytes = bytes.first(std::min(bytes.size(), most - handed));
    self->write(hdl, bytes.size(), bytes.data());
    handed += bytes.size();
    given(bytes.size());
    wrote = true;
  }
  if (wrote) self->flush(hdl);
}

/// Only while CAF holds nothing: bytes stay in order. What fails here is left to CAF, which fails
/// again and tells of it.
void connection_state::write_directly() {
  while (!outgoing.empty()) {
    std::array<iovec, pieces_at_once> parts; // NOLINT: filled below
    std::size_t count = 0;
    std::size_t total = 0;
    for (const auto& p : outgoing) {
      if (count == parts.size()) break;
      auto bytes = p.bytes().subspan(count == 0 ? front_given : 0);
      parts[count++] = {const_cast<std::byte*>(bytes.data()), bytes.size()};
      total += bytes.size();
    }
    msghdr m{};
    m.msg_iov = parts.data();
    m.msg_iovlen = count;
    auto n = ::sendmsg(direct.get(), &m, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n >= 0) {
      given(static_cast<std::size_t>(n));
      in_kernel += static_cast<std::size_t>(n);
    }
    if (n >= 0 && static_cast<std::size_t>(n) == total) continue;
    if (n >= 0 || errno == EAGAIN || errno == EWOULDBLOCK)
      backed_up = true;
    else
      direct.reset();
    return;
  }
}

void connection_state::given(std::size_t bytes) {
  front_given += bytes;
  while (!outgoing.empty() && front_given >= outgoing.front().bytes().size()) {
    front_given -= outgoing.front().bytes().size();
    outgoing.pop_front();
  }
}

void connection_state::on_data(const caf::io::new_data_msg& m) {
  if (m.handle != hdl || !session) return;
  received = cfg.time->boot();
  if (state == link_state::ready) last_seen = cfg.time->wall();
  alive();
  auto s = session->receive(as_bytes({m.buf.data(), m.buf.size()}));
  if (!s.ok() && !verdict)
    judge(s.err().code == errc::data_lost ? link_state::data_lost : link_state::disconnected,
          s.err());
  settle();
}

void connection_state::on_sent(const caf::io::data_transferred_msg& m) {
  if (m.handle != hdl) return;
  // What fits into the kernel's buffer says nothing of the node: one that stands still takes that,
  // too. Only a buffer that was full and has room again shows that the other side takes something.
  if (std::exchange(backed_up, m.remaining > 0)) alive();
  in_kernel += m.written;
  handed = m.remaining;
  pump();
}

/// On a slow line one shard may take longer than a node has for a sign of life, and the kernel says
/// that there is room again only when much of its queue has gone.
void connection_state::look_at_queue() {
  looked_at = cfg.time->boot();
  int queued = 0;
  if (::ioctl(direct.get(), SIOCOUTQ, &queued) != 0 || queued < 0) return;
  if (watch.look(in_kernel, static_cast<std::uint64_t>(queued))) alive();
}

void connection_state::on_closed(const caf::io::connection_closed_msg& m) {
  if (m.handle != hdl) return;
  hdl = {};
  lost({errc::unreachable, "the node closed the connection"}, link_state::disconnected);
  settle();
}

} // namespace qs::actors
