#include "buffer.h"

#include <gtest/gtest.h>

#include <limits>
#include <random>
#include <string>
#include <string_view>
#include <utility>

#include "support/peer.h"

namespace anteroom {
namespace {

/// Not inlined: a compiler that sees a whole test warns of what would come after an append that has failed.
[[gnu::noinline]] bool append(Buffer& buffer, std::string_view bytes) { return buffer.append(bytes); }

TEST(Buffer, GivesBackWhatWasPutInInOrder) {
  Buffer buffer;
  EXPECT_TRUE(buffer.empty());
  ASSERT_TRUE(append(buffer, "Hello "));
  ASSERT_TRUE(append(buffer, "World!"));
  EXPECT_EQ(buffer.front(), "Hello World!");
  EXPECT_EQ(buffer.size(), 12U);
  buffer.consume(6);
  EXPECT_EQ(buffer.front(), "World!");
  buffer.consume(6);
  EXPECT_TRUE(buffer.empty());
  EXPECT_EQ(buffer.front(), "");
}

TEST(Buffer, HoldsNoMemoryWhileItIsEmpty) {
  Buffer buffer;
  EXPECT_EQ(buffer.front().data(), nullptr);
  ASSERT_TRUE(append(buffer, std::string(100'000, 'x')));
  EXPECT_NE(buffer.front().data(), nullptr);
  buffer.consume(100'000);
  EXPECT_EQ(buffer.front().data(), nullptr);
  ASSERT_TRUE(append(buffer, "again"));
  buffer.clear();
  EXPECT_EQ(buffer.front().data(), nullptr);
  EXPECT_EQ(buffer.size(), 0U);
}

TEST(Buffer, TakesNothingWithoutHarm) {
  Buffer buffer;
  ASSERT_TRUE(append(buffer, {}));
  buffer.consume(0);
  EXPECT_TRUE(buffer.empty());
  ASSERT_TRUE(append(buffer, "x"));
  ASSERT_TRUE(append(buffer, {}));
  buffer.consume(0);
  EXPECT_EQ(buffer.front(), "x");
}

TEST(Buffer, IsEmptyOnceMovedFromAndTakesMore) {
  Buffer first;
  ASSERT_TRUE(append(first, "eight by"));
  first.consume(1);
  Buffer second(std::move(first));
  EXPECT_EQ(second.front(), "ight by");
  // NOLINTBEGIN(bugprone-use-after-move): that it is empty is what we ask
  EXPECT_TRUE(first.empty());
  EXPECT_EQ(first.size(), 0U);
  EXPECT_EQ(first.capacity(), 0U);
  EXPECT_EQ(first.front(), "");
  ASSERT_TRUE(append(first, "more"));
  EXPECT_EQ(first.front(), "more");
  // NOLINTEND(bugprone-use-after-move)
  EXPECT_EQ(second.front(), "ight by");
}

TEST(Buffer, IsEmptyOnceAssignedFromAndTakesMore) {
  Buffer first;
  Buffer second;
  ASSERT_TRUE(append(first, "one"));
  ASSERT_TRUE(append(second, std::string(100'000, 'x')));
  second = std::move(first);
  EXPECT_EQ(second.front(), "one");
  // NOLINTBEGIN(bugprone-use-after-move): that it is empty is what we ask
  EXPECT_TRUE(first.empty());
  ASSERT_TRUE(append(first, "two"));
  EXPECT_EQ(first.front(), "two");
  // NOLINTEND(bugprone-use-after-move)
}

TEST(Buffer, KeepsItsBytesWhenAssignedToItself) {
  Buffer buffer;
  ASSERT_TRUE(append(buffer, "kept"));
  Buffer& alias = buffer;
  buffer = std::move(alias);
  EXPECT_EQ(buffer.front(), "kept");
  ASSERT_TRUE(append(buffer, "!"));
  EXPECT_EQ(buffer.front(), "kept!");
}

TEST(Buffer, RefusesMoreThanThereCanBeAndStaysAsItWas) {
  Buffer buffer;
  ASSERT_TRUE(append(buffer, "kept"));
  const char byte = 'x';
  const volatile std::size_t too_many =
      std::numeric_limits<std::size_t>::max() / 2;  // a compiler would see through it
  EXPECT_FALSE(append(buffer, {&byte, too_many}));
  EXPECT_EQ(buffer.front(), "kept");
}

TEST(Buffer, MovesEachByteSeldom) {
  // A queue that is always half a megabyte long, and through which 64 MB go: it may move them once or twice,
  // not each time.
  Buffer buffer;
  const std::string half(512 * 1024, 'x');
  const std::string piece(4096, 'y');
  ASSERT_TRUE(append(buffer, half));
  int moves = 0;
  for (int i = 0; i < 16'384; ++i) {
    const char* const before = buffer.front().data();
    ASSERT_TRUE(append(buffer, piece));
    moves += buffer.front().data() != before ? 1 : 0;
    buffer.consume(piece.size());
  }
  EXPECT_LE(moves, 2 * 64 * 1024 / 512);
  EXPECT_EQ(buffer.size(), half.size());
}

TEST(Buffer, IsAQueueWhateverIsDoneWithIt) {
  std::mt19937 random(3);
  for (int round = 0; round < 10; ++round) {
    Buffer buffer;
    std::string model;
    const std::string source = test::pattern(40'000, static_cast<std::uint32_t>(round));
    for (int i = 0; i < 1000; ++i) {
      const std::size_t size = random() % (random() % 20 == 0 ? source.size() : 300);
      if (random() % 2 == 0) {
        const auto bytes = std::string_view(source).substr(random() % (source.size() - size), size);
        ASSERT_TRUE(append(buffer, bytes));
        model += bytes;
      } else {
        const std::size_t count = std::min(size, model.size());
        buffer.consume(count);
        model.erase(0, count);
      }
      ASSERT_EQ(buffer.size(), model.size());
      ASSERT_TRUE(buffer.front() == model);
      ASSERT_EQ(buffer.empty(), model.empty());
    }
  }
}

TEST(Buffer, DoesNotCopyItselfForEachAppendWhenNearlyFull) {
  Buffer buffer;
  ASSERT_TRUE(buffer.append(std::string((1 << 20) - 2000, 'x')));
  const char* place = buffer.front().data();
  int moves = 0;
  for (int i = 0; i < 1000; ++i) {
    buffer.consume(1000);
    ASSERT_TRUE(buffer.append(std::string(1000, 'y')));
    const char* const now = buffer.front().data();
    if (now != place + 1000) ++moves;
    place = now;
  }
  EXPECT_LE(moves, 4);
}

}  // namespace
}  // namespace anteroom
