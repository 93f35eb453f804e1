#pragma once
#include <anteroom/fd.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>

#include "buffer.h"

namespace anteroom {

/// What waits to be sent: bytes and files, in the order in which they were given. Cannot be moved: its last
/// piece may be its first.
class Output {
 public:
  Output() noexcept = default;
  Output(Output&&) = delete;

  bool empty() const noexcept { return first_.bytes.empty() && !first_.file && !first_.next; }
  /// Bytes in memory, those of files not counted.
  std::size_t bytes() const noexcept { return bytes_; }
  /// With those of files.
  std::uint64_t bytes_in_all() const noexcept { return bytes_ + file_bytes_; }
  /// The memory that holds them.
  std::size_t memory() const noexcept { return memory_; }

  /// False, and unchanged, if there is no memory for it.
  bool append(std::string_view bytes) noexcept;
  bool append_file(Fd file, std::uint64_t offset, std::uint64_t size) noexcept;

  /// Gives the kernel what it takes, in order. 0 when all is sent; EAGAIN when the kernel takes no more now;
  /// EINTR when so much of files was sent that others should have their turn; or another errno: EIO if a file
  /// is shorter than it was said to be. `sent` grows by what was taken.
  int send_to(int socket, std::size_t& sent) noexcept;

 private:
  /// Bytes, and behind them a file, if there is one.
  struct Piece {
    Buffer bytes;
    Fd file;
    std::uint64_t offset = 0;
    std::uint64_t left = 0;
    std::unique_ptr<Piece> next;
    ~Piece();
  };

  Piece& last() noexcept { return last_ == nullptr ? first_ : *last_; }
  int send_bytes(int socket, std::size_t& sent) noexcept;
  int send_file(int socket, std::size_t& sent) noexcept;
  void forget_first() noexcept;

  Piece first_;
  Piece* last_ = nullptr;  // first_ if null
  std::size_t bytes_ = 0;
  std::size_t memory_ = 0;
  std::uint64_t file_bytes_ = 0;
};

}  // namespace anteroom
