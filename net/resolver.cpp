#include "net/resolver.hpp"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>

#include <cstring>
#include <thread>

#include <fmt/format.h>

namespace qs::net {

namespace {

constexpr std::size_t threads_max = 4;

result<std::vector<socket_address>> resolve(const std::string& host, std::uint16_t port) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_ADDRCONFIG | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  auto rc = ::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found);
  if (rc != 0)
    return error{errc::unreachable, fmt::format("look up \"{}\": {}", host, ::gai_strerror(rc))};
  std::vector<socket_address> out;
  for (auto* a = found; a != nullptr && out.size() < 8; a = a->ai_next) {
    socket_address one;
    if (a->ai_addrlen > sizeof one.storage) continue;
    std::memcpy(&one.storage, a->ai_addr, a->ai_addrlen);
    one.length = a->ai_addrlen;
    out.push_back(one);
  }
  ::freeaddrinfo(found);
  if (out.empty()) return error{errc::unreachable, fmt::format("look up \"{}\": no address", host)};
  return out;
}

} // namespace

std::optional<socket_address> numeric_address(const address& where) {
  socket_address out;
  sockaddr_in four{};
  if (::inet_pton(AF_INET, where.host.c_str(), &four.sin_addr) == 1) {
    four.sin_family = AF_INET;
    four.sin_port = htons(where.port);
    std::memcpy(&out.storage, &four, sizeof four);
    out.length = sizeof four;
    return out;
  }
  sockaddr_in6 six{};
  if (::inet_pton(AF_INET6, where.host.c_str(), &six.sin6_addr) == 1) {
    six.sin6_family = AF_INET6;
    six.sin6_port = htons(where.port);
    std::memcpy(&out.storage, &six, sizeof six);
    out.length = sizeof six;
    return out;
  }
  return std::nullopt;
}

std::optional<result<std::vector<socket_address>>> lookup::take() {
  std::lock_guard lock{mutex_};
  return std::exchange(answer_, std::nullopt);
}

struct resolver::shared {
  std::mutex mutex;
  std::condition_variable ready;
  std::deque<std::weak_ptr<lookup>> questions;
  std::size_t threads = 0;
  std::size_t idle = 0;
  bool stopping = false;
  std::function<void()> answered; ///< empty once the resolver is gone
};

resolver::resolver(std::function<void()> answered) : shared_{std::make_shared<shared>()} {
  shared_->answered = std::move(answered);
}

resolver::~resolver() {
  std::lock_guard lock{shared_->mutex};
  shared_->stopping = true;
  shared_->answered = nullptr;
  shared_->ready.notify_all();
}

std::shared_ptr<lookup> resolver::start(std::string host, std::uint16_t port) {
  auto question = std::make_shared<lookup>(std::move(host), port);
  std::lock_guard lock{shared_->mutex};
  shared_->questions.push_back(question);
  if (shared_->idle >= shared_->questions.size() || shared_->threads >= threads_max) {
    shared_->ready.notify_one();
  } else {
    ++shared_->threads;
    std::thread{[s = shared_] { work(s); }}.detach();
  }
  return question;
}

void resolver::work(const std::shared_ptr<shared>& s) {
  std::unique_lock lock{s->mutex};
  for (;;) {
    ++s->idle;
    s->ready.wait(lock, [&] { return s->stopping || !s->questions.empty(); });
    --s->idle;
    if (s->stopping) return;
    auto question = s->questions.front().lock();
    s->questions.pop_front();
    if (!question) continue;
    lock.unlock();
    auto found = resolve(question->host_, question->port_);
    {
      std::lock_guard answer_lock{question->mutex_};
      question->answer_ = std::move(found);
    }
    question.reset();
    lock.lock();
    if (s->answered) s->answered();
  }
}

} // namespace qs::net
