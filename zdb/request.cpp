#include "zdb/request.hpp"

#include <algorithm>
#include <charconv>
#include <utility>

#include "base/assert.hpp"

namespace qs::zdb {

namespace {
constexpr std::size_t line_bytes_max = 32;
constexpr std::size_t large_bytes = 16 << 10;
constexpr std::size_t joined_text_bytes = 16 << 10;
constexpr std::size_t argument_bytes_kept = 256;
constexpr std::size_t copied_bytes_max = 1024; ///< of a value: less than a piece of its own costs

/// A reply of this size and less is made in one piece of memory that malloc has at hand.
constexpr std::size_t text_bytes_first = 1000;

bool parse_count(std::string_view text, std::int64_t& out) {
  // Nearly all of them have one or two digits.
  if (text.size() == 1 && text[0] >= '0' && text[0] <= '9') {
    out = text[0] - '0';
    return true;
  }
  if (text.starts_with('+')) return false;
  auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), out);
  return ec == std::errc{} && end == text.data() + text.size();
}
} // namespace

bool request_parser::fail(std::string_view text) {
  error_ = text;
  return false;
}

mutable_byte_span request_parser::body_space() noexcept {
  if (step_ != step::body || arguments_[count_].where_ != argument::place::block) return {};
  return arguments_[count_].block_.bytes().subspan(filled_);
}

void request_parser::body_filled(std::size_t n) noexcept {
  filled_ += n;
  QS_ASSERT(filled_ <= length_);
  if (filled_ == length_) step_ = step::end;
}

void request_parser::release() {
  // What a usual request needs is kept for the next one.
  constexpr std::size_t kept = 8;
  if (held_ > 0 || count_ > kept) arguments_.resize(std::min(arguments_.size(), kept));
  for (auto& a : std::span{arguments_}.first(std::min(count_, arguments_.size()))) {
    if (a.where_ == argument::place::block) a.block_ = {};
    if (a.text_.capacity() > argument_bytes_kept) a.text_ = {};
    a.where_ = argument::place::text;
  }
  count_ = expected_ = total_ = held_ = 0;
}

void request_parser::keep() {
  auto begun = count_ + (step_ == step::end ? 1 : 0); // its two last bytes are to come
  for (auto& a : std::span{arguments_}.first(begun)) {
    if (a.where_ != argument::place::received) continue;
    a.text_ = as_text(a.received_);
    a.where_ = argument::place::text;
  }
}

void request_parser::grant() {
  QS_ASSERT(step_ == step::grant);
  held_ += std::exchange(wanted_, 0);
  if (count_ == arguments_.size()) arguments_.emplace_back();
  auto& a = arguments_[count_];
  a.where_ = length_ >= large_bytes ? argument::place::block : argument::place::text;
  a.text_.clear();
  if (length_ >= large_bytes) a.block_ = value_block{length_};
  filled_ = 0;
  end_left_ = 2;
  step_ = length_ > 0 ? step::body : step::end;
}

/// A line, whole or what there is of it: true if what it says is good so far.
bool request_parser::take_line(byte_span rest, std::size_t& used) {
  auto first = step_ == step::start ? '*' : '$';
  auto wrong = step_ == step::start ? "Malformed request, array expected"
                                    : "Malformed query string";
  if (line_.empty() && static_cast<char>(rest.front()) != first) return fail(wrong);
  auto text = as_text(rest.first(std::min(rest.size(), line_bytes_max + 1)));
  auto end = text.find('\n');
  auto part = text.substr(0, end);
  if (line_.size() + part.size() > line_bytes_max) return fail(wrong);
  used += end == std::string_view::npos ? text.size() : end + 1;
  if (!line_.empty() || end == std::string_view::npos) {
    line_.append(part);
    if (end == std::string_view::npos) return true;
    part = line_;
  }
  if (part.ends_with('\r')) part.remove_suffix(1);
  if (!line(part.substr(1))) return false;
  line_.clear();
  return true;
}

void request_parser::take_body(byte_span rest, std::size_t& used) {
  auto n = std::min(rest.size(), length_ - filled_);
  auto& a = arguments_[count_];
  if (a.where_ == argument::place::block) {
    std::copy_n(rest.data(), n, a.block_.bytes().data() + filled_);
  } else if (n == length_) {
    a.received_ = rest.first(n);
    a.where_ = argument::place::received;
  } else {
    a.text_.append(as_text(rest.first(n)));
  }
  used += n;
  body_filled(n);
}

bool request_parser::feed(byte_span bytes, std::size_t& used) {
  used = 0;
  if (failed()) return false;
  if (step_ == step::start && count_ > 0 &&
      count_ == expected_) // the one before has been worked on
    release();
  while (used < bytes.size()) {
    auto rest = bytes.subspan(used);
    switch (step_) {
    case step::start:
    case step::length:
      if (!take_line(rest, used)) return false;
      break;
    case step::grant:
      keep();
      return false;
    case step::body:
      take_body(rest, used);
      break;
    case step::end: { // two bytes that nobody checks
      auto n = std::min(rest.size(), end_left_);
      used += n;
      end_left_ -= n;
      if (end_left_ > 0) break;
      ++count_;
      step_ = count_ == expected_ ? step::start : step::length;
      if (step_ == step::start) return true;
      break;
    }
    }
  }
  keep();
  return false;
}

bool request_parser::line(std::string_view text) {
  std::int64_t number = 0;
  auto good = parse_count(text, number);
  if (step_ == step::start) {
    if (!good) return fail("Malformed request, array expected");
    if (number < 0) return fail("Internal memory error");
    if (number == 0) return fail("Missing arguments");
    if (number > static_cast<std::int64_t>(request_arguments_max))
      return fail("Too many arguments");
    expected_ = static_cast<std::size_t>(number);
    step_ = step::length;
    return true;
  }
  if (!good || number < 0) return fail("Malformed query string");
  if (number > static_cast<std::int64_t>(request_bulk_max)) return fail("Payload too big");
  length_ = static_cast<std::size_t>(number);
  total_ += length_;
  if (total_ > request_bytes_max) return fail("Payload too big");
  step_ = step::grant;
  if (total_ + count_ * sizeof(argument) > unasked_bytes_max) wanted_ = length_ + sizeof(argument);
  if (!asks_ || wanted_ == 0) grant();
  return true;
}

// -- replies --------------------------------------------------------------------------------------

std::string& reply_queue::text_for(std::size_t bytes) {
  bytes_ += bytes;
  if (pieces_.empty() || pieces_.back().is_block || pieces_.back().id != 0 ||
      pieces_.back().text.size() + bytes > joined_text_bytes) {
    pieces_.emplace_back();
    pieces_.back().text.reserve(std::max(bytes, text_bytes_first));
  }
  return pieces_.back().text;
}

void reply_queue::add(std::string_view text) { text_for(text.size()).append(text); }

reply_queue::spot reply_queue::add_doubtful(std::string_view text) {
  auto& to = text_for(text.size());
  spot at{&pieces_.back(), to.size(), text.size()};
  to.append(text);
  return at;
}

void reply_queue::replace(const spot& at, std::string_view text) {
  static_cast<part*>(at.piece)->text.replace(at.offset, at.length, text);
  bytes_ = bytes_ - at.length + text.size();
}

void reply_queue::add(value_block block) {
  if (block.size() <= copied_bytes_max) return add(as_text(block.bytes()));
  bytes_ += block.size();
  pieces_.emplace_back();
  pieces_.back().block = std::move(block);
  pieces_.back().is_block = true;
}

void reply_queue::simple(std::string_view text) {
  add("+");
  add(text);
  add("\r\n");
}

void reply_queue::error(std::string_view text) {
  add("-");
  add(text);
  add("\r\n");
}

void reply_queue::number_line(char kind, std::int64_t number) {
  char line[24];
  line[0] = kind;
  auto end = std::to_chars(line + 1, line + sizeof(line) - 2, number).ptr;
  *end++ = '\r';
  *end++ = '\n';
  add(std::string_view{line, static_cast<std::size_t>(end - line)});
}

void reply_queue::integer(std::int64_t number) { number_line(':', number); }

void reply_queue::bulk(std::string_view text) {
  number_line('$', static_cast<std::int64_t>(text.size()));
  add(text);
  add("\r\n");
}

void reply_queue::bulk(value_block block) {
  number_line('$', static_cast<std::int64_t>(block.size()));
  add(std::move(block));
  add("\r\n");
}

void reply_queue::array(std::size_t items) {
  number_line('*', static_cast<std::int64_t>(items));
}

reply_queue::ticket reply_queue::hold() {
  pieces_.emplace_back();
  pieces_.back().id = next_;
  pieces_.back().held = true;
  ++held_;
  return next_++;
}

void reply_queue::fill(ticket at, std::string_view reply) {
  // Oldest first is the usual order.
  auto it =
      std::find_if(pieces_.begin(), pieces_.end(), [&](auto& p) { return p.held && p.id == at; });
  QS_ASSERT(it != pieces_.end());
  it->text = reply;
  it->held = false;
  bytes_ += reply.size();
  --held_;
}

std::size_t reply_queue::gather(iovec* parts, std::size_t most, std::size_t bytes) const noexcept {
  std::size_t n = 0;
  std::size_t gathered = 0;
  for (auto& p : pieces_) {
    if (p.held || n == most || gathered >= bytes) break;
    auto piece = p.bytes().subspan(n == 0 ? offset_ : 0);
    parts[n++] = {const_cast<std::byte*>(piece.data()), piece.size()};
    gathered += piece.size();
  }
  return n;
}

void reply_queue::sent(std::size_t bytes) {
  bytes_ -= bytes;
  while (!pieces_.empty() && !pieces_.front().held) {
    auto left = pieces_.front().bytes().size() - offset_;
    if (bytes < left) {
      offset_ += bytes;
      return;
    }
    bytes -= left;
    offset_ = 0;
    pieces_.pop_front();
  }
  QS_ASSERT(bytes == 0);
}

} // namespace qs::zdb
