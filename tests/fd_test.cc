#include <anteroom/fd.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <type_traits>
#include <utility>

#include "support/descriptors.h"

namespace anteroom {
namespace {

int open_one() { return ::fcntl(2, F_DUPFD_CLOEXEC, 0); }
bool is_open(int fd) { return ::fcntl(fd, F_GETFD) >= 0; }

TEST(Fd, ClosesWhatItOwns) {
  const int number = open_one();
  {
    const Fd fd(number);
    EXPECT_TRUE(fd);
    EXPECT_EQ(fd.get(), number);
    EXPECT_TRUE(is_open(number));
  }
  EXPECT_FALSE(is_open(number));
}

TEST(Fd, IsNobodysUntilItIsGivenOne) {
  const Fd fd;
  EXPECT_FALSE(fd);
  EXPECT_EQ(fd.get(), -1);
}

TEST(Fd, TakesZeroForADescriptor) {
  Fd fd(0);
  EXPECT_TRUE(fd);
  EXPECT_EQ(fd.release(), 0);
}

TEST(Fd, MayBeMovedAndThenHasOneOwner) {
  static_assert(!std::is_copy_constructible_v<Fd> && !std::is_copy_assignable_v<Fd>);
  static_assert(std::is_nothrow_move_constructible_v<Fd> && std::is_nothrow_move_assignable_v<Fd>);
  const int before = test::open_descriptors();
  {
    Fd first(open_one());
    const int number = first.get();
    Fd second(std::move(first));
    EXPECT_FALSE(first);  // NOLINT(bugprone-use-after-move): that it is empty is what we ask
    EXPECT_EQ(second.get(), number);
    Fd third(open_one());
    const int closed = third.get();
    third = std::move(second);
    EXPECT_FALSE(is_open(closed));
    EXPECT_EQ(third.get(), number);
  }
  EXPECT_EQ(test::open_descriptors(), before);
}

TEST(Fd, MayBeAssignedToItself) {
  Fd fd(open_one());
  Fd& alias = fd;
  fd = std::move(alias);
  EXPECT_TRUE(is_open(fd.get()));
}

TEST(Fd, GivesItsDescriptorAwayOpen) {
  Fd fd(open_one());
  const int number = fd.release();
  EXPECT_FALSE(fd);
  EXPECT_TRUE(is_open(number));
  const Fd closes_it(number);
}

TEST(Fd, IsReset) {
  Fd fd(open_one());
  const int first = fd.get();
  const int second = open_one();
  fd.reset(second);
  EXPECT_FALSE(is_open(first));
  EXPECT_EQ(fd.get(), second);
  fd.reset();
  EXPECT_FALSE(fd);
  EXPECT_FALSE(is_open(second));
}

TEST(Fd, StaysOpenWhenItIsResetToWhatItHolds) {
  Fd fd(open_one());
  const int number = fd.get();
  fd.reset(number);
  EXPECT_EQ(fd.get(), number);
  EXPECT_TRUE(is_open(number));
}

}  // namespace
}  // namespace anteroom
