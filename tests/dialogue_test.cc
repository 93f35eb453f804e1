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
  std::string heard;
  Verdict verdict;
};

void expect_verdicts(const Dialogue& dialogue, const std::vector<Case>& cases) {
  for (const Case& one : cases) EXPECT_EQ(dialogue.judge(one.heard), one.verdict) << escape(one.heard);
}

TEST(Dialogue, IsSatisfiedWithAnyByteIfNothingIsExpected) {
  EXPECT_TRUE(Dialogue().takes_any_answer());
  expect_verdicts({}, {{"", Verdict::kGoOn}, {"H", Verdict::kServed}, {"\0"s, Verdict::kServed}});
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
                             {"HTTP/1.1 400 Bad Request\r\n", Verdict::kAnsweredOtherwise},
                             {"HTTP/1.1 404 Not Found\r\n", Verdict::kAnsweredOtherwise},
                             {"HTTP/2.0 200", Verdict::kAnsweredOtherwise},
                             {"HTTP/1.1 2x0", Verdict::kAnsweredOtherwise},
                             {"220 mail.example ESMTP\r\n", Verdict::kAnsweredOtherwise},
                             {"X", Verdict::kAnsweredOtherwise}});
}

// 103 Early Hints came for an answer, and 1,000 clients of a server in good health were refused it.
TEST(Dialogue, ReadsPastInterimResponses) {
  const Dialogue dialogue = http_dialogue("/", "localhost");
  const std::string hints = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n";
  const std::string go_on = "HTTP/1.1 100 Continue\r\n\r\n";
  for (const std::string& interim :
       {hints, go_on, hints + hints, go_on + hints + go_on, "HTTP/1.0 100 Continue\n\n"s,
        "HTTP/1.1 102 Processing\r\nA: b\r\n\n"s, "HTTP/1.1 199 \r\n\r\n"s}) {
    const std::string served = interim + "HTTP/1.1 200 OK\r\n\r\n";
    const std::string failed = interim + "HTTP/1.1 503 Service Unavailable\r\n\r\n";
    for (std::size_t heard = 0; heard < interim.size() + 12; ++heard) {
      EXPECT_EQ(dialogue.judge(std::string_view(served).substr(0, heard)), Verdict::kGoOn)
          << escape(served.substr(0, heard));
    }
    EXPECT_EQ(dialogue.judge(served), Verdict::kServed) << escape(served);
    EXPECT_EQ(dialogue.judge(failed), Verdict::kAnsweredOtherwise) << escape(failed);
    EXPECT_EQ(dialogue.judge(interim + "220 mail"), Verdict::kAnsweredOtherwise) << escape(interim);
    EXPECT_EQ(final_response(served), "HTTP/1.1 200 OK\r\n\r\n");
  }
  EXPECT_EQ(final_response("HTTP/1.1 200 OK\r\n"), "HTTP/1.1 200 OK\r\n");
  EXPECT_EQ(final_response(hints.substr(0, 40)), "");
}

TEST(Dialogue, TakesSwitchingProtocolsForAnAnswer) {
  expect_verdicts(http_dialogue("/", "localhost"),
                  {{"HTTP/1.1 101 Switching Protocols\r\n\r\n", Verdict::kAnsweredOtherwise},
                   {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 101 S", Verdict::kAnsweredOtherwise}});
}

TEST(Dialogue, LooksForTextInTheFinalResponseOnly) {
  Dialogue dialogue = http_dialogue("/", "localhost");
  dialogue.expect = "preload";
  const std::string hints = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n";
  expect_verdicts(dialogue, {{hints + "HTTP/1.1 200 OK\r\n\r\n", Verdict::kGoOn},
                             {hints + "HTTP/1.1 200 OK\r\n\r\npreload", Verdict::kServed}});
}

TEST(Dialogue, TakesHttpAsDifferentServersWriteIt) {
  expect_verdicts(http_dialogue("/", "localhost"),
                  {{"HTTP/1.0 200 OK\r\n\r\nhello", Verdict::kServed},
                   {"HTTP/1.1 200 ok\r\n\r\n", Verdict::kServed},
                   {"HTTP/1.1 200\r\n\r\n", Verdict::kServed},
                   {"HTTP/1.1 304 Not Modified\n\n", Verdict::kServed},
                   {"\0\0\x12\x04\0\0\0\0\0"s, Verdict::kAnsweredOtherwise},
                   {"\x15\x03\x01\0\x02\x02\x46"s, Verdict::kAnsweredOtherwise}});
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

// A server saw "Host: [fe80::1%lo]:18082".
TEST(Dialogue, SendsNoZoneInHost) {
  const auto host_line = [](std::string_view host) {
    const std::string request = http_dialogue("/", host).request;
    const std::size_t begin = request.find("Host: ");
    return request.substr(begin, request.find('\r', begin) - begin);
  };
  EXPECT_EQ(host_line("[fe80::1%lo]:18082"), "Host: [fe80::1]:18082");
  EXPECT_EQ(host_line("[fe80::1%25eth0.5]:80"), "Host: [fe80::1]:80");
  EXPECT_EQ(host_line("[fe80::1%3]"), "Host: [fe80::1]");
  EXPECT_EQ(host_line("[::1]:8080"), "Host: [::1]:8080");
  EXPECT_EQ(host_line("localhost:8080"), "Host: localhost:8080");
  EXPECT_EQ(host_line("a%20b.example"), "Host: a%20b.example");
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
