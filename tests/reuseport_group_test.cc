#include <anteroom/listener.h>
#include <anteroom/reuseport_group.h>
#include <anteroom/socket.h>
#include <gtest/gtest.h>
#include <sys/eventfd.h>

#include <cstdint>
#include <deque>
#include <numeric>
#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "support/own_network.h"
#include "support/peer.h"

namespace anteroom {
namespace {

using namespace test;

constexpr ListenerOptions kShared{.reuse_port = true};

/// A call that does not wait for its answer.
Fd call(const Endpoint& to) {
  std::error_code error;
  Fd socket = open_stream_socket(to.family(), error);
  (void)::connect(socket.get(), to.data(), to.size());
  return socket;
}

Fd accept_one(const Listener& listener) {
  if (!await_events(listener.fd(), POLLIN)) return Fd();
  return Fd(::accept4(listener.fd(), nullptr, nullptr, SOCK_CLOEXEC));
}

template <class Predicate>
bool eventually(Predicate predicate) {
  const auto end = Reactor::Clock::now() + kPatience;
  while (!predicate()) {
    if (Reactor::Clock::now() >= end) return false;
    (void)::poll(nullptr, 0, 1);
  }
  return true;
}

void expect_to_talk(Peer& guest, Peer& host) {
  const std::string question = pattern(100'000, 1);
  const std::string answer = pattern(100'000, 2);
  ASSERT_TRUE(guest.send(question));
  guest.finish();
  EXPECT_EQ(host.receive_all(), question);
  ASSERT_TRUE(host.send(answer));
  host.finish();
  EXPECT_EQ(guest.receive_all(), answer);
}

// ---- Steering, in both families

class ReuseportGroup : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    try {
      for (int i = 0; i < 4; ++i) {
        const Endpoint where = group.empty() ? Endpoint(GetParam(), 0) : group.front().endpoint();
        group.emplace_back(where, kShared);
      }
    } catch (const std::system_error& error) {
      GTEST_SKIP() << "none of that family here: " << error.what();
    }
  }

  /// How many of 200 who call come to each of the listeners.
  std::vector<std::uint32_t> shares_of_200() {
    const std::vector<std::uint32_t> before = depths();
    for (Peer& peer : connect_peers(group.back().endpoint(), 200)) peers.push_back(std::move(peer));
    std::vector<std::uint32_t> shares = depths();
    for (std::size_t i = 0; i < shares.size(); ++i) shares[i] -= before[i];
    EXPECT_EQ(std::accumulate(shares.begin(), shares.end(), 0U), 200U);
    return shares;
  }

  std::deque<Listener> group;
  std::vector<Peer> peers;

 private:
  std::vector<std::uint32_t> depths() const {
    std::vector<std::uint32_t> depths;
    for (const Listener& listener : group) depths.push_back(listener.queue()->depth);
    return depths;
  }
};

INSTANTIATE_TEST_SUITE_P(Families, ReuseportGroup, testing::Values("127.0.0.1", "::1", "0.0.0.0", "::"),
                         [](const auto& family) {
                           const std::string ip = family.param;
                           return std::string(ip.size() > 3 ? "IPv4" : "IPv6") +
                                  (ip == "0.0.0.0" || ip == "::" ? "Any" : "Loopback");
                         });

TEST_P(ReuseportGroup, SendsAllToTheOneThatIsNamed) {
  using Shares = std::vector<std::uint32_t>;
  ASSERT_TRUE(steer_group(group[0].fd(), 2, 1));
  EXPECT_EQ(shares_of_200(), (Shares{0, 0, 200, 0})) << "numbered in the order of listen(2)";
  ASSERT_TRUE(steer_group(group[3].fd(), 0, 1)) << "by any of them";
  EXPECT_EQ(shares_of_200(), (Shares{200, 0, 0, 0}));
}

TEST_P(ReuseportGroup, SharesAmongThoseThatAreNamed) {
  ASSERT_TRUE(steer_group(group[0].fd(), 1, 2));
  const std::vector<std::uint32_t> shares = shares_of_200();
  EXPECT_EQ(shares[0], 0U);
  EXPECT_EQ(shares[3], 0U);
  // 100 on average with a deviation of 7: beyond this once in 10^8.
  EXPECT_GE(shares[1], 58U);
  EXPECT_GE(shares[2], 58U);
}

TEST_P(ReuseportGroup, SharesAmongAllWhenItIsSteeredNoMore) {
  ASSERT_TRUE(steer_group(group[0].fd(), 2, 1));
  ASSERT_TRUE(unsteer_group(group[1].fd()));
  for (const std::uint32_t share : shares_of_200()) EXPECT_GT(share, 0U);
  EXPECT_TRUE(unsteer_group(group[1].fd())) << "nobody steers it by now";
}

TEST_P(ReuseportGroup, SharesAmongAllWhenNoneOfThatNumberIsThere) {
  ASSERT_TRUE(steer_group(group[0].fd(), 17, 1));
  for (const std::uint32_t share : shares_of_200()) EXPECT_GT(share, 0U);
}

TEST_P(ReuseportGroup, GivesTheNumberOfTheOneThatHasLeftToTheLast) {
  ASSERT_TRUE(steer_group(group[0].fd(), 0, 1));
  group.pop_front();
  EXPECT_EQ(shares_of_200(), (std::vector<std::uint32_t>{0, 0, 200}));
}

TEST_P(ReuseportGroup, SteersThoseWhoJoinLater) {
  ASSERT_TRUE(steer_group(group[0].fd(), 4, 1));
  group.emplace_back(group[0].endpoint(), kShared);
  EXPECT_EQ(shares_of_200(), (std::vector<std::uint32_t>{0, 0, 0, 0, 200}));
}

TEST_P(ReuseportGroup, LosesNobodyWhenItsFirstAreClosed) {
  for (const std::size_t leaving : {0U, 1U, 2U, 3U}) {
    while (group.size() < 5) group.emplace_back(group.back().endpoint(), kShared);
    peers.clear();
    std::vector<Fd> first;
    for (std::size_t i = 0; i < leaving; ++i, group.pop_front()) {
      ASSERT_TRUE(refuse_syns(group.front().fd()));
      first.push_back(group.front().release());
    }
    close_first_of_group(first);
    for (const std::uint32_t share : shares_of_200())
      EXPECT_GT(share, 0U) << "they share as ever, without the " << leaving;
    // Those who are closed leave gaps in the order, so the next round begins anew.
    group.clear();
    group.emplace_back(Endpoint(GetParam(), 0), kShared);
  }
}

TEST(ReuseportGroupOfNone, IsNotSteered) {
  const Listener alone(kLoopback);
  const Listener local(Endpoint::unix_path("@reuseport-group-test"));
  const Fd event(::eventfd(0, EFD_CLOEXEC));
  for (const int fd : {alone.fd(), local.fd(), event.get(), -1}) {
    EXPECT_FALSE(steer_group(fd, 0, 1));
    EXPECT_FALSE(is_in_group(fd));
  }
  EXPECT_FALSE(unsteer_group(event.get()));
  EXPECT_FALSE(unsteer_group(-1));
  const Listener shared(kLoopback, kShared);
  EXPECT_TRUE(is_in_group(shared.fd()));
  EXPECT_FALSE(steer_group(shared.fd(), 0, 0)) << "to none of them";
}

// ---- SYNs

TEST(RefuseSyns, KeepsThoseWhoAreInAndSeesNoNewOnes) {
  const Listener listener(kLoopback);
  Peer early(listener.endpoint());
  ASSERT_TRUE(refuse_syns(listener.fd()));
  const Fd late = call(listener.endpoint());
  ASSERT_TRUE(eventually([&] { return listener.queue()->drops > 0; })) << "what is refused is counted";
  pollfd entry{.fd = late.get(), .events = POLLOUT, .revents = 0};
  EXPECT_EQ(::poll(&entry, 1, 20), 0) << "it still calls";
  EXPECT_EQ(listener.queue()->depth, 1U);
  Peer host(accept_one(listener));
  ASSERT_GE(host.fd(), 0);
  expect_to_talk(early, host);
}

TEST(RefuseSyns, LetsHandshakesComeToTheirEnd) {
  for (const char* ip : {"127.0.0.1", "::1"}) {
    std::optional<Listener> listener;
    try {
      // Its handshakes stay half open until the guest speaks.
      listener.emplace(Endpoint(ip, 0), ListenerOptions{.defer_accept = std::chrono::seconds(30)});
    } catch (const std::system_error&) {
      continue;  // no IPv6 here
    }
    Peer guest(listener->endpoint());
    ASSERT_EQ(listener->queue()->depth, 0U);
    ASSERT_TRUE(refuse_syns(listener->fd()));
    ASSERT_TRUE(guest.send("!"));
    Peer host(accept_one(*listener));  // it has the filter from its listener
    ASSERT_GE(host.fd(), 0) << ip;
    char byte = 0;
    ASSERT_EQ(::recv(host.fd(), &byte, 1, 0), 1);
    expect_to_talk(guest, host);
  }
}

TEST(RefuseSyns, SendsACallerToTheSiblingWhoIsLeft) {
  std::optional<Listener> leaving(std::in_place, kLoopback, kShared);
  const Listener sibling(leaving->endpoint(), kShared);
  ASSERT_TRUE(steer_group(leaving->fd(), 0, 1));  // lest the sibling gets the call in the first place
  ASSERT_TRUE(refuse_syns(leaving->fd()));
  Fd caller = call(sibling.endpoint());
  ASSERT_TRUE(eventually([&] { return leaving->queue()->drops > 0; }));
  leaving.reset();
  EXPECT_EQ(sibling.queue()->depth, 0U);
  ASSERT_TRUE(await_events(caller.get(), POLLOUT)) << "a second later, when it calls again";
  ASSERT_FALSE(take_socket_error(caller.get()));
  Peer host(accept_one(sibling));
  ASSERT_GE(host.fd(), 0);
  ASSERT_TRUE(host.send("welcome"));
  host.finish();
  Peer guest(std::move(caller));
  EXPECT_EQ(guest.receive_all(), "welcome");
}

TEST(RefuseSyns, OfWhatIsNoSocketIsFalse) {
  const Fd event(::eventfd(0, EFD_CLOEXEC));
  EXPECT_FALSE(refuse_syns(event.get()));
  EXPECT_FALSE(refuse_syns(-1));
}

}  // namespace
}  // namespace anteroom
