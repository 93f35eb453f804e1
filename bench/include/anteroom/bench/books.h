#pragma once
#include <cstdint>
#include <string_view>
#include <vector>

namespace anteroom::bench {

/// What the accounts of one trial are kept from. Counts of packets and of clients.
struct BookEntries {
  // The clients' own.
  std::int64_t clients = 0;
  std::int64_t fates = 0;            ///< of all clients
  std::int64_t called = 0;           ///< whose connect(2) sent a SYN
  std::int64_t syn_retransmits = 0;  ///< tcpi_total_retrans, which counts nothing else here
  std::int64_t in_syn_sent = 0;      ///< at their end
  std::int64_t ghosts = 0;           ///< of both kinds
  bool speak_first = false;          ///< before the server does
  std::int64_t reset_before_accept = 0;

  // The server's own.
  bool has_server = true;           ///< else nothing is known of its side
  std::int64_t listener_drops = 0;  ///< SO_MEMINFO of its listeners
  std::int64_t accepted = 0;
  std::int64_t waiting_at_end = 0;  ///< in the listen queue

  // The kernel's, of the trial's network. With a namespace for each side: of the side that is named.
  bool is_private = true;  ///< else others share these counters, and they are only upper bounds
  bool has_two_sides = false;
  std::int64_t listen_drops = 0;
  std::int64_t listen_overflows = 0;
  std::int64_t syn_queue_drops = 0;         ///< TCPReqQFullDrop
  std::int64_t server_syn_retransmits = 0;  ///< TCPSynRetrans: SYN-ACKs; with one side also the clients' SYNs
  std::int64_t client_syn_retransmits = 0;  ///< with two sides
  std::int64_t active_opens = 0;
  std::int64_t passive_opens = 0;
  std::int64_t softnet_drops = 0;  ///< of the whole machine
  std::int64_t cookies_sent = 0;
  std::int64_t cookies_received =
      0;  ///< valid ones: with a last ACK, and with each segment until one finds a place
  bool syncookies = true;
  bool abort_on_overflow = false;

  std::int64_t lost_on_the_road = 0;  ///< packets of handshakes that the delay line lost
};

/// Two ways to count one thing.
struct Account {
  std::string_view name;
  std::string_view meaning;
  std::int64_t left = 0;
  std::int64_t right = 0;
  /// What the residual may be: 0, unless packets were lost where nobody tells whose they were.
  std::int64_t allowed_from = 0;
  std::int64_t allowed_to = 0;

  std::int64_t residual() const noexcept { return left - right; }
  bool balances() const noexcept { return residual() >= allowed_from && residual() <= allowed_to; }
};

/// All accounts of a trial. The chief one, exact in all of 186 bursts without softnet drops on Linux 6.18:
///
///   ListenDrops + softnet drops = SYNs sent again + clients still in SYN_SENT + ghosts + SYN-ACKs sent again
///
/// Each SYN that is dropped is either sent again, or was the last one of a client still in SYN_SENT. Each
/// last ACK that is dropped leaves a ghost, or a handshake that the server's repeated SYN-ACK heals; under
/// tcp_abort_on_overflow, a client that is reset. A packet that a processor's input queue lost was one of
/// those too, or another one; so with softnet drops the account is known only to within their number; and as
/// a SYN-ACK that is lost makes both sides send again, to within the SYN-ACKs sent again, too. The same holds
/// for what a delay line lost.
///
/// A client that speaks first brings its cookie, or knocks at its half-open request, with each segment that
/// it sends, and each that finds the queue full is one drop more. The account allows for as many as the
/// kernel knows of: those with cookies are in SyncookiesRecv, the others are in the listener's own count once
/// more than in ListenDrops. (nginx, backlog 5, 3,000 clients: 9,651 drops are 1,819 SYNs sent again, 44
/// clients in SYN_SENT, 7,770 cookies without a place and 18 others; the listener's own count is 9,669.)
std::vector<Account> keep_books(const BookEntries& entries);

bool balance(const std::vector<Account>& books) noexcept;

}  // namespace anteroom::bench
