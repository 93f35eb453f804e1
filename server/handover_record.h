#pragma once
#include <anteroom/handover.h>

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

/// What predecessor and successor say to each other. Their socket is one of records (SOCK_SEQPACKET), so that
/// each of them is whole, and descriptors come with their names.
namespace anteroom::handover {

constexpr std::string_view kReady = "ready";     // the successor accepts
constexpr std::string_view kLetGo = "let go";    // and the predecessor does not any more
constexpr std::string_view kGoesOn = "goes on";  // without this successor

/// Never waits. False if the other side does not get it.
bool say(int fd, std::string_view word) noexcept;

/// The next word of the other side, in `room`, which is more than large enough for one; empty at the end, and
/// with an error. Waits if the socket does.
std::string_view hear(int fd, std::span<char> room, std::error_code& error) noexcept;

/// All of them, in as many records as that takes. Never waits: more than the socket's empty buffer holds is
/// an error like any other.
std::error_code send_listeners(int fd, std::span<const OfferedListener> listeners);

/// One of those records. As many names as descriptors, at least one.
struct Record {
  std::vector<std::string> names;
  std::vector<Fd> descriptors;
  std::size_t later = 0;  // descriptors that come in further records
};

/// Waits for it. Throws std::system_error as Handover::take() says; whatever came with it is closed then.
Record receive_record(int fd);

/// Why we cannot be a successor.
std::system_error not_to_be(std::error_code error);
std::system_error not_to_be(std::errc error);

}  // namespace anteroom::handover
