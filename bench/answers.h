#pragma once
#include <anteroom/bench/dialogue.h>
#include <anteroom/bench/fate.h>

#include <string>
#include <string_view>
#include <unordered_map>

namespace anteroom::bench {

/// The answers that are not whole yet, each of one client. Most come in one piece, and nothing is kept of
/// them.
class Answers {
 public:
  /// `dialogue` must live as long.
  explicit Answers(const Dialogue& dialogue);

  /// Of all that this client has heard so far. What is still no answer after 64 KiB is none.
  Dialogue::Verdict hear(const ClientRecord& client, std::string_view bytes);

  /// Whether there was a piece of an answer to this client, which is gone now.
  bool forget(const ClientRecord& client) noexcept { return heard_.erase(&client) > 0; }

 private:
  Dialogue::Verdict judge(const ClientRecord& client, std::string_view bytes);

  const Dialogue& dialogue_;
  const bool takes_any_;
  std::unordered_map<const ClientRecord*, std::string> heard_;
};

}  // namespace anteroom::bench
