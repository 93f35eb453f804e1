// A service of several threads that is restarted without losing anybody: started again with the same
// --handover, or by its service manager, it takes over the listeners of the one that serves, which then
// finishes what it has begun.
#include <anteroom/activation.h>
#include <anteroom/handover.h>
#include <anteroom/metrics.h>
#include <anteroom/reactor_pool.h>

#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

#include "server_main.h"

namespace {

using namespace anteroom;

struct Arguments {
  std::uint16_t port = 0;
  int threads = 0;
  Sharing sharing = Sharing::kReusePort;
  bool echo = false;
  std::string handover;
  std::chrono::seconds deadline{10};
};

std::optional<int> parse_number(std::string_view text, int max) {
  int number = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const bool is_all = error == std::errc{} && end == text.data() + text.size();
  return is_all && number >= 0 && number <= max ? std::optional(number) : std::nullopt;
}

std::optional<Sharing> parse_sharing(std::string_view text) {
  if (text == "reuseport") return Sharing::kReusePort;
  if (text == "exclusive") return Sharing::kExclusive;
  if (text == "dealt") return Sharing::kDealt;
  return std::nullopt;
}

/// Takes one option with its value. False if there is none of that name, or it cannot have that value.
bool take_option(std::string_view name, std::string_view value, Arguments& arguments) {
  const auto number = parse_number(value, 1'000'000);
  if (name == "--handover" && !value.empty()) return arguments.handover = value, true;
  if (name == "--sharing" && parse_sharing(value)) return arguments.sharing = *parse_sharing(value), true;
  if (name == "--threads" && number && *number > 0 && *number <= 1024)
    return arguments.threads = *number, true;
  if (name == "--deadline" && number) return arguments.deadline = std::chrono::seconds(*number), true;
  return false;
}

std::optional<Arguments> parse(const std::vector<std::string_view>& words) {
  Arguments arguments;
  const auto port = words.empty() ? std::nullopt : parse_port_argument(words[0]);
  if (!port) return std::nullopt;
  arguments.port = *port;
  for (std::size_t i = 1; i < words.size(); ++i) {
    if (words[i] == "--echo") {
      arguments.echo = true;
    } else if (i + 1 == words.size() || !take_option(words[i], words[i + 1], arguments)) {
      return std::nullopt;
    } else {
      ++i;
    }
  }
  return arguments;
}

ConnectionHandlers greeting() {
  return {.open = [](Connection& guest) { guest.close("Hello World!"); }};
}

/// Whoever is still there at the end of our service is let go as soon as he has all his answers.
ConnectionHandlers echoing() {
  return {.data = [](Connection& guest, std::string_view bytes) { guest.send(bytes); },
          .draining = [](Connection& guest) { guest.close(); }};
}

// What the successor is told of the listeners.
constexpr std::string_view kOurs = "ours";
constexpr std::string_view kTheManagers = "the service manager's";

class PoolServer {
 public:
  explicit PoolServer(const Arguments& arguments) : arguments_(arguments) {
    if (!arguments.handover.empty()) predecessor_ = Handover::take(arguments.handover);
    std::vector<NamedListener> inherited =
        predecessor_ ? std::move(predecessor_->listeners) : activated_listeners();
    if (!inherited.empty()) is_managers_ = !predecessor_ || inherited.front().name == kTheManagers;
    // Of several that start at the same moment the others end here, before clients come to them.
    if (!predecessor_ && !arguments.handover.empty())
      offer_.emplace(reactor_, arguments.handover, handover_handlers());
    open(std::move(inherited));
  }

  int run() {
    std::optional<Signals> signals(
        std::in_place, reactor_, std::initializer_list<int>{SIGINT, SIGTERM, SIGUSR1},
        [this](int signal) { signal == SIGUSR1 ? print_metrics() : reactor_.stop(); });
    pool_->start();
    const std::error_code error = succeed();
    announce(pool_->endpoint());  // not before the next of us may come
    if (error) print_error("pool_server: the predecessor: {}\n", error.message());
    const bool is_late = error == std::errc::operation_canceled;  // it goes on
    if (!is_late) reactor_.run();
    is_others_ = is_others_ || is_late;
    ::signal(SIGUSR1, SIG_IGN);
    signals.reset();  // whoever does not want to wait for us may send another one
    leave();
    return is_late ? 1 : 0;
  }

 private:
  bool is_where_we_belong(const std::vector<NamedListener>& inherited) const {
    return arguments_.port == 0 || std::ranges::any_of(inherited, [this](const NamedListener& each) {
             return each.listener.endpoint().port() == arguments_.port;
           });
  }

  /// What is inherited decides: a listener a thread, or one for all.
  void open(std::vector<NamedListener> inherited) {
    ReactorPoolOptions options{.threads = arguments_.threads, .sharing = arguments_.sharing};
    const auto handlers = [echo = arguments_.echo](Reactor&, int) { return echo ? echoing() : greeting(); };
    if (inherited.empty()) {
      pool_.emplace(Endpoint("0.0.0.0", arguments_.port), handlers, options);
      return;
    }
    if (!is_where_we_belong(inherited)) {
      throw std::runtime_error(
          fmt::format("port {} was asked for, and what is taken over listens on {}; 0 takes whatever it is",
                      arguments_.port, inherited.front().listener.endpoint().to_string()));
    }
    if (inherited.size() > 1) {
      options.sharing = Sharing::kReusePort;
    } else if (options.sharing == Sharing::kReusePort) {
      options.sharing = Sharing::kExclusive;
    }
    std::vector<Listener> listeners;
    for (NamedListener& each : inherited) listeners.push_back(std::move(each.listener));
    pool_.emplace(std::move(listeners), handlers, options);
  }

  HandoverHandlers handover_handlers() {
    return {.listeners = [this] { return offered(); },
            .handed_over =
                [this] {
                  is_others_ = true;
                  reactor_.stop();
                },
            .failed =
                [](HandoverFailure failure) {
                  const std::string others =
                      failure.suppressed > 0 ? fmt::format(", and {} more", failure.suppressed) : "";
                  print_error("pool_server: no successor: {}{}\n", failure.why.message(), others);
                }};
  }

  /// We serve: now the predecessor may go, and the next of us may come.
  std::error_code succeed() {
    std::error_code error;
    if (predecessor_) {
      error = predecessor_->ready();
      if (error == std::errc::operation_canceled) return error;
      (void)notify_main_process(::getpid());
      offer_.emplace(reactor_, *predecessor_, handover_handlers());
    }
    (void)notify_ready();
    return error;
  }

  std::vector<OfferedListener> offered() const {
    std::vector<OfferedListener> listeners;
    const std::string name(is_managers_ ? kTheManagers : kOurs);
    for (const int fd : pool_->listeners()) listeners.push_back({.name = name, .fd = fd});
    return listeners;
  }

  void print_metrics() const { (void)say(stdout, prometheus_text(pool_->state())); }

  /// The door is not ours to shut if a successor has it, or will, or if the service manager keeps it.
  void leave() {
    if (!is_others_) (void)notify_stopping();
    const bool stays_open = is_others_ || is_managers_ || (offer_ && offer_->is_taken());
    offer_.reset();
    const std::size_t cut = pool_->drain({.deadline = arguments_.deadline, .handed_over = stays_open});
    if (cut > 0) print_error("pool_server: {} connections were cut at the deadline\n", cut);
  }

  const Arguments arguments_;
  Reactor reactor_;  // of this thread, which serves nobody
  std::optional<Handover> predecessor_;
  std::optional<ReactorPool> pool_;
  std::optional<HandoverOffer> offer_;
  bool is_managers_ = false;
  bool is_others_ = false;
};

}  // namespace

int main(int argc, char** argv) {
  anteroom::prepare_standard_streams();
  const auto arguments = parse({argv + 1, argv + argc});
  if (!arguments) {
    print_error(
        "Usage : pool_server <port> [--threads N] [--sharing reuseport|exclusive|dealt] [--echo] "
        "[--handover PATH] [--deadline SECONDS]\n");
    return 2;
  }
  try {
    return PoolServer(*arguments).run();
  } catch (const std::exception& error) {
    print_error("pool_server: {}\n", error.what());
    return 1;
  }
}
