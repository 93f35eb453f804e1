#pragma once
#include <anteroom/bench/processes.h>
#include <anteroom/bench/room_log.h>
#include <anteroom/bench/socket_diag.h>
#include <anteroom/endpoint.h>
#include <sys/types.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "watch_drops.h"

namespace anteroom::tool {

struct WatchedProcess {
  pid_t pid = 0;
  std::string name;
};

/// One listening socket.
struct WatchedRoom {
  bench::ListeningSocket socket;  ///< as it was seen last
  bench::RoomLog log;
  std::vector<WatchedProcess> processes;  ///< that hold it, ascending; empty if they may not be looked into
  bool is_watched = true;  ///< else it is only looked at to know whether others in the namespace have guests
  bool is_gone = false;
  std::uint64_t look = 0;                ///< which saw it last
  std::uint32_t peak_since_scrape = 0;   ///< for Prometheus
  std::uint64_t drops_a_second_ago = 0;  ///< as tick() found it
  std::uint64_t drops_last_second = 0;
};

/// The sockets at one address: several if they share it with SO_REUSEPORT. The fullest decides, since each
/// has a queue of its own, and who is hashed to a full one is turned away whatever room the others have.
struct RoomGroup {
  Endpoint address;
  std::vector<const WatchedRoom*> rooms;  ///< one at least, the fullest first
  bool is_alone = false;  ///< nothing else in the namespace listens, or did since the watch began
  /// Of sockets of this address that were closed and are not in `rooms`.
  std::uint64_t drops_of_the_gone = 0;
  std::uint64_t sk_drops_of_the_gone = 0;

  const WatchedRoom& fullest() const { return *rooms.front(); }
  /// How many share the address now; at least 1.
  int members() const;
  std::uint32_t peak() const;
  /// Of all sockets that this address has had since the watch began: they never get fewer.
  std::uint64_t drops() const;
  std::uint64_t sk_drops() const;
  std::uint64_t drops_last_second() const;
  /// Who is to be named: the lowest pid of those that hold any of them.
  std::vector<WatchedProcess> processes() const;
};

/// Everything that listens in the network namespace, by cookie: what comes and goes is noticed.
class WatchedRooms {
 public:
  using Filter = std::function<bool(const bench::ListeningSocket&)>;
  /// ListenDrops of the namespace since the watch began.
  using ListenDrops = std::function<std::uint64_t()>;
  explicit WatchedRooms(Filter is_watched) : filter_(std::move(is_watched)) {}

  /// One look. `is_whole`: all listeners of the namespace are in it, so who is not is gone. `listen_drops` is
  /// asked only if the kernel has counted drops at any of them.
  void take(std::chrono::nanoseconds at, std::span<const bench::ListeningSocket> seen, bool is_whole,
            const ListenDrops& listen_drops);
  /// The namespace's counters were read.
  void take_listen_drops(std::uint64_t listen_drops) noexcept { shares_.read(listen_drops); }
  /// Something else listens in the namespace, at which nobody is to look.
  void has_another() noexcept { has_another_ = true; }
  /// From `from` on so many connections came about in the whole namespace.
  void take_window(std::chrono::nanoseconds from, std::uint64_t opened);
  /// A second is over.
  void tick();

  /// Whether there is one that is watched and whose processes have not been looked for.
  bool has_strangers() const noexcept { return has_strangers_; }
  void take_holders(const bench::SocketHolders& holders);

  /// Ports at which somebody waited or was turned away since `since`.
  std::vector<std::uint16_t> busy_ports(std::chrono::nanoseconds since) const;

  /// Those seen by the last look that are watched and have, or had, anything to tell.
  void for_each_active(const std::function<void(const WatchedRoom&)>& visit) const;
  const std::vector<std::unique_ptr<WatchedRoom>>& all() const noexcept { return rooms_; }
  /// Those watched; with the gone ones if `with_gone`. Fullest first, then by peak, drops, and address.
  std::vector<RoomGroup> groups(bool with_gone) const;
  /// Peaks begin anew.
  void scraped();

  std::size_t watched() const noexcept;  ///< which are there
  std::uint64_t looks() const noexcept { return looks_; }

 private:
  struct Drops {
    std::uint64_t drops = 0;
    std::uint64_t sk_drops = 0;
  };
  void claim(std::span<const bench::ListeningSocket> seen, bool is_whole, const ListenDrops& listen_drops);
  void forget_the_gone();

  Filter filter_;
  std::vector<std::unique_ptr<WatchedRoom>> rooms_;  // in the order in which they were first seen
  std::unordered_map<std::uint64_t, WatchedRoom*> by_cookie_;
  std::map<Endpoint, Drops> forgotten_;  // of those that are gone and were erased
  DropShares shares_;
  // Of one look: what the kernel has counted, and at which of those seen.
  std::vector<DropClaim> claims_;
  std::vector<std::size_t> claimants_;
  std::uint64_t looks_ = 0;
  bool has_strangers_ = false;
  bool has_another_ = false;
};

}  // namespace anteroom::tool
