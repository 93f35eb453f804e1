#include <anteroom/listener.h>
#include <anteroom/socket.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <cerrno>
#include <fstream>
#include <string>
#include <system_error>
#include <vector>

#include "support/descriptors.h"
#include "support/own_network.h"
#include "support/peer.h"

namespace anteroom {
namespace {

using namespace test;

/// A directory for sockets, gone with the test.
class Directory {
 public:
  Directory() {
    const char* const base = std::getenv("TMPDIR");
    name_ =
        std::string(base != nullptr && std::string_view(base).size() < 60 ? base : "/tmp") + "/doorXXXXXX";
    if (::mkdtemp(name_.data()) == nullptr) throw setup_error(last_error(), "mkdtemp", name_);
  }
  ~Directory() { ::rmdir(name_.c_str()); }
  Directory(const Directory&) = delete;
  Directory& operator=(const Directory&) = delete;
  std::string path(const char* name) const { return name_ + '/' + name; }

 private:
  std::string name_;
};

bool exists(const std::string& path) { return ::access(path.c_str(), F_OK) == 0; }

int option(int fd, int level, int name) {
  int value = -1;
  socklen_t size = sizeof(value);
  ::getsockopt(fd, level, name, &value, &size);
  return value;
}

std::string what_is_thrown_on(const Endpoint& endpoint, const ListenerOptions& options = {}) {
  try {
    const Listener listener(endpoint, options);
    return "(nothing)";
  } catch (const std::system_error& error) {
    return error.what();
  }
}

TEST(Listener, OnPortZeroSaysWhereItListens) {
  const Listener listener(kLoopback);
  EXPECT_EQ(listener.endpoint().to_string(), "127.0.0.1:" + std::to_string(listener.endpoint().port()));
  EXPECT_NE(listener.endpoint().port(), 0);
  const Peer peer(listener.endpoint());
}

TEST(Listener, IsNonBlockingAndClosedOnExecUnlessAskedOtherwise) {
  const Listener listener(kLoopback);
  EXPECT_NE(::fcntl(listener.fd(), F_GETFL) & O_NONBLOCK, 0);
  EXPECT_NE(::fcntl(listener.fd(), F_GETFD) & FD_CLOEXEC, 0);
  const Listener blocking(kLoopback, {.blocking = true});
  EXPECT_EQ(::fcntl(blocking.fd(), F_GETFL) & O_NONBLOCK, 0);
  EXPECT_NE(::fcntl(blocking.fd(), F_GETFD) & FD_CLOEXEC, 0);
}

TEST(Listener, HandsNoDelayDownToItsGuests) {
  for (const bool no_delay : {true, false}) {
    const Listener listener(kLoopback, {.no_delay = no_delay});
    const Peer peer(listener.endpoint());
    ASSERT_TRUE(await_events(listener.fd(), POLLIN));
    const Fd guest(::accept4(listener.fd(), nullptr, nullptr, SOCK_CLOEXEC));
    EXPECT_EQ(option(guest.get(), IPPROTO_TCP, TCP_NODELAY), no_delay ? 1 : 0);
  }
}

TEST(Listener, HandsDownWhatIsSetOnIt) {
  using namespace std::chrono_literals;
  for (const char* ip : {"127.0.0.1", "::1"}) {
    std::optional<Listener> listener;
    try {
      listener.emplace(Endpoint(ip, 0), ListenerOptions{.keep_alive = 77s,
                                                        .keep_alive_interval = 11s,
                                                        .keep_alive_probes = 4,
                                                        .user_timeout = 12345ms,
                                                        .receive_buffer_bytes = 50'000,
                                                        .send_buffer_bytes = 60'000});
    } catch (const std::system_error&) {
      continue;  // no IPv6 here
    }
    const Peer peer(listener->endpoint());
    const Fd guest(::accept4(listener->fd(), nullptr, nullptr, SOCK_CLOEXEC));
    EXPECT_EQ(option(guest.get(), SOL_SOCKET, SO_KEEPALIVE), 1);
    EXPECT_EQ(option(guest.get(), IPPROTO_TCP, TCP_KEEPIDLE), 77);
    EXPECT_EQ(option(guest.get(), IPPROTO_TCP, TCP_KEEPINTVL), 11);
    EXPECT_EQ(option(guest.get(), IPPROTO_TCP, TCP_KEEPCNT), 4);
    EXPECT_EQ(option(guest.get(), IPPROTO_TCP, TCP_USER_TIMEOUT), 12345);
    EXPECT_EQ(option(guest.get(), SOL_SOCKET, SO_RCVBUF), 100'000) << "the kernel doubles it, socket(7)";
    EXPECT_EQ(option(guest.get(), SOL_SOCKET, SO_SNDBUF), 120'000);
  }
}

TEST(Listener, SetsNothingThatItWasNotAskedFor) {
  const Fd plain(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const Listener listener(kLoopback);
  const Peer peer(listener.endpoint());
  const Fd guest(::accept4(listener.fd(), nullptr, nullptr, SOCK_CLOEXEC));
  for (const int fd : {listener.fd(), guest.get()}) {
    EXPECT_EQ(option(fd, SOL_SOCKET, SO_KEEPALIVE), 0);
    EXPECT_EQ(option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT), 0);
    for (const int name : {TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT})
      EXPECT_EQ(option(fd, IPPROTO_TCP, name), option(plain.get(), IPPROTO_TCP, name));
  }
  EXPECT_EQ(option(listener.fd(), IPPROTO_TCP, TCP_DEFER_ACCEPT), 0);
  EXPECT_EQ(option(listener.fd(), SOL_SOCKET, SO_RCVBUF), option(plain.get(), SOL_SOCKET, SO_RCVBUF));
}

TEST(Listener, ThatDefersShowsNobodyWhoSaysNothing) {
  const Listener listener(kLoopback, {.defer_accept = std::chrono::seconds(30)});
  const Peer silent(listener.endpoint());
  const Peer speaking(listener.endpoint());
  EXPECT_EQ(listener.queue()->depth, 0U);
  ASSERT_TRUE(speaking.send("hello"));
  ASSERT_TRUE(await_events(listener.fd(), POLLIN));
  EXPECT_EQ(listener.queue()->depth, 1U);
  const Fd guest(::accept4(listener.fd(), nullptr, nullptr, SOCK_CLOEXEC));
  EXPECT_EQ(peer_endpoint(guest.get()), speaking.local());
}

TEST(Listener, SaysWhichOptionTheKernelDoesNotTake) {
  using namespace std::chrono_literals;
  const auto thrown_for = [](const ListenerOptions& options) {
    return what_is_thrown_on(kLoopback, options);
  };
  const std::string why = " " + kLoopback.to_string() + ": Invalid argument";
  EXPECT_EQ(thrown_for({.keep_alive = 40'000s}), "TCP_KEEPIDLE" + why) << "32,767 s at most";
  EXPECT_EQ(thrown_for({.keep_alive = -1s}), "TCP_KEEPIDLE" + why);
  EXPECT_EQ(thrown_for({.keep_alive_interval = 40'000s}), "TCP_KEEPINTVL" + why);
  EXPECT_EQ(thrown_for({.keep_alive_probes = 128}), "TCP_KEEPCNT" + why);
  EXPECT_EQ(thrown_for({.user_timeout = -1ms}), "TCP_USER_TIMEOUT" + why);
  EXPECT_EQ(thrown_for({.receive_buffer_bytes = -1}), "SO_RCVBUF" + why)
      << "the kernel takes it for the most";
  EXPECT_EQ(thrown_for({.send_buffer_bytes = -1}), "SO_SNDBUF" + why);
  EXPECT_EQ(thrown_for({.defer_accept = -1s}), "TCP_DEFER_ACCEPT" + why) << "the kernel takes it for none";
  EXPECT_EQ(thrown_for({.user_timeout = 24h * 365 * 100}), "(nothing)") << "as good as for ever";
}

TEST(Listener, OnAUnixSocketHasNoneOfTheOptionsOfTcp) {
  using namespace std::chrono_literals;
  const ListenerOptions all{.keep_alive = 77s,
                            .keep_alive_interval = 11s,
                            .keep_alive_probes = 4,
                            .user_timeout = 12345ms,
                            .receive_buffer_bytes = 50'000,
                            .send_buffer_bytes = 60'000,
                            .defer_accept = 3s};
  const Endpoint name = Endpoint::unix_path("@anteroom-listener-test-options");
  EXPECT_EQ(what_is_thrown_on(name, all), "(nothing)");
  const Listener listener(name, all);
  const Peer peer(name);
}

TEST(Listener, OnAUnixSocketRefusesWhatIsNegativeToo) {
  const Endpoint name = Endpoint::unix_path("@anteroom-listener-test-negative-" + std::to_string(::getpid()));
  const std::string why = " " + name.to_string() + ": Invalid argument";
  EXPECT_EQ(what_is_thrown_on(name, {.keep_alive = std::chrono::seconds(-1)}), "TCP_KEEPIDLE" + why);
  EXPECT_EQ(what_is_thrown_on(name, {.user_timeout = std::chrono::milliseconds(-1)}),
            "TCP_USER_TIMEOUT" + why);
  EXPECT_EQ(what_is_thrown_on(name, {.send_buffer_bytes = -1}), "SO_SNDBUF" + why);
}

TEST(Listener, OfNoDescriptorOrOfNoSocketThrows) {
  EXPECT_THROW(Listener{Fd{}}, std::system_error);
  EXPECT_THROW(Listener{Fd{100'000}}, std::system_error);
}

TEST(Listener, LetsOneMoreWaitThanItsBacklog) {
  for (const int backlog : {0, 1, 5, 15}) {
    const Listener listener(kLoopback, {.backlog = backlog});
    EXPECT_EQ(listener.queue()->limit, static_cast<std::uint32_t>(backlog));
    std::vector<Fd> callers;
    for (int i = 0; i < backlog + 4; ++i) {
      std::error_code error;
      callers.push_back(open_stream_socket(AF_INET, error));
      const Endpoint to = listener.endpoint();
      (void)::connect(callers.back().get(), to.data(), to.size());
    }
    for (int i = 0; i <= backlog; ++i) {
      ASSERT_TRUE(await_events(callers[static_cast<std::size_t>(i)].get(), POLLOUT)) << backlog;
    }
    EXPECT_EQ(listener.queue()->depth, static_cast<std::uint32_t>(backlog) + 1);
    for (const Fd& caller : callers) {
      const bool is_in = &caller - callers.data() <= backlog;
      pollfd entry{.fd = caller.get(), .events = POLLOUT, .revents = 0};
      EXPECT_EQ(::poll(&entry, 1, 0), is_in ? 1 : 0) << &caller - callers.data() << " of backlog " << backlog;
    }
  }
}

TEST(Listener, KeepsWhoWaitsWhenItsBacklogChanges) {
  Listener listener(kLoopback, {.backlog = 5});
  auto peers = connect_peers(listener.endpoint(), 6);
  listener.set_backlog(20);
  EXPECT_EQ(listener.queue()->limit, 20U);
  EXPECT_EQ(listener.queue()->depth, 6U);
  for (Peer& peer : connect_peers(listener.endpoint(), 15)) peers.push_back(std::move(peer));
  listener.set_backlog(3);
  EXPECT_EQ(listener.queue()->limit, 3U);
  EXPECT_EQ(listener.queue()->depth, 21U) << "whoever waits stays, even if there are more than that";
  for (int i = 0; i < 21; ++i) EXPECT_TRUE(Fd(::accept4(listener.fd(), nullptr, nullptr, SOCK_CLOEXEC)));
}

TEST(Listener, SaysWhyItsBacklogCannotChange) {
  try {
    change_backlog(-1, 5);
    FAIL();
  } catch (const std::system_error& error) {
    EXPECT_EQ(error.code(), std::errc::bad_file_descriptor);
    EXPECT_EQ(std::string(error.what()).substr(0, 6), "listen");
  }
}

TEST(Listener, OnAnAddressInUseSaysWhichOne) {
  const Listener first(kLoopback);
  const std::string address = first.endpoint().to_string();
  EXPECT_EQ(what_is_thrown_on(first.endpoint()), "bind " + address + ": Address already in use");
}

TEST(Listener, OnAnAddressThatIsNotOursSaysWhichOne) {
  EXPECT_EQ(what_is_thrown_on({"192.0.2.1", 80}), "bind 192.0.2.1:80: Cannot assign requested address");
}

TEST(Listener, WithoutAnAddressThrows) {
  EXPECT_EQ(what_is_thrown_on(Endpoint()), "socket (no address): Address family not supported by protocol");
}

TEST(Listener, ThatCannotBeLeavesNoDescriptor) {
  const Listener first(kLoopback);
  const int before = open_descriptors();
  for (int i = 0; i < 5; ++i) EXPECT_THROW(Listener{first.endpoint()}, std::system_error);
  EXPECT_EQ(open_descriptors(), before);
}

TEST(Listener, MayShareAnAddressIfBothAskForIt) {
  const Listener first(kLoopback, {.reuse_port = true});
  const Listener second(first.endpoint(), {.reuse_port = true});
  EXPECT_EQ(first.endpoint(), second.endpoint());
  EXPECT_THROW(Listener{first.endpoint()}, std::system_error);
}

TEST(Listener, MayListenAgainAtOnceWhereOneHasServed) {
  std::optional<Listener> first(std::in_place, kLoopback);
  const Endpoint address = first->endpoint();
  Peer peer(address);
  Fd guest(::accept4(first->fd(), nullptr, nullptr, SOCK_CLOEXEC));
  guest.reset();  // our end closes first: it is ours that stays in TIME_WAIT
  peer.receive_all();
  peer.close();
  first.reset();
  EXPECT_EQ(what_is_thrown_on(address), "(nothing)");
}

TEST(Listener, TakesOverASocketThatListensAlready) {
  Listener made(kLoopback);
  const Endpoint address = made.endpoint();
  const Listener listener(made.release());
  EXPECT_EQ(listener.endpoint(), address);
  EXPECT_EQ(made.fd(), -1);
  const Peer peer(address);
}

TEST(Listener, OnIPv6) {
  try {
    const Listener listener(Endpoint("::1", 0));
    const Peer peer(listener.endpoint());
    EXPECT_EQ(listener.queue()->depth, 1U);
  } catch (const std::system_error& error) {
    GTEST_SKIP() << "no IPv6 here: " << error.what();
  }
}

// ---- Unix sockets

TEST(Listener, RemovesItsUnixPathAtItsEnd) {
  const Directory directory;
  const std::string path = directory.path("door");
  {
    Listener listener(Endpoint::unix_path(path));
    EXPECT_EQ(listener.endpoint().path(), path);
    const Peer peer(listener.endpoint());
    EXPECT_TRUE(exists(path));
    const Listener moved(std::move(listener));
    EXPECT_TRUE(exists(path));
  }
  EXPECT_FALSE(exists(path));
}

TEST(Listener, ReplacesAUnixPathThatADeadServerLeft) {
  const Directory directory;
  const std::string path = directory.path("door");
  const Endpoint address = Endpoint::unix_path(path);
  {
    const Fd dead(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    ASSERT_EQ(::bind(dead.get(), address.data(), address.size()), 0);
    ASSERT_EQ(::listen(dead.get(), 1), 0);
  }
  ASSERT_TRUE(exists(path));
  const Listener listener(address);
  const Peer peer(address);
}

TEST(Listener, LeavesAUnixPathToTheServerThatLives) {
  const Directory directory;
  const Endpoint address = Endpoint::unix_path(directory.path("door"));
  const Listener living(address, {.backlog = 0});
  const Peer only(address);  // its queue is full now, and that is no sign of death
  EXPECT_EQ(what_is_thrown_on(address), "bind " + address.to_string() + ": Address already in use");
  EXPECT_TRUE(exists(address.path()));
}

// An operator who removes the path and starts another server there must not lose it with the first one.
TEST(Listener, LeavesAUnixPathToWhoeverHasTakenIt) {
  const Directory directory;
  const std::string path = directory.path("door");
  std::optional<Listener> first(std::in_place, Endpoint::unix_path(path));
  ::unlink(path.c_str());
  const Listener second(Endpoint::unix_path(path));
  Listener moved(std::move(*first));
  first.reset();
  { const Listener ends(std::move(moved)); }
  EXPECT_TRUE(exists(path));
  if (exists(path)) const Peer peer(second.endpoint());
}

// Found by this test: connect(2) to a file that is no socket says ECONNREFUSED too, and the file was removed.
TEST(Listener, DoesNotRemoveAFileThatIsNoSocket) {
  const Directory directory;
  const std::string path = directory.path("letter");
  std::ofstream(path) << "do not throw away";
  EXPECT_EQ(what_is_thrown_on(Endpoint::unix_path(path)), "bind unix:" + path + ": Address already in use");
  EXPECT_TRUE(exists(path));
  ::unlink(path.c_str());
}

TEST(Listener, OnAnAbstractNameNeedsNoFile) {
  const Endpoint name = Endpoint::unix_path("@anteroom-listener-test");
  {
    const Listener listener(name);
    EXPECT_EQ(listener.endpoint(), name);
    const Peer peer(name);
    EXPECT_EQ(what_is_thrown_on(name), "bind unix:@anteroom-listener-test: Address already in use");
  }
  EXPECT_EQ(what_is_thrown_on(name), "(nothing)");
}

TEST(Listener, OnAPathThatCannotBeSaysWhichOne) {
  EXPECT_EQ(what_is_thrown_on(Endpoint::unix_path("/no/such/directory/door")),
            "bind unix:/no/such/directory/door: No such file or directory");
}

TEST(Listener, HasNothingOnceMovedFrom) {
  const std::string path = "@anteroom-listener-moved-" + std::to_string(::getpid());
  Listener first(Endpoint::unix_path(path));
  Listener second(std::move(first));
  // NOLINTBEGIN(bugprone-use-after-move): that it is empty is what we ask
  EXPECT_EQ(first.fd(), -1);
  EXPECT_EQ(first.endpoint(), Endpoint());
  EXPECT_FALSE(first.queue());
  EXPECT_FALSE(first.release());
  EXPECT_THROW(first.set_backlog(5), std::system_error);
  first.keep_path();
  // NOLINTEND(bugprone-use-after-move)
  EXPECT_EQ(second.endpoint().path(), path);
}

}  // namespace
}  // namespace anteroom
