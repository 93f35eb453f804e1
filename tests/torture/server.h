#pragma once
#include <anteroom/acceptor.h>
#include <anteroom/reactor.h>

#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "guests.h"
#include "house.h"
#include "judge.h"

namespace anteroom::torture {

/// Who comes to a door, and when.
struct ServerPlan {
  Endpoint at;
  AcceptorOptions options;
  bool half_closes = false;  ///< there is a `peer_ended`
  /// The first of all wait for so long before the doorman looks.
  std::chrono::milliseconds opens_after{0};
  /// All of a wave are there before the doorman looks. The next comes when they have got what they came for.
  std::vector<std::vector<Script>> waves;
  /// They come when the fault is over, and all of them have to be served.
  std::vector<Script> last{{.request = "Echo to a fresh guest", .answer = "Echo to a fresh guest"}};
  /// A fault that others get over, and that costs whom it hits.
  std::function<bool(const faults::Fault& fault)> costs = nullptr;
  /// What is wrong with the door at the end; empty if nothing is.
  std::function<std::string(const Acceptor& acceptor, bool has_fault)> judge = nullptr;
};

/// Raw guests at the door of an Acceptor.
class Server {
 public:
  Server(const faults::Fault* fault, Report& report, ServerPlan plan)
      : fault_(fault), report_(report), plan_(std::move(plan)), house_(reactor_), guests_(fault, report) {}

  void run();

 private:
  bool start();
  void admit(const std::vector<Script>& wave);
  void settle();
  int cost() const;
  void check_knocking();
  void check_books();
  void finish();

  const faults::Fault* const fault_;
  Report& report_;
  ServerPlan plan_;
  const Clock::time_point begin_ = Clock::now();
  bool told_of_rest_ = false;
  Endpoint door_;
  std::optional<Reactor> reactor_;
  House house_;
  std::optional<Acceptor> acceptor_;
  Guests guests_;
};

/// Where a listener listens, with a small send buffer, which those who are accepted inherit.
Endpoint local_with_small_buffer(int listener);

}  // namespace anteroom::torture
