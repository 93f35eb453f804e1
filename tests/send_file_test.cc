// Connection::send_file: bytes that never come to user space. Linked with --wrap=sendfile, for what the
// kernel does only in a race.
#include <anteroom/acceptor.h>
#include <anteroom/connection.h>
#include <anteroom/reactor.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include "support/descriptors.h"
#include "support/own_network.h"
#include "support/peer.h"
#include "support/turns.h"

namespace {
/// Called instead of sendfile(2), if there is one.
std::function<ssize_t(int socket, int file, off_t* offset, std::size_t size)> instead;
}  // namespace

extern "C" {
// NOLINTBEGIN(bugprone-reserved-identifier): the linker's names, see --wrap in ld(1)
ssize_t __real_sendfile(int socket, int file, off_t* offset, std::size_t size);
ssize_t __wrap_sendfile(int socket, int file, off_t* offset, std::size_t size);
// NOLINTEND(bugprone-reserved-identifier)

ssize_t __wrap_sendfile(int socket, int file, off_t* offset, std::size_t size) {
  return instead ? instead(socket, file, offset, size) : __real_sendfile(socket, file, offset, size);
}
}

namespace anteroom {
namespace {

using namespace test;

Fd file_of(std::string_view content) {
  Fd file(::memfd_create("content", MFD_CLOEXEC));
  EXPECT_EQ(::write(file.get(), content.data(), content.size()), static_cast<ssize_t>(content.size()));
  return file;
}

bool is_open(int fd) { return ::fcntl(fd, F_GETFD) >= 0; }

const std::string& large_content() {
  static const std::string content = pattern(2 << 20, 3);  // more than the buffers on the way take
  return content;
}

bool sigpipe_is_pending() {
  sigset_t pending;
  ::sigpending(&pending);
  return ::sigismember(&pending, SIGPIPE) == 1;
}
bool sigpipe_is_blocked() {
  sigset_t blocked;
  ::pthread_sigmask(SIG_BLOCK, nullptr, &blocked);
  return ::sigismember(&blocked, SIGPIPE) == 1;
}

/// One guest over TCP and over a Unix socket, with what it was told.
class SendFile : public testing::TestWithParam<int> {
 protected:
  ~SendFile() override { instead = nullptr; }
  bool is_tcp() const { return GetParam() == AF_INET; }

  /// Lets one peer in. The guest lives when this returns.
  void meet(ConnectionHandlers handlers = {}, const ConnectionOptions& options = {}) {
    AcceptorOptions acceptor_options;
    acceptor_options.connection = options;
    handlers.open = [this](Connection& connection) {
      id = connection.id();
      (void)set_socket_option(connection.fd(), SOL_SOCKET, SO_SNDBUF, 100'000);
    };
    handlers.drained = [this, drained = std::move(handlers.drained)](Connection& connection) {
      ++drained_calls;
      if (drained) drained(connection);
    };
    handlers.closed = [this](Connection&, std::error_code why) {
      ++closed_calls;
      error = why;
    };

    const Endpoint address =
        is_tcp() ? kLoopback : Endpoint::unix_path("@anteroom-send-file-" + std::to_string(::getpid()));
    acceptor.emplace(reactor, address, std::move(handlers), acceptor_options);
    peer.emplace(acceptor->endpoint(), Peer::Options{.receive_buffer_bytes = 100'000});
    ASSERT_TRUE(turn_until(reactor, [&] { return id != ChannelId::kNone; }));
    turn_times(reactor, 2);
  }

  Connection& guest() {
    auto* const connection = reactor.find<Connection>(id);
    EXPECT_NE(connection, nullptr);
    return *connection;
  }
  /// The peer takes all, and the guest has ended.
  bool turn_until_over() {
    return turn_until(reactor, [&] {
      if (peer->drain()) peer->finish();
      return closed_calls == 1 && peer->is_over();
    });
  }
  bool turn_until_received(std::size_t size) {
    return turn_until(reactor, [&] { return peer->drain(), peer->received().size() >= size; });
  }

  Reactor reactor;
  std::optional<Acceptor> acceptor;
  std::optional<Peer> peer;
  ChannelId id = ChannelId::kNone;
  int drained_calls = 0;
  int closed_calls = 0;
  std::error_code error;
};

INSTANTIATE_TEST_SUITE_P(Over, SendFile, testing::Values(AF_INET, AF_UNIX),
                         [](const auto& each) { return each.param == AF_INET ? "Tcp" : "Unix"; });

// ---- What arrives

TEST_P(SendFile, SendsASmallFileAtOnce) {
  meet();
  Fd file = file_of("all that is in it");
  const int fd = file.get();
  EXPECT_TRUE(guest().send_file(std::move(file), 0, 17));
  EXPECT_FALSE(is_open(fd)) << "it is through";
  EXPECT_EQ(guest().unsent_bytes(), 0U);
  ASSERT_TRUE(turn_until_received(17));
  EXPECT_EQ(peer->received(), "all that is in it");
  turn_times(reactor, 3);
  EXPECT_EQ(drained_calls, 0) << "nothing had to wait";
  EXPECT_EQ(reactor.metrics().sent_bytes, 17U);
}

TEST_P(SendFile, SendsThePartThatIsAskedFor) {
  meet();
  const std::string content = pattern(100'000);
  Fd file = file_of(content);
  const Fd same(::fcntl(file.get(), F_DUPFD_CLOEXEC, 0));
  ASSERT_EQ(::lseek(same.get(), 77, SEEK_SET), 77);
  EXPECT_TRUE(guest().send_file(std::move(file), 12'345, 54'321));
  ASSERT_TRUE(turn_until_received(54'321));
  turn_times(reactor, 3);
  peer->drain();
  EXPECT_TRUE(peer->received() == std::string_view(content).substr(12'345, 54'321));
  EXPECT_EQ(::lseek(same.get(), 0, SEEK_CUR), 77) << "the position of the file is its owner's";
}

TEST_P(SendFile, SendsNothingOfAnEmptyFile) {
  meet();
  Fd file = file_of("");
  const int fd = file.get();
  EXPECT_TRUE(guest().send_file(std::move(file), 0, 0));
  EXPECT_FALSE(is_open(fd));
  EXPECT_TRUE(guest().send("and on"));
  ASSERT_TRUE(turn_until_received(6));
  EXPECT_EQ(peer->received(), "and on");
  EXPECT_EQ(closed_calls, 0);
}

TEST_P(SendFile, KeepsItsPlaceBetweenSends) {
  meet();
  EXPECT_TRUE(guest().send("head "));
  EXPECT_TRUE(guest().send_file(file_of("..first file.."), 2, 10));
  EXPECT_TRUE(guest().send(" between "));
  EXPECT_TRUE(guest().send_file(file_of("second file"), 0, 11));
  EXPECT_TRUE(guest().send_file(file_of("third"), 1, 0));
  EXPECT_TRUE(guest().send_file(file_of(" third"), 0, 6));
  EXPECT_TRUE(guest().send(" tail"));
  guest().close();
  ASSERT_TRUE(turn_until_over());
  EXPECT_EQ(peer->received(), "head first file between second file third tail");
  EXPECT_EQ(peer->error(), 0);
  EXPECT_FALSE(error);
}

TEST_P(SendFile, KeepsItsPlaceAgainstASlowReader) {
  meet();

  const int before = open_descriptors();
  std::string all;
  for (unsigned i = 0; i < 30; ++i) {
    const std::string bytes = pattern(i % 3 == 0 ? 0 : i * 1'000, i);
    const std::string content = pattern(1 + i * 7'001, 100 + i);
    EXPECT_TRUE(guest().send(bytes));
    EXPECT_TRUE(guest().send_file(file_of(content), i, content.size() - i));
    all += bytes;
    all += std::string_view(content).substr(i);
  }
  EXPECT_GT(guest().unsent_bytes(), 0U);
  EXPECT_GT(open_descriptors(), before);
  guest().close();
  ASSERT_TRUE(turn_until_over());
  EXPECT_EQ(peer->received().size(), all.size());
  EXPECT_TRUE(peer->received() == all);
  EXPECT_FALSE(error);
  EXPECT_EQ(open_descriptors(), before - 1) << "the files are closed, and so is the guest";
  EXPECT_EQ(reactor.metrics().sent_bytes, all.size());
  EXPECT_EQ(reactor.metrics().buffered_bytes, 0U);
}

TEST_P(SendFile, IsDrainedOnceTheFileIsThrough) {
  meet();
  EXPECT_TRUE(guest().send_file(file_of(large_content()), 0, large_content().size()));
  turn_times(reactor, 5);
  EXPECT_EQ(drained_calls, 0);
  ASSERT_TRUE(turn_until_received(large_content().size()));
  turn_times(reactor, 3);
  EXPECT_EQ(drained_calls, 1);
  EXPECT_TRUE(guest().send("and on"));
  ASSERT_TRUE(turn_until_received(large_content().size() + 6));
  EXPECT_TRUE(peer->received() == large_content() + "and on");
}

// As a peer does that reads as fast as we can send: there is no EAGAIN, so no event will come.
TEST_P(SendFile, GoesOnByItselfWhenTheKernelTakesEverything) {
  constexpr std::uint64_t kSize = 100 << 20;
  instead = [](int, int, off_t* offset, std::size_t size) {
    *offset += static_cast<off_t>(size);
    return static_cast<ssize_t>(size);
  };
  meet();
  EXPECT_TRUE(guest().send_file(file_of("as large as you like"), 0, kSize));
  std::uint64_t before = reactor.metrics().sent_bytes;
  EXPECT_LT(before, kSize) << "others have their turn";
  ASSERT_TRUE(turn_until(reactor, [&] {
    EXPECT_LE(reactor.metrics().sent_bytes - before, 10U << 20);
    before = reactor.metrics().sent_bytes;
    return drained_calls == 1;
  }));
  EXPECT_EQ(reactor.metrics().sent_bytes, kSize);
}

TEST_P(SendFile, EndsItsOutputBehindTheFile) {
  meet();
  EXPECT_TRUE(guest().send_file(file_of(large_content()), 0, large_content().size()));
  guest().end_output();
  EXPECT_FALSE(guest().send("too late"));
  ASSERT_TRUE(turn_until(reactor, [&] { return peer->drain(); }));
  EXPECT_TRUE(peer->received() == large_content());
  EXPECT_EQ(peer->error(), 0);
  EXPECT_EQ(closed_calls, 0) << "it goes on reading";
}

TEST_P(SendFile, AnswersAPeerThatHasEndedItsSide) {
  meet({.data = [](Connection& guest, std::string_view) {
    EXPECT_TRUE(guest.send_file(file_of(large_content()), 0, large_content().size()));
  }});
  ASSERT_TRUE(peer->send("the file, please"));
  peer->finish();
  ASSERT_TRUE(turn_until_over());
  EXPECT_TRUE(peer->received() == large_content());
  EXPECT_FALSE(error);
}

TEST_P(SendFile, SendsAFileWhoseNameIsGone) {
  meet();
  std::string name = (std::filesystem::temp_directory_path() / "anteroom-send-file-XXXXXX").string();
  Fd file(::mkostemp(name.data(), O_CLOEXEC));
  ASSERT_TRUE(file);
  ASSERT_EQ(::ftruncate(file.get(), 0), 0);
  const auto size = static_cast<ssize_t>(large_content().size());
  ASSERT_EQ(::write(file.get(), large_content().data(), large_content().size()), size);
  EXPECT_TRUE(guest().send_file(std::move(file), 0, large_content().size()));
  ASSERT_EQ(::unlink(name.c_str()), 0);
  guest().close();
  ASSERT_TRUE(turn_until_over());
  EXPECT_TRUE(peer->received() == large_content());
  EXPECT_FALSE(error);
}

// Found by this test: a file that waits costs no memory, and did not count; but it costs a descriptor, and a
// peer that asked for files and took none of them got all that there were.
TEST_P(SendFile, ReadsNoMoreFromWhoDoesNotTakeItsFiles) {
  constexpr std::size_t kSize = 500'000;
  constexpr int kFiles = 8;
  int asked_for = 0;
  const auto serve = [&](Connection& guest, std::string_view) {
    ++asked_for;
    EXPECT_TRUE(guest.send_file(file_of(large_content()), 0, kSize));
  };
  meet({.data = serve}, {.high_watermark_bytes = 100'000, .low_watermark_bytes = 20'000});
  for (int i = 0; i < kFiles; ++i) {
    ASSERT_TRUE(peer->send("?"));
    ASSERT_TRUE(await_events(guest().fd(), POLLIN));
    turn_times(reactor, 3);
  }
  EXPECT_EQ(asked_for, 1);
  ASSERT_TRUE(turn_until(reactor, [&] {
    peer->drain();
    return asked_for == 2 && peer->received().size() == 2 * kSize;
  }));
}

// ---- Fifty megabytes

/// Says whether a stream is what it is to be, without keeping it: a block over and over.
class Verifier {
 public:
  static const std::string& block() {
    static const std::string bytes = pattern(1'000'003);
    return bytes;
  }
  static Fd file(std::size_t size) {
    Fd file(::memfd_create("large", MFD_CLOEXEC));
    for (std::size_t written = 0; written < size;) {
      const std::size_t count = std::min(block().size(), size - written);
      EXPECT_EQ(::write(file.get(), block().data(), count), static_cast<ssize_t>(count));
      written += count;
    }
    return file;
  }
  void look_at(std::string_view bytes) {
    while (!bytes.empty() && right_) {
      const std::string_view expected =
          std::string_view(block()).substr(count_ % block().size(), bytes.size());
      right_ = bytes.starts_with(expected);
      count_ += expected.size();
      bytes.remove_prefix(expected.size());
    }
  }
  bool is_right() const { return right_; }
  std::size_t count() const { return count_; }

 private:
  bool right_ = true;
  std::size_t count_ = 0;
};

/// Of this process, in memory, without what it shares with the page cache.
std::size_t private_memory() {
  std::size_t size = 0;
  std::size_t resident = 0;
  std::size_t shared = 0;
  std::ifstream("/proc/self/statm") >> size >> resident >> shared;
  return (resident - shared) * static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
}

TEST_P(SendFile, SendsFiftyMegabytesToASlowReaderInLittleMemory) {
  constexpr std::size_t kSize = 50'000'000;
  meet();
  std::string sip(256 * 1024, '\0');
  Verifier verifier;
  Fd file = Verifier::file(kSize);
  const int fd = file.get();
  const std::size_t before = private_memory();
  EXPECT_TRUE(guest().send_file(std::move(file), 0, kSize));
  turn_times(reactor, 5);
  ASSERT_TRUE(is_open(fd)) << "the peer has taken nothing";
  std::size_t most = 0;
  ASSERT_TRUE(turn_until(reactor, [&] {
    most = std::max(most, reactor.metrics().buffered_bytes);
    const ssize_t count = ::recv(peer->fd(), sip.data(), sip.size(), MSG_DONTWAIT);
    if (count > 0) verifier.look_at(std::string_view(sip).substr(0, static_cast<std::size_t>(count)));
    return verifier.count() >= kSize || !verifier.is_right();
  }));
  const std::size_t after = private_memory();
  EXPECT_TRUE(verifier.is_right()) << "up to byte " << verifier.count();
  EXPECT_EQ(verifier.count(), kSize);
  EXPECT_EQ(most, 0U) << "no byte of a file waits in memory";
  EXPECT_LT(after, before + (8 << 20));
  turn_times(reactor, 3);
  EXPECT_EQ(drained_calls, 1);
  EXPECT_FALSE(is_open(fd));
}

// ---- What goes wrong with the file

TEST_P(SendFile, EndsWithAnErrorIfTheFileIsShorter) {
  meet();
  (void)guest().send_file(file_of("short"), 0, 6);
  EXPECT_EQ(closed_calls, 0) << "told by the turn";
  ASSERT_TRUE(turn_until(reactor, [&] { return peer->drain() && closed_calls == 1; }));
  EXPECT_EQ(error, std::errc::io_error) << error.message();
  if (is_tcp()) {
    EXPECT_EQ(peer->error(), ECONNRESET) << "a FIN would say that this was all";
  }
  EXPECT_TRUE(std::string_view("short").starts_with(peer->received()));
}

TEST_P(SendFile, EndsWithAnErrorIfItBeginsBehindTheFile) {
  meet();
  (void)guest().send_file(file_of("short"), 1'000'000, 1);
  ASSERT_TRUE(turn_until(reactor, [&] { return peer->drain() && closed_calls == 1; }));
  EXPECT_EQ(error, std::errc::io_error) << error.message();
  EXPECT_EQ(peer->received(), "");
}

TEST_P(SendFile, EndsWithAnErrorIfTheFileIsCutMeanwhile) {
  meet();
  Fd file = file_of(large_content());
  const Fd same(::fcntl(file.get(), F_DUPFD_CLOEXEC, 0));
  const int fd = file.get();
  EXPECT_TRUE(guest().send_file(std::move(file), 0, large_content().size()));
  EXPECT_TRUE(guest().send("never sent"));
  turn_times(reactor, 3);
  ASSERT_EQ(::ftruncate(same.get(), 1'900'000), 0);
  ASSERT_TRUE(turn_until(reactor, [&] { return peer->drain() && closed_calls == 1; }));
  EXPECT_EQ(error, std::errc::io_error) << error.message();
  if (is_tcp()) {
    EXPECT_EQ(peer->error(), ECONNRESET);
  }
  EXPECT_TRUE(std::string_view(large_content()).substr(0, 1'900'000).starts_with(peer->received()));
  EXPECT_FALSE(is_open(fd));
  EXPECT_EQ(reactor.metrics().buffered_bytes, 0U);
}

TEST_P(SendFile, EndsWithAnErrorIfTheFileIsNone) {
  meet();
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  const Fd write_end(ends[1]);
  (void)guest().send_file(Fd(ends[0]), 0, 5);
  ASSERT_TRUE(turn_until(reactor, [&] { return closed_calls == 1; }));
  EXPECT_TRUE(error);
  EXPECT_FALSE(is_open(ends[0]));
}

TEST_P(SendFile, TellsWhatTheKernelSays) {
  instead = [](int, int, off_t*, std::size_t) -> ssize_t { return errno = EIO, -1; };
  meet();
  EXPECT_FALSE(guest().send_file(file_of("content"), 0, 7));
  ASSERT_TRUE(turn_until(reactor, [&] { return closed_calls == 1; }));
  EXPECT_EQ(error, std::errc::io_error);
}

TEST_P(SendFile, LosesAndDoublesNothingWhenTheKernelTakesLittleAtATime) {
  const std::string content = pattern(3'000);
  int calls = 0;
  instead = [&](int socket, int file, off_t* offset, std::size_t size) -> ssize_t {
    switch (++calls % 4) {
      case 0:
        return errno = EINTR, -1;
      case 1:
        return __real_sendfile(socket, file, offset, std::min<std::size_t>(size, 1));
      default:
        return __real_sendfile(socket, file, offset, std::min<std::size_t>(size, 97));
    }
  };
  meet();
  EXPECT_TRUE(guest().send("head"));
  EXPECT_TRUE(guest().send_file(file_of(content), 5, 2'995));
  EXPECT_TRUE(guest().send("tail"));
  guest().close();
  ASSERT_TRUE(turn_until_over());
  EXPECT_GT(calls, 30);
  EXPECT_TRUE(peer->received() == "head" + content.substr(5) + "tail");
}

// ---- Refused

TEST_P(SendFile, IsRefusedOnceTheConnectionIsClosing) {
  meet();
  Connection& connection = guest();
  connection.close();
  Fd file = file_of("too late");
  const int fd = file.get();
  EXPECT_FALSE(connection.send_file(std::move(file), 0, 8));
  EXPECT_FALSE(is_open(fd)) << "closed all the same";
  ASSERT_TRUE(turn_until_over());
  EXPECT_EQ(peer->received(), "");
  EXPECT_FALSE(error);
}

TEST_P(SendFile, IsRefusedOnceTheOutputIsEnded) {
  meet();
  guest().end_output();
  Fd file = file_of("too late");
  const int fd = file.get();
  EXPECT_FALSE(guest().send_file(std::move(file), 0, 8));
  EXPECT_FALSE(is_open(fd));
  EXPECT_TRUE(guest().is_open());
}

// ---- The peer goes

class SendFileToNobody : public SendFile {
 protected:
  void SetUp() override {
    struct sigaction action {};
    ::sigaction(SIGPIPE, nullptr, &action);
    ASSERT_EQ(action.sa_handler, SIG_DFL) << "the test would prove nothing";
    ASSERT_FALSE(sigpipe_is_blocked());
  }
  void TearDown() override {
    EXPECT_FALSE(sigpipe_is_blocked()) << "the signals are the user's";
    EXPECT_FALSE(sigpipe_is_pending());
  }
};

INSTANTIATE_TEST_SUITE_P(Over, SendFileToNobody, testing::Values(AF_INET, AF_UNIX),
                         [](const auto& each) { return each.param == AF_INET ? "Tcp" : "Unix"; });

TEST_P(SendFileToNobody, DoesNotDieOfSigpipeInTheMiddle) {
  meet();
  EXPECT_TRUE(guest().send_file(file_of(large_content()), 0, large_content().size()));
  ASSERT_TRUE(turn_until_received(500'000));
  peer->reset();
  peer.reset();
  ASSERT_TRUE(turn_until(reactor, [&] { return closed_calls == 1; }));
  EXPECT_TRUE(error == std::errc::connection_reset || error == std::errc::broken_pipe) << error.message();
  EXPECT_EQ(reactor.metrics().channels, 1U);
}

// Of a connection that was half closed, the kernel tells EPIPE and the signal at once, and no ECONNRESET
// before.
TEST_P(SendFileToNobody, DoesNotDieOfSigpipeWhenItIsHalfClosed) {
  meet({.peer_ended = [](Connection&) {}});
  peer->finish();
  ASSERT_TRUE(turn_until(reactor, [&] { return guest().is_half_closed(); }));
  Connection& connection = guest();
  if (is_tcp()) {
    ASSERT_TRUE(connection.send("to be answered by a reset"));
  }
  peer->reset();
  peer.reset();
  ASSERT_TRUE(await_events(connection.fd(), POLLHUP));
  EXPECT_FALSE(connection.send_file(file_of(large_content()), 0, large_content().size()));
  EXPECT_EQ(closed_calls, 0) << "told by the turn";
  ASSERT_TRUE(turn_until(reactor, [&] { return closed_calls == 1; }));
  EXPECT_TRUE(error == std::errc::connection_reset || error == std::errc::broken_pipe) << error.message();
}

TEST_P(SendFileToNobody, DoesNotDieOfSigpipeAtTheFirstByte) {
  meet();
  peer->reset();
  peer.reset();
  ASSERT_TRUE(await_events(guest().fd(), POLLHUP));
  Connection& connection = guest();
  for (int i = 0; i < 3; ++i) EXPECT_FALSE(connection.send_file(file_of("anybody there?"), 0, 14));
  ASSERT_TRUE(turn_until(reactor, [&] { return closed_calls == 1; }));
  EXPECT_TRUE(error == std::errc::connection_reset || error == std::errc::broken_pipe) << error.message();
}

// sendfile(2) goes on in several steps. If the peer goes between two of them, the second has raised SIGPIPE,
// and the call returns what the first has sent: 310 of 20,000 calls did, with a peer that closes at random.
TEST_P(SendFileToNobody, DoesNotDieOfSigpipeThoughSomeBytesWereSent) {
  bool once = false;
  instead = [&](int socket, int file, off_t* offset, std::size_t size) -> ssize_t {
    if (once) return __real_sendfile(socket, file, offset, size);
    once = true;
    const ssize_t sent = __real_sendfile(socket, file, offset, std::min<std::size_t>(size, 64 * 1024));
    EXPECT_EQ(::pthread_kill(::pthread_self(), SIGPIPE), 0);
    return sent;
  };
  meet();
  EXPECT_TRUE(guest().send_file(file_of(large_content()), 0, large_content().size()));
  EXPECT_TRUE(once);
  EXPECT_FALSE(sigpipe_is_pending());
}

TEST_P(SendFileToNobody, LeavesAUsersSignalsAsTheyAre) {
  sigset_t sigpipe;
  ::sigemptyset(&sigpipe);
  ::sigaddset(&sigpipe, SIGPIPE);
  ASSERT_EQ(::pthread_sigmask(SIG_BLOCK, &sigpipe, nullptr), 0);
  for (const bool is_pending : {false, true}) {
    id = ChannelId::kNone;
    closed_calls = 0;
    meet({.peer_ended = [](Connection&) {}});
    peer->finish();
    ASSERT_TRUE(turn_until(reactor, [&] { return guest().is_half_closed(); }));
    if (is_tcp()) {
      ASSERT_TRUE(guest().send("to be answered by a reset"));
    }
    peer->reset();
    ASSERT_TRUE(await_events(guest().fd(), POLLHUP));
    if (is_pending) ::pthread_kill(::pthread_self(), SIGPIPE);
    EXPECT_FALSE(guest().send_file(file_of("anybody there?"), 0, 14));
    EXPECT_EQ(sigpipe_is_pending(), is_pending) << "a signal of the user's own stays, and none is added";
    EXPECT_TRUE(sigpipe_is_blocked());
    ASSERT_TRUE(turn_until(reactor, [&] { return closed_calls == 1; }));
  }
  int taken = 0;
  ASSERT_EQ(::sigwait(&sigpipe, &taken), 0);
  ASSERT_EQ(::pthread_sigmask(SIG_UNBLOCK, &sigpipe, nullptr), 0);
}

// ---- Its descriptor

TEST_P(SendFile, ClosesTheDescriptorHoweverItEnds) {
  const auto end_by = [this](const std::function<void()>& end) {
    id = ChannelId::kNone;
    closed_calls = 0;
    meet();
    Fd file = file_of(large_content());
    const int fd = file.get();
    EXPECT_TRUE(guest().send_file(std::move(file), 0, large_content().size()));
    EXPECT_TRUE(guest().send_file(file_of("another"), 0, 7));
    EXPECT_TRUE(is_open(fd));
    end();
    ASSERT_TRUE(turn_until(reactor, [&] { return reactor.metrics().connections_open == 0; }));
    turn_times(reactor, 2);
    EXPECT_FALSE(is_open(fd));
  };
  const int before = open_descriptors();
  end_by([&] { guest().abort(); });
  end_by([&] { peer->reset(); });
  end_by([&] {
    guest().close();
    ASSERT_TRUE(turn_until_over());
  });
  end_by([&] {
    acceptor.reset();
    ASSERT_TRUE(turn_until(reactor, [&] { return peer->drain(); }));
    peer->close();
  });
  peer.reset();
  EXPECT_EQ(open_descriptors(), before);
}

TEST_P(SendFile, ClosesTheDescriptorWithItsReactor) {
  Fd file = file_of(large_content());
  const int fd = file.get();
  {
    Reactor short_lived;
    Acceptor door(short_lived, kLoopback, {.open = [&](Connection& guest) {
                    (void)set_socket_option(guest.fd(), SOL_SOCKET, SO_SNDBUF, 100'000);
                    EXPECT_TRUE(guest.send_file(std::move(file), 0, large_content().size()));
                  }});
    const Peer client(door.endpoint(), {.receive_buffer_bytes = 100'000});
    ASSERT_TRUE(turn_until(short_lived, [&] { return door.stats().accepted == 1; }));
    EXPECT_TRUE(is_open(fd));
  }
  EXPECT_FALSE(is_open(fd));
}

// Whoever gets the number next must not lose it.
TEST_P(SendFile, ClosesTheDescriptorOnce) {
  meet();
  Fd file = file_of(large_content());
  const int fd = file.get();
  EXPECT_TRUE(guest().send_file(std::move(file), 0, large_content().size()));
  EXPECT_TRUE(guest().send("tail"));
  ASSERT_TRUE(turn_until(reactor, [&] { return peer->drain(), !is_open(fd); }));
  const Fd next(::fcntl(2, F_DUPFD_CLOEXEC, fd));
  ASSERT_EQ(next.get(), fd);
  guest().close();
  ASSERT_TRUE(turn_until_over());
  EXPECT_TRUE(peer->received() == large_content() + "tail");
  acceptor.reset();
  turn_times(reactor, 3);
  EXPECT_TRUE(is_open(fd));
}

// ---- What cannot be sent

// It was a success, and the peer took the next answer for the file.
TEST_P(SendFile, OfNoDescriptorIsAnErrorAndAResetAndNotAShorterAnswer) {
  meet();
  EXPECT_TRUE(guest().send("head "));
  EXPECT_FALSE(guest().send_file(Fd(::open("/no/such/file", O_RDONLY | O_CLOEXEC)), 0, 10));
  EXPECT_FALSE(guest().send("tail"));
  EXPECT_FALSE(guest().is_open());
  guest().close();
  ASSERT_TRUE(turn_until(reactor, [&] { return closed_calls == 1 && peer->drain(); }));
  EXPECT_EQ(error, std::errc::bad_file_descriptor);
  EXPECT_EQ(peer->received().find("tail"), std::string::npos);
  if (is_tcp()) {
    EXPECT_EQ(peer->error(), ECONNRESET);
  }
}

TEST_P(SendFile, OfNoDescriptorIsAnErrorAlsoForNoBytes) {
  meet();
  EXPECT_FALSE(guest().send_file(Fd(), 0, 0));
  ASSERT_TRUE(turn_until(reactor, [&] { return closed_calls == 1; }));
  EXPECT_EQ(error, std::errc::bad_file_descriptor);
}

TEST_P(SendFile, OfNoDescriptorIsAnErrorAlsoBehindWhatWaits) {
  meet();
  EXPECT_TRUE(guest().send(large_content()));
  EXPECT_FALSE(guest().send_file(Fd(), 0, 10));
  ASSERT_TRUE(turn_until(reactor, [&] { return closed_calls == 1 && peer->drain(); }));
  EXPECT_EQ(error, std::errc::bad_file_descriptor);
  EXPECT_LT(peer->received().size(), large_content().size());
}

TEST_P(SendFile, OfADescriptorThatIsClosedIsAnError) {
  meet();
  Fd file = file_of("content");
  ::close(file.get());
  EXPECT_FALSE(guest().send_file(Fd(file.release()), 0, 7));
  ASSERT_TRUE(turn_until(reactor, [&] { return closed_calls == 1; }));
  EXPECT_EQ(error, std::errc::bad_file_descriptor);
}

TEST_P(SendFile, BeyondWhatAFileMayHaveIsAnErrorAtOnce) {
  constexpr auto kMost = static_cast<std::uint64_t>(std::numeric_limits<off_t>::max());
  constexpr std::pair<std::uint64_t, std::uint64_t> kTooFar[] = {
      {kMost + 1, 1}, {~std::uint64_t{0}, 1}, {kMost, 1}, {1, kMost}, {0, kMost + 1}, {1, ~std::uint64_t{0}}};
  for (const auto& [offset, size] : kTooFar) {
    meet();
    EXPECT_TRUE(guest().send(large_content())) << "something waits, so the kernel is not asked yet";
    EXPECT_FALSE(guest().send_file(file_of("content"), offset, size));
    closed_calls = 0;
    ASSERT_TRUE(turn_until(reactor, [&] { return closed_calls == 1; })) << offset << " + " << size;
    EXPECT_EQ(error, std::errc::value_too_large) << offset << " + " << size;
    id = ChannelId::kNone;
    acceptor.reset();
  }
}

TEST_P(SendFile, MoreFilesThanCanBeCountedAreAnErrorAtOnce) {
  meet();
  constexpr auto kMost = static_cast<std::uint64_t>(std::numeric_limits<off_t>::max());
  EXPECT_TRUE(guest().send(large_content()));
  EXPECT_TRUE(guest().send_file(file_of("content"), 0, kMost - (4 << 20)));
  EXPECT_FALSE(guest().send_file(file_of("content"), 0, kMost - (4 << 20)));
  ASSERT_TRUE(turn_until(reactor, [&] { return closed_calls == 1; }));
  EXPECT_EQ(error, std::errc::value_too_large);
}

}  // namespace
}  // namespace anteroom
