// libuv: a uv_tcp_t for each guest, and uv_try_write, which is cheaper than a write request.
#include <uv.h>

#include "server.h"

namespace {

using namespace peers;

char buffer[kBufferBytes];

void check(int result, const char* what) {
  if (result >= 0) return;
  std::fprintf(stderr, "%s: %s\n", what, uv_strerror(result));
  std::exit(1);
}

uv_handle_t* handle(uv_stream_t* stream) { return reinterpret_cast<uv_handle_t*>(stream); }

void close(uv_stream_t* guest) {
  uv_close(handle(guest), [](uv_handle_t* closed) { delete reinterpret_cast<uv_tcp_t*>(closed); });
}

bool send(uv_stream_t* guest, char* bytes, std::size_t size) {
  const uv_buf_t piece = uv_buf_init(bytes, static_cast<unsigned>(size));
  return uv_try_write(guest, &piece, 1) == static_cast<int>(size);
}

void lend(uv_handle_t*, std::size_t, uv_buf_t* space) { *space = uv_buf_init(buffer, sizeof(buffer)); }

void echo(uv_stream_t* guest, ssize_t got, const uv_buf_t* space) {
  if (got == 0) return;  // EAGAIN
  if (got < 0 || !send(guest, space->base, static_cast<std::size_t>(got))) close(guest);
}

uv_stream_t* let_in(uv_stream_t* listener) {
  auto* const guest = new uv_tcp_t;
  check(uv_tcp_init(listener->loop, guest), "uv_tcp_init");
  auto* const stream = reinterpret_cast<uv_stream_t*>(guest);
  check(uv_accept(listener, stream), "uv_accept");
  return stream;
}

void greet(uv_stream_t* listener, int status) {
  if (status < 0) return;
  uv_stream_t* const guest = let_in(listener);
  char greeting[kHello.size()];
  kHello.copy(greeting, kHello.size());
  send(guest, greeting, kHello.size());
  close(guest);
}

void wait_for(uv_stream_t* listener, int status) {
  if (status < 0) return;
  check(uv_read_start(let_in(listener), lend, echo), "uv_read_start");
}

}  // namespace

int main(int argc, char** argv) {
  const Arguments given = arguments(argc, argv);
  uv_loop_t* const loop = uv_default_loop();
  const int socket = listening_socket(given.port);
  uv_tcp_t listener;
  check(uv_tcp_init(loop, &listener), "uv_tcp_init");
  check(uv_tcp_open(&listener, socket), "uv_tcp_open");
  check(uv_listen(reinterpret_cast<uv_stream_t*>(&listener), SOMAXCONN,
                  given.service == Service::kHello ? greet : wait_for),
        "uv_listen");
  announce(socket);
  return uv_run(loop, UV_RUN_DEFAULT);
}
