#include <anteroom/activation.h>
#include <anteroom/reuseport_group.h>
#include <anteroom/socket.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <limits>
#include <new>
#include <optional>
#include <utility>

namespace anteroom {
namespace {

constexpr int kFirstPassed = 3;                    // SD_LISTEN_FDS_START
constexpr timeval kManagersTime{5, 0};             // until it has to take what we notify
constexpr std::string_view kNameless = "unknown";  // as sd_listen_fds_with_names(3) says

/// The value of an environment variable; empty if it is not set, which none of ours is ever set to.
std::string_view variable(const char* name) noexcept {
  const char* const value = std::getenv(name);
  return value != nullptr ? value : std::string_view();
}

/// Nothing if it is not set. Throws if it is no number from 0 to `max`.
std::optional<int> number_in(const char* name, int max) {
  const std::string_view text = variable(name);
  if (text.empty()) return std::nullopt;
  int number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc{} || end != text.data() + text.size() || number < 0 || number > max)
    throw setup_error(std::make_error_code(std::errc::invalid_argument), name, fmt::format("\"{}\"", text));
  return number;
}

/// Takes the first of several names, joined by colons, out of `names`.
std::string take_name(std::string_view& names) {
  const std::size_t colon = std::min(names.find(':'), names.size());
  const std::string_view name = names.substr(0, colon);
  names.remove_prefix(std::min(colon + 1, names.size()));
  return std::string(name.empty() ? kNameless : name);
}

/// Takes the variables out of the environment at its end, also if something was thrown.
class Forgetting {
 public:
  explicit Forgetting(bool wanted) : wanted_(wanted) {}
  Forgetting(const Forgetting&) = delete;
  Forgetting& operator=(const Forgetting&) = delete;
  ~Forgetting() {
    if (!wanted_) return;
    for (const char* name : {"LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"}) ::unsetenv(name);
  }

 private:
  const bool wanted_;
};

bool is_listening_stream(int fd) noexcept {
  int type = 0;
  int listens = 0;
  socklen_t size = sizeof(int);
  if (::getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) != 0 || type != SOCK_STREAM) return false;
  size = sizeof(int);
  return ::getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) == 0 && listens != 0;
}

}  // namespace

Listener adopt_listener(Fd socket, std::string_view name) {
  if (!is_listening_stream(socket.get()))
    throw setup_error(std::make_error_code(std::errc::invalid_argument), "no stream socket that listens:",
                      fmt::format("descriptor {} (\"{}\")", socket.get(), name));
  Listener listener(std::move(socket));
  listener.set_shared(true);
  (void)admit_syns(listener.fd());
  if (is_in_group(listener.fd())) (void)unsteer_group(listener.fd());
  return listener;
}

std::vector<NamedDescriptor> activated_descriptors(const ActivationOptions& options) {
  const Forgetting forgetting(!options.keep_environment);
  const auto process = number_in("LISTEN_PID", std::numeric_limits<int>::max());
  const auto count = number_in("LISTEN_FDS", std::numeric_limits<int>::max() - kFirstPassed);
  if (process != ::getpid() || !count) return {};
  std::string_view names = variable("LISTEN_FDNAMES");
  std::vector<NamedDescriptor> passed;
  for (int fd = kFirstPassed; fd < kFirstPassed + *count; ++fd) {
    if (::fcntl(fd, F_SETFD, FD_CLOEXEC) != 0)
      throw setup_error(last_error(), "LISTEN_FDS: descriptor", fmt::to_string(fd));
    passed.push_back({take_name(names), Fd(fd)});
  }
  return passed;
}

std::vector<NamedListener> activated_listeners(const ActivationOptions& options) {
  std::vector<NamedListener> listeners;
  for (NamedDescriptor& passed : activated_descriptors(options)) {
    Listener listener = adopt_listener(std::move(passed.fd), passed.name);
    listeners.push_back({std::move(passed.name), std::move(listener)});
  }
  return listeners;
}

bool has_service_manager() noexcept { return !variable("NOTIFY_SOCKET").empty(); }

std::error_code notify_service_manager(std::string_view state) noexcept {
  if (state.empty()) return std::make_error_code(std::errc::invalid_argument);
  if (!has_service_manager()) return {};
  const std::string_view address = variable("NOTIFY_SOCKET");
  if (!address.starts_with('/') && !address.starts_with('@'))  // vsock:...: a virtual machine's
    return std::make_error_code(std::errc::address_family_not_supported);
  try {
    const Endpoint manager = Endpoint::unix_path(address);
    const Fd socket(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    if (!socket) return last_error();
    // Blocking, as sd_notify(3) is: who loses READY=1 for a full queue is killed for being late.
    (void)::setsockopt(socket.get(), SOL_SOCKET, SO_SNDTIMEO, &kManagersTime, sizeof(kManagersTime));
    const auto sent =
        ::sendto(socket.get(), state.data(), state.size(), MSG_NOSIGNAL, manager.data(), manager.size());
    if (sent >= 0) return {};
    return errno == EAGAIN ? std::make_error_code(std::errc::timed_out) : last_error();
  } catch (const std::system_error& error) {
    return error.code();
  } catch (const std::bad_alloc&) {
    return std::make_error_code(std::errc::not_enough_memory);
  }
}

std::error_code notify_ready() noexcept { return notify_service_manager("READY=1"); }
std::error_code notify_stopping() noexcept { return notify_service_manager("STOPPING=1"); }

std::error_code notify_reloading() noexcept {
  using std::chrono::microseconds;
  const auto now = std::chrono::steady_clock::now().time_since_epoch();  // CLOCK_MONOTONIC
  char text[64];
  const auto end = fmt::format_to_n(text, sizeof(text), "RELOADING=1\nMONOTONIC_USEC={}",
                                    std::chrono::duration_cast<microseconds>(now).count());
  return notify_service_manager({text, end.size});
}

std::error_code notify_main_process(pid_t process) noexcept {
  if (process <= 0) return std::make_error_code(std::errc::invalid_argument);
  char text[32];
  return notify_service_manager({text, fmt::format_to_n(text, sizeof(text), "MAINPID={}", process).size});
}

}  // namespace anteroom
