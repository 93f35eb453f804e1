#include <anteroom/bench/processes.h>
#include <anteroom/bench/road.h>
#include <anteroom/bench/running_server.h>
#include <anteroom/listen_queue.h>
#include <anteroom/socket.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <linux/capability.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstdio>
#include <cstring>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <set>
#include <sstream>
#include <system_error>
#include <utility>

namespace anteroom::bench {
namespace {

// glibc has them since 2.36, which Debian 12 has and Ubuntu 22.04 has not.
Fd open_process(pid_t pid) noexcept { return Fd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0))); }
/// Since Linux 6.9 (PIDFD_THREAD, which is O_EXCL); EINVAL before.
Fd open_thread(pid_t thread) noexcept {
  return Fd(static_cast<int>(::syscall(SYS_pidfd_open, thread, O_EXCL)));
}
Fd copy_descriptor(const Fd& process, int fd) noexcept {
  return Fd(static_cast<int>(::syscall(SYS_pidfd_getfd, process.get(), fd, 0)));
}

std::string in_words(pid_t pid) {
  const std::string name = process_name(pid);
  return name.empty() ? fmt::format("pid {}", pid) : fmt::format("{} (pid {})", name, pid);
}

/// Whether this process has the capability in force (capabilities(7)). Unknown counts as yes.
bool has_capability(int capability) noexcept {
  __user_cap_header_struct header{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  std::array<__user_cap_data_struct, _LINUX_CAPABILITY_U32S_3> sets{};
  if (::syscall(SYS_capget, &header, sets.data()) != 0) return true;
  return (sets[CAP_TO_INDEX(capability)].effective & CAP_TO_MASK(capability)) != 0;
}

/// A user namespace that was made has a map of its own; that of the system maps everything to itself.
bool is_in_user_namespace() {
  std::ifstream map("/proc/self/uid_map");
  std::uint64_t inside = 0;
  std::uint64_t outside = 0;
  std::uint64_t count = 0;
  return map >> inside >> outside >> count && (inside != 0 || outside != 0 || count != 0xffff'ffff);
}

/// How to get the right that is missing.
std::string_view cure() {
  if (::geteuid() != 0) return "run this as root (sudo)";
  if (!has_capability(CAP_SYS_PTRACE))
    return "root has no CAP_SYS_PTRACE here: run this outside of the container, or in one made with "
           "docker run --cap-add=SYS_PTRACE";
  if (is_in_user_namespace())
    return "root of this user namespace has no right over what is outside of it: run this outside of the "
           "container";
  return "a security module (AppArmor, SELinux) may forbid it even to root: its log says so";
}

/// The real user of a process, also of one whose files in /proc are root's because it is not dumpable
/// (proc(5)).
std::optional<uid_t> user_of(pid_t pid) {
  std::ifstream file(fmt::format("/proc/{}/status", pid));
  constexpr std::string_view kName = "Uid:";
  for (std::string line; std::getline(file, line);) {
    uid_t user = 0;
    if (line.starts_with(kName) && std::istringstream(line.substr(kName.size())) >> user) return user;
  }
  return std::nullopt;
}

std::string not_allowed_to_touch(pid_t pid) {
  const std::string scope = read_sysctl("kernel.yama.ptrace_scope");
  if (scope == "3")
    return fmt::format("kernel.yama.ptrace_scope is 3, so nobody may reach into {} before the next boot",
                       in_words(pid));
  if (::geteuid() != 0 && user_of(pid) == ::getuid()) {
    if (!scope.empty() && scope != "0")
      return fmt::format(
          "kernel.yama.ptrace_scope is {} and does not let you reach into {}, though it is yours: {}", scope,
          in_words(pid), cure());
    return fmt::format(
        "{} is yours, but it is protected (not dumpable, prctl(2)) or in another user namespace: {}",
        in_words(pid), cure());
  }
  return fmt::format("you may not reach into {}, which belongs to another user or is protected: {}",
                     in_words(pid), cure());
}

/// Why this process could not even take a descriptor of its own, which the kernel refuses to nobody: the two
/// calls are missing or forbidden. Empty if it can.
std::string why_no_descriptors() {
  const Fd self = open_process(::getpid());
  const std::string_view call = self ? "pidfd_getfd(2)" : "pidfd_open(2)";
  if (self && copy_descriptor(self, self.get())) return {};
  const int error = errno;
  if (error == EMFILE || error == ENFILE)
    return "no descriptor is left to reach the server's socket with: ulimit -n";
  utsname system{};
  int major = 0;
  int minor = 0;
  ::uname(&system);
  // NOLINTNEXTLINE(cert-err34-c): the kernel wrote it
  const bool is_old =
      std::sscanf(system.release, "%d.%d", &major, &minor) == 2 && std::pair(major, minor) < std::pair(5, 6);
  if (error == ENOSYS && is_old)
    return fmt::format("this kernel has no {}, by which one reaches another's socket: it takes Linux 5.6",
                       call);
  return fmt::format(
      "a filter of system calls (seccomp(2)), as containers have one, forbids {}, by which one reaches "
      "another's socket: run this outside of the container, or in one made with docker run "
      "--cap-add=SYS_PTRACE",
      call);
}

/// setns(2) into a network namespace takes CAP_SYS_ADMIN there and here.
std::string_view why_not_enter() {
  if (::geteuid() != 0) return "run this as root (sudo), outside of any container";
  if (!has_capability(CAP_SYS_ADMIN))
    return "root has no CAP_SYS_ADMIN here: run this outside of the container";
  return "root of this user namespace has no right over what is outside of it: run this outside of the "
         "container";
}

std::string thread_out_of_reach(pid_t pid) {
  return fmt::format(
      "the first thread of {} has ended, and this kernel reaches the sockets of a process through that one "
      "only: it takes Linux 6.9, or a restart of the server with another backlog in its configuration",
      in_words(pid));
}

/// Which network namespace a process lives in; empty if this user may not know.
std::string network_of(const std::string& process) {
  std::error_code error;
  return std::filesystem::read_symlink(fmt::format("/proc/{}/ns/net", process), error);
}

/// `pid` is a thread that runs.
bool enter(pid_t pid, const char* kind, int flag) {
  const Fd space(::open(fmt::format("/proc/{}/ns/{}", pid, kind).c_str(), O_RDONLY | O_CLOEXEC));
  return space && ::setns(space.get(), flag) == 0;
}

/// A process and all that it has begotten.
std::set<pid_t> family_of(pid_t pid) {
  std::map<pid_t, pid_t> parents;
  for (const pid_t other : all_processes()) parents[other] = parent_of(other);
  std::set<pid_t> family{pid};
  for (const auto& [child, _] : parents) {
    std::vector<pid_t> line;
    for (pid_t ancestor = child; ancestor > 0 && line.size() < parents.size(); ancestor = parents[ancestor]) {
      line.push_back(ancestor);
      if (family.contains(ancestor)) {
        family.insert(line.begin(), line.end());
        break;
      }
    }
  }
  return family;
}

std::string list(const std::set<std::uint16_t>& ports) { return fmt::format("{}", fmt::join(ports, ", ")); }

using Listeners = std::vector<ListeningSocket>;

/// The one whose children all others are that hold a listener of that port.
pid_t server_on(std::uint16_t port, const Listeners& listeners, const SocketHolders& holders) {
  std::set<pid_t> pids;
  bool any = false;
  for (const ListeningSocket& listener : listeners) {
    if (listener.address.port() != port) continue;
    any = true;
    const auto found = holders.by_inode.find(listener.inode);
    if (found == holders.by_inode.end()) continue;
    for (const SocketHolder& holder : found->second) pids.insert(holder.pid);
  }
  if (!any)
    throw TargetError(fmt::format(
        "nobody listens on port {} here: anteroom watch shows who listens where, and --pid finds a server in "
        "a container",
        port));
  if (const std::string problem = pids.empty() ? proc_problem() : std::string(); !problem.empty())
    throw TargetError(problem);
  if (pids.empty())
    throw TargetError(fmt::format("you may not look into who listens on port {}: {}", port, cure()));
  std::set<pid_t> heads;
  for (const pid_t pid : pids) {
    pid_t head = pid;
    for (pid_t parent = parent_of(pid); pids.contains(parent); parent = parent_of(parent)) head = parent;
    heads.insert(head);
  }
  // Who starts services may keep their sockets; and in a container may be the server.
  if (heads == std::set<pid_t>{1}) {
    std::set<pid_t> others(std::next(pids.begin()), pids.end());
    std::erase_if(others, [&](pid_t pid) { return parent_of(pid) != 1 && pids.contains(parent_of(pid)); });
    return others.size() == 1 ? *others.begin() : 1;
  }
  if (heads.size() == 1) return *heads.begin();
  std::vector<std::string> names;
  for (const pid_t pid : heads) names.push_back(in_words(pid));
  throw TargetError(fmt::format("several servers listen on port {}: {}. Say which with --pid", port,
                                fmt::join(names, ", ")));
}

/// The sockets among `listeners` that somebody of `family` holds.
Listeners held_by(const std::set<pid_t>& family, const Listeners& listeners, const SocketHolders& holders) {
  Listeners held;
  for (const ListeningSocket& listener : listeners) {
    const auto found = holders.by_inode.find(listener.inode);
    if (found != holders.by_inode.end() &&
        std::ranges::any_of(found->second, [&](const SocketHolder& h) { return family.contains(h.pid); }))
      held.push_back(listener);
  }
  return held;
}

std::uint16_t the_only_port(pid_t pid, const Listeners& held, std::optional<std::uint16_t> wanted) {
  std::set<std::uint16_t> ports;
  for (const ListeningSocket& listener : held) ports.insert(listener.address.port());
  if (ports.empty())
    throw TargetError(fmt::format("{} listens on no TCP port: anteroom watch shows who does", in_words(pid)));
  if (wanted && !ports.contains(*wanted))
    throw TargetError(
        fmt::format("{} does not listen on port {}, but on {}", in_words(pid), *wanted, list(ports)));
  if (!wanted && ports.size() > 1)
    throw TargetError(fmt::format("{} listens on {}: say which with --port", in_words(pid), list(ports)));
  return wanted.value_or(*ports.begin());
}

/// getsockopt(2) of SOL_SOCKET; nothing if the kernel does not know it.
template <class Value>
std::optional<Value> socket_option(const Fd& fd, int name) noexcept {
  Value value{};
  socklen_t size = sizeof(value);
  if (::getsockopt(fd.get(), SOL_SOCKET, name, &value, &size) != 0 || size != sizeof(value))
    return std::nullopt;
  return value;
}

/// Whether it is of the network namespace that we are in. A kernel before 5.14 does not say
/// (SO_NETNS_COOKIE).
bool is_in_this_network(const Fd& fd) noexcept {
  constexpr int kNetworkCookie = 71;  // SO_NETNS_COOKIE, which glibc 2.35 does not have
  const Fd ours(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const auto here = ours ? socket_option<std::uint64_t>(ours, kNetworkCookie) : std::nullopt;
  const auto there = socket_option<std::uint64_t>(fd, kNetworkCookie);
  return !here || !there || *here == *there;
}

/// Whether this is the listening TCP socket that sock_diag has shown, by all that the socket itself says. An
/// inode is a number of the whole machine, so it alone could lead to a socket of another network.
bool is_room(const Fd& fd, const ServerRoom& room) noexcept {
  struct stat file {};
  if (::fstat(fd.get(), &file) != 0 || !S_ISSOCK(file.st_mode) || file.st_ino != room.inode) return false;
  const auto protocol = socket_option<int>(fd, SO_PROTOCOL);
  if (protocol != IPPROTO_TCP && protocol != IPPROTO_MPTCP) return false;
  if (socket_option<int>(fd, SO_ACCEPTCONN) != 1 || !(local_endpoint(fd.get()) == room.address)) return false;
  // Of an MPTCP listener, as those of Go are, it is not that of the TCP socket within, which sock_diag shows.
  const bool has_own_cookie = protocol == IPPROTO_TCP;
  if (has_own_cookie && socket_option<std::uint64_t>(fd, SO_COOKIE) != room.cookie) return false;
  return is_in_this_network(fd);
}

/// The very socket, through a process that has it; not open if that one has it no more. `error` is why.
Fd reach(const SocketHolder& holder, const ServerRoom& room, int& error) noexcept {
  const Fd process = open_process(holder.pid);
  Fd socket = process ? copy_descriptor(process, holder.fd) : Fd();
  error = socket ? 0 : errno;
  if (process && error == ESRCH) {  // its first thread has ended, and has let go of what it had
    const pid_t thread = living_thread_of(holder.pid);
    const Fd other = thread != 0 && thread != holder.pid ? open_thread(thread) : Fd();
    if (other) socket = copy_descriptor(other, holder.fd);
    if (thread != 0 && thread != holder.pid) error = socket ? 0 : errno;
  }
  if (socket && !is_room(socket, room)) socket.reset();
  return socket;
}

/// What sock_diag knows of it, whoever has it; nothing if it is gone.
std::optional<ListeningSocket> find(const ServerRoom& room) {
  std::vector<ListeningSocket> listeners;
  const std::uint16_t port = room.address.port();
  SocketDiag().listeners(listeners, std::span(&port, 1));
  const auto found = std::ranges::find(listeners, room.cookie, &ListeningSocket::cookie);
  return found == listeners.end() ? std::nullopt : std::optional(*found);
}

/// The backlog that it has now. Throws ServerGone.
int limit_of(const ServerRoom& room) {
  const auto socket = find(room);
  if (!socket) throw ServerGone(fmt::format("nobody listens on {} any more", room.address.to_string()));
  return static_cast<int>(socket->limit);
}

// Of one socket, the processes that are locked: those with the lowest pids. Another user may not see some.
constexpr std::size_t kLocksMax = 4;

/// Of each address one socket stands for all: that with the lowest inode.
std::vector<std::uint32_t> lowest_inodes(const std::vector<ServerRoom>& rooms) {
  std::map<Endpoint, std::uint32_t> lowest;
  for (const ServerRoom& room : rooms) {
    const auto [entry, is_new] = lowest.emplace(room.address, room.inode);
    if (!is_new) entry->second = std::min(entry->second, room.inode);
  }
  std::vector<std::uint32_t> inodes;
  for (const auto& [address, inode] : lowest) inodes.push_back(inode);
  return inodes;
}

/// Whether we have set that, as somaxconn may have clipped it since.
bool is_one_of(std::span<const int> ours, int limit) {
  const int most = system_backlog_max();
  return std::ranges::any_of(ours, [&](int backlog) { return limit == std::min(backlog, most); });
}

std::string given_by_somebody_else(const ServerRoom& room, int now) {
  return fmt::format("{} was given a backlog of {} by somebody else meanwhile, and keeps it (it had {})",
                     room.address.to_string(), now, room.backlog);
}

/// Through the process by which it was found, or, as processes come and go, through any other that has it.
Fd reach(const ServerRoom& room) {
  int error = 0;
  if (Fd socket = reach({.pid = room.pid, .fd = room.fd}, room, error)) return socket;
  for (const std::string& problem : {why_no_descriptors(), proc_problem()}) {
    if (!problem.empty()) throw TargetError(problem);
  }
  const SocketHolders holders = find_socket_holders();
  if (const auto found = holders.by_inode.find(room.inode); found != holders.by_inode.end()) {
    for (const SocketHolder& holder : found->second) {
      if (Fd socket = reach(holder, room, error)) return socket;
    }
  }
  if (error == EINVAL) throw TargetError(thread_out_of_reach(room.pid));
  if (error == EPERM || find(room)) throw TargetError(not_allowed_to_touch(room.pid));
  throw ServerGone(
      !is_alive(room.pid)
          ? fmt::format(
                "the server on {} (pid {}) has ended: start it, and it has what its configuration says",
                room.address.to_string(), room.pid)
          : fmt::format("{} does not listen on {} any more: when it does, it has what its configuration says",
                        in_words(room.pid), room.address.to_string()));
}

}  // namespace

std::string why_out_of_reach(pid_t pid) { return not_allowed_to_touch(pid); }

bool enter_network_of(pid_t pid) {
  const pid_t thread = living_thread_of(pid);
  const std::string theirs = network_of(std::to_string(thread));
  if (theirs.empty() || theirs == network_of("self")) return false;
  if (enter(thread, "net", CLONE_NEWNET)) return true;
  if (enter(thread, "user", CLONE_NEWUSER) && enter(thread, "net", CLONE_NEWNET)) return true;
  throw TargetError(fmt::format("{} is in another network namespace, which you may not enter: {}",
                                in_words(pid), why_not_enter()));
}

RunningServer::RunningServer(std::optional<pid_t> pid, std::optional<std::uint16_t> port) {
  if (pid) {
    if (!is_alive(*pid)) throw TargetError(why_no_process(*pid));
    is_elsewhere_ = enter_network_of(*pid);
    diag_ = SocketDiag();  // of that network
  }
  Listeners listeners;
  diag_.listeners(listeners);
  const SocketHolders holders = find_socket_holders();
  pid_ = pid ? process_of(*pid) : server_on(port.value(), listeners, holders);
  name_ = process_name(pid_);
  if (find_socket_holders(pid_).hidden > 0) throw TargetError(not_allowed_to_touch(pid_));
  const Listeners held = held_by(family_of(pid_), listeners, holders);
  port_ = the_only_port(pid_, held, port);
  for (const ListeningSocket& listener : listeners) {
    if (listener.address.port() != port_) continue;
    // Sockets of one address and one port are one SO_REUSEPORT group, and of one user (socket(7)).
    const bool is_in_group = std::ranges::any_of(held, [&](const ListeningSocket& other) {
      return other.address == listener.address && other.uid == listener.uid;
    });
    if (is_in_group) add_room(listener, holders);
  }
  backlog_max_ = system_backlog_max();
}

void RunningServer::add_room(const ListeningSocket& listener, const SocketHolders& holders) {
  const auto found = holders.by_inode.find(listener.inode);
  if (found == holders.by_inode.end())
    throw TargetError(fmt::format("another process shares {} with {}, and you may not look into it: {}",
                                  listener.address.to_string(), in_words(pid_), cure()));
  const auto own = std::ranges::find(found->second, pid_, &SocketHolder::pid);
  const SocketHolder& holder = own != found->second.end() ? *own : found->second.front();
  rooms_.push_back({.address = listener.address,
                    .cookie = listener.cookie,
                    .inode = listener.inode,
                    .backlog = static_cast<int>(listener.limit),
                    .pid = holder.pid,
                    .fd = holder.fd,
                    .is_v6_only = listener.is_v6_only});
}

int RunningServer::backlog() const noexcept {
  return std::ranges::max_element(rooms_, {}, &ServerRoom::backlog)->backlog;
}

std::vector<pid_t> RunningServer::processes() const {
  const std::set<pid_t> family = family_of(pid_);
  std::set<pid_t> all(family.begin(), family.end());
  for (const ServerRoom& room : rooms_) all.insert(room.pid);
  return {all.begin(), all.end()};
}

std::vector<std::uint64_t> RunningServer::cookies() const {
  std::vector<std::uint64_t> cookies;
  for (const ServerRoom& room : rooms_) cookies.push_back(room.cookie);
  return cookies;
}

Endpoint RunningServer::address() const {
  std::optional<Endpoint> best;
  for (const ServerRoom& room : rooms_) {
    const std::string text = unmapped(room.address).to_string();
    const bool is_any_v6 = text.starts_with("[::]:");
    if (text.starts_with("0.0.0.0:") || (is_any_v6 && !room.is_v6_only)) return {"127.0.0.1", port_};
    const Endpoint here = is_any_v6 ? Endpoint("::1", port_) : unmapped(room.address);
    const auto rank = [](const Endpoint& e) {
      return (e.is_loopback() ? 2 : 0) + (e.family() == AF_INET ? 1 : 0);
    };
    if (!best || rank(here) > rank(*best)) best = here;
  }
  return best.value();
}

std::string RunningServer::sysctl_command(int backlog) const {
  return fmt::format("{}sysctl -w net.core.somaxconn={}",
                     is_elsewhere_ ? fmt::format("nsenter -t {} -n ", pid_) : "", backlog);
}

bool RunningServer::is_there() {
  std::vector<ListeningSocket> now;
  diag_.listeners(now, std::span(&port_, 1));
  return std::ranges::all_of(rooms_, [&](const ServerRoom& room) {
    return std::ranges::count(now, room.cookie, &ListeningSocket::cookie) == 1;
  });
}

void RunningServer::check_rights() const {
  for (const ServerRoom& room : rooms_) (void)reach(room);
}

void RunningServer::check_untouched(std::span<const int> ours) const {
  for (const ServerRoom& room : rooms_) {
    const auto socket = find(room);
    if (!socket) continue;
    const int now = static_cast<int>(socket->limit);
    if (now != room.backlog && !is_one_of(ours, now)) throw TargetError(given_by_somebody_else(room, now));
  }
}

void RunningServer::set_backlog(int backlog) const {
  for (const ServerRoom& room : rooms_) listen_on(room, backlog);
}

std::vector<Fd> RunningServer::lock() {
  const SocketHolders holders = find_socket_holders();
  std::set<std::pair<pid_t, int>> descriptors;
  for (const std::uint32_t inode : lowest_inodes(rooms_)) {
    const auto found = holders.by_inode.find(inode);
    if (found == holders.by_inode.end()) continue;
    for (const SocketHolder& holder :
         std::span(found->second).first(std::min(kLocksMax, found->second.size())))
      descriptors.emplace(holder.pid, holder.fd);
  }
  std::vector<Fd> locks;
  for (const auto& [pid, fd] : descriptors) {
    const pid_t thread = living_thread_of(pid);  // the first one has no descriptors any more once it has ended
    const std::string path = thread == pid ? fmt::format("/proc/{}/fdinfo/{}", pid, fd)
                                           : fmt::format("/proc/{}/task/{}/fdinfo/{}", pid, thread, fd);
    Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
    if (!file && (errno == EMFILE || errno == ENFILE)) throw setup_error(last_error(), "open", path);
    if (!file) continue;  // it was closed meanwhile, or is another user's
    if (::flock(file.get(), LOCK_EX | LOCK_NB) == 0) {
      locks.push_back(std::move(file));
    } else if (errno != EWOULDBLOCK) {
      throw setup_error(last_error(), "flock", path);
    } else {
      throw TargetError(
          fmt::format("another anteroom is tuning {} (pid {}), or has yet to put back what it had: wait for "
                      "it, or end it",
                      name_, pid_));
    }
  }
  if (locks.empty()) {
    check_rights();  // which says what is missing
    throw TargetError(
        fmt::format("{} cannot be locked: nothing in /proc/{}/fdinfo can be opened", in_words(pid_), pid_));
  }
  // What another anteroom has put back meanwhile is what it has.
  for (ServerRoom& room : rooms_) room.backlog = limit_of(room);
  return locks;
}

std::string RunningServer::put_back(std::span<const int> ours) const noexcept {
  std::string problem;
  for (const ServerRoom& room : rooms_) {
    try {
      const int now = limit_of(room);
      if (now == room.backlog) continue;
      if (!ours.empty() && !is_one_of(ours, now)) {
        problem = given_by_somebody_else(room, now);
        continue;
      }
      listen_on(room, room.backlog);
      if (const int limit = limit_of(room); limit != room.backlog) {
        problem = fmt::format(
            "the backlog of {} is {} and was {}: net.core.somaxconn has been lowered meanwhile. {} && "
            "anteroom retune --pid {} --port {} --backlog {}",
            room.address.to_string(), limit, room.backlog, sysctl_command(room.backlog), pid_, port_,
            room.backlog);
      }
    } catch (const ServerGone&) {
      // Nothing is left to be put back.
    } catch (const std::exception& error) {
      problem = fmt::format("the backlog of {} could not be put back to {}: {}", room.address.to_string(),
                            room.backlog, error.what());
    }
  }
  return problem;
}

void RunningServer::listen_on(const ServerRoom& room, int backlog) {
  const Fd socket = reach(room);
  if (::listen(socket.get(), backlog < 0 ? INT_MAX : backlog) != 0)
    throw TargetError(
        fmt::format("listen({}) on the socket of {}: {}", backlog, in_words(room.pid), std::strerror(errno)));
}

}  // namespace anteroom::bench
