#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

/// The seam between the libraries and the system: every call goes through here, is counted and watched, and
/// the n-th of a kind can be made to fail. The linker puts it in (`--wrap`); the libraries know nothing of
/// it.
///
/// What is watched at every call, and ends the program with a sentence if it is broken: no call on a
/// descriptor that is not open, nobody's descriptor closed but one's own, every descriptor made with CLOEXEC
/// and NONBLOCK, every send with MSG_NOSIGNAL, every registration edge-triggered and never changed.
namespace anteroom::faults {

enum class Call : std::uint8_t {
  kAccept4,
  kBind,
  kClose,
  kConnect,
  kEpollCreate1,
  kEpollCtl,
  kEpollPwait2,
  kEpollWait,
  kEventfd,
  kFchmod,
  kFcntl,
  kFlock,
  kFstat,
  kGetpeername,
  kGetrandom,
  kGetsockname,
  kGetsockopt,
  kIoctl,
  kListen,
  kLstat,
  kOpen,
  kPpoll,
  kRead,
  kRecv,
  kRecvmmsg,
  kRecvmsg,
  kSend,
  kSendfile,
  kSendmmsg,
  kSendmsg,
  kSendto,
  kSetsockopt,
  kShutdown,
  kSocket,
  kUnlink,
  kWrite,
  kSocketError,  // getsockopt(SO_ERROR) succeeds, and tells of an error: how connect(2) fails late
  kNew,          // operator new and new[]
  kNewNothrow,
  kCount,
};
inline constexpr std::size_t kCalls = static_cast<std::size_t>(Call::kCount);

const char* name(Call call) noexcept;

inline constexpr int kForEver = 1 << 30;

/// From the `nth` call on, `times` calls in a row fail.
struct Fault {
  Call call = Call::kCount;
  int nth = 1;
  int times = 1;
  int error = 0;      ///< errno
  int bytes_max = 0;  ///< instead of an error: this call moves no more than so many bytes, or messages

  std::string to_string() const;
};

/// Forgets all counts, and what descriptors belong to the libraries. `fault` may be null: then it is only
/// counted.
void begin(const Fault* fault, const char* scenario);
/// No more faults until rearm(); goes on counting.
void disarm() noexcept;
void rearm() noexcept;

int count(Call call) noexcept;
int injected() noexcept;
/// epoll_wait and epoll_pwait2 that were asked to return at once.
int impatient_waits() noexcept;

/// As long as one lives the code under test is running: calls are counted and may fail.
class Tortured {
 public:
  Tortured() noexcept;
  ~Tortured();
  Tortured(const Tortured&) = delete;
  Tortured& operator=(const Tortured&) = delete;
};

/// As long as one lives it is the user's own code that runs, in a handler: not counted, and not to fail.
class Spared {
 public:
  Spared() noexcept;
  ~Spared();
  Spared(const Spared&) = delete;
  Spared& operator=(const Spared&) = delete;

 private:
  int depth_;
};

/// Sockets may block: the textbook's servers are under test, or a successor.
void allow_blocking(bool allowed) noexcept;

/// Called before every accept4 and ppoll, and before a blocking socket is read: the only way into code that
/// blocks. Null for none. Not called inside itself.
void set_visitor(void (*visitor)()) noexcept;

/// From now on this descriptor is the libraries', which will close it.
void give(int fd) noexcept;

/// Says what fault of what scenario was being tried, and aborts.
[[noreturn]] void die(const char* why) noexcept;

}  // namespace anteroom::faults
