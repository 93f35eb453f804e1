#include <anteroom/reactor_pool.h>
#include <anteroom/reuseport_group.h>
#include <anteroom/socket.h>
#include <fcntl.h>
#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cassert>
#include <chrono>
#include <thread>
#include <utility>

#include "dealer.h"
#include "pool_threads.h"

namespace anteroom {
namespace {

constexpr std::chrono::hours kDrainMax{24 * 365};  // in nanoseconds, milliseconds::max() is no time

/// Unix sockets have no SO_REUSEPORT.
Sharing sharing_for(Sharing asked, int family) noexcept {
  return asked == Sharing::kReusePort && family == AF_UNIX ? Sharing::kExclusive : asked;
}

std::size_t thread_count(const ReactorPoolOptions& options) {
  return options.threads > 0 ? static_cast<std::size_t>(options.threads) : Processors().numbers().size();
}

std::vector<Listener> listen_on(Endpoint endpoint, const ReactorPoolOptions& options) {
  ListenerOptions each = options.listener;
  each.backlog = options.acceptor.backlog.initial();
  each.reuse_port = sharing_for(options.sharing, endpoint.family()) == Sharing::kReusePort;
  const std::size_t count = each.reuse_port ? thread_count(options) : 1;
  std::vector<Listener> listeners;
  while (listeners.size() < count) {
    listeners.emplace_back(endpoint, each);
    endpoint = listeners.front().endpoint();  // with the port that the kernel picked
  }
  return listeners;
}

/// For another thread, which closes it in its own time: the last one that is closed ends the queue.
Listener duplicate(const Listener& listener) {
  Fd socket(::fcntl(listener.fd(), F_DUPFD_CLOEXEC, 0));
  if (!socket) throw setup_error(last_error(), "F_DUPFD_CLOEXEC", "a listener");
  return Listener(std::move(socket));
}

/// The queue that all threads see is told by the first of them, with the highest peak that one of them saw.
void tell_shared_queue_once(std::vector<ReactorPool::ThreadState>& states) noexcept {
  std::optional<ListenQueue>& shared = states.front().queue;
  for (std::size_t i = 1; i < states.size(); ++i) {
    const std::optional<ListenQueue> queue = std::exchange(states[i].queue, std::nullopt);
    if (shared && queue) shared->peak = std::max(shared->peak, queue->peak);
  }
}

}  // namespace

/// Where the threads meet, in the beginning and at the end.
struct ReactorPool::Meeting {
  enum Gate : int { kShut, kOpen, kCalledOff };

  void pass(Gate word) noexcept {
    gate = word;
    gate.notify_all();
  }

  std::atomic<int> gate{kShut};
  std::atomic<bool> ending{false};
  Countdown drained;
  std::atomic<int> open_doors{0};  // of a group that leaves
  std::vector<Fd> group;           // its sockets, until the last door is closed
};

struct ReactorPool::Worker {
  /// Only when all threads have ended: they know each other.
  ~Worker() {
    door.reset();
    if (share != nullptr) Connection::end_all(reactor, *share);
  }

  void begin(Meeting& meeting) {
    try {
      thread = std::thread([this, &meeting] { run(meeting); });
    } catch (const std::system_error& error) {
      throw setup_error(error.code(), "pthread_create", "for a pool");
    }
  }

  void run(Meeting& meeting) {
    meeting.gate.wait(Meeting::kShut);
    if (meeting.gate == Meeting::kCalledOff) return;
    do {
      reactor.run();
    } while (!meeting.ending);  // else somebody has called stop() who is not to
  }

  void drain(const DrainOptions& options, Meeting& meeting) {
    if (share != nullptr) share->drain(options.deadline);
    if (!door) return;
    door->drain(options, [this, &meeting](std::size_t count) {
      cut = count;
      meeting.drained.one_less();
    });
  }

  /// When its thread has ended.
  std::size_t cut_off() const noexcept { return share != nullptr ? share->cut_off() : cut; }

  ThreadState state() const {
    ThreadState state{.loop = reactor.metrics()};
    if (door) state.acceptor = door->stats();
    if (door) state.queue = door->queue();
    state.open_connections = share != nullptr ? share->living() : door->open_connections();
    return state;
  }

  Reactor reactor;
  std::optional<Acceptor> door;  // with Sharing::kDealt only the first thread has one
  Share* share = nullptr;        // with Sharing::kDealt all have one
  std::size_t cut = 0;           // by the door
  std::thread thread;
};

ReactorPool::ReactorPool(const Endpoint& endpoint, const MakeHandlers& make_handlers,
                         ReactorPoolOptions options)
    : ReactorPool(listen_on(endpoint, options), make_handlers, options) {}

ReactorPool::ReactorPool(std::vector<Listener> listeners, const MakeHandlers& make_handlers,
                         ReactorPoolOptions options)
    : pin_threads_(options.pin_threads), meeting_(std::make_unique<Meeting>()) {
  if (!listeners.empty()) endpoint_ = listeners.front().endpoint();
  sharing_ = sharing_for(options.sharing, endpoint_.family());
  if (listeners.empty() || (sharing_ != Sharing::kReusePort && listeners.size() != 1)) {
    throw setup_error(std::make_error_code(std::errc::invalid_argument), "sharing",
                      fmt::format("{} listeners", listeners.size()));
  }
  const std::size_t count = sharing_ == Sharing::kReusePort ? listeners.size() : thread_count(options);
  std::vector<ConnectionHandlers> handlers;
  while (workers_.size() < count) {
    const int number = threads();
    workers_.push_back(std::make_unique<Worker>());
    handlers.push_back(make_handlers(workers_.back()->reactor, number));
  }
  if (sharing_ == Sharing::kDealt) {
    make_shares(std::move(listeners.front()), std::move(handlers), std::move(options.acceptor));
  } else {
    make_doors(std::move(listeners), std::move(handlers), std::move(options.acceptor));
  }
}

void ReactorPool::make_doors(std::vector<Listener> listeners, std::vector<ConnectionHandlers> handlers,
                             AcceptorOptions options) {
  options.exclusive = sharing_ == Sharing::kExclusive && workers_.size() > 1;
  while (listeners.size() < workers_.size()) listeners.push_back(duplicate(listeners.front()));
  for (std::size_t i = 0; i < workers_.size(); ++i) {
    workers_[i]->door.emplace(workers_[i]->reactor, std::move(listeners[i]), std::move(handlers[i]), options);
  }
}

void ReactorPool::make_shares(Listener listener, std::vector<ConnectionHandlers> handlers,
                              AcceptorOptions options) {
  std::vector<Share*> shares;
  for (std::size_t i = 0; i < workers_.size(); ++i) {
    workers_[i]->share =
        std::make_unique<Share>(workers_[i]->reactor, std::move(handlers[i]), options).release();
    shares.push_back(workers_[i]->share);
  }
  Worker& first = *workers_.front();
  options.deal = [&first, dealer = Dealer(shares)](Fd guest, int family, Admission::Ticket ticket) mutable {
    try {
      dealer.next().deal(std::move(guest), family, ticket);
    } catch (const std::bad_alloc&) {
      first.door->left(ticket);
    }
  };
  first.door.emplace(first.reactor, std::move(listener), ConnectionHandlers(), std::move(options));
  for (Share* share : shares) share->open(first.reactor, *first.door);
}

ReactorPool::~ReactorPool() {
  if (running_ && !is_of_this_process()) {
    leave_to_parent();
  } else {
    stop_and_join();
  }
}

bool ReactorPool::is_of_this_process() const noexcept { return workers_.front()->reactor.is_of_this_process(); }

/// The threads are the parent's, and may have been in the middle of anything, so nothing of theirs is touched
/// but the listening sockets, which would keep the port in use.
void ReactorPool::leave_to_parent() noexcept {
  for (const int listener : listeners()) ::close(listener);
  static auto& abandoned = *new std::vector<std::unique_ptr<Worker>>;
  for (std::unique_ptr<Worker>& worker : workers_) abandoned.push_back(std::move(worker));
}

void ReactorPool::continue_after_fork() {
  if (running_ && !is_of_this_process())
    throw setup_error(std::make_error_code(std::errc::operation_not_permitted), "continue after fork",
                      "with a pool whose threads the parent has");
  for (const auto& worker : workers_) worker->reactor.continue_after_fork();
}

/// The threads wait at the gate until all of them are there.
void ReactorPool::start() {
  assert(!running_ && !meeting_->ending && "a pool is started once");
  if (!is_of_this_process())
    throw setup_error(std::make_error_code(std::errc::operation_not_permitted), "start",
                      "a pool that the parent process made: see ReactorPool::continue_after_fork()");
  try {
    for (const auto& worker : workers_) worker->begin(*meeting_);
    if (pin_threads_) pin();
  } catch (...) {
    meeting_->pass(Meeting::kCalledOff);
    join();
    meeting_->pass(Meeting::kShut);
    throw;
  }
  meeting_->pass(Meeting::kOpen);
  running_ = true;
}

void ReactorPool::pin() {
  const Processors allowed;
  const std::vector<std::size_t> numbers = allowed.numbers();
  for (std::size_t i = 0; i < workers_.size(); ++i) {
    Processors(allowed).pin(workers_[i]->thread.native_handle(), numbers[i % numbers.size()]);
  }
}

std::size_t ReactorPool::drain(DrainOptions options) {
  assert(is_none_of_the_threads() && "a pool's thread would wait for itself");
  if (!running_) return 0;
  options.deadline = std::min<std::chrono::milliseconds>(options.deadline, kDrainMax);
  if (sharing_ == Sharing::kReusePort) leave_group_together(options);
  if (sharing_ == Sharing::kDealt) {
    options.door_closed = [this, tell = std::move(options.door_closed)] {
      for (const auto& worker : workers_)
        worker->reactor.post([share = worker->share] { share->door_closed(); });
      if (tell) tell();
    };
  }
  for (const auto& worker : workers_) {
    if (worker->door) meeting_->drained.one_more();
    worker->reactor.post(
        [&worker = *worker, &meeting = *meeting_, options] { worker.drain(options, meeting); });
  }
  meeting_->drained.wait();
  stop_and_join();
  std::size_t cut = 0;
  for (const auto& worker : workers_) cut += worker->cut_off();
  return cut;
}

/// Each door keeps its socket in the group until all of them are empty; then they are closed in an order that
/// loses nobody. Without descriptors for that, each closes its own.
void ReactorPool::leave_group_together(DrainOptions& options) {
  options.leaving = static_cast<std::uint32_t>(workers_.size());
  if (options.leaving == 1 || options.handed_over) return;
  std::vector<Fd> group;
  for (const int listener : listeners()) {
    Fd copy(::fcntl(listener, F_DUPFD_CLOEXEC, 0));
    if (!copy) return;
    group.push_back(std::move(copy));
  }
  meeting_->group = std::move(group);
  meeting_->open_doors = threads();
  options.door_closed = [meeting = meeting_.get(), tell = std::move(options.door_closed)] {
    if (--meeting->open_doors == 0) close_first_of_group(std::exchange(meeting->group, {}));
    if (tell) tell();
  };
}

void ReactorPool::stop_and_join() noexcept {
  if (!running_) return;
  meeting_->ending = true;
  for (const auto& worker : workers_) worker->reactor.stop();
  join();
  running_ = false;
}

void ReactorPool::join() noexcept {
  for (const auto& worker : workers_) {
    if (worker->thread.joinable()) worker->thread.join();
  }
}

int ReactorPool::threads() const noexcept { return static_cast<int>(workers_.size()); }

Reactor& ReactorPool::reactor(int thread) const noexcept {
  return workers_[static_cast<std::size_t>(thread)]->reactor;
}

std::vector<int> ReactorPool::listeners() const {
  std::vector<int> sockets;
  const std::size_t count = sharing_ == Sharing::kReusePort ? workers_.size() : 1;
  for (std::size_t i = 0; i < count; ++i) {
    if (const int fd = workers_[i]->door->fd(); fd >= 0) sockets.push_back(fd);
  }
  return sockets;
}

bool ReactorPool::is_none_of_the_threads() const noexcept {
  return std::ranges::none_of(
      workers_, [](const auto& worker) { return worker->thread.get_id() == std::this_thread::get_id(); });
}

std::vector<ReactorPool::ThreadState> ReactorPool::state() const {
  assert(is_none_of_the_threads() && "a pool's thread would wait for itself");
  std::vector<ThreadState> states(workers_.size());
  Countdown taken;
  for (std::size_t i = 0; i < workers_.size(); ++i) {
    const auto take = [&state = states[i], &worker = *workers_[i], &taken] {
      state = worker.state();
      taken.one_less();
    };
    taken.one_more();
    try {
      running_ ? workers_[i]->reactor.post(take) : take();
    } catch (...) {
      taken.one_less();
      taken.wait();  // for those who write here
      throw;
    }
  }
  taken.wait();
  if (sharing_ == Sharing::kExclusive) tell_shared_queue_once(states);
  return states;
}

}  // namespace anteroom
