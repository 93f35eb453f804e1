#include "watch_rooms.h"

#include <algorithm>
#include <iterator>
#include <map>
#include <tuple>

namespace anteroom::tool {
namespace {

using bench::ListeningSocket;

// So that a machine on which short-lived servers come and go can be watched for weeks.
constexpr std::ptrdiff_t kGoneMax = 1000;

bench::RoomSample sample_of(const ListeningSocket& socket, std::chrono::nanoseconds at, std::uint64_t drops) {
  return {.at = at, .depth = socket.depth, .limit = socket.limit, .drops = drops, .sk_drops = socket.drops};
}

double fullness(const WatchedRoom& room) { return room.log.depth() / room.log.places(); }

/// The fullest first.
auto rank(const WatchedRoom& room) {
  return std::tuple(room.is_gone, -fullness(room), -(room.log.peak() / room.log.places()),
                    -static_cast<double>(room.log.drops()));
}

}  // namespace

std::uint32_t RoomGroup::peak() const {
  std::uint32_t most = 0;
  for (const WatchedRoom* room : rooms) most = std::max(most, room->log.peak());
  return most;
}

int RoomGroup::members() const {
  const auto there = std::ranges::count_if(rooms, [](const WatchedRoom* room) { return !room->is_gone; });
  return static_cast<int>(std::max<std::ptrdiff_t>(there, 1));
}

std::uint64_t RoomGroup::drops() const {
  std::uint64_t sum = drops_of_the_gone;
  for (const WatchedRoom* room : rooms) sum += room->log.drops();
  return sum;
}

std::uint64_t RoomGroup::sk_drops() const {
  std::uint64_t sum = sk_drops_of_the_gone;
  for (const WatchedRoom* room : rooms) sum += room->log.sk_drops();
  return sum;
}

std::uint64_t RoomGroup::drops_last_second() const {
  std::uint64_t sum = 0;
  for (const WatchedRoom* room : rooms) sum += room->drops_last_second;
  return sum;
}

std::vector<WatchedProcess> RoomGroup::processes() const {
  std::map<pid_t, std::string> by_pid;
  for (const WatchedRoom* room : rooms) {
    for (const WatchedProcess& process : room->processes) by_pid[process.pid] = process.name;
  }
  std::vector<WatchedProcess> processes;
  for (const auto& [pid, name] : by_pid) processes.push_back({.pid = pid, .name = name});
  return processes;
}

/// Who has been counted drops since the look before, and how many of them were handshakes thrown away.
void WatchedRooms::claim(std::span<const ListeningSocket> seen, bool is_whole,
                         const ListenDrops& listen_drops) {
  claims_.clear();
  claimants_.clear();
  if (looks_ == 0) return;  // what was before the watch is not ours
  for (std::size_t i = 0; i < seen.size(); ++i) {
    const auto known = by_cookie_.find(seen[i].cookie);
    const ListeningSocket* const before =
        known == by_cookie_.end() ? nullptr : &known->second->socket;  // else it was made since
    const std::uint32_t more = seen[i].drops - (before == nullptr ? 0 : before->drops);
    if (more == 0) continue;
    const bool was_full = before != nullptr && before->depth > before->limit;
    claims_.push_back({.sk_drops = more, .was_full = was_full || seen[i].depth > seen[i].limit});
    claimants_.push_back(i);
  }
  if (!claims_.empty()) {
    shares_.share(claims_, listen_drops(), is_whole);
  } else if (is_whole) {
    shares_.nobody_claims();
  }
}

void WatchedRooms::take(std::chrono::nanoseconds at, std::span<const ListeningSocket> seen, bool is_whole,
                        const ListenDrops& listen_drops) {
  claim(seen, is_whole, listen_drops);
  const bool is_first = looks_ == 0;
  ++looks_;
  std::size_t claimed = 0;
  for (std::size_t i = 0; i < seen.size(); ++i) {
    const ListeningSocket& socket = seen[i];
    const bool has_claim = claimed < claimants_.size() && claimants_[claimed] == i;
    const std::uint64_t drops = has_claim ? claims_[claimed++].drops : 0;
    WatchedRoom*& room = by_cookie_[socket.cookie];
    if (room == nullptr) {
      rooms_.push_back(std::make_unique<WatchedRoom>(
          WatchedRoom{.socket = socket,
                      .log = bench::RoomLog(sample_of(socket, at, drops), !is_first),
                      .processes = {}}));
      room = rooms_.back().get();
      room->is_watched = filter_(socket);
      has_strangers_ = has_strangers_ || room->is_watched;
    } else {
      room->log.take(sample_of(socket, at, room->log.drops() + drops));
      room->socket = socket;
    }
    room->is_gone = false;
    room->look = looks_;
    room->peak_since_scrape = std::max(room->peak_since_scrape, socket.depth);
  }
  if (!is_whole) return;
  for (const auto& room : rooms_) room->is_gone = room->look != looks_;
  forget_the_gone();
}

void WatchedRooms::forget_the_gone() {
  auto too_many = std::ranges::count_if(rooms_, &WatchedRoom::is_gone) - kGoneMax;
  std::erase_if(rooms_, [&](const std::unique_ptr<WatchedRoom>& room) {
    if (!room->is_gone || too_many-- <= 0) return false;
    by_cookie_.erase(room->socket.cookie);
    has_another_ = true;  // or had, which we no longer know
    if (room->log.sk_drops() > 0) {
      Drops& drops = forgotten_[room->socket.address];
      drops.drops += room->log.drops();
      drops.sk_drops += room->log.sk_drops();
    }
    return true;
  });
}

void WatchedRooms::take_window(std::chrono::nanoseconds from, std::uint64_t opened) {
  for (const auto& room : rooms_) {
    if (!room->is_gone && room->log.depth() > 0) room->log.take_window(from, opened);
  }
}

void WatchedRooms::tick() {
  for (const auto& room : rooms_) {
    room->drops_last_second = room->log.drops() - std::exchange(room->drops_a_second_ago, room->log.drops());
  }
}

void WatchedRooms::take_holders(const bench::SocketHolders& holders) {
  std::map<pid_t, std::string> names;
  for (const auto& room : rooms_) {
    const auto found = holders.by_inode.find(room->socket.inode);
    if (!room->is_watched || room->is_gone || found == holders.by_inode.end()) continue;
    room->processes.clear();
    for (const bench::SocketHolder& holder : found->second) {
      // Who has it twice is still one.
      if (!room->processes.empty() && room->processes.back().pid == holder.pid) continue;
      std::string& name = names[holder.pid];
      if (name.empty()) name = bench::process_name(holder.pid);
      room->processes.push_back({.pid = holder.pid, .name = name});
    }
  }
  has_strangers_ = false;
}

std::vector<std::uint16_t> WatchedRooms::busy_ports(std::chrono::nanoseconds since) const {
  std::vector<std::uint16_t> ports;
  for (const auto& room : rooms_) {
    if (room->is_watched && !room->is_gone && room->log.was_active() && room->log.last_active() >= since)
      ports.push_back(room->socket.address.port());
  }
  std::ranges::sort(ports);
  ports.erase(std::unique(ports.begin(), ports.end()), ports.end());
  return ports;
}

void WatchedRooms::for_each_active(const std::function<void(const WatchedRoom&)>& visit) const {
  for (const auto& room : rooms_) {
    if (room->is_watched && room->look == looks_ && room->log.was_active()) visit(*room);
  }
}

std::vector<RoomGroup> WatchedRooms::groups(bool with_gone) const {
  std::map<Endpoint, RoomGroup> by_address;
  std::map<Endpoint, Drops> gone = forgotten_;
  bool is_alone = !has_another_;
  for (const auto& room : rooms_) {
    is_alone = is_alone && room->socket.address == rooms_.front()->socket.address;
    if (room->is_watched && room->is_gone && !with_gone) {
      Drops& drops = gone[room->socket.address];
      drops.drops += room->log.drops();
      drops.sk_drops += room->log.sk_drops();
    }
    if (!room->is_watched || (room->is_gone && !with_gone)) continue;
    RoomGroup& group = by_address[room->socket.address];
    group.address = room->socket.address;
    group.rooms.push_back(room.get());
  }
  std::vector<RoomGroup> groups;
  for (auto& [address, group] : by_address) {
    std::ranges::stable_sort(group.rooms, {}, [](const WatchedRoom* room) { return rank(*room); });
    group.is_alone = is_alone;
    if (const auto found = gone.find(address); found != gone.end()) {
      group.drops_of_the_gone = found->second.drops;
      group.sk_drops_of_the_gone = found->second.sk_drops;
    }
    groups.push_back(std::move(group));
  }
  std::ranges::stable_sort(groups, {}, [](const RoomGroup& group) { return rank(group.fullest()); });
  return groups;
}

void WatchedRooms::scraped() {
  for (const auto& room : rooms_) room->peak_since_scrape = room->log.depth();
}

std::size_t WatchedRooms::watched() const noexcept {
  return static_cast<std::size_t>(
      std::ranges::count_if(rooms_, [](const auto& room) { return room->is_watched && !room->is_gone; }));
}

}  // namespace anteroom::tool
