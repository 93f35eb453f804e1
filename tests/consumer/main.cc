// A server and its client in one loop: the round trip that the installed headers and libraries have to carry.
#include <anteroom/acceptor.h>
#include <anteroom/connector.h>
#include <anteroom/timer.h>

#include <chrono>
#include <cstdio>
#include <string>
#include <string_view>
#include <system_error>

int main() {
  using namespace anteroom;
  Reactor reactor;
  Acceptor acceptor(reactor, {"127.0.0.1", 0}, {.open = [](Connection& guest) {
                      guest.send("Hello World!");
                      guest.close();
                    }});
  std::string message;
  Connector connector(reactor, {.data = [&](Connection&, std::string_view bytes) { message += bytes; },
                                .closed = [&](Connection&, std::error_code) { reactor.stop(); }});
  Timer deadline(reactor, [&] { reactor.stop(); });
  deadline.arm(std::chrono::seconds(10));
  connector.connect(acceptor.endpoint());
  reactor.run();
  std::printf("Message from server: %s\n", message.c_str());
  return message == "Hello World!" ? 0 : 1;
}
