// RESP as zdb speaks it, client side: requests out without copying payloads, replies in from any
// split. No I/O, no threads: the owner of the socket feeds and drains. Shapes and texts:
// docs/zdb.md. The server's side of the wire is in request.hpp.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.hpp"
#include "base/result.hpp"

namespace qs::zdb {

/// Some outgoing bytes: either small text of its own or a shared payload that is never copied.
struct piece {
  std::string text;   ///< used when `payload` is null
  buffer_ptr payload; ///< all of it is sent

  [[nodiscard]] byte_span bytes() const noexcept {
    return payload ? byte_span{*payload} : as_bytes(text);
  }
};

/// Outgoing pieces in order. Small texts are joined, so that a pipeline of small requests is one
/// write.
class output {
public:
  void add(std::string_view text);
  void add(buffer_ptr payload);
  [[nodiscard]] bool empty() const noexcept { return pieces_.empty(); }
  [[nodiscard]] std::size_t bytes() const noexcept { return bytes_; }
  /// Everything, handed over.
  [[nodiscard]] std::vector<piece> take();

private:
  std::vector<piece> pieces_;
  std::size_t bytes_ = 0;
};

/// "*n\r\n"; then exactly n arguments must follow.
void add_request_header(output& out, std::size_t arguments);
void add_argument(output& out, std::string_view argument);
void add_argument(output& out, buffer_ptr payload);

enum class reply_kind : std::uint8_t { simple, error, integer, bulk, nil, array };

/// One parsed reply. `text` is that of simple and error (without "+", "-" and line end); `bulk` is
/// never null for kind bulk.
struct reply {
  reply_kind kind = reply_kind::nil;
  std::string text;
  std::int64_t number = 0;
  buffer_ptr bulk;
  std::vector<reply> items;

  [[nodiscard]] bool is_error() const noexcept { return kind == reply_kind::error; }
  [[nodiscard]] bool is_nil() const noexcept { return kind == reply_kind::nil; }
  /// The bytes of a bulk or the text of a simple reply, as text.
  [[nodiscard]] std::string_view string() const noexcept {
    return bulk ? as_text(*bulk) : std::string_view{text};
  }
};

/// What a peer may send before it counts as out of protocol.
struct reply_limits {
  std::size_t line_bytes = 16 << 10; ///< a simple, error or integer line, or a length
  std::size_t bulk_bytes = (8 << 20) + 1024;
  std::size_t array_items = 1 << 20;  ///< per array; nothing is allocated from this number
  std::size_t total_bytes = 64 << 20; ///< one whole top-level reply
  std::size_t depth = 4;
};

/// Incremental parser of replies. Bytes may be split anywhere.
class reply_parser {
public:
  using handler = std::function<void(reply&&)>;

  explicit reply_parser(reply_limits limits = {});

  /// Calls `on_reply` for every reply completed by these bytes, in order. errc::protocol when the
  /// peer does not speak RESP or passes a limit; the parser then stays failed. The handler may not
  /// call feed.
  status feed(byte_span bytes, const handler& on_reply);
  /// Nothing half-read.
  [[nodiscard]] bool idle() const noexcept;

private:
  struct level {
    reply value;
    std::size_t missing = 0;
  };
  status line(std::string_view text, const handler& on_reply);
  status fail(std::string message);
  void complete(reply&& value, const handler& on_reply);

  reply_limits limits_;
  std::string line_;
  bool in_bulk_ = false;
  std::size_t bulk_missing_ = 0; ///< of the body and its two line-end bytes
  buffer bulk_;
  std::size_t bulk_length_ = 0;
  std::size_t total_ = 0;
  std::vector<level> stack_;
  bool failed_ = false;
  std::string failure_;
};

} // namespace qs::zdb
