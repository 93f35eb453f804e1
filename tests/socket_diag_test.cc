// Who listens and who waits, asked from outside.
#include <anteroom/bench/socket_diag.h>
#include <anteroom/listen_queue.h>
#include <anteroom/listener.h>
#include <gtest/gtest.h>
#include <netinet/tcp.h>

#include <algorithm>
#include <chrono>
#include <numeric>

#include "support/forger.h"
#include "support/own_network.h"
#include "support/peer.h"

namespace anteroom::bench {
namespace {

using test::Peer;

TEST(SocketDiag, ShowsWhatTheListenerItselfKnows) {
  Listener listener({"127.0.0.1", 0}, {.backlog = 3});
  const Peer a(listener.endpoint());
  const Peer b(listener.endpoint());
  SocketDiag diag;
  std::vector<ListeningSocket> all;
  const std::uint16_t port = listener.endpoint().port();
  diag.listeners(all, std::span(&port, 1));
  ASSERT_EQ(all.size(), 1U);
  EXPECT_EQ(all[0].address, listener.endpoint());
  EXPECT_EQ(all[0].depth, 2U);
  EXPECT_EQ(all[0].limit, 3U);
  EXPECT_EQ(all[0].uid, ::getuid());
  std::uint64_t cookie = 0;
  socklen_t size = sizeof(cookie);
  ASSERT_EQ(::getsockopt(listener.fd(), SOL_SOCKET, SO_COOKIE, &cookie, &size), 0);
  EXPECT_EQ(all[0].cookie, cookie);
}

TEST(SocketDiag, FindsTheSocketsOfTheNamedPortsAndNoOthers) {
  std::vector<Listener> listeners;
  for (int i = 0; i < 40; ++i) listeners.emplace_back(Endpoint("127.0.0.1", 0), ListenerOptions{});
  listeners.emplace_back(Endpoint("::1", 0), ListenerOptions{});
  SocketDiag diag;
  std::vector<ListeningSocket> found;
  // Every length of the filter, and each place in it.
  for (std::size_t wanted = 1; wanted <= listeners.size(); ++wanted) {
    std::vector<std::uint16_t> ports;
    for (std::size_t i = 0; i < wanted; ++i)
      ports.push_back(listeners[listeners.size() - 1 - i].endpoint().port());
    diag.listeners(found, ports);
    EXPECT_EQ(found.size(), wanted);
    for (const ListeningSocket& socket : found) {
      EXPECT_EQ(std::ranges::count(ports, socket.address.port()), 1);
    }
  }
  diag.listeners(found);
  EXPECT_GE(found.size(), listeners.size());
}

TEST(SocketDiag, ShowsMoreListenersThanOneAnswerHolds) {
  std::vector<Listener> listeners;
  for (int i = 0; i < 600; ++i) listeners.emplace_back(Endpoint("127.0.0.1", 0), ListenerOptions{});
  SocketDiag diag;
  std::vector<ListeningSocket> found;
  diag.listeners(found);
  for (const Listener& listener : listeners)
    EXPECT_EQ(std::ranges::count(found, listener.endpoint(), &ListeningSocket::address), 1);
}

TEST(SocketDiag, ShowsWhoIsConnected) {
  Listener listener({"::", 0}, {});
  const std::uint16_t port = listener.endpoint().port();
  const Peer four({"127.0.0.1", port});
  const Peer six({"::1", port});
  SocketDiag diag;
  std::vector<Endpoint> remotes;
  for (const ConnectedSocket& socket : diag.connections(port)) {
    EXPECT_EQ(socket.local.port(), port);
    EXPECT_EQ(socket.state, TCP_ESTABLISHED);
    remotes.push_back(unmapped(socket.remote));
  }
  ASSERT_EQ(remotes.size(), 2U);
  EXPECT_EQ(std::ranges::count(remotes, local_endpoint(four.fd())), 1);
  EXPECT_EQ(std::ranges::count(remotes, local_endpoint(six.fd())), 1);
}

TEST(SocketDiag, CountsTheDropsOfEachListener) {
  if (!test::has_own_network) GTEST_SKIP() << "needs a network of its own";
  Listener listener({"127.0.0.1", 0}, {.backlog = 0});
  const Peer guest(listener.endpoint());
  const Fd late(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  ASSERT_EQ(::connect(late.get(), listener.endpoint().data(), listener.endpoint().size()), -1);
  SocketDiag diag;
  std::vector<ListeningSocket> found;
  diag.listeners(found);
  ASSERT_EQ(found.size(), 1U);
  EXPECT_EQ(found[0].depth, 1U);
  EXPECT_EQ(found[0].drops, 1U);
  EXPECT_EQ(found[0].drops, listen_queue(listener.fd())->drops);
}

TEST(SocketDiag, BelievesTheKernelAlone) {
  if (!test::has_own_network) GTEST_SKIP() << "needs a network of its own";
  Listener listener({"127.0.0.1", 0}, {.backlog = 7});
  const Peer client(listener.endpoint());
  SocketDiag diag;
  std::vector<ListeningSocket> found;
  diag.listeners(found);
  const test::Forger forger(listener.endpoint());
  const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (!forger.has_tried(50) && std::chrono::steady_clock::now() < limit) {
    diag.listeners(found);
    ASSERT_EQ(found.size(), 1U);
    ASSERT_EQ(found[0].depth, 1U);
    ASSERT_EQ(found[0].limit, 7U);
    ASSERT_NE(found[0].cookie, 0xdeadU);
  }
  EXPECT_TRUE(forger.has_tried(50));
}

/// A client that connects from `from`, which may have other connections already.
Fd connect_from(const Endpoint& from, const Endpoint& to) {
  Fd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  (void)set_socket_option(socket.get(), SOL_SOCKET, SO_REUSEADDR, 1);
  EXPECT_EQ(::bind(socket.get(), from.data(), from.size()), 0);
  EXPECT_EQ(::connect(socket.get(), to.data(), to.size()), 0);
  return socket;
}

TEST(SocketDiag, SeesWhereAConnectionArrived) {
  for (const Endpoint& any : {Endpoint("127.0.0.1", 0), Endpoint("0.0.0.0", 0)}) {
    const Listener server(any, {});
    const Endpoint at("127.0.0.1", server.endpoint().port());
    const Fd client = connect_from(Endpoint("127.0.0.1", 0), at);
    EXPECT_EQ(SocketDiag().arrival_of(local_endpoint(client.get()), at), at) << "it waits to be accepted";
  }
}

/// Ports are chosen anew for each server, so one port may have a connection to each of them.
TEST(SocketDiag, TakesNoOtherConnectionOfThePortForARedirectedOne) {
  const Listener one(Endpoint("127.0.0.1", 0), {});
  const Listener other(Endpoint("127.0.0.1", 0), {});
  const Fd first = connect_from(Endpoint("127.0.0.1", 0), one.endpoint());
  const Endpoint client = local_endpoint(first.get());
  EXPECT_EQ(SocketDiag().arrival_of(client, other.endpoint()), std::nullopt);
  const Fd second = connect_from(client, other.endpoint());
  EXPECT_EQ(SocketDiag().arrival_of(client, one.endpoint()), one.endpoint());
  EXPECT_EQ(SocketDiag().arrival_of(client, other.endpoint()), other.endpoint());
}

TEST(SocketDiag, SeesNoArrivalWhereTheServerHasReset) {
  const Listener server(Endpoint("127.0.0.1", 0), {});
  const Fd client = connect_from(Endpoint("127.0.0.1", 0), server.endpoint());
  {
    const Fd accepted(::accept4(server.fd(), nullptr, nullptr, SOCK_CLOEXEC));
    ASSERT_TRUE(accepted);
    reset_on_close(accepted.get());
  }
  EXPECT_EQ(SocketDiag().arrival_of(local_endpoint(client.get()), server.endpoint()), std::nullopt);
}

}  // namespace
}  // namespace anteroom::bench
