// A loop and a timer: all that the lowest layer is needed for.
#include <anteroom/reactor.h>
#include <anteroom/timer.h>

#include <chrono>

int main() {
  anteroom::Reactor reactor;
  bool rang = false;
  anteroom::Timer alarm(reactor, [&] {
    rang = true;
    reactor.stop();
  });
  alarm.arm(std::chrono::milliseconds(1));
  reactor.run();
  return rang ? 0 : 1;
}
