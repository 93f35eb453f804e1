// Old guests who talk without pause, and a burst of new ones: what the new wait for their first answer, and
// what becomes of the old meanwhile. For each burst one line:
//
//   echoes a second of the old before it and during it, seconds that it took, then for each new guest the ns
//   from its connect() to its answer
//
// All new guests call at once, send a message as soon as they are connected, and leave when the last was
// answered.
#include <vector>

#include "client.h"

namespace {

using namespace peers;

constexpr std::int64_t kPatience_ns = 20'000'000'000;

class Crowd {
 public:
  explicit Crowd(std::uint16_t port) : epoll_(::epoll_create1(EPOLL_CLOEXEC)), port_(port) {
    if (epoll_ < 0) fail("epoll_create1");
  }

  void seat_old(int count) {
    for (int i = 0; i < count; ++i) come(true);
    while (talking_ < count) turn();
  }

  /// Echoes of the old in so long.
  double echoes_per_second(std::int64_t length_ns) {
    const std::int64_t began = now_ns();
    const long before = echoes_;
    while (now_ns() - began < length_ns) turn();
    return static_cast<double>(echoes_ - before) * 1e9 / static_cast<double>(now_ns() - began);
  }

  void burst(int count) {
    const std::int64_t began = now_ns();
    const long before = echoes_;
    waits_.clear();
    new_.clear();
    for (int i = 0; i < count; ++i) new_.push_back(come(false));
    while (waits_.size() < static_cast<std::size_t>(count)) {
      turn();
      if (now_ns() - began > kPatience_ns) {
        errno = ETIMEDOUT;
        fail("new guests wait for their first answer");
      }
    }
    took_s_ = static_cast<double>(now_ns() - began) / 1e9;
    during_ = static_cast<double>(echoes_ - before) / took_s_;
    for (const int fd : new_) ::close(fd);
  }

  void tell(double before) const {
    std::printf("%.0f %.0f %.6f", before, during_, took_s_);
    for (const std::int64_t wait : waits_) std::printf(" %lld", static_cast<long long>(wait));
    std::printf("\n");
    std::fflush(stdout);
  }

 private:
  struct Guest {
    bool is_old = false;
    bool has_spoken = false;
    std::int64_t called_ns = 0;
  };

  int come(bool is_old) {
    const std::int64_t called = now_ns();
    const int fd = call(epoll_, port_);
    const auto place = static_cast<std::size_t>(fd);
    if (place >= guests_.size()) guests_.resize(place + 1);
    guests_[place] = {.is_old = is_old, .called_ns = called};
    return fd;
  }

  void turn() {
    epoll_event events[256];
    const int count = ::epoll_wait(epoll_, events, 256, 1000);
    if (count < 0) fail("epoll_wait");
    for (int i = 0; i < count; ++i) advance(events[i].data.fd, events[i].events);
  }

  void advance(int fd, std::uint32_t events) {
    Guest& guest = guests_[static_cast<std::size_t>(fd)];
    if ((events & (EPOLLERR | EPOLLRDHUP)) != 0) fail("a guest was turned away");
    if (!guest.has_spoken && (events & EPOLLOUT) != 0) {
      send_message(fd);
      guest.has_spoken = true;
      if (guest.is_old) ++talking_;
    }
    if ((events & EPOLLIN) == 0) return;
    char bytes[256];
    const ssize_t got = ::recv(fd, bytes, sizeof(bytes), 0);
    if (got < 0 && errno == EAGAIN) return;
    if (got != static_cast<ssize_t>(kMessageBytes)) fail("recv");
    if (guest.is_old) {
      ++echoes_;
      send_message(fd);
    } else {
      waits_.push_back(now_ns() - guest.called_ns);
    }
  }

  int epoll_;
  std::uint16_t port_;
  std::vector<Guest> guests_;  // by descriptor
  std::vector<int> new_;
  std::vector<std::int64_t> waits_;
  int talking_ = 0;
  long echoes_ = 0;
  double during_ = 0;
  double took_s_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 6) {
    std::fprintf(stderr, "usage: %s PORT OLD NEW BURSTS MS_BEFORE_EACH\n", argv[0]);
    return 2;
  }
  Crowd crowd(static_cast<std::uint16_t>(number(argv[1])));
  crowd.seat_old(static_cast<int>(number(argv[2])));
  const long bursts = number(argv[4]);
  const std::int64_t before_ns = number(argv[5]) * 1'000'000;
  crowd.echoes_per_second(before_ns);  // to warm up
  for (long i = 0; i < bursts; ++i) {
    const double before = crowd.echoes_per_second(before_ns);
    crowd.burst(static_cast<int>(number(argv[3])));
    crowd.tell(before);
  }
}
