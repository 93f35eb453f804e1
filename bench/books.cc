#include <anteroom/bench/books.h>

#include <algorithm>
#include <cstdlib>

namespace anteroom::bench {

std::vector<Account> keep_books(const BookEntries& e) {
  std::vector<Account> books;
  books.push_back(
      {.name = "fates", .meaning = "each client has exactly one fate", .left = e.fates, .right = e.clients});

  if (!e.has_server) return books;
  // In a network that others share, the listener's own count has none of theirs, but also what is discarded
  // there otherwise, and that of the network none of the latter, but theirs: what was thrown away at the door
  // is in both.
  const std::int64_t drops = e.is_private ? e.listen_drops : std::min(e.listener_drops, e.listen_drops);
  const std::int64_t synacks = !e.is_private     ? 0
                               : e.has_two_sides ? e.server_syn_retransmits
                                                 : e.server_syn_retransmits - e.syn_retransmits;
  // A segment that came to a half-open request and found no place is in both counts, and once more in the
  // listener's. Of one with a cookie SyncookiesRecv tells.
  const std::int64_t discarded = e.is_private ? 0 : std::abs(e.listener_drops - e.listen_drops);
  const std::int64_t more_cookies =
      e.speak_first ? std::max<std::int64_t>(e.cookies_received - e.cookies_sent, 0) : 0;
  const std::int64_t lost = e.softnet_drops + e.lost_on_the_road;
  const std::int64_t resets = e.abort_on_overflow ? e.reset_before_accept : 0;
  books.push_back(
      {.name = "drops",
       .meaning =
           "what was thrown away at the door is what the clients missed: SYNs sent again, clients still in "
           "SYN_SENT, ghosts and what they said, SYN-ACKs sent again",
       .left = drops,
       .right = e.syn_retransmits + e.in_syn_sent + e.ghosts + synacks + resets,
       .allowed_from = -lost - (lost > 0 ? std::max<std::int64_t>(synacks, 0) : 0),
       .allowed_to = discarded + more_cookies});
  if (!e.is_private) return books;

  if (e.has_two_sides) {
    books.push_back({.name = "syn_retransmits",
                     .meaning = "the kernel's count of SYNs sent again is the sum of the clients' own",
                     .left = e.client_syn_retransmits,
                     .right = e.syn_retransmits});
  } else {
    books.push_back(
        {.name = "syn_ack_retransmits",
         .meaning = "the kernel's count of SYNs and SYN-ACKs sent again is at least the clients' own",
         .left = e.server_syn_retransmits,
         .right = e.syn_retransmits,
         .allowed_to = drops});
  }
  books.push_back({.name = "causes",
                   .meaning =
                       "each drop has a cause: a full accept queue, or without cookies a full SYN queue; the "
                       "rest is tcp_max_syn_backlog, memory or a firewall",
                   .left = e.listen_drops,
                   .right = e.listen_overflows + e.syn_queue_drops,
                   .allowed_to = e.syncookies ? 0 : e.listen_drops});
  books.push_back(
      {.name = "listener",
       .meaning =
           "what the listeners' own count has (SO_MEMINFO) is what the network's has, and what else was "
           "discarded there: last ACKs and resets of ghosts, and of handshakes that were repeated",
       .left = e.listen_drops,
       .right = e.listener_drops,
       .allowed_from = -2 * (e.ghosts + e.reset_before_accept + std::max<std::int64_t>(synacks, 0) +
                             e.lost_on_the_road)});
  books.push_back({.name = "calls",
                   .meaning = "each call sent one first SYN",
                   .left = e.active_opens,
                   .right = e.called});
  books.push_back({.name = "guests",
                   .meaning = "each connection that came about was accepted, or still waits",
                   .left = e.passive_opens,
                   .right = e.accepted,
                   .allowed_to = e.waiting_at_end});
  return books;
}

bool balance(const std::vector<Account>& books) noexcept {
  return std::ranges::all_of(books, &Account::balances);
}

}  // namespace anteroom::bench
