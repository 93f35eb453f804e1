#include <anteroom/tcp_info.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

namespace anteroom {

std::optional<TcpInfo> tcp_info(int fd) noexcept {
  ::tcp_info kernel;  // not zeroed: the kernel fills all of it, and this is on the path of every accept
  socklen_t size = sizeof(kernel);
  if (::getsockopt(fd, IPPROTO_TCP, TCP_INFO, &kernel, &size) != 0 || size < sizeof(kernel))
    return std::nullopt;
  TcpInfo info;
  info.listening = kernel.tcpi_state == TCP_LISTEN;
  info.established = kernel.tcpi_state == TCP_ESTABLISHED;
  info.connecting = kernel.tcpi_state == TCP_SYN_SENT;
  if (info.listening) {
    info.queue_depth = kernel.tcpi_unacked;
    info.queue_limit = kernel.tcpi_sacked;
  } else {
    info.total_retransmits = kernel.tcpi_total_retrans;
    info.since_last_sent = std::chrono::milliseconds(kernel.tcpi_last_data_sent);
  }
  return info;
}

}  // namespace anteroom
