#include "peers.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "faults.h"

namespace anteroom::torture {
namespace {

std::array<char, 256 * 1024> scratch;

}  // namespace

std::string pattern(char first, std::size_t size) {
  std::string bytes(size, first);
  std::uint32_t state = 2463534242;  // xorshift32, Marsaglia 2003
  for (std::size_t i = 1; i < size; ++i) {
    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    bytes[i] = static_cast<char>(state);
  }
  return bytes;
}

const std::string& unix_path() {
  static const std::string path =
      fmt::format("{}anteroom-torture-{}", ::testing::TempDir(), static_cast<int>(::getpid()));
  return path;
}

void remove_path_and_lock(const std::string& path) {
  const faults::Spared spared;
  (void)::syscall(SYS_unlink, path.c_str());
  (void)::syscall(SYS_unlink, (path + ".anteroom-lock").c_str());
}

int memory_file(std::string_view bytes) noexcept {
  const auto file = static_cast<int>(::syscall(SYS_memfd_create, "anteroom-torture", MFD_CLOEXEC));
  (void)::syscall(SYS_write, file, bytes.data(), bytes.size());
  return file;
}

// ---- RawSocket

RawSocket& RawSocket::operator=(RawSocket&& other) noexcept {
  if (this == &other) return *this;
  close();
  fd_ = other.fd_;
  other.fd_ = -1;
  return *this;
}

RawSocket RawSocket::open(int family) noexcept {
  return RawSocket(
      static_cast<int>(::syscall(SYS_socket, family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)));
}

RawSocket RawSocket::bound(const Endpoint& endpoint) noexcept {
  RawSocket socket = open(endpoint.family());
  if (::syscall(SYS_bind, socket.fd(), endpoint.data(), endpoint.size()) != 0) socket.close();
  return socket;
}

RawSocket RawSocket::bound_for_datagrams(const Endpoint& endpoint) noexcept {
  RawSocket socket(static_cast<int>(
      ::syscall(SYS_socket, endpoint.family(), SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)));
  if (::syscall(SYS_bind, socket.fd(), endpoint.data(), endpoint.size()) != 0) socket.close();
  return socket;
}

RawSocket RawSocket::listening(const Endpoint& endpoint, int backlog) noexcept {
  RawSocket socket = bound(endpoint);
  if (::syscall(SYS_listen, socket.fd(), backlog) != 0) socket.close();
  return socket;
}

Endpoint RawSocket::local_of(int fd) noexcept {
  sockaddr_storage address{};
  socklen_t size = sizeof(address);
  if (::syscall(SYS_getsockname, fd, &address, &size) != 0) return {};
  return Endpoint::from(reinterpret_cast<sockaddr*>(&address), size);
}

void RawSocket::set_option(int level, int option, int value) const noexcept {
  (void)::syscall(SYS_setsockopt, fd_, level, option, &value, sizeof(value));
}

int RawSocket::connect(const Endpoint& to) const noexcept {
  return ::syscall(SYS_connect, fd_, to.data(), to.size()) == 0 ? 0 : errno;
}

RawSocket RawSocket::accept() const noexcept {
  return RawSocket(
      static_cast<int>(::syscall(SYS_accept4, fd_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC)));
}

std::ptrdiff_t RawSocket::send(std::string_view bytes) const noexcept {
  const auto count = ::syscall(SYS_sendto, fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL, nullptr, 0);
  return count >= 0 ? count : -errno;
}

std::ptrdiff_t RawSocket::recv(char* bytes, std::size_t size) const noexcept {
  const auto count = ::syscall(SYS_recvfrom, fd_, bytes, size, 0, nullptr, nullptr);
  return count >= 0 ? count : -errno;
}

void RawSocket::shut_down_writing() const noexcept { (void)::syscall(SYS_shutdown, fd_, SHUT_WR); }

bool RawSocket::is_readable() const noexcept {
  pollfd descriptor{.fd = fd_, .events = POLLIN, .revents = 0};
  const timespec at_once{};
  return ::syscall(SYS_ppoll, &descriptor, 1, &at_once, nullptr, 0) > 0;
}

void RawSocket::close() noexcept {
  if (fd_ >= 0) (void)::syscall(SYS_close, fd_);
  fd_ = -1;
}

void RawSocket::reset() noexcept {
  const linger at_once{.l_onoff = 1, .l_linger = 0};
  (void)::syscall(SYS_setsockopt, fd_, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
  close();
}

// ---- Peer

Peer::Peer(const Endpoint& server, const Script& script)
    : script_(script),
      socket_(RawSocket::open(server.family())),
      finished_sending_(script.end == Script::End::kStay) {
  if (server.family() != AF_UNIX) socket_.set_option(IPPROTO_TCP, TCP_NODELAY, 1);
  if (script.receive_buffer > 0) socket_.set_option(SOL_SOCKET, SO_RCVBUF, script.receive_buffer);
  const int error = socket_.connect(server);
  if (error != 0 && error != EINPROGRESS) fate_ = Fate::kClosed;
}

bool Peer::step() {
  if (fate_ != Fate::kUnderWay) return false;
  const bool wrote = write_some();
  const bool read = fate_ == Fate::kUnderWay && read_some();
  if (heard_out_ && finished_sending_) fate_ = Fate::kServed;
  if (fate_ != Fate::kUnderWay) socket_.close();
  return wrote || read;
}

bool Peer::write_some() {
  if (finished_sending_) return false;
  if (sent_ < script_.request.size()) {
    const auto count = socket_.send(script_.request.substr(sent_, script_.bytes_per_step));
    if (count == -EAGAIN || count == -ENOTCONN) return false;
    if (count < 0) return finished_sending_ = true;  // what the server had sent before is still to be read
    sent_ += static_cast<std::size_t>(count);
  }
  if (sent_ == script_.request.size()) all_is_sent();
  return true;
}

void Peer::all_is_sent() {
  finished_sending_ = true;
  if (script_.end == Script::End::kHalfClose) socket_.shut_down_writing();
  if (script_.end == Script::End::kReset) {
    socket_.reset();
    fate_ = Fate::kServed;
  }
}

bool Peer::read_some() {
  if (heard_out_) return false;
  const auto count = socket_.recv(scratch.data(), std::min(script_.bytes_read_per_step, scratch.size()));
  if (count == -EAGAIN || count == -ENOTCONN) return false;
  if (count < 0) {
    fate_ = script_.end == Script::End::kExpectReset ? Fate::kServed : Fate::kClosed;
  } else if (count == 0) {
    heard_out_ = received_ == script_.answer.size();
    if (!heard_out_) fate_ = Fate::kClosed;
  } else {
    const std::string_view bytes(scratch.data(), static_cast<std::size_t>(count));
    if (script_.answer.substr(received_, bytes.size()) != bytes) {
      fate_ = Fate::kWrong;
      return true;
    }
    received_ += bytes.size();
    if (script_.end == Script::End::kClose && received_ == script_.answer.size()) fate_ = Fate::kServed;
  }
  return true;
}

std::string Peer::to_string() const {
  constexpr std::array<const char*, 4> kFates = {"is left hanging", "is served", "is closed",
                                                 "gets wrong bytes"};
  return fmt::format("the guest '{}' {}: {} of {} bytes sent, {} of {} received",
                     script_.request.empty() ? '-' : script_.request.front(),
                     kFates.at(static_cast<std::size_t>(fate_)), sent_, script_.request.size(), received_,
                     script_.answer.size());
}

// ---- RawEcho

RawEcho::RawEcho(const Endpoint& endpoint) : listener_(RawSocket::listening(endpoint, 64)) {}

bool RawEcho::step() {
  bool moved = false;
  for (Line& line : lines_) {
    if (!line.socket) {
      line = Line{listener_.accept(), {}};
      moved = moved || line.socket;
    }
    if (line.socket) moved = step(line) || moved;
  }
  return moved;
}

bool RawEcho::is_empty() const noexcept {
  return !listener_.is_readable() &&
         std::ranges::none_of(lines_, [](const Line& line) { return line.socket.fd() >= 0; });
}

bool RawEcho::step(Line& line) {
  if (!line.ended && line.unsent.empty()) {
    const auto count = line.socket.recv(scratch.data(), 48 * 1024);
    if (count > 0 && scratch[0] == 'R' && !line.has_spoken) {
      line.socket.reset();
      return true;
    }
    if (count > 0) line.unsent.assign(scratch.data(), static_cast<std::size_t>(count));
    if (count == -EAGAIN) return false;
    line.has_spoken = true;
    if (count <= 0) line.ended = true;
  }
  if (line.unsent.empty()) {
    line.socket.close();
    return true;
  }
  const auto count = line.socket.send(line.unsent);
  if (count == -EAGAIN) return false;
  if (count < 0) {
    line.socket.close();
  } else {
    line.unsent.erase(0, static_cast<std::size_t>(count));
  }
  return true;
}

std::bitset<kDescriptorsLookedAt> open_descriptors() noexcept {
  std::bitset<kDescriptorsLookedAt> open;
  for (int fd = 0; fd < kDescriptorsLookedAt; ++fd) {
    open[static_cast<std::size_t>(fd)] = ::syscall(SYS_fcntl, fd, F_GETFD) >= 0;
  }
  return open;
}

}  // namespace anteroom::torture
