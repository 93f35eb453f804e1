#include <anteroom/bench/books.h>
#include <gtest/gtest.h>

namespace anteroom::bench {
namespace {

/// Two bursts measured on Linux 6.18 with a reactor, server greets first.
constexpr Books kWithoutSoftnetDrops{
    .listen_drops = 2752, .syn_retransmits = 1423, .ghosts = 1329, .fates = 5000, .clients = 5000};
constexpr Books kWithSoftnetDrops{.listen_drops = 6999,
                                  .softnet_drops = 5624,
                                  .syn_retransmits = 12134,
                                  .ghosts = 489,
                                  .fates = 5000,
                                  .clients = 5000};

TEST(Books, BalanceWhenEveryDropWasMissedBySomebody) {
  EXPECT_TRUE(kWithoutSoftnetDrops.balance());
  EXPECT_TRUE(kWithSoftnetDrops.balance());
}

TEST(Books, DoNotBalanceWhenOneIsMissing) {
  for (const int by : {-1, 1}) {
    Books books = kWithoutSoftnetDrops;
    books.listen_drops += by;
    EXPECT_FALSE(books.balance());
    EXPECT_EQ(books.residual(), by);
    books = kWithoutSoftnetDrops;
    books.ghosts += by;
    EXPECT_FALSE(books.balance());
    books = kWithoutSoftnetDrops;
    books.fates += by;
    EXPECT_FALSE(books.balance());
  }
}

TEST(Books, MayLoseOtherPacketsInTheInputQueueButNotFewer) {
  Books books = kWithSoftnetDrops;
  books.softnet_drops += 100;  // a hundred data segments of somebody's
  EXPECT_TRUE(books.balance());
  books = kWithSoftnetDrops;
  books.softnet_drops -= 1;
  EXPECT_FALSE(books.balance());
}

TEST(Books, CannotHaveFewerRetransmitsThanTheClients) {
  Books books = kWithoutSoftnetDrops;
  books.synack_retransmits = -3;
  books.listen_drops -= 3;
  EXPECT_EQ(books.residual(), 0);
  EXPECT_FALSE(books.balance());
}

}  // namespace
}  // namespace anteroom::bench
