// Asio with callbacks, as in its own examples: a session that its pending operation keeps alive, with a
// buffer of its own.
#include <array>
#include <asio.hpp>
#include <memory>
#include <utility>

#include "server.h"

namespace {

using namespace peers;
using asio::ip::tcp;

class Session : public std::enable_shared_from_this<Session> {
 public:
  explicit Session(tcp::socket socket) : socket_(std::move(socket)) {}

  void greet() {
    asio::async_write(socket_, asio::buffer(kHello.data(), kHello.size()),
                      [self = shared_from_this()](std::error_code, std::size_t) {});
  }
  void echo() {
    socket_.async_read_some(asio::buffer(data_),
                            [self = shared_from_this()](std::error_code error, std::size_t got) {
                              if (!error) self->answer(got);
                            });
  }

 private:
  void answer(std::size_t size) {
    asio::async_write(socket_, asio::buffer(data_, size),
                      [self = shared_from_this()](std::error_code error, std::size_t) {
                        if (!error) self->echo();
                      });
  }

  tcp::socket socket_;
  std::array<char, 1024> data_;  // max_length of Asio's echo server
};

void accept(tcp::acceptor& acceptor, Service service) {
  acceptor.async_accept([&acceptor, service](std::error_code error, tcp::socket guest) {
    if (!error) {
      const auto session = std::make_shared<Session>(std::move(guest));
      service == Service::kHello ? session->greet() : session->echo();
    }
    accept(acceptor, service);
  });
}

}  // namespace

int main(int argc, char** argv) {
  const Arguments given = arguments(argc, argv);
  asio::io_context context(1);  // one thread: it need not wake others
  tcp::acceptor acceptor(context, tcp::v4(), listening_socket(given.port));
  accept(acceptor, given.service);
  announce(acceptor.native_handle());
  context.run();
}
