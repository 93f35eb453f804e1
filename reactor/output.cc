#include "output.h"

#include <signal.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <time.h>

#include <algorithm>
#include <cerrno>
#include <new>
#include <utility>

namespace anteroom {
namespace {

constexpr std::uint64_t kFileBytesPerTurn = 1 << 20;

/// sendfile(2) has no MSG_NOSIGNAL. So for its time SIGPIPE is blocked in this thread, and what came of it is
/// taken away again.
class NoSigpipe {
 public:
  NoSigpipe() noexcept {
    ::sigemptyset(&sigpipe_);
    ::sigaddset(&sigpipe_, SIGPIPE);
    sigset_t pending;
    ::sigpending(&pending);
    was_pending_ = ::sigismember(&pending, SIGPIPE) == 1;
    ::pthread_sigmask(SIG_BLOCK, &sigpipe_, &before_);
  }
  ~NoSigpipe() {
    const timespec at_once{};
    while (came_ && !was_pending_ && ::sigtimedwait(&sigpipe_, nullptr, &at_once) < 0 && errno == EINTR) {
    }
    ::pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }
  NoSigpipe(const NoSigpipe&) = delete;
  NoSigpipe& operator=(const NoSigpipe&) = delete;
  void came() noexcept { came_ = true; }

 private:
  sigset_t sigpipe_;
  sigset_t before_;
  bool was_pending_ = false;
  bool came_ = false;
};

}  // namespace

/// One after the other: a long list must not be as many calls deep.
Output::Piece::~Piece() {
  while (next) next = std::move(next->next);
}

bool Output::append(std::string_view bytes) noexcept {
  if (last().file) {
    std::unique_ptr<Piece> piece(new (std::nothrow) Piece);
    if (!piece || !piece->bytes.append(bytes)) return false;
    memory_ += piece->bytes.capacity();
    Piece* const added = piece.get();
    last().next = std::move(piece);
    last_ = added;
  } else {
    const std::size_t before = last().bytes.capacity();
    if (!last().bytes.append(bytes)) return false;
    memory_ += last().bytes.capacity() - before;
  }
  bytes_ += bytes.size();
  return true;
}

bool Output::append_file(Fd file, std::uint64_t offset, std::uint64_t size) noexcept {
  if (size == 0) return true;
  if (last().file) {
    std::unique_ptr<Piece> piece(new (std::nothrow) Piece);
    if (!piece) return false;
    Piece* const added = piece.get();
    last().next = std::move(piece);
    last_ = added;
  }
  last().file = std::move(file);
  last().offset = offset;
  last().left = size;
  file_bytes_ += size;
  return true;
}

int Output::send_to(int socket, std::size_t& sent) noexcept {
  for (;;) {
    if (const int error = send_bytes(socket, sent)) return error;
    if (const int error = send_file(socket, sent)) return error;
    if (!first_.next) return 0;
    forget_first();
  }
}

int Output::send_bytes(int socket, std::size_t& sent) noexcept {
  while (!first_.bytes.empty()) {
    const std::string_view bytes = first_.bytes.front();
    const int more = first_.file ? MSG_MORE : 0;  // a head and the file behind it share a segment
    const ssize_t count = ::send(socket, bytes.data(), bytes.size(), MSG_NOSIGNAL | more);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return errno;
    const auto taken = static_cast<std::size_t>(count);
    const std::size_t before = first_.bytes.capacity();
    first_.bytes.consume(taken);
    memory_ -= before - first_.bytes.capacity();
    bytes_ -= taken;
    sent += taken;
  }
  return 0;
}

int Output::send_file(int socket, std::size_t& sent) noexcept {
  if (!first_.file) return 0;
  NoSigpipe no_sigpipe;
  std::uint64_t budget = kFileBytesPerTurn;
  while (first_.left > 0) {
    if (budget == 0) return EINTR;
    auto offset = static_cast<off_t>(first_.offset);
    const std::size_t most = std::min(first_.left, budget);
    const ssize_t count = ::sendfile(socket, first_.file.get(), &offset, most);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) {
      const int error = errno;
      if (error == EPIPE) no_sigpipe.came();
      return error;
    }
    if (count == 0) return EIO;  // it ends here
    // It goes in several steps: the first may have sent something, and the next have raised SIGPIPE.
    if (static_cast<std::uint64_t>(count) < most) no_sigpipe.came();
    first_.offset += static_cast<std::uint64_t>(count);
    first_.left -= static_cast<std::uint64_t>(count);
    file_bytes_ -= static_cast<std::uint64_t>(count);
    budget -= static_cast<std::uint64_t>(count);
    sent += static_cast<std::size_t>(count);
  }
  first_.file.reset();
  return 0;
}

void Output::forget_first() noexcept {
  const std::unique_ptr<Piece> next = std::move(first_.next);
  if (last_ == next.get()) last_ = nullptr;
  first_.bytes = std::move(next->bytes);
  first_.file = std::move(next->file);
  first_.offset = next->offset;
  first_.left = next->left;
  first_.next = std::move(next->next);
}

}  // namespace anteroom
