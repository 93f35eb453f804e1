// Output is no public header: what waits, in order, without a connection around it. Linked with
// --wrap=sendfile, which takes as little as a test likes.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include "output.h"
#include "support/descriptors.h"
#include "support/peer.h"

namespace {
std::size_t sendfile_bytes_max = 0;  // 0: as many as are asked for
}

extern "C" {
// NOLINTBEGIN(bugprone-reserved-identifier): the linker's names, see --wrap in ld(1)
ssize_t __real_sendfile(int socket, int file, off_t* offset, std::size_t size);
ssize_t __wrap_sendfile(int socket, int file, off_t* offset, std::size_t size);
// NOLINTEND(bugprone-reserved-identifier)

ssize_t __wrap_sendfile(int socket, int file, off_t* offset, std::size_t size) {
  if (sendfile_bytes_max > 0) size = std::min(size, sendfile_bytes_max);
  return __real_sendfile(socket, file, offset, size);
}
}

namespace anteroom {
namespace {

static_assert(!std::is_move_constructible_v<Output> && !std::is_move_assignable_v<Output>,
              "its last piece may be its first, to which it points");

using namespace test;

Fd file_of(std::string_view content) {
  Fd file(::memfd_create("content", MFD_CLOEXEC));
  EXPECT_EQ(::write(file.get(), content.data(), content.size()), static_cast<ssize_t>(content.size()));
  return file;
}

bool is_open(int fd) { return ::fcntl(fd, F_GETFD) >= 0; }

/// An output, and both ends of a line that is so short that it is soon full.
class OutputTest : public testing::Test {
 protected:
  OutputTest() {
    std::array<int, 2> ends{-1, -1};
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends.data()), 0);
    near_.reset(ends[0]);
    far_.reset(ends[1]);
    (void)set_socket_option(near_.get(), SOL_SOCKET, SO_SNDBUF, 10'000);
  }
  ~OutputTest() override { sendfile_bytes_max = 0; }

  int send() { return output.send_to(near_.get(), sent); }
  /// What has come to the other end.
  std::size_t receive(std::size_t most = std::numeric_limits<std::size_t>::max()) {
    std::array<char, 16 * 1024> bytes;
    std::size_t taken = 0;
    while (taken < most) {
      const ssize_t count = ::recv(far_.get(), bytes.data(), std::min(bytes.size(), most - taken), 0);
      if (count <= 0) break;
      received.append(bytes.data(), static_cast<std::size_t>(count));
      taken += static_cast<std::size_t>(count);
    }
    return taken;
  }
  /// Sends and receives until nothing waits, or an error is told.
  int send_all() {
    for (int i = 0; i < 100'000; ++i) {
      const int error = send();
      receive();
      if (error != EAGAIN && error != EINTR) return error;
    }
    return EAGAIN;
  }

  Fd near_;
  Fd far_;
  Output output;
  std::size_t sent = 0;
  std::string received;
};

TEST_F(OutputTest, BeginsEmpty) {
  EXPECT_TRUE(output.empty());
  EXPECT_EQ(output.bytes(), 0U);
  EXPECT_EQ(output.memory(), 0U);
  EXPECT_EQ(send(), 0);
  EXPECT_EQ(sent, 0U);
  EXPECT_EQ(receive(), 0U);
}

TEST_F(OutputTest, SendsBytesInOrder) {
  EXPECT_TRUE(output.append("Hello "));
  EXPECT_TRUE(output.append(""));
  EXPECT_TRUE(output.append("World!"));
  EXPECT_FALSE(output.empty());
  EXPECT_EQ(output.bytes(), 12U);
  EXPECT_GE(output.memory(), 12U);
  EXPECT_EQ(send(), 0);
  EXPECT_TRUE(output.empty());
  EXPECT_EQ(output.bytes(), 0U);
  EXPECT_EQ(output.memory(), 0U);
  EXPECT_EQ(sent, 12U);
  receive();
  EXPECT_EQ(received, "Hello World!");
}

TEST_F(OutputTest, SendsFilesAndBytesInOrder) {
  EXPECT_TRUE(output.append_file(file_of("..first.."), 2, 5));
  EXPECT_TRUE(output.append(", "));
  EXPECT_TRUE(output.append_file(file_of("second"), 0, 6));
  EXPECT_TRUE(output.append_file(file_of(" and third"), 0, 10));
  EXPECT_TRUE(output.append(" file"));
  EXPECT_EQ(output.bytes(), 7U) << "those of files not counted";
  EXPECT_EQ(send(), 0);
  EXPECT_TRUE(output.empty());
  EXPECT_EQ(output.memory(), 0U);
  EXPECT_EQ(sent, 28U);
  receive();
  EXPECT_EQ(received, "first, second and third file");
}

TEST_F(OutputTest, WaitsWhenTheKernelTakesNoMore) {
  const std::string bytes = pattern(100'000);
  EXPECT_TRUE(output.append(bytes));
  EXPECT_EQ(send(), EAGAIN);
  const std::size_t taken = sent;
  EXPECT_GT(taken, 0U);
  EXPECT_LT(taken, bytes.size());
  EXPECT_EQ(output.bytes(), bytes.size() - taken);
  EXPECT_EQ(send(), EAGAIN);
  EXPECT_EQ(sent, taken);
  EXPECT_EQ(send_all(), 0);
  EXPECT_EQ(sent, bytes.size());
  EXPECT_TRUE(received == bytes);
}

TEST_F(OutputTest, IsNotEmptyAsLongAsAFileWaits) {
  const std::string content = pattern(100'000);
  EXPECT_TRUE(output.append_file(file_of(content), 0, content.size()));
  EXPECT_FALSE(output.empty());
  EXPECT_EQ(output.bytes(), 0U);
  EXPECT_EQ(send(), EAGAIN);
  EXPECT_FALSE(output.empty());
  EXPECT_EQ(output.memory(), 0U);
  EXPECT_EQ(send_all(), 0);
  EXPECT_TRUE(output.empty());
  EXPECT_TRUE(received == content);
}

TEST_F(OutputTest, MayBeAddedToAtAnyTime) {
  std::minstd_rand random(7);
  std::string all;
  std::size_t bytes_given = 0;
  sendfile_bytes_max = 3'001;
  for (unsigned i = 0; i < 300; ++i) {
    const std::string content = pattern(random() % 5'000, i);
    if (random() % 2 == 0) {
      EXPECT_TRUE(output.append(content));
      bytes_given += content.size();
      all += content;
    } else {
      const std::size_t offset = content.size() / 3;
      EXPECT_TRUE(output.append_file(file_of(content), offset, content.size() - offset));
      all += std::string_view(content).substr(offset);
    }
    EXPECT_GE(output.memory(), output.bytes());
    EXPECT_LE(output.bytes(), bytes_given);
    if (random() % 3 == 0) receive(random() % 8'000);
    if (random() % 2 == 0) {
      const int error = send();
      EXPECT_TRUE(error == 0 || error == EAGAIN || error == EINTR) << error;
      EXPECT_EQ(output.empty(), error == 0);
    }
  }
  EXPECT_EQ(send_all(), 0);
  EXPECT_TRUE(output.empty());
  EXPECT_EQ(output.bytes(), 0U);
  EXPECT_EQ(output.memory(), 0U);
  EXPECT_EQ(sent, all.size());
  EXPECT_TRUE(received == all);
}

TEST_F(OutputTest, ClosesAFileAsSoonAsItIsThrough) {
  Fd first = file_of("first");
  Fd second = file_of(std::string(100'000, 'x'));
  const int first_number = first.get();
  const int second_number = second.get();
  EXPECT_TRUE(output.append_file(std::move(first), 0, 5));
  EXPECT_TRUE(output.append_file(std::move(second), 0, 100'000));
  EXPECT_EQ(send(), EAGAIN);
  EXPECT_FALSE(is_open(first_number));
  EXPECT_TRUE(is_open(second_number));
  EXPECT_EQ(send_all(), 0);
  EXPECT_FALSE(is_open(second_number));
}

TEST_F(OutputTest, ClosesAFileOfWhichNothingIsWanted) {
  Fd file = file_of("unwanted");
  const int number = file.get();
  EXPECT_TRUE(output.append_file(std::move(file), 3, 0));
  EXPECT_FALSE(is_open(number));
  EXPECT_TRUE(output.empty());
}

TEST_F(OutputTest, ClosesWhatItStillHoldsInTheEnd) {
  const int before = open_descriptors();
  {
    Output short_lived;
    for (int i = 0; i < 200; ++i) {
      ASSERT_TRUE(short_lived.append_file(file_of("never sent"), 0, 10));
      ASSERT_TRUE(short_lived.append("nor this"));
    }
    EXPECT_EQ(open_descriptors(), before + 200);
  }
  EXPECT_EQ(open_descriptors(), before);
}

TEST_F(OutputTest, SaysThatAFileIsShorterThanItWasSaidToBe) {
  EXPECT_TRUE(output.append_file(file_of("short"), 0, 6));
  EXPECT_TRUE(output.append("never sent"));
  EXPECT_EQ(send_all(), EIO);
  EXPECT_EQ(received, "short");
}

TEST_F(OutputTest, SaysThatTheOtherEndIsGone) {
  far_.reset();
  EXPECT_TRUE(output.append("anybody there?"));
  EXPECT_EQ(send(), EPIPE);
  EXPECT_EQ(sent, 0U);
}

TEST_F(OutputTest, SaysThatTheOtherEndIsGoneAlsoOfAFile) {
  far_.reset();
  EXPECT_TRUE(output.append_file(file_of("anybody there?"), 0, 14));
  EXPECT_EQ(send(), EPIPE) << "and we live to see it: SIGPIPE is not for us";
}

TEST_F(OutputTest, CountsWhatWasSentBeforeAnError) {
  EXPECT_TRUE(output.append("head"));
  EXPECT_TRUE(output.append_file(file_of("short"), 0, 100));
  EXPECT_EQ(send_all(), EIO);
  EXPECT_EQ(sent, 9U);
  EXPECT_EQ(received, "headshort");
}

// A peer that takes a file as fast as we can give it must not hold the loop.
TEST_F(OutputTest, LetsOthersHaveTheirTurn) {
  constexpr std::size_t kSize = 20 << 20;
  (void)set_socket_option(near_.get(), SOL_SOCKET, SO_SNDBUF, 64 << 20);
  const Fd null(::open("/dev/null", O_WRONLY | O_CLOEXEC));  // which takes everything at once
  Fd file(::memfd_create("large", MFD_CLOEXEC));
  ASSERT_EQ(::ftruncate(file.get(), kSize), 0);
  EXPECT_TRUE(output.append_file(std::move(file), 0, kSize));
  int turns = 1;
  std::size_t before = 0;
  for (; output.send_to(null.get(), sent) == EINTR; ++turns) {
    EXPECT_GT(sent, before);
    EXPECT_LE(sent - before, 4U << 20) << "more than others may be made to wait for";
    before = sent;
  }
  EXPECT_GE(turns, 5);
  EXPECT_EQ(sent, kSize);
  EXPECT_TRUE(output.empty());
}

TEST_F(OutputTest, GivesBackTheMemoryOfWhatIsSent) {
  EXPECT_TRUE(output.append(std::string(50'000, 'a')));
  EXPECT_TRUE(output.append_file(file_of("between"), 0, 7));
  EXPECT_TRUE(output.append(std::string(50'000, 'b')));
  const std::size_t both = output.memory();
  EXPECT_GE(both, 100'000U);
  while (output.bytes() > 50'000) {
    (void)send();
    receive();
  }
  EXPECT_LT(output.memory(), both);
  EXPECT_EQ(send_all(), 0);
  EXPECT_EQ(output.memory(), 0U);
  EXPECT_EQ(received.size(), 100'007U);
}

}  // namespace
}  // namespace anteroom
