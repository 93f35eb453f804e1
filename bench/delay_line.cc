#include "delay_line.h"

#include <anteroom/socket.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

namespace anteroom::bench {
namespace {

using namespace std::chrono_literals;

// Packets read or written before the line looks elsewhere: 6 µs each, most of it the far side's TCP.
constexpr int kBatch = 64;
// More than the MTU of our devices, which is 1,500.
constexpr std::size_t kPacketBytesMax = 2048;

enum class PacketKind : std::uint8_t { kSyn, kSynAck, kAck, kOther };

/// By the headers of IPv4 and TCP (RFC 791, RFC 9293). Both lengths count words of four bytes.
PacketKind kind_of(const std::string& packet) noexcept {
  iphdr ip{};
  tcphdr tcp{};
  if (packet.size() < sizeof(ip)) return PacketKind::kOther;
  std::memcpy(&ip, packet.data(), sizeof(ip));
  const std::size_t ip_bytes = ip.ihl * std::size_t{4};
  if (ip.version != 4 || ip.protocol != IPPROTO_TCP || packet.size() < ip_bytes + sizeof(tcp))
    return PacketKind::kOther;
  std::memcpy(&tcp, packet.data() + ip_bytes, sizeof(tcp));
  if (tcp.syn != 0) return tcp.ack != 0 ? PacketKind::kSynAck : PacketKind::kSyn;
  const bool has_data = packet.size() > ip_bytes + tcp.doff * std::size_t{4};
  return tcp.ack != 0 && tcp.fin == 0 && tcp.rst == 0 && !has_data ? PacketKind::kAck : PacketKind::kOther;
}

}  // namespace

void DelayLine::Lane::deliver() {
  for (int i = 0; i < kBatch && !on_the_way_.empty(); ++i) {
    const Packet& packet = on_the_way_.front();
    const Clock::time_point now = Clock::now();
    if (packet.due > now) return;
    // The kernel takes all of a packet or none. EAGAIN, ENOBUFS, ENOMEM: it has no room for it; no other
    // error comes of what another TUN device sent.
    if (::write(to_, packet.bytes.data(), packet.bytes.size()) >= 0) {
      const std::chrono::nanoseconds lateness = now - packet.due_at_best;
      ++traffic_.carried;
      traffic_.lateness.record(lateness);
      traffic_.lateness_max_ns = std::max(traffic_.lateness_max_ns, lateness.count());
    } else {
      ++traffic_.overrun;
      lose(packet.bytes);
    }
    on_the_way_.pop_front();
  }
}

bool DelayLine::Lane::take() {
  std::array<char, kPacketBytesMax> bytes;
  for (int i = 0; i < kBatch; ++i) {
    const ssize_t size = ::read(from_, bytes.data(), bytes.size());
    if (size >= 0) {
      accept(std::string(bytes.data(), static_cast<std::size_t>(size)));
    } else if (errno == EAGAIN) {
      nothing_before_ = Clock::now();
      return i > 0;
    } else if (errno != EINTR) {
      throw setup_error(last_error(), "read", "a TUN device of the delay line");
    }
  }
  return true;
}

void DelayLine::Lane::accept(std::string bytes) {
  // One lot for each packet, lost or not: what becomes of the n-th depends on the seed alone.
  if (lots_.unit() <= loss_) return lose(bytes);
  if (on_the_way_.size() >= Road::kPacketsMax / 2) {
    ++traffic_.overrun;
    return lose(bytes);
  }
  on_the_way_.push_back(
      {.due = Clock::now() + one_way_, .due_at_best = nothing_before_ + one_way_, .bytes = std::move(bytes)});
}

std::optional<DelayLine::Clock::time_point> DelayLine::Lane::next_due() const {
  if (on_the_way_.empty()) return std::nullopt;
  return on_the_way_.front().due;
}

void DelayLine::Lane::lose(const std::string& bytes) noexcept {
  ++traffic_.lost;
  switch (kind_of(bytes)) {
    case PacketKind::kSyn:
      ++traffic_.lost_syn;
      break;
    case PacketKind::kSynAck:
      ++traffic_.lost_syn_ack;
      break;
    case PacketKind::kAck:
      ++traffic_.lost_ack;
      break;
    case PacketKind::kOther:
      ++traffic_.lost_other;
      break;
  }
}

DelayLine::DelayLine(const Options& options, RoadTraffic& traffic)
    : client_tun_(options.client_tun),
      server_tun_(options.server_tun),
      to_server_(client_tun_, server_tun_, options, options.seed, traffic),
      to_client_(server_tun_, client_tun_, options, ~options.seed, traffic) {}

void DelayLine::run() {
  ::prctl(PR_SET_TIMERSLACK, 1);  // ns: not within 50 µs
  // The kernel's own network outranks every process, and so does this one where it may (as root, mostly).
  // With 5,000 connections a second on two busy processors, the 99th percentile of its lateness was 0.5 to 2
  // ms so, and 1 to 85 ms else. The price: who calls from the same processor calls more slowly.
  const sched_param lowest{.sched_priority = 1};
  (void)::sched_setscheduler(0, SCHED_FIFO, &lowest);
  for (;;) {
    to_server_.deliver();
    to_client_.deliver();
    const bool took_for_server = to_server_.take();
    const bool took_for_client = to_client_.take();
    // After a look that found nothing, and not before: else what comes during a batch would count as having
    // come when it ended.
    if (!took_for_server && !took_for_client) sleep();
  }
}

/// Until a packet comes or is due.
void DelayLine::sleep() {
  std::array<pollfd, 2> devices{pollfd{.fd = client_tun_, .events = POLLIN, .revents = 0},
                                pollfd{.fd = server_tun_, .events = POLLIN, .revents = 0}};
  const auto to_server = to_server_.next_due();
  const auto to_client = to_client_.next_due();
  // What is nothing is smaller than any time.
  const auto due = to_server && to_client ? std::min(to_server, to_client) : std::max(to_server, to_client);
  timespec wait{};
  if (due) {
    const std::chrono::nanoseconds left = std::max<std::chrono::nanoseconds>(*due - Clock::now(), 0ns);
    wait = {.tv_sec = left / 1s, .tv_nsec = (left % 1s).count()};
  }
  if (::ppoll(devices.data(), devices.size(), due ? &wait : nullptr, nullptr) < 0 && errno != EINTR)
    throw setup_error(last_error(), "ppoll", "the TUN devices of the delay line");
  const Clock::time_point now = Clock::now();
  to_server_.woke(now);
  to_client_.woke(now);
}

}  // namespace anteroom::bench
