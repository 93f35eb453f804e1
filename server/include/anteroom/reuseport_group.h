#pragma once
#include <cstdint>

namespace anteroom {

/// How one of several SO_REUSEPORT listeners leaves its group. Closing it resets who is in its queue or on
/// the way to it (27 of 60 measured, unless net.ipv4.tcp_migrate_req is set), so first nobody new must come.
/// No rights are needed.

/// Sends new connections of the group that `listener` is in to the sockets `first`, ..., first + count - 1 of
/// it (classic BPF, SO_ATTACH_REUSEPORT_CBPF, socket(7)). The kernel numbers them in the order in which they
/// were bound, and puts the last into the place of one that is closed. Numbers that are not there fall back
/// to the usual hash.
bool steer_group(int listener, std::uint32_t first, std::uint32_t count) noexcept;
/// Back to the usual hash.
bool unsteer_group(int listener) noexcept;

/// From now on the listener does not see SYNs (a socket filter); last ACKs of handshakes that are under way
/// still come through. A client whose SYN is lost in this way sends it again after a second, and finds
/// another listener, or none.
bool refuse_syns(int listener) noexcept;

/// Whether SO_REUSEPORT is set on it.
bool is_in_group(int listener) noexcept;

}  // namespace anteroom
