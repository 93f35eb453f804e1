#pragma once
#include <anteroom/endpoint.h>

#include <array>
#include <bitset>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

/// The other ends: non-blocking sockets, driven step by step in the thread of the code under test, by raw
/// system calls that no fault can reach.
namespace anteroom::torture {

/// `size` bytes of which no two stretches look alike; the first is `first`.
std::string pattern(char first, std::size_t size);

/// Of this process, in the folder for what is temporary.
const std::string& unix_path();
/// The next run finds neither.
void remove_path_and_lock(const std::string& path);

/// A new descriptor of a file in memory that holds `bytes`.
int memory_file(std::string_view bytes) noexcept;

/// Owns one descriptor, behind the back of the seam.
class RawSocket {
 public:
  RawSocket() noexcept = default;
  explicit RawSocket(int fd) noexcept : fd_(fd) {}
  RawSocket(RawSocket&& other) noexcept : fd_(other.fd_) { other.fd_ = -1; }
  RawSocket& operator=(RawSocket&& other) noexcept;
  ~RawSocket() { close(); }

  static RawSocket open(int family) noexcept;
  static RawSocket bound(const Endpoint& endpoint) noexcept;
  static RawSocket bound_for_datagrams(const Endpoint& endpoint) noexcept;
  static RawSocket listening(const Endpoint& endpoint, int backlog) noexcept;

  int fd() const noexcept { return fd_; }
  explicit operator bool() const noexcept { return fd_ >= 0; }
  Endpoint local() const noexcept { return local_of(fd_); }
  static Endpoint local_of(int fd) noexcept;
  void set_option(int level, int option, int value) const noexcept;
  /// 0, or the errno.
  int connect(const Endpoint& to) const noexcept;
  RawSocket accept() const noexcept;
  /// How many bytes, or minus the errno.
  std::ptrdiff_t send(std::string_view bytes) const noexcept;
  std::ptrdiff_t recv(char* bytes, std::size_t size) const noexcept;
  void shut_down_writing() const noexcept;
  bool is_readable() const noexcept;
  void close() noexcept;
  void reset() noexcept;

 private:
  int fd_ = -1;
};

/// What a guest does.
struct Script {
  enum class End : std::uint8_t {
    kHalfClose,    // sends all, then FIN with it, and hears the answer out until the server's FIN
    kHearOut,      // sends all, and waits for the server's FIN
    kClose,        // closes when the answer is complete
    kReset,        // resets when all is sent
    kExpectReset,  // wants to be reset, or at least closed, without a byte
    kStay,         // never says anything
  };

  std::string_view request;
  std::string_view answer;
  End end = End::kHalfClose;
  std::size_t bytes_per_step = 1 << 20;
  std::size_t bytes_read_per_step = 1 << 20;
  int receive_buffer = 0;
};

/// One guest of the server under test.
class Peer {
 public:
  enum class Fate : std::uint8_t { kUnderWay, kServed, kClosed, kWrong };

  Peer(const Endpoint& server, const Script& script);

  /// Sends and reads what the script and the kernel allow. Whether anything has moved.
  bool step();
  Fate fate() const noexcept { return fate_; }
  bool is_done() const noexcept { return fate_ != Fate::kUnderWay || script_.end == Script::End::kStay; }
  std::string to_string() const;

 private:
  bool write_some();
  bool read_some();
  void all_is_sent();

  Script script_;
  RawSocket socket_;
  std::size_t sent_ = 0;
  std::size_t received_ = 0;
  bool finished_sending_ = false;
  bool heard_out_ = false;  // all of the answer, and the server's FIN
  Fate fate_ = Fate::kUnderWay;
};

/// A server of the other ends: sends back what it is sent, and resets who begins with 'R'.
class RawEcho {
 public:
  explicit RawEcho(const Endpoint& endpoint);
  Endpoint endpoint() const noexcept { return listener_.local(); }
  bool step();
  bool is_empty() const noexcept;

 private:
  struct Line {
    RawSocket socket;
    std::string unsent;
    bool has_spoken = false;
    bool ended = false;
  };
  bool step(Line& line);

  RawSocket listener_;
  std::array<Line, 16> lines_;
};

/// Which descriptors are open now.
inline constexpr int kDescriptorsLookedAt = 256;
std::bitset<kDescriptorsLookedAt> open_descriptors() noexcept;

}  // namespace anteroom::torture
