#pragma once
#include <anteroom/bench/fate.h>
#include <anteroom/bench/kernel_counters.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <span>
#include <string_view>
#include <system_error>
#include <type_traits>

namespace anteroom::bench {

/// What the processes of one trial write for one another to read. Each field has one writer, named behind it.
struct TrialBoard {
  std::atomic<std::int64_t> start_ns{0};  ///< CLOCK_MONOTONIC at the start of the load; 0 is not yet (host)
  std::atomic<std::uint32_t> ready{0};  ///< how many of server and swarms wait for the start (each adds one)
  std::atomic<std::uint32_t> clients_ended{0};  ///< for the progress line (each swarm adds)

  bool is_private_network = false;       ///< (host)
  char why_not_private[128] = "";        ///< (host)
  char failure[192] = "";                ///< why there was no trial (whoever failed)
  std::uint32_t backlog_in_force = 0;    ///< as the kernel has it (host)
  std::uint32_t queue_peak_sampled = 0;  ///< once a millisecond (host)
  std::uint64_t listener_drops = 0;      ///< SO_MEMINFO (host)
  std::uint64_t first_stall_drops = 0;   ///< of them, until the first stall was over (host)
  KernelCounters counters;               ///< what the trial has added (host)
  bool swarm_hung = false;               ///< a swarm had to be killed (host)
  bool server_died = false;              ///< the server ended before it was told to (host)
  bool complete = false;                 ///< all of the above has been written (host)
  std::int64_t server_cpu_ns = 0;        ///< user and system time (host)
  std::int64_t swarm_cpu_ns = 0;         ///< (host)

  std::uint64_t accepted = 0;              ///< (server)
  std::uint32_t queue_peak_at_accept = 0;  ///< seen before accepting, where it is deepest (server)
  std::int64_t longest_wait_ms = 0;        ///< in the queue (server)
  std::uint64_t server_rests = 0;  ///< it could not accept, for want of descriptors or memory (server)

  void fail(std::string_view why) noexcept {
    const std::size_t length = std::min(why.size(), sizeof(failure) - 1);
    std::memcpy(failure, why.data(), length);
    failure[length] = '\0';
  }
};
static_assert(std::atomic<std::int64_t>::is_always_lock_free &&
              std::atomic<std::uint32_t>::is_always_lock_free);
static_assert(std::is_trivially_destructible_v<TrialBoard> && std::is_trivially_destructible_v<ClientRecord>);

/// The board and a record for each client, in memory that forked processes share.
class SharedTrial {
 public:
  /// Throws std::system_error if there is no memory.
  explicit SharedTrial(std::size_t clients)
      : clients_(clients), bytes_(sizeof(TrialBoard) + clients * sizeof(ClientRecord)) {
    memory_ = ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory_ == MAP_FAILED) throw std::system_error(errno, std::system_category(), "mmap for a trial");
    new (memory_) TrialBoard;
    std::uninitialized_default_construct_n(first_record(), clients_);
  }
  SharedTrial(const SharedTrial&) = delete;
  SharedTrial& operator=(const SharedTrial&) = delete;
  ~SharedTrial() { ::munmap(memory_, bytes_); }

  TrialBoard& board() noexcept { return *static_cast<TrialBoard*>(memory_); }
  std::span<ClientRecord> records() noexcept { return {first_record(), clients_}; }

 private:
  ClientRecord* first_record() noexcept {
    static_assert(sizeof(TrialBoard) % alignof(ClientRecord) == 0);
    return reinterpret_cast<ClientRecord*>(static_cast<char*>(memory_) + sizeof(TrialBoard));
  }
  std::size_t clients_;
  std::size_t bytes_;
  void* memory_;
};

}  // namespace anteroom::bench
