#include "answers.h"

namespace anteroom::bench {
namespace {

// Of one client's answer, before it is no longer looked for what was expected.
constexpr std::size_t kHeardBytesMax = 64 * 1024;

}  // namespace

Answers::Answers(const Dialogue& dialogue) : dialogue_(dialogue), takes_any_(dialogue.takes_any_answer()) {}

Dialogue::Verdict Answers::hear(const ClientRecord& client, std::string_view bytes) {
  return takes_any_ ? Dialogue::Verdict::kServed : judge(client, bytes);
}

Dialogue::Verdict Answers::judge(const ClientRecord& client, std::string_view bytes) {
  const auto earlier = heard_.find(&client);
  if (earlier != heard_.end()) bytes = earlier->second.append(bytes);
  const Dialogue::Verdict verdict = dialogue_.judge(bytes);
  if (verdict != Dialogue::Verdict::kGoOn || bytes.size() > kHeardBytesMax) {
    if (earlier != heard_.end()) heard_.erase(earlier);
    return verdict == Dialogue::Verdict::kServed ? verdict : Dialogue::Verdict::kAnsweredOtherwise;
  }
  if (earlier == heard_.end()) heard_.emplace(&client, bytes);
  return verdict;
}

}  // namespace anteroom::bench
