#pragma once
#include <anteroom/bench/dialogue.h>
#include <anteroom/endpoint.h>
#include <sys/types.h>

#include <cstdint>
#include <vector>

namespace anteroom::bench {

/// A server that runs already and is none of ours, as a trial sees it. A trial only calls it, and looks: it
/// changes nothing about it.
struct Target {
  Endpoint address;  ///< which the clients call
  Dialogue dialogue;
  /// Its listening sockets, by their cookies (ListeningSocket), in the network namespace of the calling
  /// thread. With none nothing is known of the server's side: no depth, no drops, and no ghosts, since these
  /// cannot be told from clients that still wait.
  std::vector<std::uint64_t> listeners;
  /// The local port of its sockets: that of `address`, unless a packet filter redirects it.
  std::uint16_t local_port = address.port();
  /// Whether its clients may only come from one address; else on 127.0.0.1 they come from all of 127/8, which
  /// have more ports.
  bool has_one_source = false;
  /// Whose processor time is the server's.
  std::vector<pid_t> processes;
};

}  // namespace anteroom::bench
