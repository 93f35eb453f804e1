#include <anteroom/signals.h>
#include <anteroom/socket.h>
#include <sys/signalfd.h>

#include <cerrno>

#include <memory>
#include <utility>

namespace anteroom {

class Signals::SignalChannel final : public Channel {
 public:
  SignalChannel(Reactor& reactor, Fd fd, std::function<void(int)> handler)
      : Channel(reactor, std::move(fd)), handler_(std::move(handler)) {}

 private:
  void on_ready(std::uint32_t /*events*/) noexcept override {
    signalfd_siginfo info{};
    while (!is_retired()) {
      const ssize_t count = ::read(fd(), &info, sizeof(info));
      if (count == static_cast<ssize_t>(sizeof(info))) {
        handler_(static_cast<int>(info.ssi_signo));
      } else if (count >= 0 || errno != EINTR) {
        return;  // EAGAIN: all told
      }
    }
  }

  std::function<void(int)> handler_;
};

Signals::Signals(Reactor& reactor, std::initializer_list<int> signals, std::function<void(int)> handler)
    : reactor_(reactor), ours_{}, channel_(nullptr) {
  sigset_t mask;
  ::sigemptyset(&mask);
  for (const int signal : signals) ::sigaddset(&mask, signal);
  Fd fd(::signalfd(-1, &mask, SFD_NONBLOCK | SFD_CLOEXEC));
  if (!fd) throw setup_error(last_error(), "signalfd", "for a reactor");
  channel_ = &reactor.adopt(std::make_unique<SignalChannel>(reactor, std::move(fd), std::move(handler)));
  if (const std::error_code error = reactor.watch(*channel_)) {
    reactor.retire(*channel_);
    throw setup_error(error, "epoll_ctl", "for a signalfd");
  }
  sigset_t before;
  ::pthread_sigmask(SIG_BLOCK, &mask, &before);
  ::sigemptyset(&ours_);
  for (const int signal : signals) {
    if (::sigismember(&before, signal) == 0) ::sigaddset(&ours_, signal);
  }
}

Signals::~Signals() {
  reactor_.retire(*channel_);
  ::pthread_sigmask(SIG_UNBLOCK, &ours_, nullptr);
}

}  // namespace anteroom
