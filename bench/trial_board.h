#pragma once
#include <anteroom/bench/fate.h>
#include <anteroom/bench/histogram.h>
#include <anteroom/bench/kernel_counters.h>
#include <anteroom/bench/road.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <new>
#include <span>
#include <string_view>
#include <system_error>
#include <type_traits>

namespace anteroom::bench {

/// The most who waited in each step of a trial.
struct DepthOverTime {
  /// In a step that has no sample, as a busy machine may have them.
  static constexpr std::uint32_t kNoSample = std::numeric_limits<std::uint32_t>::max();

  std::int64_t step_ns = 0;
  std::uint32_t steps = 0;  ///< that were seen
  std::array<std::uint32_t, 400> depth{};
};

/// What the processes of one trial write for one another to read. Each field has one writer, named behind it.
struct TrialBoard {
  std::atomic<std::int64_t> start_ns{0};  ///< CLOCK_MONOTONIC at the start of the load; 0 is not yet (host)
  std::atomic<std::uint32_t> ready{0};  ///< how many of server and swarms wait for the start (each adds one)
  std::atomic<bool> stop{false};        ///< the swarms are to end now (who runs the trial)
  std::atomic<std::uint32_t> clients_called{0};  ///< (each swarm adds)
  std::atomic<std::uint32_t> clients_ended{0};   ///< (each swarm adds)

  RoadKind road = RoadKind::kShared;  ///< (host)
  char why_not_better[160] = "";      ///< why the road is no pair (host)
  char failure[400] = "";             ///< why there was no trial (whoever failed)
  char sysctls[640] = "";             ///< in force on the server's side, "name=value\n" each (host)
  bool syncookies = true;             ///< the sysctl, on the server's side (host)
  bool abort_on_overflow = false;     ///< the sysctl, on the server's side (host)
  int syn_linear_timeouts = 0;        ///< the sysctl, on the clients' side; older kernels have none (host)

  std::uint32_t backlog_in_force = 0;    ///< as the kernel has it (host)
  std::uint32_t queue_peak_sampled = 0;  ///< once a millisecond (host)
  std::uint32_t waiting_at_end = 0;      ///< in all listen queues (host)
  std::uint64_t listener_drops = 0;      ///< SO_MEMINFO of all listeners (host)
  std::uint64_t first_stall_drops = 0;   ///< of them, until the first stall was over (host)
  DepthOverTime depth_over_time;         ///< (host)
  double mean_in_system = 0;        ///< clients that had called and not ended, over the time sampled (host)
  std::int64_t sampled_ns = 0;      ///< that time (host)
  KernelCounters server_counters;   ///< what the trial has added on the server's side (host)
  KernelCounters client_counters;   ///< and on the clients', if it is another (host)
  std::uint64_t softnet_drops = 0;  ///< (host)
  bool swarm_hung = false;          ///< a swarm had to be killed (host)
  bool server_died = false;         ///< the server ended before it was told to (host)
  bool complete = false;            ///< all of the above has been written (host)
  std::int64_t server_cpu_ns = 0;   ///< user and system time (host)
  std::int64_t swarm_cpu_ns = 0;    ///< (host)
  RoadTraffic traffic;              ///< (the delay line)

  std::uint64_t accepted = 0;              ///< (server)
  std::uint32_t queue_peak_at_accept = 0;  ///< seen before accepting, where it is deepest (server)
  std::int64_t longest_wait_ms = 0;        ///< in the queue (server)
  std::uint64_t server_rests = 0;       ///< it could not accept, for want of descriptors or memory (server)
  Histogram queue_wait;                 ///< of each guest, in the queue (server)
  std::atomic<std::uint32_t> peers{0};  ///< how many have been written in SharedTrial::peers() (server)

  void fail(std::string_view why) noexcept { write(failure, why); }
  template <std::size_t size>
  static void write(char (&field)[size], std::string_view text) noexcept {
    const std::size_t length = std::min(text.size(), size - 1);
    std::memcpy(field, text.data(), length);
    field[length] = '\0';
  }
};
static_assert(std::atomic<std::int64_t>::is_always_lock_free &&
              std::atomic<std::uint32_t>::is_always_lock_free);
static_assert(std::is_trivially_destructible_v<TrialBoard> && std::is_trivially_destructible_v<ClientRecord>);

/// The board, a record for each client, and room for whom the server has accepted, in memory that forked
/// processes share.
class SharedTrial {
 public:
  /// Throws std::system_error if there is no memory.
  explicit SharedTrial(std::size_t clients) : clients_(clients) {
    bytes_ = sizeof(TrialBoard) + clients_ * sizeof(ClientRecord) + peers_max() * sizeof(std::uint64_t);
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

  /// Who has been accepted, as peer_key(), in any order.
  std::span<const std::uint64_t> peers() noexcept {
    return {first_peer(), std::min<std::size_t>(board().peers.load(), peers_max())};
  }
  void add_peer(std::uint64_t key) noexcept {
    const std::uint32_t index = board().peers.fetch_add(1, std::memory_order_relaxed);
    if (index < peers_max()) first_peer()[index] = key;
  }

 private:
  /// A client whose SYN was sent again may be accepted twice.
  std::size_t peers_max() const noexcept { return 2 * clients_ + 64; }
  ClientRecord* first_record() noexcept {
    static_assert(sizeof(TrialBoard) % alignof(ClientRecord) == 0);
    return reinterpret_cast<ClientRecord*>(static_cast<char*>(memory_) + sizeof(TrialBoard));
  }
  std::uint64_t* first_peer() noexcept {
    static_assert(sizeof(ClientRecord) % alignof(std::uint64_t) == 0);
    return reinterpret_cast<std::uint64_t*>(first_record() + clients_);
  }
  std::size_t clients_;
  std::size_t bytes_;
  void* memory_;
};

}  // namespace anteroom::bench
