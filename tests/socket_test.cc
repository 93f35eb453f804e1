#include <anteroom/socket.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <netinet/tcp.h>

#include <cerrno>
#include <string>
#include <system_error>

#include "support/own_network.h"
#include "support/peer.h"

namespace anteroom {
namespace {

using namespace test;

TEST(Socket, IsNonBlockingAndClosedOnExec) {
  std::error_code error = std::make_error_code(std::errc::io_error);
  const Fd socket = open_stream_socket(AF_INET, error);
  ASSERT_TRUE(socket);
  EXPECT_FALSE(error) << "success says so";
  EXPECT_NE(::fcntl(socket.get(), F_GETFL) & O_NONBLOCK, 0);
  EXPECT_NE(::fcntl(socket.get(), F_GETFD) & FD_CLOEXEC, 0);
}

TEST(Socket, OfNoFamilyIsAnErrorAndNoDescriptor) {
  std::error_code error;
  EXPECT_FALSE(open_stream_socket(AF_UNSPEC, error));
  EXPECT_EQ(error, std::errc::address_family_not_supported);
}

TEST(Socket, TakesOptionsOrSaysWhyNot) {
  std::error_code error;
  const Fd socket = open_stream_socket(AF_INET, error);
  EXPECT_FALSE(set_socket_option(socket.get(), IPPROTO_TCP, TCP_NODELAY, 1));
  int value = 0;
  socklen_t size = sizeof(value);
  ::getsockopt(socket.get(), IPPROTO_TCP, TCP_NODELAY, &value, &size);
  EXPECT_EQ(value, 1);
  EXPECT_EQ(set_socket_option(socket.get(), IPPROTO_TCP, 9999, 1), std::errc::no_protocol_option);
  EXPECT_EQ(set_socket_option(-1, IPPROTO_TCP, TCP_NODELAY, 1), std::errc::bad_file_descriptor);
}

TEST(Socket, ForgetsItsErrorOnceItIsTaken) {
  const Fd socket(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  const Endpoint nobody = closed_endpoint();
  (void)::connect(socket.get(), nobody.data(), nobody.size());
  ASSERT_TRUE(await_events(socket.get(), POLLERR));
  EXPECT_EQ(take_socket_error(socket.get()), std::errc::connection_refused);
  EXPECT_FALSE(take_socket_error(socket.get()));
  EXPECT_EQ(take_socket_error(-1), std::errc::bad_file_descriptor);
}

TEST(Socket, KnowsBothItsEnds) {
  const Fd listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  ASSERT_EQ(::bind(listener.get(), kLoopback.data(), kLoopback.size()), 0);
  ASSERT_EQ(::listen(listener.get(), 1), 0);
  const Peer peer(local_endpoint(listener.get()));
  const Fd guest(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  EXPECT_EQ(peer_endpoint(guest.get()), peer.local());
  EXPECT_EQ(local_endpoint(guest.get()), local_endpoint(listener.get()));
  EXPECT_EQ(peer_endpoint(listener.get()), Endpoint()) << "a listener has no peer";
  EXPECT_EQ(local_endpoint(-1), Endpoint());
}

TEST(Socket, ResetsOnCloseWhenAskedTo) {
  const Fd listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  ASSERT_EQ(::bind(listener.get(), kLoopback.data(), kLoopback.size()), 0);
  ASSERT_EQ(::listen(listener.get(), 1), 0);
  Peer peer(local_endpoint(listener.get()));
  Fd guest(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  reset_on_close(guest.get());
  guest.reset();
  peer.receive_all();
  EXPECT_EQ(peer.error(), ECONNRESET);
}

TEST(SetupError, SaysWhatWasTriedOnWhatAndWhy) {
  errno = EACCES;
  const std::system_error error = setup_error(last_error(), "bind", "127.0.0.1:80");
  EXPECT_STREQ(error.what(), "bind 127.0.0.1:80: Permission denied");
  EXPECT_EQ(error.code(), std::errc::permission_denied);
}

}  // namespace
}  // namespace anteroom
