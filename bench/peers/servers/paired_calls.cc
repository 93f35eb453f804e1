// Calls two servers in turn, A B B A, and says what each slice has cost the server: one line a slice,
//
//   which (0 or 1), server CPU in ns, connections served, elapsed ns, client CPU in ns
//
// So many connections are in flight at any time. A slice ends when the last of them has ended and the server
// has gone to sleep, so all that its connections cost is counted.
#include <string_view>
#include <vector>

#include "client.h"

namespace {

using namespace peers;

constexpr int kWarmUpQuadruples = 3;  // not told

struct Server {
  std::uint16_t port = 0;
  clockid_t clock{};
};

class Caller {
 public:
  Caller(bool echoes, int flows) : epoll_(::epoll_create1(EPOLL_CLOEXEC)), echoes_(echoes), flows_(flows) {
    if (epoll_ < 0) fail("epoll_create1");
  }

  /// Calls one server for so long. Returns how many it has served.
  long call_for(std::uint16_t port, std::int64_t length_ns) {
    const std::int64_t end = now_ns() + length_ns;
    long served = 0;
    int living = 0;
    for (; living < flows_; ++living) call_once(port);
    epoll_event events[128];
    while (living > 0) {
      const int count = ::epoll_wait(epoll_, events, 128, 5000);
      if (count <= 0) fail("a server does not answer");
      const bool is_over = now_ns() >= end;
      for (int i = 0; i < count; ++i) {
        if (!advance(events[i].data.fd, events[i].events)) continue;
        ++served;
        if (is_over) {
          --living;
        } else {
          call_once(port);
        }
      }
    }
    return served;
  }

 private:
  void call_once(std::uint16_t port) {
    const auto fd = static_cast<std::size_t>(call(epoll_, port));
    if (fd >= heard_.size()) heard_.resize(fd + 1);
    heard_[fd] = kNothing;
  }

  /// True when this connection has got all that it came for, and is closed.
  bool advance(int fd, std::uint32_t events) {
    Heard& heard = heard_[static_cast<std::size_t>(fd)];
    if ((events & EPOLLERR) != 0) fail("a connection has failed");
    if (echoes_ && heard == kNothing && (events & EPOLLOUT) != 0) {
      send_message(fd);
      heard = kAsked;
    }
    if ((events & EPOLLIN) == 0) return false;
    char bytes[256];
    const ssize_t got = ::recv(fd, bytes, sizeof(bytes), 0);
    if (got < 0 && errno != EAGAIN) fail("recv");
    if (got > 0) heard = kAnswer;
    // Of a greeting the end is awaited, too: the server closes first. An echo is closed by us.
    const bool is_complete = heard == kAnswer && (echoes_ || (events & EPOLLRDHUP) != 0);
    if (got == 0 && !is_complete) fail("a server has closed early");
    if (is_complete) ::close(fd);
    return is_complete;
  }

  enum Heard : char { kNothing, kAsked, kAnswer };
  int epoll_;
  bool echoes_;
  int flows_;
  std::vector<Heard> heard_;  // by descriptor
};

/// A server has gone to sleep when its CPU clock stands still.
std::int64_t cpu_at_rest(const Server& server) {
  std::int64_t last = nanoseconds(server.clock);
  for (int same = 0; same < 3;) {
    ::usleep(100);
    const std::int64_t now = nanoseconds(server.clock);
    same = now == last ? same + 1 : 0;
    last = now;
  }
  return last;
}

void slice(Caller& caller, const Server servers[], int which, std::int64_t length_ns, bool is_told) {
  const std::int64_t cpu = cpu_at_rest(servers[which]);
  const std::int64_t own_cpu = nanoseconds(CLOCK_PROCESS_CPUTIME_ID), began = now_ns();
  const long served = caller.call_for(servers[which].port, length_ns);
  const std::int64_t elapsed = now_ns() - began, own_used = nanoseconds(CLOCK_PROCESS_CPUTIME_ID) - own_cpu;
  const std::int64_t used = cpu_at_rest(servers[which]) - cpu;
  if (is_told)
    std::printf("%d %lld %ld %lld %lld\n", which, static_cast<long long>(used), served,
                static_cast<long long>(elapsed), static_cast<long long>(own_used));
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 9) {
    std::fprintf(stderr, "usage: %s hello|echo PORT PID PORT PID FLOWS SLICE_MS QUADRUPLES\n", argv[0]);
    return 2;
  }
  Server servers[2];
  for (int i = 0; i < 2; ++i) {
    servers[i].port = static_cast<std::uint16_t>(number(argv[2 + 2 * i]));
    errno = ::clock_getcpuclockid(static_cast<pid_t>(number(argv[3 + 2 * i])), &servers[i].clock);
    if (errno != 0) fail("a server's CPU clock");
  }
  Caller caller(std::string_view(argv[1]) == "echo", static_cast<int>(number(argv[6])));
  const std::int64_t length_ns = number(argv[7]) * 1'000'000;
  const long quadruples = number(argv[8]);
  for (long i = -kWarmUpQuadruples; i < quadruples; ++i)
    for (const int which : {0, 1, 1, 0}) slice(caller, servers, which, length_ns, i >= 0);
}
