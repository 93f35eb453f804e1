// The baseline: an edge-triggered epoll loop as one writes it by hand, which accepts until EAGAIN.
//
// It greets and closes without ever asking epoll for the guest. An echo is read at once, before epoll hears
// of the guest, registered once, and closed when the guest ends. There is no table, no timer and no
// allocation.
#include <sys/epoll.h>

#include "server.h"

namespace {

using namespace peers;

constexpr int kEventsMax = 512;
char buffer[kBufferBytes];

/// Sends back what has come, and closes once the guest has ended. A short read means drained, unless epoll
/// has told of an end, which lies behind the last bytes. False once it is closed.
bool echo(int guest, bool to_the_end) {
  for (;;) {
    const ssize_t got = ::recv(guest, buffer, sizeof(buffer), 0);
    if (got > 0 && send_all(guest, {buffer, static_cast<std::size_t>(got)})) {
      if (static_cast<std::size_t>(got) == sizeof(buffer) || to_the_end) continue;
      return true;
    }
    if (got < 0 && errno == EAGAIN) return true;
    ::close(guest);
    return false;
  }
}

void accept_all(int epoll, int listener, Service service) {
  for (;;) {
    const int guest = ::accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (guest < 0) {
      if (errno == EAGAIN) return;
      if (errno == ECONNABORTED || errno == EINTR) continue;
      fail("accept4");
    }
    if (service == Service::kHello) {
      send_all(guest, kHello);
      ::close(guest);
    } else if (echo(guest, false)) {
      epoll_event interest{.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data = {.fd = guest}};
      if (::epoll_ctl(epoll, EPOLL_CTL_ADD, guest, &interest) != 0) fail("epoll_ctl");
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  const Arguments given = arguments(argc, argv);
  const int listener = listening_socket(given.port);
  const int epoll = ::epoll_create1(EPOLL_CLOEXEC);
  if (epoll < 0) fail("epoll_create1");
  epoll_event interest{.events = EPOLLIN | EPOLLET, .data = {.fd = listener}};
  if (::epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &interest) != 0) fail("epoll_ctl");
  announce(listener);
  epoll_event events[kEventsMax];
  for (;;) {
    const int count = ::epoll_wait(epoll, events, kEventsMax, -1);
    if (count < 0 && errno != EINTR) fail("epoll_wait");
    for (int i = 0; i < count; ++i) {
      const int fd = events[i].data.fd;
      if (fd == listener) {
        accept_all(epoll, listener, given.service);
      } else if ((events[i].events & ~static_cast<std::uint32_t>(EPOLLOUT)) != 0) {
        echo(fd, (events[i].events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0);
      }
    }
  }
}
