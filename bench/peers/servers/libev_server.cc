// libev: it has no listener of its own, so its users write the accept loop, and an ev_io for each guest.
#include <ev.h>

#include "server.h"

namespace {

using namespace peers;

char buffer[kBufferBytes];

void echo(struct ev_loop* loop, ev_io* guest, int) {
  const ssize_t got = ::recv(guest->fd, buffer, sizeof(buffer), 0);
  if (got > 0 && send_all(guest->fd, {buffer, static_cast<std::size_t>(got)})) return;
  if (got < 0 && errno == EAGAIN) return;
  ev_io_stop(loop, guest);
  ::close(guest->fd);
  delete guest;
}

void greet(struct ev_loop*, int guest) {
  send_all(guest, kHello);
  ::close(guest);
}

void wait_for(struct ev_loop* loop, int guest) {
  auto* const readable = new ev_io;
  ev_io_init(readable, echo, guest, EV_READ);
  ev_io_start(loop, readable);
}

template <void (*take_in)(struct ev_loop*, int)>
void accept_all(struct ev_loop* loop, ev_io* listener, int) {
  for (;;) {
    const int guest = ::accept4(listener->fd, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (guest >= 0) {
      take_in(loop, guest);
    } else if (errno == EAGAIN) {
      return;
    } else if (errno != ECONNABORTED && errno != EINTR) {
      fail("accept4");
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  const Arguments given = arguments(argc, argv);
  struct ev_loop* const loop = ev_default_loop(EVBACKEND_EPOLL);
  if (loop == nullptr) fail("ev_default_loop");
  const int listener = listening_socket(given.port);
  ev_io acceptable;
  ev_io_init(&acceptable, given.service == Service::kHello ? accept_all<greet> : accept_all<wait_for>,
             listener, EV_READ);
  ev_io_start(loop, &acceptable);
  announce(listener);
  ev_run(loop, 0);
}
