#include <anteroom/bench/books.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string_view>

namespace anteroom::bench {
namespace {

/// A burst measured on Linux 6.18 with a reactor, server greets first, one network for both sides.
constexpr BookEntries kBurst{.clients = 5000,
                             .fates = 5000,
                             .called = 5000,
                             .syn_retransmits = 1423,
                             .ghosts = 1329,
                             .listener_drops = 2752,
                             .accepted = 3671,
                             .listen_drops = 2752,
                             .listen_overflows = 2752,
                             .server_syn_retransmits = 1423,
                             .active_opens = 5000,
                             .passive_opens = 3671};

BookEntries with_two_sides() {
  BookEntries entries = kBurst;
  entries.has_two_sides = true;
  entries.server_syn_retransmits = 0;
  entries.client_syn_retransmits = 1423;
  return entries;
}

const Account& account(const std::vector<Account>& books, std::string_view name) {
  return *std::ranges::find(books, name, &Account::name);
}

TEST(Books, BalanceWhenEveryDropWasMissedBySomebody) {
  EXPECT_TRUE(balance(keep_books(kBurst)));
  EXPECT_TRUE(balance(keep_books(with_two_sides())));
}

TEST(Books, DoNotBalanceWhenOneIsMissingAnywhere) {
  using Entry = std::int64_t BookEntries::*;
  for (const bool two_sides : {false, true}) {
    for (const Entry entry :
         {&BookEntries::fates, &BookEntries::called, &BookEntries::in_syn_sent, &BookEntries::ghosts,
          &BookEntries::accepted, &BookEntries::listen_drops, &BookEntries::listen_overflows,
          &BookEntries::active_opens, &BookEntries::passive_opens, &BookEntries::syn_queue_drops,
          &BookEntries::server_syn_retransmits}) {
      for (const int by : {-1, 1}) {
        BookEntries entries = two_sides ? with_two_sides() : kBurst;
        entries.*entry += by;
        EXPECT_FALSE(balance(keep_books(entries)));
      }
    }
  }
  BookEntries entries = with_two_sides();
  ++entries.syn_retransmits;
  EXPECT_FALSE(balance(keep_books(entries)));
}

TEST(Books, LetTheListenerDiscardWhatElseAGhostSends) {
  BookEntries entries = with_two_sides();
  entries.listener_drops += 2 * entries.ghosts;  // its last ACK, a second time, and its reset
  EXPECT_TRUE(balance(keep_books(entries)));
  ++entries.listener_drops;
  EXPECT_FALSE(balance(keep_books(entries)));
}

TEST(Books, NameTheResidual) {
  BookEntries entries = with_two_sides();
  entries.listen_drops += 3;
  entries.listener_drops += 3;
  const auto books = keep_books(entries);
  EXPECT_EQ(account(books, "drops").residual(), 3);
  EXPECT_EQ(account(books, "causes").residual(), 3);
  EXPECT_TRUE(account(books, "listener").balances());
}

TEST(Books, KnowTheDropsOfASynQueueWithoutCookies) {
  BookEntries entries = with_two_sides();
  entries.listen_overflows -= 40;  // tcp_max_syn_backlog has no counter of its own
  EXPECT_FALSE(balance(keep_books(entries)));
  entries.syncookies = false;
  EXPECT_TRUE(balance(keep_books(entries)));
}

TEST(Books, MayLoseOtherPacketsInTheInputQueueButNotFewer) {
  BookEntries entries{.clients = 5000,
                      .fates = 5000,
                      .called = 5000,
                      .syn_retransmits = 12134,
                      .ghosts = 489,
                      .listener_drops = 6999,
                      .accepted = 4511,
                      .listen_drops = 6999,
                      .listen_overflows = 6999,
                      .server_syn_retransmits = 12134,
                      .active_opens = 5000,
                      .passive_opens = 4511,
                      .softnet_drops = 5624};
  EXPECT_TRUE(balance(keep_books(entries)));
  entries.softnet_drops += 100;  // a hundred data segments of somebody's
  EXPECT_TRUE(balance(keep_books(entries)));
  entries.softnet_drops -= 101;
  EXPECT_FALSE(balance(keep_books(entries)));
}

TEST(Books, KnowThatALostSynAckIsSentAgainByBothSides) {
  BookEntries entries = with_two_sides();
  ++entries.server_syn_retransmits;
  ++entries.syn_retransmits;
  ++entries.client_syn_retransmits;
  EXPECT_FALSE(balance(keep_books(entries)));
  entries.softnet_drops = 1;
  EXPECT_TRUE(balance(keep_books(entries)));
  ++entries.in_syn_sent;
  EXPECT_FALSE(balance(keep_books(entries)));
}

TEST(Books, CannotHaveFewerRetransmitsThanTheClients) {
  BookEntries entries = kBurst;
  entries.server_syn_retransmits -= 3;
  entries.listen_drops -= 3;
  entries.listen_overflows -= 3;
  entries.listener_drops -= 3;
  EXPECT_EQ(account(keep_books(entries), "drops").residual(), 0);
  EXPECT_FALSE(balance(keep_books(entries)));
}

TEST(Books, LetTheServerLeaveThoseWhoStillWait) {
  BookEntries entries = with_two_sides();
  entries.passive_opens += 5;
  EXPECT_FALSE(balance(keep_books(entries)));
  entries.waiting_at_end = 5;
  EXPECT_TRUE(balance(keep_books(entries)));
}

TEST(Books, OfASharedNetworkTakeWhatIsInBothCounts) {
  BookEntries entries = kBurst;
  entries.is_private = false;
  entries.active_opens = 1;
  EXPECT_TRUE(balance(keep_books(entries)));
  --entries.listener_drops;  // who was turned away is always in it
  EXPECT_FALSE(balance(keep_books(entries)));
  // Other listeners have drops, too, or this one has what nobody lost by: the bare ACKs of TCP_DEFER_ACCEPT.
  ++entries.listener_drops;
  entries.listen_drops += 500;
  EXPECT_TRUE(balance(keep_books(entries)));
  entries.listen_drops -= 500;
  entries.listener_drops += 500;
  EXPECT_TRUE(balance(keep_books(entries)));
  // Others were turned away at this very listener.
  entries.listen_drops += 500;
  EXPECT_FALSE(balance(keep_books(entries)));
}

TEST(Books, AllowForWhatAClientThatSpeaksFirstSaysAtAFullDoor) {
  // nginx, backlog 5, 3,000 clients that each said GET, on Linux 6.18.
  BookEntries entries{.clients = 3000,
                      .fates = 3000,
                      .called = 3000,
                      .syn_retransmits = 1819,
                      .in_syn_sent = 44,
                      .ghosts = 1556,
                      .speak_first = true,
                      .listener_drops = 9669,
                      .is_private = false,
                      .listen_drops = 9651,
                      .server_syn_retransmits = 1819,
                      .cookies_sent = 1738,
                      .cookies_received = 7952};
  EXPECT_TRUE(balance(keep_books(entries)));
  const Account drops = keep_books(entries).back();
  EXPECT_EQ(drops.residual(), drops.allowed_to);  // to the unit
  ++entries.listen_drops;
  ++entries.listener_drops;
  EXPECT_FALSE(balance(keep_books(entries)));
}

TEST(Books, OfAServerThatIsNotSeenHaveNothingButTheFates) {
  BookEntries entries = kBurst;
  entries.has_server = false;
  entries.listener_drops = 0;
  EXPECT_EQ(keep_books(entries).size(), 1U);
}

TEST(Books, CountAResetOfAbortOnOverflowAsADrop) {
  BookEntries entries = with_two_sides();
  entries.ghosts = 0;
  entries.reset_before_accept = 1329;
  EXPECT_FALSE(balance(keep_books(entries)));
  entries.abort_on_overflow = true;
  EXPECT_TRUE(balance(keep_books(entries)));
}

}  // namespace
}  // namespace anteroom::bench
