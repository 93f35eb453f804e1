// Names every public class and function that is not inline, so that linking it fails where a shared library
// exports one of them no more. Then finds a connection and a channel of its own by their types, across the
// border of the libraries.
#include <anteroom/acceptor.h>
#include <anteroom/activation.h>
#include <anteroom/blocking_server.h>
#include <anteroom/connector.h>
#include <anteroom/datagram_socket.h>
#include <anteroom/handover.h>
#include <anteroom/metrics.h>
#include <anteroom/retry.h>
#include <anteroom/reuseport_group.h>
#include <anteroom/signals.h>
#include <anteroom/socket.h>
#include <anteroom/timer.h>
#include <anteroom/version.h>
#include <signal.h>
#include <sys/eventfd.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

using namespace anteroom;

static_assert(std::string_view(ANTEROOM_VERSION_STRING) == EXPECTED_VERSION,
              "the headers are not those of the package");
static_assert(ANTEROOM_VERSION / 10000 == ANTEROOM_VERSION_MAJOR &&
              ANTEROOM_VERSION % 100 == ANTEROOM_VERSION_PATCH &&
              ANTEROOM_VERSION / 100 % 100 == ANTEROOM_VERSION_MINOR);

// Not called: it is enough that it links. Not static, so that it is compiled.
void use_reactor(Reactor& reactor, Connection& connection, Channel& channel, Connection::Kind& kind) {
  reactor.turn();
  reactor.post([] {});
  (void)reactor.watch(channel);
  (void)reactor.watch_exclusive(channel);
  reactor.unwatch(channel);
  reactor.again(channel);
  reactor.retire(channel);
  reactor.retire(std::unique_ptr<Reapable>());
  reactor.again_when_a_descriptor_closes(channel);
  reactor.for_each_channel([](Channel&) {});

  const std::vector<std::string_view> pieces{"a", "b"};
  connection.send("a");
  connection.send(pieces);
  connection.send_file(Fd(), 0, 0);
  connection.end_output();
  connection.close();
  connection.close("b");
  connection.abort();
  connection.pause_reading();
  connection.resume_reading();
  connection.expect_input(connection.unsent_bytes() == 0);
  (void)(connection.peer() == connection.local());
  (void)connection.tcp_info();
  Connection::start(reactor, Fd(), kind, 0);
  Connection::start_connecting(reactor, Fd(), kind, {});
  Connection::end_all(reactor, kind);
  Connection::close_all(reactor, kind);
  Connection::tell_draining(reactor, kind);
  const Connection made(reactor, Fd(), kind, 0, 0);
  const Connection::Kind another({}, {});

  Timer timer;
  timer = Timer(reactor, [] {});
  const Timer moved(std::move(timer));
  timer.arm_at({});
  timer.arm_every({});
  timer.cancel();
  (void)timer.is_armed();
  const Signals signals(reactor, {SIGUSR1}, [](int) {});
  DatagramSocket datagrams(reactor, Endpoint(), {});
  datagrams.send("c");
  datagrams.flush();
  (void)(datagrams.unsent_bytes() + static_cast<std::size_t>(datagrams.fd()));
  (void)datagrams.endpoint();
  (void)datagrams.stats();
}

void use_sockets() {
  std::error_code error = last_error();
  (void)setup_error(error, "a", "b");
  const Fd socket = open_stream_socket(0, error);
  (void)set_socket_option(socket.get(), 0, 0, 0);
  (void)take_socket_error(socket.get());
  (void)(local_endpoint(socket.get()) < peer_endpoint(socket.get()));
  reset_on_close(socket.get());
  (void)tcp_info(socket.get());
  const Endpoint endpoint = Endpoint::unix_path(Endpoint::from(nullptr, 0).path());
  (void)Endpoint::parse(endpoint.to_string());
  (void)(endpoint.is_loopback() && endpoint.port() == 0);
}

void use_server(Reactor& reactor, Acceptor& acceptor, Handover& predecessor) {
  acceptor.set_backlog(acceptor.fd());
  (void)acceptor.queue();
  (void)acceptor.open_connections();
  acceptor.pause();
  acceptor.resume();
  acceptor.drain({}, nullptr);
  acceptor.left(0);
  (void)prometheus_text(reactor, acceptor);
  Listener listener(Endpoint{});
  change_backlog(listener.fd(), 0);
  (void)listener.endpoint();
  const Acceptor another(reactor, Listener(Fd()), {});

  (void)adopt_listener(Fd(), "a");
  (void)activated_descriptors();
  (void)activated_listeners();
  (void)has_service_manager();
  (void)notify_service_manager("b");
  (void)notify_ready();
  (void)notify_stopping();
  (void)notify_reloading();
  (void)notify_main_process(0);

  Admission admission{AdmissionOptions()};
  Admission moved(std::move(admission));
  Admission::Ticket ticket = 0;
  (void)moved.arrive(nullptr, {}, ticket);
  moved.leave(ticket);
  (void)(moved.open() + moved.sources());
  BacklogTuner tuner(Backlog::self_tuning());
  (void)(tuner.is_crowded(0, 0) && tuner.grow(0, 0, 0, Backlog::fixed(1).initial()));
  (void)Backlog::system_maximum();
  QueueDelay delay{QueueDelayOptions()};
  if (delay.should_shed({}, {})) delay.emptied();

  BlockingServer server(std::move(listener), {});
  server.run();
  server.stop();
  (void)server.stats();

  HandoverOffer offer(reactor, "c", {});
  const HandoverOffer next(reactor, predecessor, {});
  (void)(offer.is_taken() || Handover::take("d") || predecessor.ready());
  (void)listen_queue(0);
  (void)system_backlog_max();
  (void)listen_counters();
  (void)(steer_group(0, 0, 0) || unsteer_group(0) || refuse_syns(0) || admit_syns(0) || is_in_group(0));
  close_first_of_group({});

  ReactorPool pool(Endpoint(), [](Reactor&, int) { return ConnectionHandlers(); });
  ReactorPool successor(std::vector<Listener>(), [](Reactor&, int) { return ConnectionHandlers(); });
  pool.start();
  pool.drain();
  pool.reactor(pool.threads()).stop();
  (void)pool.listeners();
  (void)prometheus_text(pool.state());
}

void use_client(Reactor& reactor) {
  (void)describe_connect_error({}, Endpoint());
  Retry retry({}, 1);
  (void)retry.next_delay();
  retry.reset();
  (void)is_worth_a_retry({});
  const Reconnector reconnector(reactor, Endpoint(), {});
  (void)reconnector.connection();
}

namespace {

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
  ChannelId id = ChannelId::kNone;
  Acceptor acceptor(reactor, {"127.0.0.1", 0}, {.open = [&](Connection& connection) {
                      id = connection.id();
                      reactor.stop();
                    }});
  Connector connector(reactor, {});
  connector.connect(acceptor.endpoint());
  Timer deadline(reactor, [&] { reactor.stop(); });
  deadline.arm(std::chrono::seconds(10));
  reactor.run();
  const bool finds_own = reactor.find<OwnChannel>(own) != nullptr && reactor.find<Connection>(own) == nullptr;
  const bool finds_connection =
      reactor.find<Connection>(id) != nullptr && reactor.find<OwnChannel>(id) == nullptr;
  std::printf("find: own channel %d, connection %d\n", finds_own, finds_connection);
  return acceptor.stats().accepted == 1 && finds_own && finds_connection ? 0 : 1;
}
