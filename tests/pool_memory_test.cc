// A pool to which operator new fails: in its own threads, or in the one that drains it.
#include <anteroom/reactor_pool.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <memory>
#include <new>
#include <semaphore>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "support/own_network.h"
#include "support/peer.h"

namespace {

std::atomic<bool> pools_have_no_memory{false};
thread_local bool is_of_a_pool = false;
thread_local long allocations_left = -1;  // until they fail; below 0: they do not

bool is_to_fail() noexcept {
  if (is_of_a_pool && pools_have_no_memory) return true;
  return allocations_left >= 0 && allocations_left-- == 0;
}

void* allocate(std::size_t size) noexcept { return is_to_fail() ? nullptr : std::malloc(size); }

}  // namespace

void* operator new(std::size_t size) {
  void* const memory = allocate(size);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}
void* operator new(std::size_t size, const std::nothrow_t& /*tag*/) noexcept { return allocate(size); }
void* operator new[](std::size_t size) { return ::operator new(size); }
void* operator new[](std::size_t size, const std::nothrow_t& /*tag*/) noexcept { return allocate(size); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t /*size*/) noexcept { std::free(memory); }
void operator delete[](void* memory, std::size_t /*size*/) noexcept { std::free(memory); }

namespace anteroom {
namespace {

using namespace std::chrono_literals;
using namespace test;

class APoolWithoutMemory : public testing::TestWithParam<Sharing> {
 protected:
  void open() {
    ReactorPoolOptions options{.threads = 2, .sharing = GetParam()};
    options.acceptor.connection.linger = 50ms;  // the peers do not close
    pool = std::make_unique<ReactorPool>(
        kLoopback,
        [](Reactor&, int) {
          return ConnectionHandlers{
              .data = [](Connection& client, std::string_view bytes) { client.send(bytes); },
              .draining = [](Connection& client) { client.close(); }};
        },
        options);
  }
  void start() {
    pool->start();
    for (int thread = 0; thread < pool->threads(); ++thread) {
      std::binary_semaphore is_done(0);
      pool->reactor(thread).post([&] {
        is_of_a_pool = true;
        is_done.release();
      });
      is_done.acquire();
    }
  }
  static void expect_echo(Peer& peer) {
    const std::size_t had = peer.received().size();
    ASSERT_TRUE(peer.send("here"));
    while (peer.received().size() < had + 4) {
      ASSERT_TRUE(await_events(peer.fd(), POLLIN));
      ASSERT_FALSE(peer.drain()) << "it has ended";
    }
  }
  std::vector<Peer> echoed_peers(int count) {
    std::vector<Peer> peers = connect_peers(pool->endpoint(), count);
    for (Peer& peer : peers) expect_echo(peer);
    return peers;
  }

  /// Calls it with one allocation more each time until it comes through; how often it threw.
  template <class Call>
  static int fails_until_there_is_memory(Call call) {
    for (int failures = 0;; ++failures) {
      allocations_left = failures;
      try {
        call();
        allocations_left = -1;
        return failures;
      } catch (const std::bad_alloc&) {
        allocations_left = -1;
      }
    }
  }

  std::unique_ptr<ReactorPool> pool;
};

INSTANTIATE_TEST_SUITE_P(Each, APoolWithoutMemory,
                         testing::Values(Sharing::kReusePort, Sharing::kExclusive, Sharing::kDealt),
                         [](const auto& instance) {
                           return std::string(instance.param == Sharing::kReusePort   ? "ReusePort"
                                              : instance.param == Sharing::kExclusive ? "Exclusive"
                                                                                      : "Dealt");
                         });

// With kDealt this ended the program: the first thread posts to the others when its listener is closed.
TEST_P(APoolWithoutMemory, DrainsThoughItsThreadsHaveNone) {
  open();
  start();
  std::vector<Peer> peers = echoed_peers(10);
  pools_have_no_memory = true;
  for (Peer& peer : peers) peer.finish();  // and then they go, whose tickets have to come back
  const std::size_t cut = pool->drain({.deadline = 5s, .handshakes = 2ms});
  pools_have_no_memory = false;
  EXPECT_EQ(cut, 0U);
  for (Peer& peer : peers) EXPECT_EQ(peer.receive_all(), "here");
}

TEST_P(APoolWithoutMemory, CutsThoseWhoStayThoughItsThreadsHaveNone) {
  open();
  start();
  std::vector<Peer> peers = echoed_peers(3);
  pools_have_no_memory = true;
  for (const Peer& peer : peers) (void)peer.send_some("x");  // answered, or ended for want of memory
  (void)pool->drain({.deadline = 20ms, .handshakes = 0ms});
  pools_have_no_memory = false;
  for (Peer& peer : peers) {
    peer.receive_all();
    EXPECT_TRUE(peer.is_over());
  }
}

TEST_P(APoolWithoutMemory, HasNotBegunToDrainIfThatThrows) {
  open();
  start();
  std::vector<Peer> peers = echoed_peers(5);
  std::size_t cut = 0;
  const std::string what_a_function_owns(100, 'x');  // so that a copy of the handler needs memory
  const int failures = fails_until_there_is_memory([&] {
    const DrainOptions options{.deadline = 5s, .handshakes = 2ms, .door_closed = [what_a_function_owns] {}};
    try {
      cut = pool->drain(options);
    } catch (const std::bad_alloc&) {
      allocations_left = -1;
      for (Peer& peer : peers) expect_echo(peer);
      Peer late(pool->endpoint());
      expect_echo(late);
      throw;
    }
  });
  EXPECT_GT(failures, 2);
  EXPECT_EQ(cut, 0U);
  EXPECT_THROW(Peer(pool->endpoint()), std::system_error) << "the door is closed";
}

TEST_P(APoolWithoutMemory, HasNotBegunIfItsStartThrows) {
  open();
  const int failures = fails_until_there_is_memory([this] { pool->start(); });
  EXPECT_GT(failures, 0);
  (void)echoed_peers(5);
}

TEST_P(APoolWithoutMemory, TellsItsStateWhenThereIsSome) {
  open();
  start();
  const std::vector<Peer> peers = echoed_peers(5);
  std::size_t open_connections = 0;
  const int failures = fails_until_there_is_memory([&] {
    open_connections = 0;
    for (const auto& state : pool->state()) open_connections += state.open_connections;
  });
  EXPECT_GT(failures, 0);
  EXPECT_EQ(open_connections, 5U);
}

TEST_P(APoolWithoutMemory, IsNotMadeAndLeavesNobodyListening) {
  const Endpoint at = closed_endpoint();
  const auto make = [&at] {
    const ReactorPool made(at, [](Reactor&, int) { return ConnectionHandlers{}; },
                           {.threads = 2, .sharing = GetParam()});
    EXPECT_EQ(made.endpoint(), at);
  };
  EXPECT_GT(fails_until_there_is_memory(make), 5);
  EXPECT_THROW(Peer{at}, std::system_error);
}

}  // namespace
}  // namespace anteroom
