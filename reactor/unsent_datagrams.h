#pragma once
#include <anteroom/endpoint.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <memory>
#include <new>
#include <span>
#include <string_view>
#include <utility>

namespace anteroom {

inline mmsghdr message_of(void* address, socklen_t address_bytes, iovec& piece) noexcept {
  mmsghdr message{};
  message.msg_hdr.msg_name = address;
  message.msg_hdr.msg_namelen = address_bytes;
  message.msg_hdr.msg_iov = &piece;
  message.msg_hdr.msg_iovlen = 1;
  return message;
}

/// Datagrams that wait to be sent, one behind the other in one stretch of memory: of each how long its
/// address and its bytes are, and both of them.
class UnsentDatagrams {
 public:
  /// `bytes_max` is clamped to what makes sense.
  explicit UnsentDatagrams(std::size_t bytes_max) noexcept
      : bytes_max_(std::clamp(bytes_max, kBytesMin, kBytesMax)) {}

  std::size_t count() const noexcept { return count_; }
  std::size_t size() const noexcept { return end_ - begin_; }

  bool append(const Endpoint& to, std::string_view bytes) noexcept {
    const bool has_address = to.family() != AF_UNSPEC;
    const Head head{bytes.size(), has_address ? to.size() : 0};
    if (bytes.size() > bytes_max_ || head.record_bytes() > bytes_max_ - size()) return false;
    if (!make_room(head.record_bytes())) return false;
    put(&head, sizeof(head));
    put(to.data(), head.address_bytes);
    put(bytes.data(), bytes.size());
    ++count_;
    return true;
  }

  /// Points `messages` at the first of them; at how many.
  unsigned gather(std::span<mmsghdr> messages, std::span<iovec> pieces) const noexcept {
    const auto count = static_cast<unsigned>(std::min(count_, messages.size()));
    std::size_t at = begin_;
    for (unsigned i = 0; i < count; ++i) {
      const Head head = head_at(at);
      char* const address = memory_.get() + at + sizeof(head);
      pieces[i] = {.iov_base = address + head.address_bytes, .iov_len = head.payload_bytes};
      messages[i] = message_of(head.address_bytes == 0 ? nullptr : address, head.address_bytes, pieces[i]);
      at += head.record_bytes();
    }
    return count;
  }

  /// Whom the first is for.
  Endpoint address() const noexcept {
    sockaddr_storage address{};
    std::memcpy(&address, memory_.get() + begin_ + sizeof(Head), head_at(begin_).address_bytes);
    return Endpoint::from(reinterpret_cast<sockaddr*>(&address), head_at(begin_).address_bytes);
  }

  void forget(std::size_t count) noexcept {
    count_ -= count;
    for (; count > 0; --count) begin_ += head_at(begin_).record_bytes();
    if (count_ == 0) begin_ = end_ = 0;
  }

 private:
  static constexpr std::size_t kBytesMin = 68 * 1024;  // for any one of UDP's, with its address
  static constexpr std::size_t kBytesMax = std::size_t{1} << 30;

  struct Head {
    std::size_t payload_bytes = 0;
    socklen_t address_bytes = 0;
    std::size_t record_bytes() const noexcept { return sizeof(Head) + address_bytes + payload_bytes; }
  };

  /// The memory is twice what may be used, so whatever has to be moved to the front finds room there, and
  /// what has gone since the last time was more than that.
  bool make_room(std::size_t bytes) noexcept {
    if (!memory_) memory_.reset(new (std::nothrow) char[2 * bytes_max_]);
    if (!memory_) return false;
    if (bytes > 2 * bytes_max_ - end_) {
      std::memcpy(memory_.get(), memory_.get() + begin_, size());
      end_ -= std::exchange(begin_, 0);
    }
    return true;
  }
  void put(const void* from, std::size_t bytes) noexcept {
    if (bytes > 0) std::memcpy(memory_.get() + end_, from, bytes);
    end_ += bytes;
  }
  Head head_at(std::size_t at) const noexcept {
    Head head;
    std::memcpy(&head, memory_.get() + at, sizeof(head));
    return head;
  }

  std::size_t bytes_max_;
  std::unique_ptr<char[]> memory_;
  std::size_t begin_ = 0;
  std::size_t end_ = 0;
  std::size_t count_ = 0;
};

}  // namespace anteroom
