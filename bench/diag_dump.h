#pragma once
#include <anteroom/bench/socket_diag.h>
#include <linux/inet_diag.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>

namespace anteroom::bench {

/// What the kernel was asked, which its answers are held against (sock_diag(7)).
struct DiagQuestion {
  int family = 0;
  std::uint32_t states = 0;    ///< a bit for each state of TCP
  std::uint32_t sequence = 0;  ///< the number of the question
  std::uint32_t port = 0;      ///< of the netlink socket that asked
};

struct DiagProgress {
  bool is_done = false;  ///< nothing more comes
  /// Sockets came and went meanwhile, and some may be missing (NLM_F_DUMP_INTR).
  bool was_interrupted = false;
};

using TakeSocket = std::function<void(const inet_diag_msg& socket, std::span<const std::byte> attributes)>;

/// Reads one datagram of the answer, and calls `take` for each socket in it. Messages that answer another
/// question are passed over, as is a socket of another family or state than was asked for. Throws
/// std::system_error: what the kernel refused, and bad_message if a length in it is wrong.
DiagProgress read_diag_dump(std::span<const std::byte> received, const DiagQuestion& question,
                            const TakeSocket& take);

/// Throws std::system_error (bad_message) if the length of an attribute is wrong.
ListeningSocket listening_socket(const inet_diag_msg& socket, std::span<const std::byte> attributes);

}  // namespace anteroom::bench
