#pragma once
#include <anteroom/export.h>
#include <anteroom/fd.h>

#include <cstdint>
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
/// replaced); last ACKs of handshakes that are under way still come through. A client whose SYN is lost in
/// this way, which counts as a drop (ListenQueue::drops), sends it again after a second, and finds another
/// listener, or none. Those who are accepted from now on have the filter too, which costs each of their
/// segments some nanoseconds, and nothing else.
ANTEROOM_EXPORT bool refuse_syns(int listener) noexcept;

/// Closes the listeners numbered 0, 1, ... of a group, whose queues are empty and who refuse SYNs, so that no
/// SYN meets one of them on the way: at each step new guests are sent to a socket that has the same number
/// before and after it. Where only one other is left in the group, and at the last step, a few microseconds
/// remain.
ANTEROOM_EXPORT void close_first_of_group(std::vector<Fd> listeners) noexcept;

/// Whether SO_REUSEPORT is set on it.
ANTEROOM_EXPORT bool is_in_group(int listener) noexcept;

}  // namespace anteroom
