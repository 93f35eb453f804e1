// Predecessor and successor, in two threads of one process or on plain sockets that play one of them.
#include <anteroom/acceptor.h>
#include <anteroom/handover.h>
#include <anteroom/reactor.h>
#include <anteroom/socket.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <functional>
#include <future>
#include <optional>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "support/depth.h"
#include "support/descriptors.h"
#include "support/own_network.h"
#include "support/peer.h"
#include "support/turns.h"

namespace anteroom {
namespace {

using namespace std::chrono_literals;
using namespace test;

/// A directory for sockets, gone with the test.
class Folder {
 public:
  Folder() : name_(testing::TempDir() + "handoverXXXXXX") {
    if (::mkdtemp(name_.data()) == nullptr) throw setup_error(last_error(), "mkdtemp", name_);
  }
  ~Folder() {
    ::unlink(path().c_str());
    ::rmdir(name_.c_str());
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  std::string path() const { return name_ + "/path"; }

 private:
  std::string name_;
};

/// Plays one side without the library.
class Stranger {
 public:
  Stranger() : socket_(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0)) {}
  explicit Stranger(Fd socket) : socket_(std::move(socket)) {}

  int call(const std::string& path) const {
    const Endpoint to = Endpoint::unix_path(path);
    return ::connect(socket_.get(), to.data(), to.size()) == 0 ? 0 : errno;
  }
  void listen(const std::string& path) const {
    const Endpoint at = Endpoint::unix_path(path);
    ASSERT_EQ(::bind(socket_.get(), at.data(), at.size()), 0);
    ASSERT_EQ(::listen(socket_.get(), 8), 0);
  }
  /// Whoever calls next, once he has.
  Stranger answer() const {
    EXPECT_TRUE(await_events(socket_.get(), POLLIN));
    return Stranger(Fd(::accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC)));
  }
  void say(std::string_view text, const std::vector<int>& descriptors = {}) const {
    iovec bytes{.iov_base = const_cast<char*>(text.data()), .iov_len = text.size()};
    alignas(cmsghdr) std::array<char, CMSG_SPACE(16 * sizeof(int))> control{};
    msghdr message{};
    message.msg_iov = &bytes;
    message.msg_iovlen = 1;
    if (!descriptors.empty()) {
      message.msg_control = control.data();
      message.msg_controllen = CMSG_SPACE(descriptors.size() * sizeof(int));
      cmsghdr* const header = CMSG_FIRSTHDR(&message);
      header->cmsg_level = SOL_SOCKET;
      header->cmsg_type = SCM_RIGHTS;
      header->cmsg_len = CMSG_LEN(descriptors.size() * sizeof(int));
      std::memcpy(CMSG_DATA(header), descriptors.data(), descriptors.size() * sizeof(int));
    }
    EXPECT_EQ(::sendmsg(socket_.get(), &message, MSG_NOSIGNAL), static_cast<ssize_t>(text.size()));
  }
  std::string hear() const {
    std::array<char, 256> text{};
    const ssize_t count = ::recv(socket_.get(), text.data(), text.size(), MSG_DONTWAIT);
    return {text.data(), count > 0 ? static_cast<std::size_t>(count) : 0};
  }
  int fd() const { return socket_.get(); }
  void hang_up() { socket_.reset(); }

 private:
  Fd socket_;
};

/// A process that offers its listeners, but for the process.
class AnOffer : public testing::Test {
 protected:
  void open(const HandoverOptions& options = {}) {
    offer.emplace(reactor, folder.path(), handlers(), options);
  }

  HandoverHandlers handlers() {
    return {.listeners =
                [this] {
                  EXPECT_EQ(depth.depth(), 0);
                  return offered;
                },
            .handed_over = depth.guard([this] { ++handed_over; }),
            .failed = depth.guard([this](std::error_code why) { failures.push_back(why); })};
  }

  /// Runs `work`, which blocks, while the predecessor turns.
  template <class Work>
  auto while_turning(Work work) {
    auto result = std::async(std::launch::async, std::move(work));
    EXPECT_TRUE(turn_until(reactor, [&] { return result.wait_for(0s) == std::future_status::ready; }));
    return result.get();
  }
  std::optional<Handover> take() {
    return while_turning([this] { return Handover::take(folder.path(), kPatience); });
  }
  std::error_code ready(Handover& handover) {
    return while_turning([&] { return handover.ready(); });
  }
  /// What take() throws; no error if it does not.
  std::error_code why_not(std::chrono::milliseconds timeout = kPatience) {
    return while_turning([this, timeout]() -> std::error_code {
      try {
        (void)Handover::take(folder.path(), timeout);
        return {};
      } catch (const std::system_error& error) {
        return error.code();
      }
    });
  }
  bool has_failed(std::size_t times = 1) {
    return turn_until(reactor, [&] { return failures.size() == times; });
  }

  const Folder folder;
  Reactor reactor;
  std::vector<OfferedListener> offered;
  int handed_over = 0;
  std::vector<std::error_code> failures;
  Depth depth;
  std::optional<HandoverOffer> offer;
};

using ASuccessor = AnOffer;

TEST_F(AnOffer, GivesItsListenersUnderTheirNames) {
  const Listener web(kLoopback);
  const Listener admin(kLoopback);
  offered = {{"web", web.fd()}, {"admin", admin.fd()}, {"", web.fd()}};
  open();
  const std::optional<Handover> handover = take();
  ASSERT_TRUE(handover);
  ASSERT_EQ(handover->listeners.size(), 3U);
  EXPECT_EQ(handover->listeners[0].name, "web");
  EXPECT_EQ(handover->listeners[0].listener.endpoint(), web.endpoint());
  EXPECT_EQ(handover->listeners[1].name, "admin");
  EXPECT_EQ(handover->listeners[1].listener.endpoint(), admin.endpoint());
  EXPECT_EQ(handover->listeners[2].name, "");
  for (const NamedListener& each : handover->listeners)
    EXPECT_NE(::fcntl(each.listener.fd(), F_GETFD) & FD_CLOEXEC, 0);
}

TEST_F(AnOffer, IsOverWhenTheSuccessorIsReadyAndNotBefore) {
  open();
  std::optional<Handover> handover = take();
  ASSERT_TRUE(handover);
  turn_times(reactor, 5);
  EXPECT_EQ(handed_over, 0);
  EXPECT_TRUE(offer->is_taken());
  EXPECT_FALSE(ready(*handover));
  EXPECT_TRUE(turn_until(reactor, [&] { return handed_over == 1; }));
  EXPECT_FALSE(offer->is_taken());
  handover.reset();
  turn_times(reactor, 5);
  EXPECT_EQ(handed_over, 1);
  EXPECT_TRUE(failures.empty());
}

TEST_F(AnOffer, GivesMoreListenersThanAMessageHolds) {
  const Listener one(kLoopback);
  for (int i = 0; i < 2 * 253; ++i) offered.push_back({std::string(40, 'n') + std::to_string(i), one.fd()});
  const int before = open_descriptors();
  open();
  {
    const std::optional<Handover> handover = take();
    ASSERT_TRUE(handover);
    ASSERT_EQ(handover->listeners.size(), offered.size());
    for (std::size_t i = 0; i < offered.size(); ++i) EXPECT_EQ(handover->listeners[i].name, offered[i].name);
  }
  EXPECT_TRUE(has_failed());
  offer.reset();
  EXPECT_EQ(open_descriptors(), before);
}

TEST_F(AnOffer, IsAsBeforeWhenASuccessorEndsBeforeItIsReady) {
  const Listener web(kLoopback);
  offered = {{"web", web.fd()}};
  open();
  for (std::size_t times = 1; times <= 3; ++times) {
    EXPECT_TRUE(take());
    ASSERT_TRUE(has_failed(times));
    EXPECT_EQ(failures.back(), std::errc::connection_aborted);
    EXPECT_FALSE(offer->is_taken());
  }
  EXPECT_EQ(handed_over, 0);
  std::optional<Handover> handover = take();
  EXPECT_FALSE(ready(*handover));
  EXPECT_EQ(handed_over, 1);
}

TEST_F(AnOffer, IsAsBeforeWhenASuccessorHangs) {
  open({.deadline = 20ms});
  std::optional<Handover> handover = take();
  ASSERT_TRUE(handover);
  ASSERT_TRUE(has_failed());
  EXPECT_EQ(failures.back(), std::errc::timed_out);
  EXPECT_EQ(ready(*handover), std::errc::operation_canceled) << "and it is told so";
  EXPECT_EQ(handed_over, 0);
  EXPECT_TRUE(take());
}

TEST_F(AnOffer, WaitsForASuccessorAsLongAsItMay) {
  open({.deadline = std::chrono::milliseconds::max()});
  std::optional<Handover> handover =
      while_turning([this] { return Handover::take(folder.path(), std::chrono::milliseconds::max()); });
  ASSERT_TRUE(handover);
  turn_times(reactor, 5);
  EXPECT_TRUE(failures.empty());
  EXPECT_FALSE(ready(*handover));
  EXPECT_EQ(handed_over, 1);
}

TEST_F(AnOffer, HearsASuccessorThatWasReadyInTimeEvenIfItComesToThatLate) {
  open({.deadline = 1ms});
  const Stranger successor;
  ASSERT_EQ(successor.call(folder.path()), 0);
  reactor.turn(0ms);
  ASSERT_TRUE(offer->is_taken());
  successor.say("ready");
  std::this_thread::sleep_for(5ms);  // past the deadline: the time itself is what is meant
  EXPECT_TRUE(turn_until(reactor, [&] { return handed_over == 1; }));
  EXPECT_TRUE(failures.empty());
}

TEST_F(AnOffer, IsAsBeforeWhenASuccessorIsReadyAndDiesAtOnce) {
  open();
  Stranger successor;
  ASSERT_EQ(successor.call(folder.path()), 0);
  ASSERT_TRUE(turn_until(reactor, [&] { return offer->is_taken(); }));
  successor.say("ready");
  successor.hang_up();
  ASSERT_TRUE(has_failed());
  EXPECT_EQ(failures.back(), std::errc::connection_aborted);
  EXPECT_EQ(handed_over, 0);
}

TEST_F(AnOffer, IsAsBeforeWhenSomebodyTalksNonsense) {
  open();
  std::size_t times = 0;
  for (const std::string& nonsense : {std::string("read"), std::string("ready\n"),
                                      std::string("GET / HTTP/1.1\r\n\r\n"), std::string(60'000, 'x')}) {
    const Stranger somebody;
    ASSERT_EQ(somebody.call(folder.path()), 0);
    somebody.say(nonsense);
    ASSERT_TRUE(has_failed(++times)) << nonsense;
    EXPECT_EQ(failures.back(), std::errc::bad_message);
  }
  const Stranger somebody;
  ASSERT_EQ(somebody.call(folder.path()), 0);
  ASSERT_TRUE(turn_until(reactor, [&] { return offer->is_taken(); }));
  somebody.say("ready");
  somebody.say("ready");
  ASSERT_TRUE(has_failed(++times));
  EXPECT_EQ(handed_over, 0);
}

// What it was sent, it was sent: nobody reads descriptors here, so the kernel closes them.
TEST_F(AnOffer, KeepsNoDescriptorsThatItIsSent) {
  open();
  const int before = open_descriptors();
  {
    const Stranger somebody;
    ASSERT_EQ(somebody.call(folder.path()), 0);
    somebody.say("ready", {0, 1, 2});
    ASSERT_TRUE(turn_until(reactor, [&] { return handed_over == 1; }));
  }
  reactor.turn(0ms);
  EXPECT_EQ(open_descriptors(), before - 1) << "its own is closed";
}

TEST_F(AnOffer, IsMadeToOneAtATime) {
  open();
  Stranger first;
  const Stranger second;
  ASSERT_EQ(first.call(folder.path()), 0);
  ASSERT_EQ(second.call(folder.path()), 0);
  ASSERT_TRUE(turn_until(reactor, [&] { return offer->is_taken(); }));
  turn_times(reactor, 5);
  EXPECT_NE(first.hear(), "");
  EXPECT_EQ(second.hear(), "");
  first.hang_up();
  ASSERT_TRUE(has_failed());
  EXPECT_TRUE(turn_until(reactor, [&] { return !second.hear().empty(); }));
  second.say("ready");
  EXPECT_TRUE(turn_until(reactor, [&] { return handed_over == 1; }));
}

/// As long as it lives, this process may have as many descriptors as it may allow itself.
class ManyDescriptors {
 public:
  ManyDescriptors() {
    ::getrlimit(RLIMIT_NOFILE, &before_);
    const rlimit most{.rlim_cur = before_.rlim_max, .rlim_max = before_.rlim_max};
    ::setrlimit(RLIMIT_NOFILE, &most);
  }
  ~ManyDescriptors() { ::setrlimit(RLIMIT_NOFILE, &before_); }
  ManyDescriptors(const ManyDescriptors&) = delete;
  ManyDescriptors& operator=(const ManyDescriptors&) = delete;
  rlim_t count() const { return before_.rlim_max; }

 private:
  rlimit before_{};
};

TEST_F(AnOffer, GivesAsManyListenersAsItSaysAndNoMore) {
  constexpr std::size_t kMost = 4096;
  const ManyDescriptors descriptors;
  if (descriptors.count() < kMost + 100) GTEST_SKIP() << "nobody here may have so many descriptors";
  const Listener web(kLoopback);
  offered.assign(kMost, {"web", web.fd()});
  open();
  {
    const std::optional<Handover> handover = take();
    ASSERT_TRUE(handover);
    EXPECT_EQ(handover->listeners.size(), kMost);
  }
  ASSERT_TRUE(has_failed());
  offered.push_back(offered.back());
  EXPECT_EQ(why_not(), std::errc::operation_canceled);
  ASSERT_TRUE(has_failed(2));
  EXPECT_EQ(failures.back(), std::errc::argument_list_too_long);
}

TEST_F(AnOffer, OfWhatIsNoDescriptorFails) {
  offered = {{"web", -1}};
  open();
  EXPECT_EQ(why_not(), std::errc::operation_canceled);
  ASSERT_EQ(failures.size(), 1U);
  EXPECT_EQ(failures.back(), std::errc::bad_file_descriptor);
  offered = {{std::string(300, 'n'), 0}};
  EXPECT_EQ(why_not(), std::errc::operation_canceled);
  ASSERT_TRUE(has_failed(2));
  EXPECT_EQ(failures.back(), std::errc::invalid_argument);
  EXPECT_FALSE(offer->is_taken());
}

TEST_F(AnOffer, WaitsForADescriptorAndKeepsTheCaller) {
  open();
  const Stranger successor;
  ASSERT_EQ(successor.call(folder.path()), 0);
  {
    const std::string name = "@anteroom-another-" + std::to_string(::getpid());
    std::optional<HandoverOffer> another(std::in_place, reactor, name, handlers());
    const DescriptorLimit limit(0);
    ASSERT_TRUE(has_failed());
    EXPECT_EQ(failures.back(), std::errc::too_many_files_open);
    EXPECT_FALSE(offer->is_taken());
    another.reset();
    EXPECT_TRUE(turn_until(reactor, [&] { return offer->is_taken(); }));
  }
  successor.say("ready");
  EXPECT_TRUE(turn_until(reactor, [&] { return handed_over == 1; }));
}

TEST_F(AnOffer, MayBeDestroyedInItsOwnHandlers) {
  HandoverHandlers ending = handlers();
  ending.listeners = [&] { return offer.reset(), offered; };
  offer.emplace(reactor, folder.path(), ending);
  {
    const Stranger caller;
    ASSERT_EQ(caller.call(folder.path()), 0);
    ASSERT_TRUE(turn_until(reactor, [&] { return !offer; }));
  }
  ending = handlers();
  ending.failed = [&](std::error_code) { offer.reset(); };
  offer.emplace(reactor, folder.path(), ending);
  {
    const Stranger caller;
    ASSERT_EQ(caller.call(folder.path()), 0);
    caller.say("nonsense");
    ASSERT_TRUE(turn_until(reactor, [&] { return !offer; }));
  }
  ending = handlers();
  ending.handed_over = [&] { offer.reset(), ++handed_over; };
  offer.emplace(reactor, folder.path(), ending);
  const Stranger caller;
  ASSERT_EQ(caller.call(folder.path()), 0);
  caller.say("ready");
  ASSERT_TRUE(turn_until(reactor, [&] { return !offer; }));
  EXPECT_EQ(handed_over, 1);
}

// ---- Many who call and are no successors

/// What is told of failures, with the number of those that are not told by themselves.
class AFloodedOffer : public AnOffer {
 protected:
  void open() {
    HandoverHandlers all = handlers();
    all.failed = depth.guard([this](const HandoverFailure& failure) {
      reports.push_back(failure);
      times.push_back(Reactor::Clock::now());
    });
    offer.emplace(reactor, name, std::move(all));
  }
  std::uint64_t reported() const {
    std::uint64_t sum = 0;
    for (const HandoverFailure& report : reports) sum += 1 + report.suppressed;
    return sum;
  }
  bool all_are_reported(std::uint64_t count) {
    return turn_until(reactor, [&] { return reported() == count; });
  }
  void expect_once_a_second() const {
    for (std::size_t i = 1; i < times.size(); ++i) EXPECT_GE(times[i] - times[i - 1], 1s);
  }
  /// Each is through before the next one calls.
  void flood(int count, const std::function<void(Stranger&)>& speak) {
    for (int i = 0; i < count; ++i) {
      Stranger caller;
      ASSERT_EQ(caller.call(name), 0);
      speak(caller);
      turn_times(reactor, 2);
      caller.hang_up();
      turn_times(reactor, 2);
    }
  }

  const std::string name = "@anteroom-flooded-" + std::to_string(::getpid());
  std::vector<HandoverFailure> reports;
  std::vector<Reactor::Clock::time_point> times;
};

TEST_F(AFloodedOffer, TellsOfThoseWhoCallAndHangUpOnceASecondWithTheirNumber) {
  open();
  flood(300, [](Stranger& caller) { caller.hang_up(); });
  ASSERT_TRUE(all_are_reported(300));
  expect_once_a_second();
  EXPECT_EQ(reports.front().suppressed, 0U) << "the first is told at once";
  EXPECT_LE(reports.size(), 3U);
  for (const HandoverFailure& report : reports) EXPECT_EQ(report.why, std::errc::connection_aborted);
}

TEST_F(AFloodedOffer, TellsOfThoseWhoTalkNonsenseOnceASecondWithTheirNumber) {
  open();
  flood(300, [](Stranger& caller) { caller.say("GET / HTTP/1.1"); });
  ASSERT_TRUE(all_are_reported(300));
  expect_once_a_second();
  EXPECT_LE(reports.size(), 3U);
  for (const HandoverFailure& report : reports) EXPECT_EQ(report.why, std::errc::bad_message);
}

TEST_F(AFloodedOffer, TellsOfTheNextOneAtOnceWhenItHasBeenQuiet) {
  open();
  flood(1, [](Stranger&) {});
  ASSERT_TRUE(all_are_reported(1));
  const auto quiet = Reactor::Clock::now() + 1s + 20ms;  // the time itself is what is meant
  ASSERT_TRUE(turn_until(reactor, [&] { return Reactor::Clock::now() > quiet; }));
  flood(1, [](Stranger&) {});
  reactor.turn(0ms);
  reactor.turn(0ms);
  EXPECT_EQ(reports.size(), 2U);
}

/// No thread may be there: it forks. Another user called 3,700 times in half a second, each of which was a
/// line in the log.
TEST_F(AFloodedOffer, TellsOfAnotherUserOnceASecondAndRatherOfASuccessor) {
  constexpr std::uint64_t kCalls = 500;
  open();
  const pid_t child = ::fork();
  if (child == 0) {
    if (::setresuid(65534, 65534, 65534) != 0) ::_exit(2);
    for (std::uint64_t i = 0; i < kCalls; ++i) {
      const Stranger caller;
      if (caller.call(name) != 0) ::_exit(3);
    }
    ::_exit(0);
  }
  int status = 0;
  ASSERT_TRUE(turn_until(reactor, [&] { return ::waitpid(child, &status, WNOHANG) == child; }));
  if (WEXITSTATUS(status) == 2) GTEST_SKIP() << "nobody here may become another user";
  ASSERT_EQ(status, 0);
  flood(1, [](Stranger&) {});  // one of ours
  ASSERT_TRUE(all_are_reported(kCalls + 1));
  expect_once_a_second();
  EXPECT_EQ(reports.front().why, std::errc::permission_denied);
  EXPECT_EQ(reports.back().why, std::errc::connection_aborted) << "it is not hidden behind the others";
}

TEST_F(AFloodedOffer, GivesItsListenersToASuccessorThatCallsInBetween) {
  const Listener web(kLoopback);
  offered = {{"web", web.fd()}};
  open();
  std::atomic<bool> is_enough{false};
  std::vector<std::jthread> callers;
  for (const bool speaks : {false, false, true}) {
    callers.emplace_back([&, speaks] {
      while (!is_enough) {
        const Stranger caller;
        if (caller.call(name) == 0 && speaks) (void)::send(caller.fd(), "nonsense", 8, MSG_NOSIGNAL);
      }
    });
  }
  ASSERT_TRUE(turn_until(reactor, [&] { return !reports.empty(); }));
  std::optional<Handover> handover = while_turning([this] { return Handover::take(name, kPatience); });
  ASSERT_TRUE(handover);
  EXPECT_FALSE(ready(*handover));
  EXPECT_EQ(handed_over, 1);
  is_enough = true;
  offer.reset();
}

TEST_F(AFloodedOffer, MayBeDestroyedWhenItTellsOfMany) {
  HandoverHandlers all = handlers();
  int calls = 0;
  all.failed = [&](const HandoverFailure& failure) {
    ++calls;
    if (failure.suppressed > 0) offer.reset();
  };
  offer.emplace(reactor, name, std::move(all));
  flood(10, [](Stranger&) {});
  ASSERT_TRUE(turn_until(reactor, [&] { return !offer; }));
  EXPECT_EQ(calls, 2);
}

// ---- What cannot be

TEST_F(AnOffer, WithoutWhatItNeedsSaysSo) {
  const auto error_of = [this](HandoverHandlers some,
                               const HandoverOptions& options = {}) -> std::error_code {
    try {
      const HandoverOffer made(reactor, folder.path(), std::move(some), options);
      return {};
    } catch (const std::system_error& error) {
      return error.code();
    }
  };
  HandoverHandlers some = handlers();
  some.listeners = nullptr;
  EXPECT_EQ(error_of(some), std::errc::invalid_argument);
  some = handlers();
  some.handed_over = nullptr;
  EXPECT_EQ(error_of(some), std::errc::invalid_argument);
  EXPECT_EQ(error_of(handlers(), {.deadline = -1ms}), std::errc::invalid_argument);
  struct stat file {};
  EXPECT_NE(::lstat(folder.path().c_str(), &file), 0) << "and leaves no path";
  some = handlers();
  some.failed = nullptr;
  EXPECT_FALSE(error_of(some)) << "that one may be left out";
}

TEST_F(ASuccessor, SaysThatItCannotWaitForLessThanNothing) {
  EXPECT_EQ(why_not(-1ms), std::errc::invalid_argument);
}

TEST_F(AnOffer, AtThePathOfAPredecessorIsMadeOnce) {
  open();
  std::optional<Handover> handover = take();
  ASSERT_TRUE(handover);
  EXPECT_FALSE(ready(*handover));
  HandoverHandlers some = handlers();
  some.listeners = nullptr;
  EXPECT_THROW(HandoverOffer(reactor, *handover, some), std::system_error);
  const HandoverOffer next(reactor, *handover, handlers());  // the path was not lost by that
  EXPECT_THROW(HandoverOffer(reactor, *handover, handlers()), std::system_error);
}

// ---- The path

mode_t mode_of(const std::string& path) {
  struct stat file {};
  return ::lstat(path.c_str(), &file) == 0 ? file.st_mode & 07777 : 0;
}

TEST_F(AnOffer, IsAtAPathOfItsUserAlone) {
  const mode_t before = ::umask(0);
  open();
  ::umask(before);
  EXPECT_EQ(mode_of(folder.path()), 0600U);
}

TEST_F(AnOffer, ReplacesADeadPathAndNoOther) {
  open();
  EXPECT_THROW(HandoverOffer(reactor, folder.path(), handlers()), std::system_error) << "it lives";
  EXPECT_TRUE(take());
  ASSERT_TRUE(has_failed());
  offer.reset();
  EXPECT_NE(mode_of(folder.path()), 0U) << "it stays, for nobody can know whose it is";
  open();
  EXPECT_TRUE(take());
  offer.reset();
  ::unlink(folder.path().c_str());
  std::ofstream(folder.path()) << "a letter";
  EXPECT_THROW(open(), std::system_error);
  EXPECT_NE(mode_of(folder.path()), 0U);
}

TEST_F(AnOffer, MayBeMadeAtAnAbstractName) {
  const std::string name = "@anteroom-handover-" + std::to_string(::getpid());
  offer.emplace(reactor, name, handlers());
  const auto take_there = [&] { return Handover::take(name, kPatience); };
  EXPECT_TRUE(while_turning(take_there));
  offer.reset();
  EXPECT_FALSE(while_turning(take_there));
}

/// No thread may be there: it forks.
TEST_F(AnOffer, IsNotForAnotherUser) {
  const std::string name = "@anteroom-handover-" + std::to_string(::getpid());
  offer.emplace(reactor, name, handlers());
  const pid_t child = ::fork();
  if (child == 0) {
    if (::setresuid(65534, 65534, 65534) != 0) ::_exit(2);
    try {
      (void)Handover::take(name, kPatience);
      ::_exit(1);
    } catch (const std::system_error& error) {
      ::_exit(error.code() == std::errc::operation_canceled ? 0 : 3);
    }
  }
  int status = 0;
  ASSERT_TRUE(turn_until(reactor, [&] { return ::waitpid(child, &status, WNOHANG) == child; }));
  if (WEXITSTATUS(status) == 2) GTEST_SKIP() << "nobody here may become another user";
  EXPECT_EQ(status, 0);
  EXPECT_EQ(failures, std::vector{std::make_error_code(std::errc::permission_denied)});
}

TEST_F(AnOffer, GoesOnAtThePathOfThePredecessor) {
  open();
  std::optional<Handover> handover = take();
  ASSERT_TRUE(handover);
  EXPECT_FALSE(ready(*handover));
  offer.reset();
  const Stranger third;
  ASSERT_EQ(third.call(folder.path()), 0) << "there is no moment without the path";
  HandoverOffer next(reactor, *handover, handlers());
  ASSERT_TRUE(turn_until(reactor, [&] { return next.is_taken(); }));
  third.say("ready");
  EXPECT_TRUE(turn_until(reactor, [&] { return handed_over == 2; }));
}

TEST_F(AnOffer, IsNotAcceptedByAHandoverThatWasMovedFrom) {
  const Listener web(kLoopback);
  offered = {{"web", web.fd()}};
  open();
  std::optional<Handover> handover = take();
  ASSERT_TRUE(handover);
  Handover moved(std::move(*handover));
  // NOLINTBEGIN(bugprone-use-after-move): that it is empty is what we ask
  EXPECT_TRUE(handover->listeners.empty());
  EXPECT_EQ(ready(*handover), std::errc::not_connected) << "the predecessor goes on";
  EXPECT_THROW(HandoverOffer(reactor, *handover, handlers()), std::system_error);
  // NOLINTEND(bugprone-use-after-move)
  EXPECT_EQ(handed_over, 0);
  ASSERT_EQ(moved.listeners.size(), 1U);
  EXPECT_FALSE(ready(moved));
  EXPECT_FALSE(ready(moved)) << "said once, and true still";
  EXPECT_TRUE(turn_until(reactor, [&] { return handed_over == 1; }));
}

// ---- The successor

TEST_F(ASuccessor, IsNothingWhereNobodyListens) {
  EXPECT_FALSE(take());
  {
    const Stranger dead;
    dead.listen(folder.path());
  }
  EXPECT_FALSE(take());
}

TEST_F(ASuccessor, ThrowsWhenThePredecessorSaysNothing) {
  const Stranger predecessor;
  predecessor.listen(folder.path());
  EXPECT_EQ(why_not(30ms), std::errc::timed_out);
}

TEST_F(ASuccessor, ThrowsWhenItIsNotEvenItsTurn) {
  const Stranger predecessor;
  predecessor.listen(folder.path());
  ASSERT_EQ(::listen(predecessor.fd(), 0), 0);
  const Stranger before_us;
  ASSERT_EQ(before_us.call(folder.path()), 0);
  EXPECT_EQ(why_not(30ms), std::errc::timed_out);
}

TEST_F(ASuccessor, ThrowsWhereSomethingElseListens) {
  const Listener other(Endpoint::unix_path(folder.path()));
  EXPECT_EQ(why_not(), std::errc::wrong_protocol_type);
}

TEST_F(ASuccessor, ThrowsWhenThePredecessorTalksNonsense) {
  const Stranger predecessor;
  predecessor.listen(folder.path());
  const Listener listener(kLoopback);
  const int one = listener.fd();
  const int before = open_descriptors();
  struct Nonsense {
    std::string text;
    std::vector<int> descriptors;
  };
  const std::vector<Nonsense> all = {{"hello", {}},
                                     {"hello", {one, one}},
                                     {"anteroom 1 0\n", {}},
                                     {"anteroom 1 0\n", {one}},
                                     {"anteroom 1 0", {one}},
                                     {"anteroom 1 ", {one}},
                                     {"anteroom 1 x\nweb\0", {one}},
                                     {"anteroom 1 -1\nweb\0", {one}},
                                     {"anteroom 1 9999999\nweb\0", {one}},
                                     {"anteroom 2 0\nweb\0", {one}},
                                     {std::string("anteroom 1 0\nweb\0web\0", 21), {one}},
                                     {std::string("anteroom 1 0\nweb\0", 17), {one, one}},
                                     {std::string("anteroom 1 0\nweb\0x", 18), {one}},
                                     {std::string("anteroom 1 0\n") + std::string(70'000, 'x'), {one}},
                                     {std::string("anteroom 1 0\n") + std::string(70'000, '\0'), {one}}};
  for (const Nonsense& nonsense : all) {
    auto result = std::async(std::launch::async, [&]() -> std::error_code {
      try {
        (void)Handover::take(folder.path(), kPatience);
        return {};
      } catch (const std::system_error& error) {
        return error.code();
      }
    });
    predecessor.answer().say(nonsense.text, nonsense.descriptors);
    EXPECT_EQ(result.get(), std::errc::bad_message) << nonsense.text.substr(0, 40);
  }
  EXPECT_EQ(open_descriptors(), before);
}

TEST_F(ASuccessor, ThrowsWhenThePredecessorEndsInBetween) {
  const Stranger predecessor;
  predecessor.listen(folder.path());
  const Listener listener(kLoopback);
  const int before = open_descriptors();
  auto result = std::async(std::launch::async, [&] { return Handover::take(folder.path(), kPatience); });
  predecessor.answer().say(std::string("anteroom 1 1\n\0", 14), {listener.fd()});
  EXPECT_THROW(result.get(), std::system_error);
  EXPECT_EQ(open_descriptors(), before);
}

TEST_F(ASuccessor, ThrowsForWhatDoesNotListen) {
  const Listener web(kLoopback);
  const Fd odd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  offered = {{"web", web.fd()}, {"odd", odd.get()}};
  open();
  const int before = open_descriptors();
  EXPECT_EQ(why_not(), std::errc::invalid_argument);
  ASSERT_TRUE(has_failed());
  reactor.turn(0ms);
  EXPECT_EQ(open_descriptors(), before);
  EXPECT_EQ(failures.back(), std::errc::connection_aborted);
}

TEST_F(ASuccessor, ThrowsWhenItMayNotHaveSoManyDescriptors) {
  const Listener web(kLoopback);
  offered.assign(20, {"web", web.fd()});
  open();
  const int before = open_descriptors();
  {
    const DescriptorLimit limit(10);  // of both, here: each takes one for their conversation
    EXPECT_EQ(why_not(), std::errc::too_many_files_open);
  }
  ASSERT_TRUE(has_failed());
  reactor.turn(0ms);
  EXPECT_EQ(open_descriptors(), before);
}

TEST_F(ASuccessor, TakesItThatAPredecessorThatHasEndedLetsGo) {
  open();
  std::optional<Handover> handover = take();
  offer.reset();
  EXPECT_FALSE(ready(*handover));
}

TEST_F(ASuccessor, MayAskABusyPredecessorAgain) {
  open();
  std::optional<Handover> handover = while_turning([this] { return Handover::take(folder.path(), 1s); });
  ASSERT_TRUE(handover);
  EXPECT_EQ(handover->ready(), std::errc::timed_out) << "nobody turns";
  EXPECT_FALSE(ready(*handover)) << "said once, it is waited for again";
  EXPECT_EQ(handed_over, 1);
}

// ---- Its purpose

ConnectionHandlers greeting(const std::string& words) {
  return {.open = [words](Connection& guest) {
    guest.send(words);
    guest.close();
  }};
}

TEST_F(AnOffer, LosesNobodyWhoWaitsInTheQueue) {
  Reactor theirs;
  std::optional<Acceptor> old_door(std::in_place, reactor, kLoopback, greeting("old"));
  const Endpoint address = old_door->endpoint();
  std::size_t cut = 99;
  HandoverHandlers leaving = handlers();
  leaving.handed_over = [&] {
    old_door->drain({.handed_over = true}, [&](std::size_t count) { cut = count; });
  };
  offered = {{"web", old_door->fd()}};
  offer.emplace(reactor, folder.path(), leaving);
  std::optional<Handover> handover = take();
  ASSERT_TRUE(handover);
  std::vector<Peer> peers = connect_peers(address, 20);
  const Acceptor new_door(theirs, std::move(handover->listeners.at(0).listener), greeting("new"));
  EXPECT_FALSE(ready(*handover));
  ASSERT_TRUE(turn_until(reactor, [&] { return cut == 0; }));
  old_door.reset();
  offer.reset();
  std::vector<Peer> later = connect_peers(address, 20);
  std::move(later.begin(), later.end(), std::back_inserter(peers));
  ASSERT_TRUE(turn_until(
      theirs, [&] { return std::ranges::all_of(peers, [](Peer& peer) { return peer.drain(); }); }));
  for (const Peer& peer : peers) EXPECT_TRUE(peer.received() == "old" || peer.received() == "new");
  for (std::size_t i = 20; i < peers.size(); ++i) EXPECT_EQ(peers[i].received(), "new");
}

TEST_F(AnOffer, LeavesTheUnixPathOfAListenerToTheSuccessor) {
  Reactor theirs;
  const Folder other;
  const Endpoint address = Endpoint::unix_path(other.path());
  std::optional<Acceptor> old_door(std::in_place, reactor, address, greeting("old"));
  offered = {{"web", old_door->fd()}};
  open();
  std::optional<Handover> handover = take();
  ASSERT_TRUE(handover);
  const Acceptor new_door(theirs, std::move(handover->listeners.at(0).listener), greeting("new"));
  EXPECT_FALSE(ready(*handover));
  bool is_drained = false;
  old_door->drain({.handed_over = true}, [&](std::size_t) { is_drained = true; });
  ASSERT_TRUE(turn_until(reactor, [&] { return is_drained; }));
  old_door.reset();
  Peer peer(address);
  ASSERT_TRUE(turn_until(theirs, [&] { return peer.drain(); }));
  EXPECT_EQ(peer.received(), "new");
}

}  // namespace
}  // namespace anteroom
