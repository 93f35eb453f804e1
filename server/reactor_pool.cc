#include <anteroom/reactor_pool.h>
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
#include "door.h"
#include "pool_threads.h"

namespace anteroom {
namespace {

constexpr std::chrono::hours kDrainMax{24 * 365};  // in nanoseconds, milliseconds::max() is no time

std::system_error invalid(const char* tried, const std::string& on) {
  return setup_error(std::make_error_code(std::errc::invalid_argument), tried, on);
}

/// Unix sockets have no SO_REUSEPORT.
Sharing sharing_for(Sharing asked, int family) noexcept {
  return asked == Sharing::kReusePort && family == AF_UNIX ? Sharing::kExclusive : asked;
}

std::size_t thread_count(const ReactorPoolOptions& options) {
  if (options.threads < 0) throw invalid("threads", fmt::to_string(options.threads));
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
  Listener copy(std::move(socket));
  copy.set_shared(listener.is_shared());
  return copy;
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
  std::optional<LeavingTogether> leaving;
};

struct ReactorPool::Worker {
  /// Only when all threads have ended: they know each other.
  ~Worker() {
    door.reset();
    if (share != nullptr) Connection::end_all(reactor, *share);
  }

  void begin(Meeting& meeting) {
    if (door) listener_in_thread = door->fd();
    try {
      thread = std::thread([this, &meeting] { run(meeting); });
    } catch (const std::system_error& error) {
      throw setup_error(error.code(), "pthread_create", "for a pool");
    }
  }

  /// The acceptor belongs to the thread while there is one; its socket stays until drain() is through.
  int listener() const noexcept { return thread.joinable() ? listener_in_thread : door->fd(); }

  void run(Meeting& meeting) {
    meeting.gate.wait(Meeting::kShut);
    if (meeting.gate == Meeting::kCalledOff) return;
    do {
      reactor.run();
      carry_out_orders(meeting);
    } while (!meeting.ending);  // else it had an order, or the user has called stop()
  }

  /// What has to be done also without memory, which Reactor::post() needs. In its thread, between two turns.
  enum Order : unsigned { kDrain = 1, kListenerClosed = 2, kCollectTickets = 4 };

  /// From any thread.
  void order(Order what) noexcept {
    orders.fetch_or(what);
    reactor.stop();
  }

  /// Calls no handlers: they run from the turn only.
  void carry_out_orders(Meeting& meeting) noexcept {
    const unsigned now = orders.exchange(0);
    if ((now & kDrain) != 0) begin_drain(meeting);
    if ((now & kListenerClosed) != 0) share->door_closed();
    if ((now & kCollectTickets) != 0) {
      for (Share* each : shares) each->collect();
    }
  }

  void begin_drain(Meeting& meeting) noexcept {
    if (share != nullptr) share->drain(drain_options.deadline);
    if (!door) return;
    door->door_->drain(std::move(drain_options), std::move(drained), &*meeting.leaving, number);
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
  std::vector<Share*> shares;    // those of all threads, in the first
  std::atomic<unsigned> orders{0};
  DrainOptions drain_options;  // written before that order, as what follows
  std::function<void(std::size_t)> drained;
  std::size_t number = 0;
  std::size_t cut = 0;  // by the door
  int listener_in_thread = -1;  // the acceptor's, when the thread began
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
  if (!make_handlers) throw invalid("make_handlers", "of a pool");
  if (options.threads < 0) throw invalid("threads", fmt::to_string(options.threads));
  if (listeners.empty() || (sharing_ != Sharing::kReusePort && listeners.size() != 1)) {
    throw invalid("sharing", fmt::format("{} listeners", listeners.size()));
  }
  const std::size_t count = sharing_ == Sharing::kReusePort ? listeners.size() : thread_count(options);
  std::vector<ConnectionHandlers> handlers;
  while (workers_.size() < count) {
    const int number = threads();
    workers_.push_back(std::make_unique<Worker>());
    workers_.back()->number = workers_.size() - 1;
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
  for (Share* share : shares)
    share->open(first.reactor, *first.door, [&first] { first.order(Worker::kCollectTickets); });
  first.shares = std::move(shares);
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
  for (const std::unique_ptr<Worker>& worker : workers_) {  // with kExclusive each has a copy of the socket
    if (worker->door && worker->listener() >= 0) ::close(worker->listener());
  }
  static auto& abandoned = *new std::vector<std::unique_ptr<Worker>>;
  for (std::unique_ptr<Worker>& worker : workers_) abandoned.push_back(std::move(worker));
}

void ReactorPool::continue_after_fork() {
  if (running_ && !is_of_this_process())
    throw setup_error(std::make_error_code(std::errc::operation_not_permitted), "continue after fork",
                      "with a pool whose threads the parent has");
  for (const auto& worker : workers_) worker->reactor.continue_after_fork();
}

void ReactorPool::refuse_child(const char* tried) const {
  if (is_of_this_process()) return;
  throw setup_error(std::make_error_code(std::errc::operation_not_permitted), tried,
                    "a pool that the parent process made: see ReactorPool::continue_after_fork()");
}

/// The threads wait at the gate until all of them are there.
void ReactorPool::start() {
  refuse_child("to start");
  if (running_ || meeting_->ending)
    throw setup_error(std::make_error_code(std::errc::operation_not_permitted), "to start",
                      "a pool that has been started before");
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
  refuse_child("to drain");
  refuse_own_threads("to drain");
  check_drain_options(options);
  if (!running_) return 0;
  prepare_drain(std::move(options));
  // From here on nothing needs memory.
  for (const auto& worker : workers_) {
    if (worker->door) meeting_->drained.one_more();
  }
  for (const auto& worker : workers_) worker->order(Worker::kDrain);
  meeting_->drained.wait();
  stop_and_join();
  std::size_t cut = 0;
  for (const auto& worker : workers_) cut += worker->cut_off();
  return cut;
}

/// The sockets stay open until all queues are empty, so that those of a group keep their numbers until then.
void ReactorPool::prepare_drain(DrainOptions options) {
  const bool are_group = sharing_ == Sharing::kReusePort;
  options.deadline = std::min<std::chrono::milliseconds>(options.deadline, kDrainMax);
  options.leaving = are_group ? static_cast<std::uint32_t>(workers_.size()) : 1;
  if (sharing_ == Sharing::kDealt) {
    options.door_closed = [this, tell = std::move(options.door_closed)] {
      for (const auto& worker : workers_) worker->order(Worker::kListenerClosed);
      if (tell) tell();
    };
  }
  meeting_->leaving.emplace(sharing_ == Sharing::kDealt ? 1 : workers_.size(), are_group);
  for (const auto& worker : workers_) {
    worker->drain_options = options;
    worker->drained = [&worker = *worker, &meeting = *meeting_](std::size_t count) {
      worker.cut = count;
      meeting.drained.one_less();
    };
  }
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
  assert(thread >= 0 && thread < threads() && "a pool has no such thread");
  return workers_[static_cast<std::size_t>(thread)]->reactor;
}

std::vector<int> ReactorPool::listeners() const {
  std::vector<int> sockets;
  const std::size_t count = sharing_ == Sharing::kReusePort ? workers_.size() : 1;
  for (std::size_t i = 0; i < count; ++i) {
    if (const int fd = workers_[i]->listener(); fd >= 0) sockets.push_back(fd);
  }
  return sockets;
}

void ReactorPool::refuse_own_threads(const char* tried) const {
  const bool is_own = std::ranges::any_of(
      workers_, [](const auto& worker) { return worker->thread.get_id() == std::this_thread::get_id(); });
  if (is_own)
    throw setup_error(std::make_error_code(std::errc::resource_deadlock_would_occur), tried,
                      "a pool in one of its own threads");
}

std::vector<ReactorPool::ThreadState> ReactorPool::state() const {
  refuse_child("to take the state of");
  refuse_own_threads("to take the state of");
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
