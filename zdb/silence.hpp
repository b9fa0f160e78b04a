// Who has begun to say something and has not ended it, in the order in which they were last heard:
// so that whoever says nothing more for too long is found without looking at the others. Hearing
// somebody costs a few pointers, however many there are, and no memory of its own. No clock: the
// time comes with the call, and never goes back. One thread.
#pragma once

#include <utility>

#include "base/clock.hpp"

namespace qs::zdb {

class silence_line {
public:
  /// Its place in the line is in whoever may stand there, and is left when that goes.
  class member {
  public:
    member() = default;
    ~member() { leave(); }
    member(const member&) = delete;
    member& operator=(const member&) = delete;
    [[nodiscard]] bool listed() const noexcept { return after_ != nullptr; }
    void leave() noexcept {
      if (!listed()) return;
      before_->after_ = after_;
      after_->before_ = before_;
      before_ = after_ = nullptr;
    }

  private:
    friend class silence_line;
    member* before_ = nullptr;
    member* after_ = nullptr;
    boot_time heard_{};
  };

  silence_line() noexcept { ends_.before_ = ends_.after_ = &ends_; }
  silence_line(const silence_line&) = delete;
  silence_line& operator=(const silence_line&) = delete;
  ~silence_line() {
    while (ends_.after_ != &ends_) ends_.after_->leave();
  }

  /// To the end of the line.
  void heard(member& who, boot_time now) noexcept {
    who.leave();
    who.heard_ = now;
    who.before_ = std::exchange(ends_.before_, &who);
    who.after_ = &ends_;
    who.before_->after_ = &who;
  }
  /// The first of the line, if nothing was heard from it since `since`.
  [[nodiscard]] member* silent(boot_time since) const noexcept {
    return ends_.after_ != &ends_ && ends_.after_->heard_ <= since ? ends_.after_ : nullptr;
  }
  [[nodiscard]] bool empty() const noexcept { return ends_.after_ == &ends_; }

private:
  member ends_; ///< before the first and behind the last
};

} // namespace qs::zdb
