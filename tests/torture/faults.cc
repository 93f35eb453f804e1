#include "faults.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdarg>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

namespace anteroom::faults {
namespace {

constexpr std::array<const char*, kCalls> kNames = {
    "accept4",    "bind",        "close",      "connect",     "epoll_create1", "epoll_ctl", "epoll_pwait2",
    "epoll_wait", "eventfd",     "fchmod",     "fcntl",       "flock",         "fstat",     "getpeername",
    "getrandom",  "getsockname", "getsockopt", "ioctl", "listen",      "lstat",         "open",      "ppoll",
    "read",       "recv",        "recvmmsg",   "recvmsg",     "send",          "sendfile",  "sendmmsg",
    "sendmsg",    "sendto",      "setsockopt", "shutdown",    "socket",    "unlink",
    "write",      "SO_ERROR",    "new",        "new_nothrow",
};

constexpr std::size_t kDescriptorsMax = 1024;

struct Registration {
  int epoll = -1;
  epoll_event event{};
};

struct Seam {
  Fault fault;
  bool armed = false;
  int depth = 0;
  int injected = 0;
  int impatient_waits = 0;
  std::array<int, kCalls> counts{};
  std::array<bool, kDescriptorsMax> owned{};
  std::array<Registration, kDescriptorsMax> registrations{};
  bool blocking_allowed = false;
  bool visiting = false;
  void (*visitor)() = nullptr;
  // Written before each run, so that a signal handler may print it.
  std::array<char, 256> story{};
};

Seam seam;

std::string error_name(int error) {
  const char* const known = ::strerrorname_np(error);
  return known != nullptr ? known : fmt::format("errno {}", error);
}

/// Counts the call. The fault, if this call is to fail.
const Fault* strike(Call call) noexcept {
  if (seam.depth == 0) return nullptr;
  const int number = ++seam.counts[static_cast<std::size_t>(call)];
  if (!seam.armed || seam.fault.call != call) return nullptr;
  if (number < seam.fault.nth || number - seam.fault.nth >= seam.fault.times) return nullptr;
  ++seam.injected;
  return &seam.fault;
}

int fail(int error) noexcept {
  errno = error;
  return -1;
}

[[noreturn]] void die_of(Call call, const char* what) noexcept {
  std::array<char, 160> text{};
  const auto end = fmt::format_to_n(text.data(), text.size() - 1, "{}: {}", name(call), what);
  *end.out = '\0';
  die(text.data());
}

/// What the kernel says of a descriptor that is not open is a bug of the libraries, whoever injected what.
template <class Result>
Result checked(Call call, Result result) noexcept {
  if (result < 0 && errno == EBADF && seam.depth > 0) die_of(call, "called on a descriptor that is not open");
  return result;
}

bool is_known(int fd) noexcept { return fd >= 0 && static_cast<std::size_t>(fd) < kDescriptorsMax; }

/// A new descriptor of the libraries.
int made(Call call, int fd, bool close_on_exec, bool non_blocking) noexcept {
  if (fd < 0) return checked(call, fd);
  if (seam.depth == 0) return fd;
  if (!close_on_exec) die_of(call, "makes a descriptor without CLOEXEC");
  if (!non_blocking && !seam.blocking_allowed) die_of(call, "makes a descriptor without NONBLOCK");
  if (!is_known(fd)) die_of(call, "so many descriptors are open that some must have been lost");
  seam.owned[static_cast<std::size_t>(fd)] = true;
  seam.registrations[static_cast<std::size_t>(fd)] = {};
  return fd;
}

/// An injected EAGAIN or short read must be lawful: the kernel says "not now" only if it will tell when. MOD
/// with the mask as it is makes it look again, and tell again what is ready; what is EXCLUSIVE knows no MOD.
void tell_again(int fd) noexcept {
  const int error = errno;
  if (is_known(fd)) {
    Registration& registration = seam.registrations[static_cast<std::size_t>(fd)];
    const auto control = [&](int operation) {
      ::syscall(SYS_epoll_ctl, registration.epoll, operation, fd, &registration.event);
    };
    if (registration.epoll >= 0 && (registration.event.events & EPOLLEXCLUSIVE) == 0) {
      control(EPOLL_CTL_MOD);
    } else if (registration.epoll >= 0) {
      control(EPOLL_CTL_DEL);
      control(EPOLL_CTL_ADD);
    }
  }
  errno = error;
}

/// Lets the others do their part before the libraries wait for it.
void visit() noexcept {
  if (seam.depth == 0 || seam.visitor == nullptr || seam.visiting) return;
  seam.visiting = true;
  seam.visitor();
  seam.visiting = false;
}

bool blocks(int fd) noexcept { return (::syscall(SYS_fcntl, fd, F_GETFL) & O_NONBLOCK) == 0; }

bool is_of_type(int fd, int wanted) noexcept {
  int type = 0;
  socklen_t size = sizeof(type);
  (void)::syscall(SYS_getsockopt, fd, SOL_SOCKET, SO_TYPE, &type, &size);
  return type == wanted;
}

void visit_if_blocking(int fd) noexcept {
  if (seam.depth > 0 && seam.visitor != nullptr && blocks(fd)) visit();
}

/// Descriptors that came with a message.
void take_in_passed(const msghdr& message, int flags) noexcept {
  if (seam.depth == 0) return;
  auto* const whole = const_cast<msghdr*>(&message);  // CMSG_NXTHDR's taste
  for (cmsghdr* header = CMSG_FIRSTHDR(whole); header != nullptr; header = CMSG_NXTHDR(whole, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    for (std::size_t at = CMSG_LEN(0); at < header->cmsg_len; at += sizeof(int)) {
      int fd = -1;
      std::memcpy(&fd, reinterpret_cast<const char*>(header) + at, sizeof(int));
      (void)made(Call::kRecvmsg, fd, (flags & MSG_CMSG_CLOEXEC) != 0, !blocks(fd));
    }
  }
}

void must_have_no_signal(Call call, int flags) noexcept {
  if (seam.depth > 0 && (flags & MSG_NOSIGNAL) == 0) die_of(call, "called without MSG_NOSIGNAL");
}

int fail_lawfully(int fd, int error) noexcept {
  if (error == EAGAIN) tell_again(fd);
  return fail(error);
}

void* fail_new() { throw std::bad_alloc(); }

void tell_story(int signal) {
  const auto write_all = [](const char* text) { (void)::syscall(SYS_write, 2, text, std::strlen(text)); };
  write_all(signal == SIGALRM ? "\ntorture: no end within half a minute, at: "
                              : "\ntorture: the program ended at: ");
  write_all(seam.story.data());
  write_all("\n");
  ::signal(SIGABRT, SIG_DFL);
  ::abort();
}

}  // namespace

const char* name(Call call) noexcept { return kNames[static_cast<std::size_t>(call)]; }

std::string Fault::to_string() const {
  const std::string what = bytes_max > 0 ? fmt::format("moves only {} bytes", bytes_max)
                                         : fmt::format("fails with {}", error_name(error));
  const std::string how_often = times == 1          ? ""
                                : times == kForEver ? ", and from then on"
                                                    : fmt::format(", {} times", times);
  return fmt::format("{} {} {}{}", name(call), nth, what, how_often);
}

void begin(const Fault* fault, const char* scenario) {
  seam.armed = fault != nullptr;
  seam.fault = fault != nullptr ? *fault : Fault{};
  seam.injected = 0;
  seam.impatient_waits = 0;
  seam.counts.fill(0);
  seam.owned.fill(false);
  seam.registrations.fill({});
  const std::string story =
      fmt::format("{}: {}", scenario, fault != nullptr ? fault->to_string() : "no fault");
  seam.story.fill('\0');
  story.copy(seam.story.data(), seam.story.size() - 1);
  for (const int signal : {SIGABRT, SIGALRM, SIGSEGV}) ::signal(signal, tell_story);
  ::alarm(30);
}

void disarm() noexcept { seam.armed = false; }
void rearm() noexcept { seam.armed = seam.fault.call != Call::kCount; }
int count(Call call) noexcept { return seam.counts[static_cast<std::size_t>(call)]; }
int injected() noexcept { return seam.injected; }
int impatient_waits() noexcept { return seam.impatient_waits; }
void allow_blocking(bool allowed) noexcept { seam.blocking_allowed = allowed; }
void set_visitor(void (*visitor)()) noexcept { seam.visitor = visitor; }
void give(int fd) noexcept {
  if (is_known(fd)) seam.owned[static_cast<std::size_t>(fd)] = true;
}

Tortured::Tortured() noexcept { ++seam.depth; }
Tortured::~Tortured() { --seam.depth; }
Spared::Spared() noexcept : depth_(std::exchange(seam.depth, 0)) {}
Spared::~Spared() { seam.depth = depth_; }

void die(const char* why) noexcept {
  (void)::syscall(SYS_write, 2, "\ntorture: ", 10);
  (void)::syscall(SYS_write, 2, why, std::strlen(why));
  ::abort();
}

}  // namespace anteroom::faults

using namespace anteroom::faults;  // NOLINT(google-build-using-namespace): the wraps below are part of it

// NOLINTBEGIN(bugprone-reserved-identifier, cert-dcl37-c, cert-dcl51-cpp, cert-dcl50-cpp): the linker picks
// these names
extern "C" {

int __real_accept4(int, sockaddr*, socklen_t*, int);
int __real_bind(int, const sockaddr*, socklen_t);
int __real_close(int);
int __real_connect(int, const sockaddr*, socklen_t);
int __real_epoll_create1(int);
int __real_epoll_ctl(int, int, int, epoll_event*);
int __real_epoll_pwait2(int, epoll_event*, int, const timespec*, const sigset_t*);
int __real_epoll_wait(int, epoll_event*, int, int);
int __real_eventfd(unsigned, int);
int __real_fchmod(int, mode_t);
int __real_fcntl(int, int, ...);
int __real_flock(int, int);
int __real_fstat(int, struct stat*);
int __real_getpeername(int, sockaddr*, socklen_t*);
ssize_t __real_getrandom(void*, std::size_t, unsigned);
int __real_getsockname(int, sockaddr*, socklen_t*);
int __real_getsockopt(int, int, int, void*, socklen_t*);
int __real_ioctl(int, unsigned long, ...);
int __real_listen(int, int);
int __real_lstat(const char*, struct stat*);
int __real_open(const char*, int, ...);
int __real_ppoll(pollfd*, nfds_t, const timespec*, const sigset_t*);
ssize_t __real_read(int, void*, std::size_t);
ssize_t __real_recv(int, void*, std::size_t, int);
int __real_recvmmsg(int, mmsghdr*, unsigned, int, timespec*);
ssize_t __real_recvmsg(int, msghdr*, int);
ssize_t __real_send(int, const void*, std::size_t, int);
ssize_t __real_sendfile(int, int, off_t*, std::size_t);
int __real_sendmmsg(int, mmsghdr*, unsigned, int);
ssize_t __real_sendmsg(int, const msghdr*, int);
ssize_t __real_sendto(int, const void*, std::size_t, int, const sockaddr*, socklen_t);
int __real_setsockopt(int, int, int, const void*, socklen_t);
int __real_shutdown(int, int);
int __real_socket(int, int, int);
int __real_unlink(const char*);
ssize_t __real_write(int, const void*, std::size_t);
void* __real__Znwm(std::size_t);
void* __real__Znam(std::size_t);
void* __real__ZnwmRKSt9nothrow_t(std::size_t, const std::nothrow_t&);
void* __real__ZnamRKSt9nothrow_t(std::size_t, const std::nothrow_t&);

// ---- Making descriptors

int __wrap_socket(int family, int type, int protocol) {
  if (const Fault* fault = strike(Call::kSocket)) return fail(fault->error);
  return made(Call::kSocket, __real_socket(family, type, protocol), (type & SOCK_CLOEXEC) != 0,
              (type & SOCK_NONBLOCK) != 0);
}

int __wrap_accept4(int fd, sockaddr* address, socklen_t* size, int flags) {
  visit();
  if (const Fault* fault = strike(Call::kAccept4)) return fail_lawfully(fd, fault->error);
  return made(Call::kAccept4, __real_accept4(fd, address, size, flags), (flags & SOCK_CLOEXEC) != 0,
              (flags & SOCK_NONBLOCK) != 0);
}

int __wrap_epoll_create1(int flags) {
  if (const Fault* fault = strike(Call::kEpollCreate1)) return fail(fault->error);
  return made(Call::kEpollCreate1, __real_epoll_create1(flags), (flags & EPOLL_CLOEXEC) != 0, true);
}

int __wrap_eventfd(unsigned value, int flags) {
  if (const Fault* fault = strike(Call::kEventfd)) return fail(fault->error);
  return made(Call::kEventfd, __real_eventfd(value, flags), (flags & EFD_CLOEXEC) != 0,
              (flags & EFD_NONBLOCK) != 0);
}

int __wrap_open(const char* path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const int mode = (flags & O_CREAT) != 0 ? va_arg(arguments, int) : 0;
  va_end(arguments);
  if (const Fault* fault = strike(Call::kOpen)) return fail(fault->error);
  return made(Call::kOpen, __real_open(path, flags, mode), (flags & O_CLOEXEC) != 0,
              true);  // files do not block
}

/// Closes in any case, as Linux does, and then reports.
int __wrap_close(int fd) {
  const Fault* const fault = strike(Call::kClose);
  if (is_known(fd)) {
    if (seam.depth > 0 && !seam.owned[static_cast<std::size_t>(fd)])
      die_of(Call::kClose, "called on a descriptor that is closed already, or somebody else's");
    seam.owned[static_cast<std::size_t>(fd)] = false;
    seam.registrations[static_cast<std::size_t>(fd)] = {};
  }
  const int result = checked(Call::kClose, __real_close(fd));
  return fault != nullptr ? fail(fault->error) : result;
}

// ---- Sockets

int __wrap_bind(int fd, const sockaddr* address, socklen_t size) {
  if (const Fault* fault = strike(Call::kBind)) return fail(fault->error);
  return checked(Call::kBind, __real_bind(fd, address, size));
}

int __wrap_listen(int fd, int backlog) {
  if (const Fault* fault = strike(Call::kListen)) return fail(fault->error);
  return checked(Call::kListen, __real_listen(fd, backlog));
}

/// With EINTR, as with EINPROGRESS, the attempt goes on in the kernel; not that of a blocking Unix socket,
/// which EINTR ends. With datagrams there is nothing that takes time.
int __wrap_connect(int fd, const sockaddr* address, socklen_t size) {
  const Fault* const fault = strike(Call::kConnect);
  const bool is_blocking_unix = address->sa_family == AF_UNIX && blocks(fd);
  const bool takes_time = !is_blocking_unix && !is_of_type(fd, SOCK_DGRAM);
  const bool is_over = fault == nullptr || (fault->error != EINTR && fault->error != EINPROGRESS) ||
                       (fault->error == EINTR && is_blocking_unix);
  if (fault != nullptr && is_over) return fail(fault->error);
  const int result = checked(Call::kConnect, __real_connect(fd, address, size));
  const bool goes_on = takes_time && (result == 0 || errno == EINPROGRESS);
  return fault != nullptr && goes_on ? fail(fault->error) : result;
}

int __wrap_getsockname(int fd, sockaddr* address, socklen_t* size) {
  if (const Fault* fault = strike(Call::kGetsockname)) return fail(fault->error);
  return checked(Call::kGetsockname, __real_getsockname(fd, address, size));
}

int __wrap_getpeername(int fd, sockaddr* address, socklen_t* size) {
  if (const Fault* fault = strike(Call::kGetpeername)) return fail(fault->error);
  return checked(Call::kGetpeername, __real_getpeername(fd, address, size));
}

/// Moving fewer bytes is what an older kernel does, whose tcp_info is shorter.
int __wrap_getsockopt(int fd, int level, int option, void* value, socklen_t* size) {
  const bool is_socket_error = level == SOL_SOCKET && option == SO_ERROR;
  const Fault* fault = strike(Call::kGetsockopt);
  if (fault != nullptr && fault->error != 0) return fail(fault->error);
  if (fault != nullptr && !is_socket_error) *size = std::min(*size, static_cast<socklen_t>(fault->bytes_max));
  const int result = checked(Call::kGetsockopt, __real_getsockopt(fd, level, option, value, size));
  if (!is_socket_error || result != 0) return result;
  if ((fault = strike(Call::kSocketError)) != nullptr) std::memcpy(value, &fault->error, sizeof(int));
  return 0;
}

int __wrap_setsockopt(int fd, int level, int option, const void* value, socklen_t size) {
  if (const Fault* fault = strike(Call::kSetsockopt)) return fail(fault->error);
  return checked(Call::kSetsockopt, __real_setsockopt(fd, level, option, value, size));
}

int __wrap_shutdown(int fd, int how) {
  if (const Fault* fault = strike(Call::kShutdown)) return fail(fault->error);
  return checked(Call::kShutdown, __real_shutdown(fd, how));
}

/// A short read is lawful if the rest comes later, and therefore brings an edge of its own; not of a record.
ssize_t __wrap_recv(int fd, void* bytes, std::size_t size, int flags) {
  visit_if_blocking(fd);
  const Fault* const fault = strike(Call::kRecv);
  if (fault != nullptr && fault->error != 0) return fail_lawfully(fd, fault->error);
  if (fault == nullptr || is_of_type(fd, SOCK_SEQPACKET))
    return checked(Call::kRecv, __real_recv(fd, bytes, size, flags));
  const std::size_t size_max = std::min(size, static_cast<std::size_t>(fault->bytes_max));
  const ssize_t count = checked(Call::kRecv, __real_recv(fd, bytes, size_max, flags));
  if (count > 0) tell_again(fd);
  return count;
}

/// Of fewer messages than there are: an error that came between them, which has an edge of its own.
int __wrap_recvmmsg(int fd, mmsghdr* messages, unsigned count, int flags, timespec* timeout) {
  const Fault* const fault = strike(Call::kRecvmmsg);
  if (fault == nullptr) return checked(Call::kRecvmmsg, __real_recvmmsg(fd, messages, count, flags, timeout));
  if (fault->error != 0) return fail_lawfully(fd, fault->error);
  const unsigned count_max = std::min(count, static_cast<unsigned>(fault->bytes_max));
  const int received = checked(Call::kRecvmmsg, __real_recvmmsg(fd, messages, count_max, flags, timeout));
  if (received > 0) tell_again(fd);
  return received;
}

ssize_t __wrap_recvmsg(int fd, msghdr* message, int flags) {
  visit_if_blocking(fd);
  if (const Fault* fault = strike(Call::kRecvmsg)) return fail_lawfully(fd, fault->error);
  const ssize_t count = checked(Call::kRecvmsg, __real_recvmsg(fd, message, flags));
  if (count >= 0) take_in_passed(*message, flags);
  return count;
}

/// Records go as a whole.
ssize_t __wrap_send(int fd, const void* bytes, std::size_t size, int flags) {
  must_have_no_signal(Call::kSend, flags);
  const Fault* const fault = strike(Call::kSend);
  if (fault != nullptr && fault->error != 0) return fail_lawfully(fd, fault->error);
  if (fault == nullptr || is_of_type(fd, SOCK_SEQPACKET))
    return checked(Call::kSend, __real_send(fd, bytes, size, flags));
  const std::size_t size_max = std::min(size, static_cast<std::size_t>(fault->bytes_max));
  return checked(Call::kSend, __real_send(fd, bytes, size_max, flags));
}

ssize_t __wrap_sendfile(int socket, int file, off_t* offset, std::size_t size) {
  const Fault* const fault = strike(Call::kSendfile);
  if (fault == nullptr) return checked(Call::kSendfile, __real_sendfile(socket, file, offset, size));
  if (fault->error != 0) return fail_lawfully(socket, fault->error);
  const std::size_t size_max = std::min(size, static_cast<std::size_t>(fault->bytes_max));
  return checked(Call::kSendfile, __real_sendfile(socket, file, offset, size_max));
}

int __wrap_sendmmsg(int fd, mmsghdr* messages, unsigned count, int flags) {
  must_have_no_signal(Call::kSendmmsg, flags);
  const Fault* const fault = strike(Call::kSendmmsg);
  if (fault == nullptr) return checked(Call::kSendmmsg, __real_sendmmsg(fd, messages, count, flags));
  if (fault->error != 0) return fail_lawfully(fd, fault->error);
  const unsigned count_max = std::min(count, static_cast<unsigned>(fault->bytes_max));
  return checked(Call::kSendmmsg, __real_sendmmsg(fd, messages, count_max, flags));
}

/// A record goes as a whole, or not at all.
ssize_t __wrap_sendmsg(int fd, const msghdr* message, int flags) {
  must_have_no_signal(Call::kSendmsg, flags);
  const Fault* const fault = strike(Call::kSendmsg);
  if (fault != nullptr && fault->error != 0) return fail_lawfully(fd, fault->error);
  if (fault == nullptr || message->msg_controllen > 0)
    return checked(Call::kSendmsg, __real_sendmsg(fd, message, flags));
  iovec piece = message->msg_iov[0];
  piece.iov_len = std::min(piece.iov_len, static_cast<std::size_t>(fault->bytes_max));
  msghdr shorter{};
  shorter.msg_iov = &piece;
  shorter.msg_iovlen = 1;
  return checked(Call::kSendmsg, __real_sendmsg(fd, &shorter, flags));
}

ssize_t __wrap_sendto(int fd, const void* bytes, std::size_t size, int flags, const sockaddr* to,
                      socklen_t to_size) {
  must_have_no_signal(Call::kSendto, flags);
  if (const Fault* fault = strike(Call::kSendto)) return fail(fault->error);
  return checked(Call::kSendto, __real_sendto(fd, bytes, size, flags, to, to_size));
}

// ---- Descriptors of other kinds

ssize_t __wrap_read(int fd, void* bytes, std::size_t size) {
  if (const Fault* fault = strike(Call::kRead)) return fail_lawfully(fd, fault->error);
  return checked(Call::kRead, __real_read(fd, bytes, size));
}

/// Of an eventfd: EAGAIN means that its counter is full, so the event is there.
ssize_t __wrap_write(int fd, const void* bytes, std::size_t size) {
  const Fault* const fault = strike(Call::kWrite);
  if (fault != nullptr && fault->error != EAGAIN) return fail(fault->error);
  const ssize_t count = checked(Call::kWrite, __real_write(fd, bytes, size));
  return fault != nullptr ? fail(fault->error) : count;
}

int __wrap_fchmod(int fd, mode_t mode) {
  if (const Fault* fault = strike(Call::kFchmod)) return fail(fault->error);
  return checked(Call::kFchmod, __real_fchmod(fd, mode));
}

int __wrap_fcntl(int fd, int command, ...) {
  va_list arguments;
  va_start(arguments, command);
  void* const argument = va_arg(arguments, void*);
  va_end(arguments);
  if (const Fault* fault = strike(Call::kFcntl)) return fail(fault->error);
  const int result = __real_fcntl(fd, command, argument);
  const bool makes_one = command == F_DUPFD || command == F_DUPFD_CLOEXEC;
  return makes_one ? made(Call::kFcntl, result, command == F_DUPFD_CLOEXEC, !blocks(result))
                   : checked(Call::kFcntl, result);
}

int __wrap_flock(int fd, int operation) {
  if (const Fault* fault = strike(Call::kFlock)) return fail(fault->error);
  return checked(Call::kFlock, __real_flock(fd, operation));
}

int __wrap_fstat(int fd, struct stat* file) {
  if (const Fault* fault = strike(Call::kFstat)) return fail(fault->error);
  return checked(Call::kFstat, __real_fstat(fd, file));
}

int __wrap_ioctl(int fd, unsigned long request, ...) {
  va_list arguments;
  va_start(arguments, request);
  void* const argument = va_arg(arguments, void*);
  va_end(arguments);
  if (const Fault* fault = strike(Call::kIoctl)) return fail(fault->error);
  return checked(Call::kIoctl, __real_ioctl(fd, request, argument));
}

int __wrap_lstat(const char* path, struct stat* file) {
  if (const Fault* fault = strike(Call::kLstat)) return fail(fault->error);
  return __real_lstat(path, file);
}

int __wrap_unlink(const char* path) {
  if (const Fault* fault = strike(Call::kUnlink)) return fail(fault->error);
  return __real_unlink(path);
}

// ---- Waiting

int __wrap_epoll_ctl(int epoll, int operation, int fd, epoll_event* event) {
  if (seam.depth > 0 && operation == EPOLL_CTL_MOD) die_of(Call::kEpollCtl, "changes a registration");
  if (seam.depth > 0 && operation == EPOLL_CTL_ADD && (event->events & EPOLLET) == 0)
    die_of(Call::kEpollCtl, "registers without EPOLLET");
  if (const Fault* fault = strike(Call::kEpollCtl)) return fail(fault->error);
  const int result = checked(Call::kEpollCtl, __real_epoll_ctl(epoll, operation, fd, event));
  if (result == 0 && is_known(fd)) {
    seam.registrations[static_cast<std::size_t>(fd)] =
        operation == EPOLL_CTL_DEL ? Registration{} : Registration{epoll, *event};
  }
  return result;
}

int __wrap_epoll_wait(int epoll, epoll_event* events, int count, int milliseconds) {
  if (seam.depth > 0 && milliseconds == 0) ++seam.impatient_waits;
  if (const Fault* fault = strike(Call::kEpollWait)) return fail(fault->error);
  return checked(Call::kEpollWait, __real_epoll_wait(epoll, events, count, milliseconds));
}

int __wrap_epoll_pwait2(int epoll, epoll_event* events, int count, const timespec* timeout,
                        const sigset_t* mask) {
  if (const Fault* fault = strike(Call::kEpollPwait2)) return fail(fault->error);
  return checked(Call::kEpollPwait2, __real_epoll_pwait2(epoll, events, count, timeout, mask));
}

int __wrap_ppoll(pollfd* descriptors, nfds_t count, const timespec* timeout, const sigset_t* mask) {
  visit();
  if (const Fault* fault = strike(Call::kPpoll)) return fail(fault->error);
  return checked(Call::kPpoll, __real_ppoll(descriptors, count, timeout, mask));
}

// ---- Memory, and randomness: operator new, new[], and those that return null

void* __wrap__Znwm(std::size_t size) { return strike(Call::kNew) ? fail_new() : __real__Znwm(size); }
void* __wrap__Znam(std::size_t size) { return strike(Call::kNew) ? fail_new() : __real__Znam(size); }
void* __wrap__ZnwmRKSt9nothrow_t(std::size_t size, const std::nothrow_t& tag) {
  return strike(Call::kNewNothrow) ? nullptr : __real__ZnwmRKSt9nothrow_t(size, tag);
}
void* __wrap__ZnamRKSt9nothrow_t(std::size_t size, const std::nothrow_t& tag) {
  return strike(Call::kNewNothrow) ? nullptr : __real__ZnamRKSt9nothrow_t(size, tag);
}

ssize_t __wrap_getrandom(void* bytes, std::size_t size, unsigned flags) {
  if (const Fault* fault = strike(Call::kGetrandom)) return fail(fault->error);
  return __real_getrandom(bytes, size, flags);
}

}  // extern "C"
// NOLINTEND(bugprone-reserved-identifier, cert-dcl37-c, cert-dcl51-cpp, cert-dcl50-cpp)
