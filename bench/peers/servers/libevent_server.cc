// libevent as its manual has it: an evconnlistener, and an event for each guest.
#include <event2/event.h>
#include <event2/listener.h>

#include "server.h"

namespace {

using namespace peers;

char buffer[kBufferBytes];

void echo(evutil_socket_t guest, short, void* self) {
  const ssize_t got = ::recv(guest, buffer, sizeof(buffer), 0);
  if (got > 0 && send_all(guest, {buffer, static_cast<std::size_t>(got)})) return;
  if (got < 0 && errno == EAGAIN) return;
  event_free(static_cast<event*>(self));
  ::close(guest);
}

void greet(evconnlistener*, evutil_socket_t guest, sockaddr*, int, void*) {
  send_all(guest, kHello);
  ::close(guest);
}

void wait_for(evconnlistener* listener, evutil_socket_t guest, sockaddr*, int, void*) {
  event* const readable =
      event_new(evconnlistener_get_base(listener), guest, EV_READ | EV_PERSIST, echo, event_self_cbarg());
  if (readable == nullptr || event_add(readable, nullptr) != 0) fail("event_add");
}

}  // namespace

int main(int argc, char** argv) {
  const Arguments given = arguments(argc, argv);
  const int listener = listening_socket(given.port);
  event_base* const base = event_base_new();
  if (base == nullptr) fail("event_base_new");
  // A backlog of 0: it listens already.
  if (evconnlistener_new(base, given.service == Service::kHello ? greet : wait_for, nullptr,
                         LEV_OPT_CLOSE_ON_EXEC, 0, listener) == nullptr)
    fail("evconnlistener_new");
  announce(listener);
  return event_base_dispatch(base);
}
