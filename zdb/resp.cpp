#include "zdb/resp.hpp"

#include <algorithm>
#include <charconv>

#include <fmt/format.h>

namespace qs::zdb {

namespace {
constexpr std::size_t joined_text_bytes = 16 << 10;

/// Decimal with an optional minus, nothing else.
bool parse_number(std::string_view text, std::int64_t& out) {
  auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), out);
  return ec == std::errc{} && end == text.data() + text.size();
}

std::string excerpt(std::string_view text) {
  std::string out;
  for (char c : text.substr(0, 40)) out += c >= ' ' && c < 0x7f ? c : '?';
  return out;
}
} // namespace

void output::add(std::string_view text) {
  if (text.empty()) return;
  bytes_ += text.size();
  if (pieces_.empty() || pieces_.back().payload || pieces_.back().text.size() >= joined_text_bytes)
    pieces_.emplace_back();
  pieces_.back().text.append(text);
}

void output::add(buffer_ptr payload) {
  QS_ASSERT(payload != nullptr);
  if (payload->size() <= 512) return add(as_text(*payload)); // cheaper than a piece of its own
  bytes_ += payload->size();
  pieces_.push_back({{}, std::move(payload)});
}

std::vector<piece> output::take() {
  bytes_ = 0;
  return std::exchange(pieces_, {});
}

void add_request_header(output& out, std::size_t arguments) {
  out.add(fmt::format("*{}\r\n", arguments));
}

void add_argument(output& out, std::string_view argument) {
  out.add(fmt::format("${}\r\n", argument.size()));
  out.add(argument);
  out.add("\r\n");
}

void add_argument(output& out, buffer_ptr payload) {
  out.add(fmt::format("${}\r\n", payload->size()));
  out.add(std::move(payload));
  out.add("\r\n");
}

reply_parser::reply_parser(reply_limits limits) : limits_{limits} {}

bool reply_parser::idle() const noexcept { return line_.empty() && !in_bulk_ && stack_.empty(); }

status reply_parser::fail(std::string message) {
  failed_ = true;
  failure_ = std::move(message);
  return error{errc::protocol, failure_};
}

status reply_parser::feed(byte_span bytes, const handler& on_reply) {
  if (failed_) return error{errc::protocol, failure_};
  while (!bytes.empty()) {
    if (in_bulk_) {
      auto body_left = bulk_length_ - bulk_.size();
      auto body = std::min(body_left, bytes.size());
      bulk_.insert(bulk_.end(), bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(body));
      auto end = std::min(bulk_missing_ - body, bytes.size() - body); // of the line end
      for (auto b : bytes.subspan(body, end))
        if (b != std::byte{'\r'} && b != std::byte{'\n'})
          return fail("a bulk reply without its line end");
      bulk_missing_ -= body + end;
      bytes = bytes.subspan(body + end);
      if (bulk_missing_ == 0) {
        in_bulk_ = false;
        reply r;
        r.kind = reply_kind::bulk;
        r.bulk = share(std::exchange(bulk_, {}));
        complete(std::move(r), on_reply);
      }
      continue;
    }
    auto text = as_text(bytes);
    auto at = text.find('\n');
    auto part = text.substr(0, at);
    if (line_.size() + part.size() > limits_.line_bytes)
      return fail(fmt::format("a reply line over {} bytes", limits_.line_bytes));
    if (at == std::string_view::npos) {
      line_.append(part);
      return {};
    }
    bytes = bytes.subspan(at + 1);
    status done;
    if (line_.empty()) {
      if (part.ends_with('\r')) part.remove_suffix(1);
      done = line(part, on_reply);
    } else {
      line_.append(part);
      auto whole = std::exchange(line_, {});
      if (whole.ends_with('\r')) whole.pop_back();
      done = line(whole, on_reply);
    }
    if (!done.ok()) return done;
  }
  return {};
}

status reply_parser::line(std::string_view text, const handler& on_reply) {
  if (text.empty()) return fail("an empty line where a reply should begin");
  auto rest = text.substr(1);
  total_ += text.size();
  if (total_ > limits_.total_bytes) return fail("a reply over the limit of all its parts");
  reply r;
  switch (text.front()) {
  case '+':
    r.kind = reply_kind::simple;
    r.text = rest;
    break;
  case '-':
    r.kind = reply_kind::error;
    r.text = rest;
    break;
  case ':':
    r.kind = reply_kind::integer;
    if (!parse_number(rest, r.number))
      return fail(fmt::format("not a number: \"{}\"", excerpt(rest)));
    break;
  case '$': {
    std::int64_t length = 0;
    if (!parse_number(rest, length) || length < -1)
      return fail(fmt::format("not a bulk length: \"{}\"", excerpt(rest)));
    if (length == -1) break; // nil
    auto size = static_cast<std::size_t>(length);
    if (size > limits_.bulk_bytes || total_ + size > limits_.total_bytes)
      return fail(fmt::format("a bulk reply of {} bytes", length));
    total_ += size;
    in_bulk_ = true;
    bulk_length_ = size;
    bulk_missing_ = size + 2;
    bulk_.clear();
    bulk_.reserve(size);
    return {};
  }
  case '*': {
    std::int64_t count = 0;
    if (!parse_number(rest, count) || count < -1 ||
        count > static_cast<std::int64_t>(limits_.array_items))
      return fail(fmt::format("not an array length: \"{}\"", excerpt(rest)));
    if (count == -1) break; // nil
    r.kind = reply_kind::array;
    if (count > 0) {
      if (stack_.size() >= limits_.depth) return fail("arrays nested too deep");
      stack_.push_back({std::move(r), static_cast<std::size_t>(count)});
      return {};
    }
    break;
  }
  default:
    return fail(fmt::format("not a reply: \"{}\"", excerpt(text)));
  }
  complete(std::move(r), on_reply);
  return {};
}

void reply_parser::complete(reply&& value, const handler& on_reply) {
  reply done = std::move(value);
  while (!stack_.empty()) {
    auto& top = stack_.back();
    top.value.items.push_back(std::move(done));
    if (--top.missing > 0) return;
    done = std::move(top.value);
    stack_.pop_back();
  }
  total_ = 0;
  on_reply(std::move(done));
}

} // namespace qs::zdb
