#include "fuse/mount.hpp"

#include <algorithm>
#include <csignal>
#include <thread>
#include <vector>

#include <pthread.h>

#include <fmt/format.h>

#include "base/log.hpp"
#include "fuse/context.hpp"
#include "fuse/mount_point.hpp"
#include "fuse/session.hpp"

namespace qs::fuse {

using namespace std::chrono_literals;

namespace {

constexpr auto init_deadline = 10s;
constexpr auto retry_interval = 50ms;
/// Longer than the volume's bound on a read from nodes that do not answer (about 15 s).
constexpr auto answers_deadline = 20s;

} // namespace

class mount::impl {
public:
  explicit impl(unsigned threads) : thread_count_{threads} {}

  status start(volume::filesystem& files, const actors::mount_settings& settings,
               std::function<void()> gone);
  status stop(std::chrono::milliseconds deadline);
  status drop_page_cache();
  bool mounted() const;

private:
  status take_away(context& owner, std::chrono::milliseconds deadline);
  void end_threads(context& owner);

  const unsigned thread_count_;
  mutable std::mutex mutex_; ///< guards the pointer, not what it points to
  std::mutex one_at_a_time_; ///< start and stop
  std::shared_ptr<context> owner_;
  std::filesystem::path path_;
  std::string device_;
  std::vector<std::thread> threads_;
};

namespace {

/// The body of a serving thread: it owns the context, so that it may outlive the mount object if it
/// must.
void run_thread(std::shared_ptr<context> owner, std::shared_ptr<std::function<void()>> gone) {
  pthread_setname_np(pthread_self(), "qs-fuse");
  serve(*owner);
  bool last = false;
  {
    std::lock_guard lock{owner->mutex};
    last = --owner->threads_alive == 0 && !owner->stopping;
    owner->changed.notify_all();
  }
  if (!last) return;
  log::warning("fuse", "the mount at {} was taken away by somebody else",
               owner->settings.path.string());
  if (*gone) (*gone)();
}

} // namespace

status mount::impl::start(volume::filesystem& files, const actors::mount_settings& settings,
                          std::function<void()> gone) {
  std::lock_guard order{one_at_a_time_};
  {
    std::lock_guard lock{mutex_};
    if (owner_) {
      std::lock_guard inner{owner_->mutex};
      if (owner_->threads_alive > 0)
        return error{errc::busy, fmt::format("already serving {}", owner_->settings.path.string())};
    }
  }
  if (owner_) end_threads(*owner_); // of a mount that somebody else took away
  QS_TRY(check_mount_point(settings, dead_mounts::clear));
  QS_TRY_ASSIGN(path_, resolve_mount_point(settings.path));
  auto owner = std::make_shared<context>(files, settings);
  QS_TRY(open_session(*owner, path_));
  auto entry = mount_at(path_);
  device_ = entry && *entry ? (*entry)->device : std::string{};

  auto count = thread_count_ != 0 ? thread_count_
                                  : std::clamp(2 * std::thread::hardware_concurrency(), 4U, 16U);
  auto shared_gone = std::make_shared<std::function<void()>>(std::move(gone));
  owner->threads_alive = count;
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before); // signals are for the threads that expect them
  for (unsigned i = 0; i < count; ++i) threads_.emplace_back(run_thread, owner, shared_gone);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  {
    std::lock_guard lock{mutex_};
    owner_ = owner;
  }
  bool ready = false;
  {
    std::unique_lock lock{owner->mutex};
    ready = owner->changed.wait_for(lock, init_deadline, [&] { return owner->ready; });
  }
  if (!ready) {
    (void)take_away(*owner, 0ms);
    end_threads(*owner);
    return error{errc::timed_out,
                 fmt::format("mount at {}: the kernel did not begin to talk", path_.string())};
  }
  if (!device_.empty()) raise_read_ahead(device_);
  log::info("fuse", "mounted {} at {} with {} threads", settings.volume_name, path_.string(),
            count);
  return {};
}

/// Unmounts, again and again until the deadline while it is busy, then lazily and by force.
/// errc::busy tells of the latter.
status mount::impl::take_away(context& owner, std::chrono::milliseconds deadline) {
  auto until = std::chrono::steady_clock::now() + deadline;
  for (;;) {
    {
      std::lock_guard lock{owner.mutex};
      if (owner.threads_alive == 0) return {};
    }
    auto table = mount_at(path_);
    bool there = table && *table && (*table)->device == device_;
    if (!there) return {}; // somebody was faster; never unmount what is not ours
    auto done = unmount(path_, false);
    if (done || done.err().code == errc::not_found) return {};
    if (done.err().code != errc::busy) return done;
    if (std::chrono::steady_clock::now() >= until) break;
    std::unique_lock lock{owner.mutex};
    owner.changed.wait_for(lock, retry_interval, [&] { return owner.threads_alive == 0; });
  }
  abort_connection(path_, device_);
  auto lazily = unmount(path_, true);
  if (!lazily && lazily.err().code != errc::not_found) return lazily;
  return error{errc::busy,
               fmt::format("{} was still in use and has been unmounted lazily: programs with open "
                           "files there get errors "
                           "(`fuser -vm {}` names them before)",
                           path_.string(), path_.string()),
               EBUSY};
}

/// After the unmount every read of the device says ENODEV. Where the file system lives on in
/// another mount namespace it must be aborted; where even that is not ours to do the threads are
/// left behind: they own what they use, and nothing of ours.
void mount::impl::end_threads(context& owner) {
  auto ended = [&](std::chrono::milliseconds wait) {
    std::unique_lock lock{owner.mutex};
    return owner.changed.wait_for(lock, wait, [&] { return owner.threads_alive == 0; });
  };
  bool all = ended(2s);
  if (!all) {
    fuse_session_exit(owner.session);
    abort_connection({}, device_);
    all = ended(2s);
  }
  for (auto& t : threads_) {
    if (all)
      t.join();
    else
      t.detach();
  }
  threads_.clear();
  if (!owner.close(answers_deadline))
    log::error("fuse", "requests at {} are still without an answer after {} s", path_.string(),
               answers_deadline / 1s);
  std::lock_guard lock{mutex_};
  owner_.reset();
}

status mount::impl::stop(std::chrono::milliseconds deadline) {
  std::lock_guard order{one_at_a_time_};
  std::shared_ptr<context> owner;
  {
    std::lock_guard lock{mutex_};
    owner = owner_;
  }
  if (!owner) return {};
  {
    std::lock_guard lock{owner->mutex};
    owner->stopping = true;
  }
  auto away = take_away(*owner, deadline);
  if (!away && away.err().code != errc::busy) return away;
  end_threads(*owner);
  log::info("fuse", "unmounted {}{}", path_.string(), away ? "" : " lazily");
  return away;
}

status mount::impl::drop_page_cache() {
  std::shared_ptr<context> owner;
  {
    std::lock_guard lock{mutex_};
    owner = owner_;
  }
  if (!owner || !owner->enter()) return {};
  auto done = drop_kernel_caches(*owner);
  owner->leave();
  return done;
}

bool mount::impl::mounted() const {
  std::lock_guard lock{mutex_};
  if (!owner_) return false;
  std::lock_guard inner{owner_->mutex};
  return owner_->ready && owner_->threads_alive > 0;
}

mount::mount(unsigned threads) : impl_{std::make_unique<impl>(threads)} {}

mount::~mount() {
  if (auto done = impl_->stop(0ms); !done) log::warning("fuse", "{}", describe(done.err()));
}

status mount::check(const actors::mount_settings& settings) { return check_mount_point(settings, dead_mounts::leave); }

status mount::start(volume::filesystem& files, const actors::mount_settings& settings,
                    std::function<void()> gone) {
  return impl_->start(files, settings, std::move(gone));
}

status mount::stop(std::chrono::milliseconds deadline) { return impl_->stop(deadline); }

status mount::drop_page_cache() { return impl_->drop_page_cache(); }

bool mount::mounted() const { return impl_->mounted(); }

} // namespace qs::fuse
