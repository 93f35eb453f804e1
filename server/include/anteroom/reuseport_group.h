#pragma once
#include <anteroom/export.h>
#include <anteroom/fd.h>

#include <cstdint>
#include <span>
#include <vector>

namespace ANTEROOM_EXPORT anteroom {

/// How one of several SO_REUSEPORT listeners leaves its group. Closing it resets who is in its queue or on
/// the way to it (27 of 60 measured, unless net.ipv4.tcp_migrate_req is set), so first nobody new must come.
/// No rights are needed.

/// Sends new connections of the group that `listener` is in to the sockets `first`, ..., first + count - 1 of
/// it (classic BPF, SO_ATTACH_REUSEPORT_CBPF, socket(7)), to each as often as to any other. The kernel
/// numbers them in the order of their listen(2), and puts the last into the place of one that is closed.
/// Numbers that are not there fall back to the usual hash. Another program that steers the group is replaced.
/// False if `count` is 0, or if it is no socket of a group.
ANTEROOM_EXPORT bool steer_group(int listener, std::uint32_t first, std::uint32_t count) noexcept;
/// Back to the usual hash. True also if nobody had steered it.
ANTEROOM_EXPORT bool unsteer_group(int listener) noexcept;

/// From now on the listener does not see SYNs (a socket filter, SO_ATTACH_FILTER; one that was there is
/// replaced, and does not come back); last ACKs of handshakes that are under way still come through. A client
/// whose SYN is lost in this way, which counts as a drop (ListenQueue::drops), sends it again after a second,
/// and finds another listener, or none. Those who are accepted from now on have the filter too, which costs
/// each of their segments some nanoseconds, and nothing else.
///
/// The filter belongs to the socket, not to the descriptor: it stays for all other holders of the socket (a
/// service manager, a successor, dup(2)) until admit_syns().
ANTEROOM_EXPORT bool refuse_syns(int listener) noexcept;
/// Undoes refuse_syns(), whichever process called it. A filter of somebody else stays. False if the filter of
/// refuse_syns() is still attached, or if it is no socket.
ANTEROOM_EXPORT bool admit_syns(int listener) noexcept;

/// Closes the listeners numbered 0, 1, ... of a group, whose queues are empty and who refuse SYNs, so that no
/// SYN meets one of them on the way: at each step new guests are sent to a socket that has the same number
/// before and after it. Where only one other is left in the group, and at the last step, a few microseconds
/// remain: a SYN that comes then is lost, and repeated by the client after a second.
///
/// Nothing is left behind: each socket sees SYNs again before it is closed, for other processes that may hold
/// it, and the group is not steered any more. The last step needs one descriptor, for a socket that takes the
/// place of the last one meanwhile; without it, a client that calls in that last microsecond may be reset.
ANTEROOM_EXPORT void close_first_of_group(std::span<Fd> listeners) noexcept;

/// Whether SO_REUSEPORT is set on it.
ANTEROOM_EXPORT bool is_in_group(int listener) noexcept;

}  // namespace anteroom
