#pragma once
#include <anteroom/export.h>
#include <anteroom/fd.h>

#include <cstdint>

namespace ANTEROOM_EXPORT anteroom {

class Connection;
class Reactor;

/// Names one channel for ever: `generation << 32 | fd`. The descriptor comes back, the generation does not,
/// so an id kept too long finds nobody. It is also the cookie in epoll_data, so a stale event finds nobody
/// either.
enum class ChannelId : std::uint64_t { kNone = 0 };

/// False while another thread turns `reactor`: then nothing that belongs to it may be called here, which the
/// library asserts. Always true if the library was built without assertions.
ANTEROOM_EXPORT bool is_thread_of(const Reactor& reactor) noexcept;

/// Something that may be in use further up the stack, and is therefore freed by the reactor at the end of the
/// turn.
class Reapable {
 public:
  Reapable() noexcept = default;
  Reapable(const Reapable&) = delete;
  Reapable& operator=(const Reapable&) = delete;
  virtual ~Reapable() = default;

 private:
  friend class Reactor;
  friend class Connection;
  /// The last call before the destructor, at the end of the turn.
  virtual void reaped() noexcept {}
  /// Ends it, and gives its memory back.
  virtual void free() noexcept { delete this; }

  // In the list of those that are to be freed. Until then a connection is in that of its group.
  Reapable* next_ = nullptr;
};

/// One watched descriptor: its id, and what "ready" means.
/// Owned by its reactor from Reactor::adopt() on; ends with Reactor::retire().
class Channel : public Reapable {
 public:
  ChannelId id() const noexcept { return id_; }
  int fd() const noexcept { return fd_.get(); }
  Reactor& reactor() const noexcept { return reactor_; }

  /// This, if it is a Connection; else null. What dynamic_cast would say, without RTTI.
  virtual Connection* as_connection() noexcept { return nullptr; }

 protected:
  Channel(Reactor& reactor, Fd&& fd) noexcept : reactor_(reactor), fd_(static_cast<Fd&&>(fd)) {}

  /// Whether epoll tells of this descriptor yet: Reactor::watch() has been called.
  bool is_watched() const noexcept { return watched_ != Watch::kNone; }
  bool is_retired() const noexcept { return retired_; }

 private:
  friend class Reactor;
  /// Called by the turn and by nobody else. `events` are EPOLL* bits, or 0 when the channel was on the again
  /// list. Edge-triggered: what is not drained now has to go on the again list, for no event will come twice.
  virtual void on_ready(std::uint32_t events) noexcept = 0;
  /// Reactor::continue_after_fork() has made this process the owner, and registered the channel anew.
  virtual void continued_after_fork() noexcept {}

  /// How epoll knows of it.
  enum class Watch : std::uint8_t { kNone, kAll, kExclusive };

  Reactor& reactor_;
  ChannelId id_ = ChannelId::kNone;
  Fd fd_;
  Watch watched_ = Watch::kNone;
  std::uint8_t again_ = 0;  // on the again list, with its mark
  bool retired_ = false;
};

}  // namespace anteroom
