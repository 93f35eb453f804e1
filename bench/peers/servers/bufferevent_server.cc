// libevent with the buffers that it recommends: an evconnlistener, and a bufferevent for each guest.
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/listener.h>

#include "server.h"

namespace {

using namespace peers;

void echo(bufferevent* guest, void*) { bufferevent_write_buffer(guest, bufferevent_get_input(guest)); }
void sent(bufferevent* guest, void*) { bufferevent_free(guest); }
void ended(bufferevent* guest, short, void*) { bufferevent_free(guest); }

void greet(evconnlistener* listener, evutil_socket_t socket, sockaddr*, int, void*) {
  bufferevent* const guest =
      bufferevent_socket_new(evconnlistener_get_base(listener), socket, BEV_OPT_CLOSE_ON_FREE);
  if (guest == nullptr) fail("bufferevent_socket_new");
  bufferevent_setcb(guest, nullptr, sent, ended, nullptr);
  bufferevent_write(guest, kHello.data(), kHello.size());
}

void wait_for(evconnlistener* listener, evutil_socket_t socket, sockaddr*, int, void*) {
  bufferevent* const guest =
      bufferevent_socket_new(evconnlistener_get_base(listener), socket, BEV_OPT_CLOSE_ON_FREE);
  if (guest == nullptr) fail("bufferevent_socket_new");
  bufferevent_setcb(guest, echo, nullptr, ended, nullptr);
  bufferevent_enable(guest, EV_READ);
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
