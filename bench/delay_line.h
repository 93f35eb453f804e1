#pragma once
#include <anteroom/bench/random.h>
#include <anteroom/bench/road.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <string>

namespace anteroom::bench {

/// Carries the packets of two TUN devices from one to the other, late and not all of them.
///
/// A plain loop and not a Reactor: a packet that is due waits for no other event, and ppoll(2) is as exact as
/// the kernel's clock, where a Timer rounds up to 16 µs. Borrows the descriptors.
class DelayLine {
 public:
  using Clock = std::chrono::steady_clock;

  struct Options {
    int client_tun = -1;  ///< non-blocking
    int server_tun = -1;
    std::chrono::nanoseconds one_way{0};
    double loss = 0;  ///< share of packets, each way
    std::uint64_t seed = 1;
  };

  DelayLine(const Options& options, RoadTraffic& traffic);

  /// Until the process is killed. Throws std::system_error if a device cannot be read.
  [[noreturn]] void run();

 private:
  struct Packet {
    Clock::time_point due;
    Clock::time_point due_at_best;  ///< if it was sent as soon as there was nothing before it
    std::string bytes;
  };

  /// One way along the line. Its packets are due in the order in which they came.
  class Lane {
   public:
    Lane(int from, int to, const Options& options, std::uint64_t seed, RoadTraffic& traffic)
        : from_(from),
          to_(to),
          one_way_(options.one_way),
          loss_(options.loss),
          lots_(seed),
          traffic_(traffic) {}

    /// Writes some of what is due.
    void deliver();
    /// Reads some of what has come; false if that was nothing.
    bool take();
    /// When the next packet is due, if one is on the way.
    std::optional<Clock::time_point> next_due() const;
    /// The line slept until now: nothing had come before.
    void woke(Clock::time_point now) noexcept { nothing_before_ = now; }

   private:
    void accept(std::string bytes);
    void lose(const std::string& bytes) noexcept;

    int from_;
    int to_;
    std::chrono::nanoseconds one_way_;
    double loss_;
    Random lots_;
    RoadTraffic& traffic_;
    Clock::time_point nothing_before_ = Clock::now();
    std::deque<Packet> on_the_way_;
  };

  void sleep();

  int client_tun_;
  int server_tun_;
  Lane to_server_;
  Lane to_client_;
};

}  // namespace anteroom::bench
