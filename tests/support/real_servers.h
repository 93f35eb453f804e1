#pragma once
#include <anteroom/bench/socket_diag.h>
#include <anteroom/endpoint.h>
#include <anteroom/fd.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <optional>
#include <span>
#include <sstream>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "own_network.h"
#include "program.h"

/// The servers of the distribution, as they are installed, each with a configuration of the test's own. The
/// classes live as long as their server; `ready()` says whether it came to answer, `errors()` why not.
namespace anteroom::test {

/// Where a program of that name is; empty if it is not installed. Servers are where no user's PATH looks.
inline std::string installed(std::string_view name) {
  const char* const path = std::getenv("PATH");
  std::istringstream folders(std::string(path == nullptr ? "" : path) + ":/usr/local/sbin:/usr/sbin");
  for (std::string folder; std::getline(folders, folder, ':');) {
    std::string program = folder + '/' + std::string(name);
    if (::access(program.c_str(), X_OK) == 0) return program;
  }
  return {};
}

/// Whether one process here may take a descriptor from another of the same user, as retune does.
/// In many containers, seccomp or a missing capability forbid it.
inline bool may_reach_into_processes() {
  const Fd shared(::open("/dev/null", O_RDONLY));
  Program sleeper({"/bin/sleep", "60"});
  const Fd process(static_cast<int>(::syscall(SYS_pidfd_open, sleeper.pid(), 0)));
  const Fd copy(static_cast<int>(::syscall(SYS_pidfd_getfd, process.get(), shared.get(), 0)));
  return static_cast<bool>(copy);
}

/// Runs `look` in the network namespace of `pid`, or here if it has ended.
inline void in_network_of(pid_t pid, const std::function<void()>& look) {
  std::thread([&] {
    const std::string path = "/proc/" + std::to_string(pid) + "/ns/net";
    if (const Fd network{::open(path.c_str(), O_RDONLY | O_CLOEXEC)})
      (void)::setns(network.get(), CLONE_NEWNET);
    look();
  }).join();
}

/// Polls until `is_so`, or for `patience`; what it was at last.
inline bool eventually(const std::function<bool()>& is_so,
                       std::chrono::milliseconds patience = std::chrono::seconds(5)) {
  const auto limit = Program::Clock::now() + patience;
  while (!is_so()) {
    if (Program::Clock::now() > limit) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
}

/// One that is free on IPv4 as on IPv6, here and now.
inline std::uint16_t free_port() {
  const Fd socket(::socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const Endpoint any("::", 0);
  sockaddr_in6 address{};
  socklen_t size = sizeof(address);
  if (::bind(socket.get(), any.data(), any.size()) != 0 ||
      ::getsockname(socket.get(), reinterpret_cast<sockaddr*>(&address), &size) != 0)
    return 0;
  return Endpoint::from(reinterpret_cast<sockaddr*>(&address), size).port();
}

/// What the server on `to` says to `request` in a second, or before it closes; empty if nobody is there.
inline std::string answer(const Endpoint& to, std::string_view request) {
  const Fd socket(::socket(to.family(), SOCK_STREAM | SOCK_CLOEXEC, 0));
  const timeval patience{.tv_sec = 1, .tv_usec = 0};
  ::setsockopt(socket.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  std::array<char, 512> heard{};
  if (::connect(socket.get(), to.data(), to.size()) != 0 ||
      ::send(socket.get(), request.data(), request.size(), MSG_NOSIGNAL) < 0)
    return {};
  const ssize_t count = ::recv(socket.get(), heard.data(), heard.size(), 0);
  return count > 0 ? std::string(heard.data(), static_cast<std::size_t>(count)) : std::string();
}

/// A server that runs in the foreground in a folder of its own, and is gone with its folder in the end,
/// also if the test is killed.
class RealServer {
 public:
  RealServer(const RealServer&) = delete;
  RealServer& operator=(const RealServer&) = delete;
  ~RealServer() { stop(); }

  std::uint16_t port() const { return port_; }
  pid_t pid() const { return program_->pid(); }
  std::string pid_text() const { return std::to_string(pid()); }
  std::string port_text() const { return std::to_string(port_); }
  bool ready() const { return ready_; }
  std::string errors() const { return program_->output + program_->errors; }

  /// The backlogs in force of all that listens on its port, as ss(8) shows them; empty once it has ended.
  std::vector<std::uint32_t> backlogs() const {
    std::vector<std::uint32_t> limits;
    in_network_of(pid(), [&] {
      std::vector<bench::ListeningSocket> found;
      bench::SocketDiag().listeners(found, std::span(&port_, 1));
      for (const bench::ListeningSocket& listener : found) limits.push_back(listener.limit);
    });
    return limits;
  }

  /// Its children, oldest first.
  std::vector<pid_t> workers() const { return children_of(pid()); }
  /// Those who accept: its workers, or itself if it has none.
  std::vector<pid_t> acceptors() const {
    std::vector<pid_t> pids = workers();
    if (pids.empty()) pids.push_back(pid());
    return pids;
  }

  /// Ends it as its operator would, with all its workers.
  void stop() {
    if (!program_) return;
    program_->signal(SIGTERM);
    (void)program_->wait(std::chrono::seconds(5));
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
  }

 protected:
  /// In a network namespace of its own if `is_elsewhere`.
  explicit RealServer(std::uint16_t port) : port_(port == 0 ? free_port() : port) {
    std::string name = (std::filesystem::temp_directory_path() / "anteroom-server-XXXXXX").string();
    if (::mkdtemp(name.data()) != nullptr) folder_ = name;
  }

  std::string in_folder(std::string_view name) const { return (folder_ / name).string(); }

  void start(std::vector<std::string> command, bool is_elsewhere, std::string_view request,
             std::string_view expect) {
    program_.emplace(std::move(command), [is_elsewhere] {
      ::prctl(PR_SET_PDEATHSIG, SIGTERM);
      if (is_elsewhere && (::unshare(CLONE_NEWNET) != 0 || !bring_loopback_up())) ::_exit(126);
    });
    ready_ = eventually(
        [&] {
          bool is_well = false;
          in_network_of(pid(), [&] {
            is_well = answer({"127.0.0.1", port_}, request).find(expect) != std::string::npos;
          });
          return is_well || program_->wait({}) >= 0;
        },
        std::chrono::seconds(10));
    ready_ = ready_ && program_->wait({}) < 0;
  }

 private:
  std::uint16_t port_;
  std::filesystem::path folder_;
  std::optional<Program> program_;
  bool ready_ = false;
};

struct NginxOptions {
  int workers = 2;
  bool reuseport = false;     ///< each worker has a socket of its own
  int backlog = 511;          ///< nginx's own default
  std::uint16_t port = 0;     ///< 0 is one that is free
  bool on_ipv6 = false;       ///< on [::1] also
  bool is_elsewhere = false;  ///< in a network namespace of its own
};

/// nginx with its master and workers, answering GET / with 200.
class Nginx : public RealServer {
 public:
  static bool is_installed() { return !installed("nginx").empty(); }

  explicit Nginx(const NginxOptions& options = {}) : RealServer(options.port) {
    configure(options);
    start({installed("nginx"), "-c", in_folder("nginx.conf"), "-e", in_folder("error.log")},
          options.is_elsewhere, "GET / HTTP/1.0\r\n\r\n", " 200 ");
  }

  /// Has it read another configuration of the same port, and returns when new workers have taken over.
  void reload(const NginxOptions& options) const {
    configure(options);
    const std::vector<pid_t> old = workers();
    ::kill(pid(), SIGHUP);
    EXPECT_TRUE(eventually([&] {
      const std::vector<pid_t> now = workers();
      return now.size() == static_cast<std::size_t>(options.workers) &&
             std::ranges::none_of(now, [&](pid_t worker) { return std::ranges::count(old, worker) > 0; });
    }));
  }

 private:
  void configure(const NginxOptions& options) const {
    const std::string how =
        " backlog=" + std::to_string(options.backlog) + (options.reuseport ? " reuseport;\n" : ";\n");
    std::ofstream file(in_folder("nginx.conf"));
    // Root's workers would become nobody, who may not look into the folder.
    if (::geteuid() == 0) file << "user root;\n";
    file << "daemon off;\nworker_processes " << options.workers << ";\npid " << in_folder("nginx.pid")
         << ";\nevents { worker_connections 4096; }\nhttp {\naccess_log off;\n";
    for (const char* kind : {"client_body", "proxy", "fastcgi", "uwsgi", "scgi"})
      file << kind << "_temp_path " << in_folder(kind) << ";\n";
    file << "server {\nlisten 127.0.0.1:" << port() << how;
    if (options.on_ipv6) file << "listen [::1]:" << port() << how;
    file << "location / { return 200 'hello'; }\n}\n}\n";
  }
};

/// redis on 127.0.0.1 and ::1, two sockets of one process, which keeps nothing.
class Redis : public RealServer {
 public:
  static bool is_installed() { return !installed("redis-server").empty(); }

  explicit Redis(int backlog = 511) : RealServer(0) {
    start({installed("redis-server"), "--port", port_text(), "--bind", "127.0.0.1", "-::1", "--save", "",
           "--appendonly", "no", "--daemonize", "no", "--dir", in_folder(""), "--tcp-backlog",
           std::to_string(backlog)},
          false, "PING\r\n", "+PONG");
  }
};

}  // namespace anteroom::test
