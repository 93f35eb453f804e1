// Compiled with neither RTTI nor exceptions, against libraries that have both: what the headers need of them
// is nothing.
#include <anteroom/acceptor.h>
#include <anteroom/connector.h>
#include <anteroom/reactor_pool.h>
#include <anteroom/retry.h>
#include <anteroom/timer.h>
#include <sys/eventfd.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <optional>

#ifdef __cpp_rtti
#error "this has to be compiled with -fno-rtti"
#endif

using namespace anteroom;

namespace {

/// A class without typeinfo: a dynamic_cast in the library would follow a null pointer.
class OwnChannel final : public Channel {
 public:
  explicit OwnChannel(Reactor& reactor) : Channel(reactor, Fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK))) {}

 private:
  void on_ready(std::uint32_t) noexcept override {}
};

}  // namespace

int main() {
  Reactor reactor;
  const ChannelId own = reactor.adopt(std::make_unique<OwnChannel>(reactor)).id();
  ChannelId accepted = ChannelId::kNone;
  bool found = false;
  {
    std::optional<Acceptor> acceptor(std::in_place, reactor, Endpoint("127.0.0.1", 0),
                                     ConnectionHandlers{.open = [&](Connection& connection) {
                                       accepted = connection.id();
                                       reactor.stop();
                                     }});
    Connector connector(reactor, {});
    connector.connect(acceptor->endpoint());
    Timer deadline(reactor, [&] { reactor.stop(); });
    deadline.arm(std::chrono::seconds(10));
    reactor.run();

    int connections = 0;
    reactor.for_each_channel([&](Channel& channel) { connections += channel.as_connection() != nullptr; });
    Connection* const connection = reactor.find<Connection>(accepted);
    found = connection != nullptr && connection == reactor.find(accepted) &&
            reactor.find<const Connection>(accepted) == connection && connections == 2;
    acceptor.reset();  // looks for its connections among all channels
  }
  reactor.turn(std::chrono::seconds(0));
  const bool is_told_apart = reactor.find(own) != nullptr && reactor.find<Connection>(own) == nullptr &&
                             reactor.find<Connection>(accepted) == nullptr;
  std::printf("connection found %d, another channel told apart %d\n", found, is_told_apart);
  return found && is_told_apart ? 0 : 1;
}
