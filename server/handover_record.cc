#include "handover_record.h"

#include <anteroom/socket.h>
#include <fmt/format.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>

namespace anteroom::handover {
namespace {

// Of a record: kTitle, how many descriptors come in later ones, "\n", and for each of its own a name and
// '\0'.
constexpr std::string_view kTitle = "anteroom 1 ";
constexpr std::size_t kDescriptorsPerRecord = 253;  // SCM_MAX_FD, unix(7)
constexpr std::size_t kNameBytesMax = 255;
constexpr std::size_t kSocketsMax = 1 + 4096;  // the one at the path, and the listeners
constexpr std::size_t kRecordBytesMax = 64 + kDescriptorsPerRecord * (kNameBytesMax + 1);

/// A message with room for the descriptors of one record.
struct Envelope {
  explicit Envelope(std::span<char> text) : bytes{.iov_base = text.data(), .iov_len = text.size()} {
    message.msg_iov = &bytes;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = control.size();
  }
  Envelope(const Envelope&) = delete;
  Envelope& operator=(const Envelope&) = delete;

  iovec bytes;
  alignas(cmsghdr) std::array<char, CMSG_SPACE(kDescriptorsPerRecord * sizeof(int))> control{};
  msghdr message{};
};

std::error_code send_record(int fd, std::span<const OfferedListener> listeners, std::size_t later) {
  std::string text = fmt::format("{}{}\n", kTitle, later);
  for (const OfferedListener& listener : listeners) text.append(listener.name).push_back('\0');
  Envelope envelope(text);
  envelope.message.msg_controllen = CMSG_SPACE(listeners.size() * sizeof(int));
  cmsghdr* const header = CMSG_FIRSTHDR(&envelope.message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(listeners.size() * sizeof(int));
  unsigned char* place = CMSG_DATA(header);
  for (const OfferedListener& listener : listeners) {
    std::memcpy(place, &listener.fd, sizeof(int));
    place += sizeof(int);
  }
  while (::sendmsg(fd, &envelope.message, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {
    if (errno != EINTR) return last_error();
  }
  return {};
}

/// Owns what came, whatever else is wrong with the message. There is room for it already.
void take_descriptors(msghdr& message, std::vector<Fd>& descriptors) noexcept {
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr; header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    const unsigned char* place = CMSG_DATA(header);
    for (std::size_t left = header->cmsg_len - CMSG_LEN(0); left >= sizeof(int); left -= sizeof(int)) {
      int fd = -1;
      std::memcpy(&fd, place, sizeof(int));
      descriptors.emplace_back(fd);
      place += sizeof(int);
    }
  }
}

/// False if that is no text of a record.
bool parse_record(std::string_view text, Record& record) {
  if (!text.starts_with(kTitle) || (text.back() != '\0')) return false;
  text.remove_prefix(kTitle.size());
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), record.later);
  if (error != std::errc{} || *end != '\n' || record.later > kSocketsMax) return false;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()) + 1);
  while (!text.empty()) {
    record.names.emplace_back(text.substr(0, text.find('\0')));
    text.remove_prefix(record.names.back().size() + 1);
  }
  return !record.names.empty() && record.names.size() == record.descriptors.size();
}

}  // namespace

bool say(int fd, std::string_view word) noexcept {
  ssize_t sent = -1;
  do {
    sent = ::send(fd, word.data(), word.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  } while (sent < 0 && errno == EINTR);
  return sent >= 0;
}

std::string_view hear(int fd, std::span<char> room, std::error_code& error) noexcept {
  ssize_t count = -1;
  do {
    count = ::recv(fd, room.data(), room.size(), 0);
  } while (count < 0 && errno == EINTR);
  error = count < 0 ? last_error() : std::error_code{};
  return {room.data(), count > 0 ? static_cast<std::size_t>(count) : 0};
}

std::error_code send_listeners(int fd, std::span<const OfferedListener> listeners) {
  if (listeners.size() > kSocketsMax) return std::make_error_code(std::errc::argument_list_too_long);
  for (const OfferedListener& listener : listeners) {
    if (listener.name.size() > kNameBytesMax || listener.name.find('\0') != std::string::npos)
      return std::make_error_code(std::errc::invalid_argument);
  }
  while (!listeners.empty()) {
    const std::size_t now = std::min(listeners.size(), kDescriptorsPerRecord);
    if (const auto error = send_record(fd, listeners.first(now), listeners.size() - now)) return error;
    listeners = listeners.subspan(now);
  }
  return {};
}

Record receive_record(int fd) {
  std::string text(kRecordBytesMax, '\0');
  Envelope envelope(text);
  Record record;
  // Now, for what has come must not be lost for want of memory.
  record.descriptors.reserve(kDescriptorsPerRecord);
  ssize_t count = -1;
  do {
    count = ::recvmsg(fd, &envelope.message, MSG_CMSG_CLOEXEC);
  } while (count < 0 && errno == EINTR);
  if (count < 0) throw errno == EAGAIN ? not_to_be(std::errc::timed_out) : not_to_be(last_error());
  take_descriptors(envelope.message, record.descriptors);
  text.resize(static_cast<std::size_t>(count));
  if (text.empty()) throw not_to_be(std::errc::connection_aborted);
  if (text == kGoesOn) throw not_to_be(std::errc::operation_canceled);
  // The kernel leaves out those for which we may have no descriptor.
  if ((envelope.message.msg_flags & MSG_CTRUNC) != 0) throw not_to_be(std::errc::too_many_files_open);
  if (!parse_record(text, record)) throw not_to_be(std::errc::bad_message);
  return record;
}

std::system_error not_to_be(std::error_code error) {
  return setup_error(error, "to succeed", "a predecessor");
}
std::system_error not_to_be(std::errc error) { return not_to_be(std::make_error_code(error)); }

}  // namespace anteroom::handover
