#pragma once
#include <anteroom/endpoint.h>

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "faults.h"
#include "peers.h"
#include "scenario.h"

namespace anteroom::torture {

/// All who call at a server, and whether each of them got what they came for.
class Guests {
 public:
  Guests(const faults::Fault* fault, Report& report) : fault_(fault), report_(report) {}

  void admit(const Endpoint& door, const Script& script) {
    peers_.push_back(std::make_unique<Peer>(door, script));
    if (script.end == Script::End::kStay) ++staying_;
  }
  int count() const { return static_cast<int>(peers_.size()); }
  int staying() const { return staying_; }
  const Peer& last() const { return *peers_.back(); }

  /// Each sends and reads what it can. Whether anything has moved.
  bool step();
  bool are_done() const;
  /// Those who stay have seen the end of the server, too.
  bool are_all_gone() const;

  /// Steps, and has the server turn, until all have got what they came for, and `is_settled`. What lasts for
  /// ever is lifted after a while.
  void settle(const std::function<void(std::chrono::milliseconds wait)>& turn,
              const std::function<bool()>& is_settled, std::string_view what);

  /// The last `count` have to be served, for no fault can have hit them.
  void expect_served(int count);
  /// No more than `cost` were lost, and nobody got wrong bytes.
  void judge(int cost);

  int with(Peer::Fate fate) const;
  std::string describe(Peer::Fate fate) const;

 private:
  const faults::Fault* const fault_;
  Report& report_;
  std::vector<std::unique_ptr<Peer>> peers_;
  int staying_ = 0;
};

}  // namespace anteroom::torture
