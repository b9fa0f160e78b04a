// The server's side of the wire: requests in (arrays of bulk strings), replies out. No I/O.
// Limits and error texts: zdb-protocol, 1.1; after bad input the text is sent and the connection
// closed.
#pragma once

#include <cstdint>
#include <deque>
#include <span>
#include <string>
#include <string_view>
#include <sys/uio.h>
#include <vector>

#include "base/bytes.hpp"
#include "zdb/block.hpp"

namespace qs::zdb {

inline constexpr std::size_t request_arguments_max = 1024;
inline constexpr std::size_t request_bulk_max = 8 << 20;
/// All arguments of one request together: a value of 8 MiB and 1,023 keys.
inline constexpr std::size_t request_bytes_max = (8 << 20) + (1 << 20);

/// One argument: what came whole stays where it was received, the pieces of others are put
/// together in a string that is used again, large ones in a block read into directly.
class argument {
public:
  [[nodiscard]] byte_span bytes() const noexcept {
    return where_ == place::block ? block_.bytes()
           : where_ == place::text ? as_bytes(text_)
                                   : received_;
  }
  [[nodiscard]] std::string_view text() const noexcept { return as_text(bytes()); }
  [[nodiscard]] std::size_t size() const noexcept { return bytes().size(); }

private:
  friend class request_parser;
  enum class place : std::uint8_t { received, text, block };
  std::string text_;
  value_block block_;
  byte_span received_;
  place where_ = place::text;
};

class request_parser {
public:
  /// What one request may hold without asking.
  static constexpr std::size_t unasked_bytes_max = 16 << 10;

  /// `asks`: a request that gets larger than that stops at wanted() until grant().
  explicit request_parser(bool asks = false) : asks_{asks} {}
  /// Takes bytes up to the end of one request: `used` of them. True: a request is complete
  /// (arguments(), good as long as `bytes` are); call again with the rest. False and failed():
  /// malformed, say error() and close. False otherwise: more is needed.
  bool feed(byte_span bytes, std::size_t& used);
  /// The complete request waits: its arguments outlive what was fed.
  void keep();
  /// Where the body of a large argument that is under way wants its next bytes; empty when there is
  /// none.
  [[nodiscard]] mutable_byte_span body_space() noexcept;
  /// So many bytes were put there.
  void body_filled(std::size_t n) noexcept;

  [[nodiscard]] std::span<const argument> arguments() const noexcept {
    return std::span{arguments_}.first(count_);
  }
  [[nodiscard]] bool failed() const noexcept { return !error_.empty(); }
  [[nodiscard]] std::string_view error() const noexcept { return error_; }
  /// Nothing half-read.
  [[nodiscard]] bool idle() const noexcept { return step_ == step::start && line_.empty(); }
  /// Memory the argument that begins now needs; until it is granted feed() takes nothing.
  [[nodiscard]] std::size_t wanted() const noexcept { return wanted_; }
  void grant();
  /// Granted, and not yet let go.
  [[nodiscard]] std::size_t held() const noexcept { return held_; }
  /// A complete request has been worked on: lets its memory go.
  void release();

private:
  enum class step : std::uint8_t { start, length, grant, body, end };
  bool take_line(byte_span rest, std::size_t& used);
  void take_body(byte_span rest, std::size_t& used);
  bool line(std::string_view text);
  bool fail(std::string_view text);

  std::vector<argument> arguments_; ///< used again; count_ of them count
  std::size_t count_ = 0;
  std::size_t expected_ = 0;
  std::size_t total_ = 0;
  step step_ = step::start;
  std::size_t length_ = 0;
  std::size_t filled_ = 0;
  std::size_t end_left_ = 0;
  std::string line_;
  std::string_view error_;
  bool asks_;
  std::size_t wanted_ = 0;
  std::size_t held_ = 0;
};

/// What goes to a client, in order. A reply that comes later holds its place, and those behind it
/// wait.
class reply_queue {
public:
  using ticket = std::uint64_t;

  void add(std::string_view text);
  void add(value_block block);
  // One reply each.
  void simple(std::string_view text);
  void error(std::string_view text);
  void integer(std::int64_t number);
  void nil() { add("$-1\r\n"); }
  void bulk(std::string_view text);
  void bulk(value_block block);
  void array(std::size_t items);
  /// An answer that may yet turn out to be another one; nothing of it is sent until then.
  struct spot {
    void* piece = nullptr;
    std::size_t offset = 0;
    std::size_t length = 0;
  };
  spot add_doubtful(std::string_view text);
  /// Of several of one client, the last first.
  void replace(const spot& at, std::string_view text);
  /// Place of a reply that is filled in later.
  ticket hold();
  void fill(ticket at, std::string_view reply);

  /// The next bytes to send: at most `most` parts, none behind an unfilled place.
  /// Not much more than `bytes`.
  std::size_t gather(iovec* parts, std::size_t most,
                     std::size_t bytes = static_cast<std::size_t>(-1)) const noexcept;
  void sent(std::size_t bytes);
  [[nodiscard]] std::size_t bytes() const noexcept { return bytes_; }
  /// With what it takes to hold them.
  [[nodiscard]] std::size_t memory() const noexcept {
    return bytes_ + pieces_.size() * sizeof(part);
  }
  [[nodiscard]] std::size_t held() const noexcept { return held_; }
  [[nodiscard]] bool empty() const noexcept { return pieces_.empty(); }
  /// Something can be sent now.
  [[nodiscard]] bool sendable() const noexcept { return !pieces_.empty() && !pieces_.front().held; }

private:
  struct part {
    std::string text;
    value_block block;
    ticket id = 0;
    bool held = false;
    bool is_block = false;
    [[nodiscard]] byte_span bytes() const noexcept {
      return is_block ? block.bytes() : as_bytes(text);
    }
  };
  /// Where `bytes` more of text go.
  std::string& text_for(std::size_t bytes);
  void number_line(char kind, std::int64_t number);
  std::deque<part> pieces_;
  std::size_t offset_ = 0; ///< sent of the first
  std::size_t bytes_ = 0;
  std::size_t held_ = 0;
  ticket next_ = 1;
};

} // namespace qs::zdb
