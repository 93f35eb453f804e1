#pragma once
#include <cassert>
#include <cstddef>
#include <cstring>
#include <memory>
#include <new>
#include <string_view>
#include <utility>

namespace anteroom {

/// Bytes that wait to be sent: in at the back, out at the front. Holds no memory while it is empty. One that
/// was moved from is empty.
class Buffer {
 public:
  Buffer() noexcept = default;
  Buffer(Buffer&& other) noexcept
      : bytes_(std::move(other.bytes_)),
        begin_(std::exchange(other.begin_, 0)),
        end_(std::exchange(other.end_, 0)),
        capacity_(std::exchange(other.capacity_, 0)) {}
  Buffer& operator=(Buffer&& other) noexcept {
    if (this == &other) return *this;
    bytes_ = std::move(other.bytes_);
    begin_ = std::exchange(other.begin_, 0);
    end_ = std::exchange(other.end_, 0);
    capacity_ = std::exchange(other.capacity_, 0);
    return *this;
  }

  bool empty() const noexcept { return begin_ == end_; }
  std::size_t size() const noexcept { return end_ - begin_; }
  std::size_t capacity() const noexcept { return capacity_; }
  std::string_view front() const noexcept { return {bytes_.get() + begin_, size()}; }

  /// False, and unchanged, if there is no memory for it.
  bool append(std::string_view bytes) noexcept {
    if (bytes.size() > capacity_ - end_ && !make_room(bytes.size())) return false;
    if (!bytes.empty()) std::memcpy(bytes_.get() + end_, bytes.data(), bytes.size());
    end_ += bytes.size();
    return true;
  }

  /// Forgets the first `count` bytes, of which there are at least so many.
  void consume(std::size_t count) noexcept {
    assert(count <= size());
    begin_ += count;
    if (empty()) clear();
  }

  void clear() noexcept {
    bytes_.reset();
    begin_ = end_ = capacity_ = 0;
  }

 private:
  /// Moves what is there to the front, into twice the memory unless half of it is free anyway: each byte is
  /// moved O(1) times.
  bool make_room(std::size_t count) noexcept;

  std::unique_ptr<char[]> bytes_;
  std::size_t begin_ = 0;
  std::size_t end_ = 0;
  std::size_t capacity_ = 0;
};

inline bool Buffer::make_room(std::size_t count) noexcept {
  constexpr std::size_t kCapacityMin = 4096;
  constexpr std::size_t kCapacityMax = static_cast<std::size_t>(-1) / 4;
  const std::size_t held = size();
  if (held > kCapacityMax || count > kCapacityMax - held) return false;
  const std::size_t needed = held + count;
  if (needed <= capacity_ / 2) {
    std::memmove(bytes_.get(), bytes_.get() + begin_, held);
  } else {
    std::size_t capacity = capacity_ == 0 ? kCapacityMin : capacity_;
    while (capacity / 2 < needed) capacity *= 2;
    std::unique_ptr<char[]> bytes(new (std::nothrow) char[capacity]);
    if (!bytes) return false;
    if (held > 0) std::memcpy(bytes.get(), bytes_.get() + begin_, held);
    bytes_ = std::move(bytes);
    capacity_ = capacity;
  }
  begin_ = 0;
  end_ = held;
  return true;
}

}  // namespace anteroom
