#include "watch_screen.h"

#include <signal.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <exception>
#include <string>
#include <utility>

namespace anteroom::tool {
namespace {

constexpr std::string_view kEnterScreen = "\x1b[?1049h\x1b[?25l";
constexpr std::string_view kLeaveScreen = "\x1b[?25h\x1b[?1049l";
constexpr std::array kScreenSignals{SIGINT,  SIGTERM, SIGHUP, SIGQUIT, SIGTSTP,
                                    SIGABRT, SIGSEGV, SIGBUS, SIGFPE,  SIGILL};

constexpr bool is_crash(int signal) noexcept {
  return signal == SIGABRT || signal == SIGSEGV || signal == SIGBUS || signal == SIGFPE || signal == SIGILL;
}

/// The first of them ends the watch with what was seen so far.
constexpr bool ends_in_order(int signal) noexcept {
  return signal == SIGINT || signal == SIGTERM || signal == SIGHUP;
}

// What signal handlers have to know.
std::atomic<bool> is_entered{false};
std::atomic<bool> is_told_to_end{false};
std::array<struct sigaction, kScreenSignals.size()> actions_before;
static_assert(std::atomic<bool>::is_always_lock_free);

/// Only write(2), so that a signal handler may call it.
void put(std::string_view text) noexcept {
  while (!text.empty()) {
    const ssize_t count = ::write(STDOUT_FILENO, text.data(), text.size());
    if (count < 0 && errno != EINTR && errno != EAGAIN) return;  // the terminal has gone
    if (count > 0) text.remove_prefix(static_cast<std::size_t>(count));
  }
}

bool has_terminal() noexcept {
  const pid_t owner = ::tcgetpgrp(STDOUT_FILENO);
  return owner < 0 || owner == ::getpgrp();  // it need not be our controlling terminal
}

void enter_screen() noexcept {
  if (!is_entered.exchange(true)) put(kEnterScreen);
}

void leave_screen() noexcept {
  if (is_entered.exchange(false)) put(kLeaveScreen);
}

void listen_to(int signal, void (*handler)(int)) noexcept {
  struct sigaction action {};
  action.sa_handler = handler;
  ::sigaction(signal, &action, nullptr);
}

/// By the default action, which the signal has when the handler returns.
void on_deadly_signal(int signal) {
  leave_screen();
  listen_to(signal, SIG_DFL);
  ::raise(signal);
}

void on_end_signal(int signal) {
  if (is_told_to_end.exchange(true)) return on_deadly_signal(signal);
  for (std::size_t i = 0; i < kScreenSignals.size(); ++i) {
    if (kScreenSignals[i] == signal && actions_before[i].sa_handler != SIG_DFL)
      return actions_before[i].sa_handler(signal), listen_to(signal, on_end_signal);
  }
  on_deadly_signal(signal);
}

void on_stop_signal(int signal) {
  const int error = errno;
  leave_screen();
  listen_to(signal, SIG_DFL);
  sigset_t stop;
  sigemptyset(&stop);
  sigaddset(&stop, signal);
  ::raise(signal);
  ::sigprocmask(SIG_UNBLOCK, &stop, nullptr);  // here we are stopped, until SIGCONT
  listen_to(signal, on_stop_signal);
  if (has_terminal()) enter_screen();
  errno = error;
}

std::terminate_handler terminate_before = nullptr;

/// What the runtime says then is to be read where the terminal was left.
[[noreturn]] void on_terminate() {
  leave_screen();
  if (terminate_before != nullptr) terminate_before();
  std::abort();
}

bool knows_screens() {
  const char* const term = std::getenv("TERM");
  return term != nullptr && std::string_view(term) != "dumb";
}

}  // namespace

Screen::Screen(bool wanted)
    : terminal_(Terminal::of(STDOUT_FILENO)), is_on_(wanted && terminal_.is_terminal && knows_screens()) {
  if (!is_on_) return;
  for (std::size_t i = 0; i < kScreenSignals.size(); ++i) {
    const int signal = kScreenSignals[i];
    ::sigaction(signal, nullptr, &actions_before[i]);
    if (actions_before[i].sa_handler == SIG_IGN) continue;  // as nohup(1) has it
    if (is_crash(signal) && actions_before[i].sa_handler != SIG_DFL) continue;  // a sanitizer's
    listen_to(signal, signal == SIGTSTP       ? on_stop_signal
                      : ends_in_order(signal) ? on_end_signal
                                              : on_deadly_signal);
  }
  terminate_before = std::set_terminate(on_terminate);
  enter_screen();
}

bool Screen::is_seen() const noexcept { return is_on_ && has_terminal(); }

const Terminal& Screen::terminal() { return terminal_ = Terminal::of(STDOUT_FILENO); }

int Screen::lines() const noexcept {
  winsize size{};
  return ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row > 0 ? size.ws_row : 24;
}

void Screen::draw(std::string_view text) {
  enter_screen();  // it was left if we came back from the background
  std::string lines = "\x1b[H" + std::string(text);
  for (std::size_t at = 0; (at = lines.find('\n', at)) != lines.npos; at += 4) lines.insert(at, "\x1b[K");
  put(lines + "\x1b[J");
}

void Screen::leave() noexcept {
  if (!std::exchange(is_on_, false)) return;
  leave_screen();
  std::set_terminate(terminate_before);
  for (std::size_t i = 0; i < kScreenSignals.size(); ++i) {
    // Who was told to end once is not asked to again.
    if (ends_in_order(kScreenSignals[i]) && is_told_to_end && actions_before[i].sa_handler != SIG_IGN)
      listen_to(kScreenSignals[i], SIG_DFL);
    else
      ::sigaction(kScreenSignals[i], &actions_before[i], nullptr);
  }
}

}  // namespace anteroom::tool
