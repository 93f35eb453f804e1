// Unix stream sockets, from the one end to the other: what is different from TCP.
#include <anteroom/acceptor.h>
#include <anteroom/connector.h>
#include <anteroom/reactor.h>
#include <anteroom/retry.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "support/descriptors.h"
#include "support/own_network.h"
#include "support/peer.h"
#include "support/turns.h"

namespace anteroom {
namespace {

using namespace std::chrono_literals;
using namespace test;

/// Every test is done with a path in the file system, and with a name in the abstract namespace.
class UnixSocket : public testing::TestWithParam<bool> {
 protected:
  UnixSocket() {
    char folder[] = "/tmp/anteroom-unix-XXXXXX";
    if (::mkdtemp(folder) == nullptr) throw setup_error(last_error(), "mkdtemp", folder);
    folder_ = folder;
  }
  ~UnixSocket() override { std::filesystem::remove_all(folder_); }

  bool has_path() const { return GetParam(); }
  std::string path(const std::string& word = "door") const { return folder_ + '/' + word; }
  Endpoint door(const std::string& word = "door") const {
    if (has_path()) return Endpoint::unix_path(path(word));
    return Endpoint::unix_path("@anteroom-unix-" + std::to_string(::getpid()) + '-' + word);
  }
  bool turn_until(const std::function<bool()>& done) { return test::turn_until(reactor, done); }

  Reactor reactor;

 private:
  std::string folder_;
};

INSTANTIATE_TEST_SUITE_P(Of, UnixSocket, testing::Bool(),
                         [](const auto& test) { return std::string(test.param ? "APath" : "AName"); });

/// Sends `bytes` with a descriptor enclosed.
bool send_with_descriptor(int socket, std::string bytes, int descriptor) {
  iovec piece{.iov_base = bytes.data(), .iov_len = bytes.size()};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  msghdr message{};
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  cmsghdr* const enclosure = CMSG_FIRSTHDR(&message);
  enclosure->cmsg_level = SOL_SOCKET;
  enclosure->cmsg_type = SCM_RIGHTS;
  enclosure->cmsg_len = CMSG_LEN(sizeof(int));
  std::memcpy(CMSG_DATA(enclosure), &descriptor, sizeof(descriptor));
  return ::sendmsg(socket, &message, MSG_NOSIGNAL) == static_cast<ssize_t>(bytes.size());
}

TEST_P(UnixSocket, CarriesMegabytesThereAndBack) {
  const Acceptor acceptor(reactor, door(),
                          {.data = [](Connection& guest, std::string_view bytes) { guest.send(bytes); }});
  EXPECT_EQ(acceptor.endpoint(), door());
  const std::string speech = pattern(3 << 20);
  std::string heard;
  bool is_over = false;
  ConnectionHandlers handlers{.open =
                                  [&](Connection& caller) {
                                    EXPECT_EQ(caller.peer(), door());
                                    EXPECT_TRUE(caller.send(speech));
                                    caller.end_output();
                                  },
                              .data = [&](Connection&, std::string_view bytes) { heard += bytes; },
                              .closed =
                                  [&](Connection&, std::error_code error) {
                                    EXPECT_FALSE(error) << error.message();
                                    is_over = true;
                                  }};
  // It has to listen while it still speaks, or each of the two would wait for the other.
  Connector connector(reactor, std::move(handlers), {.high_watermark_bytes = 2 * speech.size()});
  ASSERT_FALSE(connector.connect(door()).error);
  ASSERT_TRUE(turn_until([&] { return is_over; }));
  EXPECT_TRUE(heard == speech);
}

TEST_P(UnixSocket, CallsFromTheAddressItIsTold) {
  std::vector<Endpoint> callers;
  const Acceptor acceptor(reactor, door(),
                          {.open = [&](Connection& guest) { callers.push_back(guest.peer()); }});
  Connector connector(reactor, {});
  ASSERT_FALSE(connector.connect(door(), {.source = door("caller")}).error);
  ASSERT_FALSE(connector.connect(door()).error);
  ASSERT_TRUE(turn_until([&] { return callers.size() == 2; }));
  EXPECT_EQ(callers[0], door("caller"));
  EXPECT_EQ(callers[1].family(), AF_UNIX);
  EXPECT_EQ(callers[1].path(), "") << "who is not bound has no name";
}

// connect(2) does not wait for room in the queue as it does with TCP: EAGAIN, and that was it.
TEST_P(UnixSocket, SaysToWhomTheQueueHasNoRoom) {
  constexpr std::size_t kRoom = 5;  // listen(4) has room for one more
  constexpr std::size_t kCallers = 20;
  std::size_t greeted = 0;
  const Acceptor acceptor(reactor, Listener(door(), {.backlog = kRoom - 1}),
                          {.open = [&](Connection&) { ++greeted; }});
  EXPECT_FALSE(acceptor.queue()) << "of these queues the kernel tells nothing";
  std::size_t open = 0;
  std::vector<std::error_code> refused;
  Connector connector(reactor, {.open = [&](Connection&) { ++open; },
                                .closed =
                                    [&](Connection& caller, std::error_code error) {
                                      EXPECT_FALSE(caller.was_open());
                                      refused.push_back(error);
                                    }});
  for (std::size_t i = 0; i < kCallers; ++i) ASSERT_FALSE(connector.connect(door()).error);
  ASSERT_TRUE(turn_until([&] { return open + refused.size() == kCallers && greeted == open; }));
  EXPECT_EQ(open, kRoom);
  for (const std::error_code& error : refused) {
    EXPECT_EQ(error, std::errc::resource_unavailable_try_again);
    EXPECT_TRUE(is_worth_a_retry(error));
  }
}

TEST_P(UnixSocket, LetsEverybodyInWhoTriesAgain) {
  constexpr std::size_t kCallers = 50;
  std::size_t greeted = 0;
  const Acceptor acceptor(reactor, Listener(door(), {.backlog = 4}),
                          {.open = [&](Connection&) { ++greeted; }});
  std::size_t open = 0;
  std::size_t waits = 0;
  std::vector<std::unique_ptr<Reconnector>> callers;
  for (std::size_t i = 0; i < kCallers; ++i) {
    ReconnectorOptions options{.retry = {.first_delay = 2ms, .delay_max = 50ms}, .seed = i};
    options.waiting = [&](std::error_code why, std::chrono::nanoseconds) {
      EXPECT_EQ(why, std::errc::resource_unavailable_try_again);
      ++waits;
    };
    callers.push_back(std::make_unique<Reconnector>(
        reactor, door(), ConnectionHandlers{.open = [&](Connection&) { ++open; }}, std::move(options)));
  }
  ASSERT_TRUE(turn_until([&] { return open == kCallers; }));
  EXPECT_GT(waits, 0U) << "nobody had to, so this was no test";
  ASSERT_TRUE(turn_until([&] { return greeted == kCallers; }));
}

TEST_P(UnixSocket, FindsAServerThatComesUpLater) {
  std::vector<std::error_code> reasons;
  ReconnectorOptions options{.retry = {.first_delay = 1ms, .delay_max = 4ms}};
  options.waiting = [&](std::error_code why, std::chrono::nanoseconds) { reasons.push_back(why); };
  const Reconnector caller(reactor, door(), {}, std::move(options));
  ASSERT_TRUE(turn_until([&] { return reasons.size() >= 2; }));
  for (const std::error_code& why : reasons)
    EXPECT_EQ(why, has_path() ? std::errc::no_such_file_or_directory : std::errc::connection_refused);
  const Acceptor acceptor(reactor, door(), {});
  ASSERT_TRUE(turn_until([&] { return caller.connection() != nullptr; }));
}

// A read stops at each of them, short, with more behind it.
TEST_P(UnixSocket, ReadsOnBehindPassedDescriptors) {
  std::string heard;
  bool is_over = false;
  const Acceptor acceptor(reactor, door(),
                          {.data = [&](Connection&, std::string_view bytes) { heard += bytes; },
                           .closed =
                               [&](Connection&, std::error_code error) {
                                 EXPECT_FALSE(error) << error.message();
                                 is_over = true;
                               }});
  Peer peer(door());
  const Fd enclosed(::dup(peer.fd()));
  std::string sent;
  for (int i = 0; i < 20; ++i) {
    ASSERT_TRUE(peer.send("<plain>"));
    ASSERT_TRUE(send_with_descriptor(peer.fd(), "<enclosed>", enclosed.get()));
    sent += "<plain><enclosed>";
  }
  ASSERT_TRUE(turn_until([&] { return heard == sent; })) << heard;
  ASSERT_TRUE(send_with_descriptor(peer.fd(), "<enclosed>", enclosed.get()));
  ASSERT_TRUE(peer.send("<last>"));
  peer.finish();
  ASSERT_TRUE(turn_until([&] { return is_over; }));
  EXPECT_EQ(heard, sent + "<enclosed><last>");
}

TEST_P(UnixSocket, TakesNoDescriptorsFromAnybody) {
  std::string heard;
  const Acceptor acceptor(reactor, door(),
                          {.data = [&](Connection&, std::string_view bytes) { heard += bytes; }});
  Peer peer(door());
  ASSERT_TRUE(peer.send("."));
  ASSERT_TRUE(turn_until([&] { return heard == "."; }));
  const int before = open_descriptors();
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(send_with_descriptor(peer.fd(), ".", peer.fd()));
  ASSERT_TRUE(turn_until([&] { return heard.size() == 11; }));
  EXPECT_EQ(open_descriptors(), before);
}

// A Unix socket closed with something unread resets its peer, as TCP does; what it had said before is there.
TEST_P(UnixSocket, IsHeardOutWhenItLeavesWithoutListening) {
  std::string heard;
  std::optional<std::error_code> end;
  const Acceptor acceptor(reactor, door(),
                          {.open = [](Connection& guest) { guest.send("who is there?"); },
                           .data = [&](Connection&, std::string_view bytes) { heard += bytes; },
                           .closed = [&](Connection&, std::error_code error) { end = error; }});
  {
    Peer peer(door());
    char unread = 0;
    ASSERT_TRUE(
        turn_until([&] { return ::recv(peer.fd(), &unread, sizeof(unread), MSG_PEEK | MSG_DONTWAIT) == 1; }));
    ASSERT_TRUE(peer.send("last words"));
  }
  ASSERT_TRUE(turn_until([&] { return end.has_value(); }));
  EXPECT_EQ(heard, "last words");
  EXPECT_EQ(*end, std::errc::connection_reset);
}

TEST_P(UnixSocket, StaysAtItsAddressWhenItsSuccessorIsThereInTheSameTurn) {
  std::optional<Acceptor> acceptor;
  bool is_replaced = false;
  int greeted = 0;
  const auto replace = [&](Connection&) {
    is_replaced = true;
    acceptor.reset();
    acceptor.emplace(reactor, door(), ConnectionHandlers{.open = [&](Connection&) { ++greeted; }});
  };
  acceptor.emplace(reactor, door(), ConnectionHandlers{.open = replace});
  const Peer first(door());
  ASSERT_TRUE(turn_until([&] { return is_replaced; }));
  turn_times(reactor, 3);
  EXPECT_EQ(std::filesystem::exists(path()), has_path());
  const Peer second(door());
  ASSERT_TRUE(turn_until([&] { return greeted == 1; }));
  acceptor.reset();
  EXPECT_FALSE(std::filesystem::exists(path()));
  EXPECT_THROW(Peer{door()}, std::system_error);
}

TEST_P(UnixSocket, IsReplacedWhenItsServerDied) {
  {
    // As a server that was killed leaves it: the descriptor closed, the path still there.
    const Fd dead(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const Endpoint at = door();
    ASSERT_EQ(::bind(dead.get(), at.data(), at.size()), 0);
    ASSERT_EQ(::listen(dead.get(), 1), 0);
    EXPECT_THROW(Acceptor(reactor, door(), {}), std::system_error) << "somebody listens there";
  }
  EXPECT_EQ(std::filesystem::exists(path()), has_path());
  bool is_in = false;
  const Acceptor acceptor(reactor, door(), {.open = [&](Connection&) { is_in = true; }});
  const Peer peer(door());
  ASSERT_TRUE(turn_until([&] { return is_in; }));
}

}  // namespace
}  // namespace anteroom
