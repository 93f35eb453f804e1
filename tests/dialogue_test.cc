// What a client says, and what it takes for an answer.
#include <anteroom/bench/dialogue.h>
#include <gtest/gtest.h>

#include <string>
#include <string_view>
#include <vector>

namespace anteroom::bench {
namespace {

using namespace std::string_literals;
using Verdict = Dialogue::Verdict;

struct Case {
  std::string_view heard;
  Verdict verdict;
};

void expect_verdicts(const Dialogue& dialogue, const std::vector<Case>& cases) {
  for (const Case& one : cases) EXPECT_EQ(dialogue.judge(one.heard), one.verdict) << escape(one.heard);
}

TEST(Dialogue, IsSatisfiedWithAnyByteIfNothingIsExpected) {
  EXPECT_TRUE(Dialogue().takes_any_answer());
  expect_verdicts({}, {{"", Verdict::kGoOn}, {"H", Verdict::kServed}, {{"\0", 1}, Verdict::kServed}});
}

TEST(Dialogue, WaitsForWhatIsExpectedWhereverItComes) {
  const Dialogue dialogue{.request = "PING\r\n", .expect = "+PONG"};
  EXPECT_FALSE(dialogue.takes_any_answer());
  expect_verdicts(dialogue, {{"", Verdict::kGoOn},
                             {"+", Verdict::kGoOn},
                             {"+PON", Verdict::kGoOn},
                             {"-ERR unknown command\r\n", Verdict::kGoOn},
                             {"+PONG", Verdict::kServed},
                             {"welcome\r\n+PONG\r\n", Verdict::kServed}});
}

TEST(Dialogue, TakesAnHttpStatusFrom200To399) {
  const Dialogue dialogue = http_dialogue("/", "localhost:80");
  EXPECT_FALSE(dialogue.takes_any_answer());
  expect_verdicts(dialogue, {{"", Verdict::kGoOn},
                             {"H", Verdict::kGoOn},
                             {"HTTP/1.1 20", Verdict::kGoOn},
                             {"HTTP/1.1 200", Verdict::kServed},
                             {"HTTP/1.0 204 No Content\r\n", Verdict::kServed},
                             {"HTTP/1.1 399 ", Verdict::kServed},
                             {"HTTP/1.1 199 ", Verdict::kAnsweredOtherwise},
                             {"HTTP/1.1 400 Bad Request\r\n", Verdict::kAnsweredOtherwise},
                             {"HTTP/1.1 404 Not Found\r\n", Verdict::kAnsweredOtherwise},
                             {"HTTP/2.0 200", Verdict::kAnsweredOtherwise},
                             {"HTTP/1.1 2x0", Verdict::kAnsweredOtherwise},
                             {"220 mail.example ESMTP\r\n", Verdict::kAnsweredOtherwise},
                             {"X", Verdict::kAnsweredOtherwise}});
}

TEST(Dialogue, MayWantTextInAnHttpAnswer) {
  Dialogue dialogue = http_dialogue("/health", "localhost");
  dialogue.expect = "healthy";
  expect_verdicts(dialogue, {{"HTTP/1.1 200 OK\r\n\r\n", Verdict::kGoOn},
                             {"HTTP/1.1 200 OK\r\n\r\nhealthy", Verdict::kServed},
                             {"HTTP/1.1 503 ill\r\n\r\nhealthy", Verdict::kAnsweredOtherwise}});
}

TEST(Dialogue, AsksAnHttpServerToClose) {
  const Dialogue dialogue = http_dialogue("/a?b", "[::1]:8080");
  EXPECT_EQ(dialogue.request.substr(0, 21), "GET /a?b HTTP/1.1\r\nHo");
  EXPECT_NE(dialogue.request.find("\r\nHost: [::1]:8080\r\n"), std::string::npos);
  EXPECT_NE(dialogue.request.find("\r\nConnection: close\r\n"), std::string::npos);
  EXPECT_TRUE(dialogue.request.ends_with("\r\n\r\n"));
  EXPECT_TRUE(dialogue.server_closes);
}

TEST(Dialogue, ReadsWhatItWrites) {
  std::string all;
  for (int byte = 0; byte < 256; ++byte) all += static_cast<char>(byte);
  const std::string text = escape(all + "\\x41" + all);
  for (const char c : text) EXPECT_TRUE(c >= ' ' && c <= '~');
  EXPECT_EQ(unescape(text), all + "\\x41" + all);
  EXPECT_EQ(unescape(escape("")), "");
}

TEST(Dialogue, UnderstandsWhatIsTyped) {
  EXPECT_EQ(unescape(R"(PING\r\n)"), "PING\r\n");
  EXPECT_EQ(unescape(R"(\t\0\\\x00\xfF)"), "\t\0\\\0\xff"s);
  EXPECT_EQ(unescape(R"(\\n)"), "\\n");
  EXPECT_EQ(escape("\x1b[2J\r\n\0\x7f\xc3"s), R"(\x1b[2J\r\n\0\x7f\xc3)");
  for (const std::string_view wrong :
       {R"(\)", R"(a\)", R"(\q)", R"(\x)", R"(\x4)", R"(\xg0)", R"(\x-1)", R"(\x+1)"})
    EXPECT_FALSE(unescape(wrong)) << wrong;
}

}  // namespace
}  // namespace anteroom::bench
