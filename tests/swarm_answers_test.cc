// What `anteroom swarm` takes for an answer, and what its rules say of clients that had none.
#include <anteroom/acceptor.h>
#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/ipv6.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <mutex>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "support/own_network.h"
#include "support/peer.h"
#include "support/program.h"

namespace anteroom::tool {
namespace {

using namespace std::chrono_literals;
using namespace std::string_literals;
using test::Program;
using testing::AnyOf;
using testing::HasSubstr;
using testing::Not;
using TestJson = nlohmann::json;

const std::string kAnteroom = PROGRAMS "/anteroom";
const std::string kOk = "HTTP/1.1 200 OK\r\n\r\n";
const std::string kUnavailable = "HTTP/1.1 503 Service Unavailable\r\n\r\n";
const std::string kHints = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n";
/// The tool asks once whether it is served, and once more from another address of 127/8.
constexpr int kProbes = 2;
constexpr int kUsageError = 2;
constexpr int kVoid = 3;
constexpr int kBroken = 4;

struct Outcome {
  int status = -1;
  std::string output;
  std::string errors;
};

Outcome run(std::vector<std::string> words) {
  words.insert(words.begin(), kAnteroom);
  Program program(std::move(words));
  Outcome outcome;
  outcome.status = program.wait(60s);
  outcome.output = program.output;
  outcome.errors = program.errors;
  return outcome;
}

/// Answers each client by its number, from 0 on. An answer has pieces, each sent in a turn of its own; then
/// the connection is closed, if the answer says so.
class HttpServer {
 public:
  struct Answer {
    std::vector<std::string> pieces;
    bool closes = true;
  };
  using Choose = std::function<Answer(int client, std::string_view request)>;

  explicit HttpServer(Choose choose, const Endpoint& at = test::kLoopback)
      : choose_(std::move(choose)),
        acceptor_(reactor_, at,
                  {.data =
                       [this](Connection& client, std::string_view bytes) {
                         const int number = clients_++;
                         remember(bytes);
                         send(client.id(), choose_(number, bytes), 0);
                       }}),
        port_(acceptor_.endpoint().port()),
        thread_([this] { reactor_.run(); }) {}
  ~HttpServer() {
    reactor_.stop();
    thread_.join();
  }
  HttpServer(const HttpServer&) = delete;

  std::string at(const std::string& host) const {
    return host + ':' + std::to_string(port_);
  }
  std::string at() const { return at("127.0.0.1"); }
  std::string request() {
    const std::lock_guard lock(mutex_);
    return request_;
  }

 private:
  void remember(std::string_view bytes) {
    const std::lock_guard lock(mutex_);
    request_ = bytes;
  }

  void send(ChannelId id, const Answer& answer, std::size_t piece) {
    auto* const client = reactor_.find<Connection>(id);
    if (client == nullptr) return;
    if (piece < answer.pieces.size()) {
      client->send(answer.pieces[piece]);
      reactor_.post([this, id, answer, piece] { send(id, answer, piece + 1); });
    } else if (answer.closes) {
      client->close();
    }
  }

  Choose choose_;
  std::mutex mutex_;
  std::string request_;
  int clients_ = 0;
  Reactor reactor_;
  Acceptor acceptor_;
  const std::uint16_t port_;  // the acceptor is the thread's once it runs
  std::thread thread_;
};

HttpServer::Choose always(std::vector<std::string> pieces) {
  return [pieces = std::move(pieces)](int, std::string_view) { return HttpServer::Answer{.pieces = pieces}; };
}
/// The probes are served, and `then` decides of everybody else.
HttpServer::Choose after_probes(std::vector<std::string> pieces, bool closes = true) {
  return [pieces = std::move(pieces), closes](int client, std::string_view) {
    return client < kProbes ? HttpServer::Answer{.pieces = {kOk}}
                            : HttpServer::Answer{.pieces = pieces, .closes = closes};
  };
}

/// On a busy machine the generator may be late, and says so; then there is another try, on a new server.
Outcome run_until_trusted(const HttpServer::Choose& choose, const std::vector<std::string>& more) {
  constexpr int kTries = 10;
  Outcome outcome;
  for (int attempt = 0; attempt < kTries; ++attempt) {
    const HttpServer server(choose);
    std::vector<std::string> words{"swarm", server.at(), "--http", "/"};
    words.insert(words.end(), more.begin(), more.end());
    outcome = run(words);
    if (outcome.status != kVoid) break;
  }
  return outcome;
}

/// None of these values has a comma.
std::vector<std::string> split_columns(const std::string& line) {
  std::vector<std::string> columns(1);
  for (const char c : line) {
    if (c == ',') {
      columns.emplace_back();
    } else {
      columns.back() += c;
    }
  }
  return columns;
}

class SwarmAnswers : public testing::Test {
 protected:
  SwarmAnswers()
      : directory_(std::filesystem::temp_directory_path() /
                   ("anteroom-answers-" + std::to_string(::getpid()))) {
    std::filesystem::create_directory(directory_);
  }
  ~SwarmAnswers() override { std::filesystem::remove_all(directory_); }
  std::string path(const std::string& name) const { return (directory_ / name).string(); }
  TestJson read(const std::string& name) const { return TestJson::parse(std::ifstream(path(name))); }
  std::string text(const std::string& name) const {
    std::ifstream file(path(name));
    return {std::istreambuf_iterator<char>(file), {}};
  }

 private:
  std::filesystem::path directory_;
};

const std::vector<std::string> kClosedLoop{"-c", "4", "--for", "300ms"};
std::vector<std::string> closed_loop(const std::vector<std::string>& more) {
  std::vector<std::string> words = kClosedLoop;
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

// A gate of three rules was green while every client of a closed loop got a 503: the percentiles of nobody
// were 0.
TEST_F(SwarmAnswers, BreaksEveryRuleOnLatencyIfNobodyWasServed) {
  const Outcome outcome = run_until_trusted(
      after_probes({kUnavailable}), closed_loop({"-q", "--fail-if", "p99>5ms", "--fail-if", "lost>0",
                                                 "--fail-if", "unserved>0", "--fail-if", "unexpected>0"}));
  EXPECT_EQ(outcome.status, kBroken);
  EXPECT_THAT(outcome.errors, HasSubstr("anteroom: p99>5ms: p99 is not known at backlog "));
  EXPECT_THAT(outcome.errors, HasSubstr("anteroom: unserved is "));
  EXPECT_THAT(outcome.errors, HasSubstr("anteroom: unexpected is "));
  EXPECT_THAT(outcome.errors, Not(HasSubstr("lost"))) << "whose count is known to be 0";
  EXPECT_TRUE(outcome.output.starts_with("0 of ")) << outcome.output;
  EXPECT_THAT(outcome.output, HasSubstr(", p99 not known\n"));
}

TEST_F(SwarmAnswers, WritesNullForWhatNobodyHadAndSaysSoInWords) {
  const Outcome outcome = run_until_trusted(
      after_probes({kUnavailable}),
      closed_loop({"--json", path("run.json"), "--csv", path("run.csv"), "--report", path("run.html")}));
  ASSERT_EQ(outcome.status, 0) << outcome.errors;
  EXPECT_THAT(outcome.output, HasSubstr("answer      not known: nobody was served\n"));
  EXPECT_THAT(outcome.output, Not(HasSubstr(" 0 a served connection")));
  const TestJson json = read("run.json");
  const TestJson& row = json.at("rows").at(0);
  for (const char* percentile : {"p50", "p90", "p99", "p99_9", "max"}) {
    EXPECT_TRUE(row.at("first_byte_s").at(percentile).is_null()) << percentile;
    EXPECT_TRUE(row.at("connect_s").at(percentile).is_number()) << percentile << ": they did connect";
  }
  EXPECT_TRUE(row.at("server_cpu_s_per_connection").is_null());
  EXPECT_TRUE(row.at("little").at("rate_times_latency").is_null());
  EXPECT_TRUE(json.at("trials").at(0).at("generator").at("lateness_p99_s").is_null());
  const int unexpected = row.at("fates").at("answered_otherwise").get<int>();
  EXPECT_GT(unexpected, 0);
  EXPECT_GE(row.at("first_byte_s").at("unserved").get<int>(), unexpected);

  // The same file, as the other commands read it.
  EXPECT_EQ(run({"report", path("run.json"), "--fail-if", "p99>5ms"}).status, kBroken);
  EXPECT_EQ(run({"report", path("run.json"), "--fail-if", "lost>0"}).status, 0);
  const Outcome diff = run({"diff", path("run.json"), path("run.json")});
  EXPECT_EQ(diff.status, 0);
  EXPECT_THAT(diff.output, AnyOf(HasSubstr("not known -> not known"), HasSubstr("not known → not known")));
  EXPECT_EQ(run({"report", path("run.json"), "-o", path("again.html")}).status, 0);
  EXPECT_EQ(text("again.html"), text("run.html"));
  std::istringstream csv(text("run.csv"));
  std::string heading;
  std::string values;
  std::getline(csv, heading);
  std::getline(csv, values);
  const auto column = [&](const std::string& name) {
    const auto names = split_columns(heading);
    const auto found = std::ranges::find(names, name);
    return found == names.end() ? "no column"
                                : split_columns(values)[static_cast<std::size_t>(found - names.begin())];
  };
  EXPECT_EQ(column("first_byte_p99_s"), "");
  EXPECT_EQ(column("server_cpu_s_per_connection"), "");
  EXPECT_NE(column("connect_p99_s"), "");
  EXPECT_EQ(column("answered_otherwise"), std::to_string(unexpected));
}

// Its four clients were under way when the time was up, which is no service either.
TEST_F(SwarmAnswers, CountsClientsOfAHungServerAsUnservedInAClosedLoop) {
  const Outcome outcome = run_until_trusted(
      after_probes({}, false),
      closed_loop({"-q", "--fail-if", "unserved>0", "--fail-if", "max>1s", "--fail-if", "unexpected>0"}));
  EXPECT_EQ(outcome.status, kBroken);
  EXPECT_THAT(outcome.errors, HasSubstr("anteroom: unserved is 4 at backlog "));
  EXPECT_THAT(outcome.errors, HasSubstr("anteroom: max>1s: max is not known"));
  EXPECT_THAT(outcome.errors, Not(HasSubstr("unexpected")));
}

TEST_F(SwarmAnswers, KnowsTheLatencyOfTheServedBesideThoseAnsweredOtherwise) {
  const auto every_other = [](int client, std::string_view) {
    return HttpServer::Answer{.pieces = {client < kProbes || client % 2 == 0 ? kOk : kUnavailable}};
  };
  const Outcome outcome = run_until_trusted(
      every_other,
      closed_loop({"-q", "--fail-if", "p50>100s", "--fail-if", "unexpected>0", "--fail-if", "unserved>0"}));
  EXPECT_EQ(outcome.status, kBroken);
  EXPECT_THAT(outcome.errors, Not(HasSubstr("p50")));
  EXPECT_THAT(outcome.errors, HasSubstr("anteroom: unexpected is "));
  EXPECT_THAT(outcome.errors, HasSubstr("anteroom: unserved is "));
}

TEST_F(SwarmAnswers, CountsNobodyAsUnservedWhoWasUnderWayWhenTheTimeWasUp) {
  const Outcome outcome = run_until_trusted(
      always({kOk}), closed_loop({"-q", "--fail-if", "unserved>0", "--fail-if", "unexpected>0"}));
  EXPECT_EQ(outcome.status, 0) << outcome.errors;
}

TEST_F(SwarmAnswers, BreaksRulesInAnOpenLoopOfClientsAnsweredOtherwise) {
  const Outcome outcome =
      run_until_trusted(after_probes({kUnavailable}),
                        {"--clients", "20", "--rate", "200", "--patience", "500ms", "-q", "--fail-if",
                         "p99>5ms", "--fail-if", "unexpected>0", "--fail-if", "conn/s<1"});
  EXPECT_EQ(outcome.status, kBroken);
  EXPECT_THAT(outcome.errors, HasSubstr("p99 is more than "));
  EXPECT_THAT(outcome.errors, HasSubstr("unexpected is 20 at backlog "));
  EXPECT_THAT(outcome.errors, HasSubstr("conn/s is 0 at backlog "));
}

// The first Early Hints was taken for the answer, and the server called one that answers otherwise.
TEST_F(SwarmAnswers, ReadsPastInterimResponsesHoweverTheyArrive) {
  const std::string go_on = "HTTP/1.1 100 Continue\r\n\r\n";
  const std::vector<std::vector<std::string>> answers = {
      {kHints + kOk},
      {kHints, kOk},
      {go_on, kHints, kHints, kOk},
      {go_on + kHints.substr(0, 30), kHints.substr(30), kOk.substr(0, 3), kOk.substr(3)},
      {kHints.substr(0, kHints.size() - 1), kHints.substr(kHints.size() - 1) + kOk},
      {"HTTP/1.1 102 Processing\n\nHTTP/1.0 204 no content\n\n"},
  };
  for (const std::vector<std::string>& pieces : answers) {
    for (const std::vector<std::string>& load :
         {std::vector<std::string>{"--clients", "20", "--rate", "200"}, kClosedLoop}) {
      std::vector<std::string> words = load;
      words.insert(words.end(), {"-q", "--fail-if", "unserved>0", "--fail-if", "unexpected>0"});
      const Outcome outcome = run_until_trusted(always(pieces), words);
      EXPECT_EQ(outcome.status, 0) << pieces.front() << outcome.errors;
    }
  }
}

TEST_F(SwarmAnswers, TakesOtherFinalResponsesOfHttp) {
  const std::vector<std::vector<std::string>> answers = {
      {"HTTP/1.0 200 OK\r\n\r\n"},
      {"HTTP/1.1 200 OK\r\n", "Server: x\r\n", "\r\n", "a body that nobody announced"},
      {"H", "TTP/1.1 2", "00 OK\r\n\r\n"},
      {"HTTP/1.1 204 no content\r\nDate: today\r\n\r\n"},
      {"HTTP/1.1 301 moved permanently\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n"},
  };
  for (const std::vector<std::string>& pieces : answers) {
    const Outcome outcome = run_until_trusted(
        always(pieces), {"--clients", "20", "--rate", "200", "-q", "--fail-if", "unserved>0"});
    EXPECT_EQ(outcome.status, 0) << pieces.front() << outcome.errors;
  }
}

TEST_F(SwarmAnswers, RefusesAServerThatSendsInterimResponsesForEver) {
  std::string many;
  while (many.size() < 200'000) many += kHints;
  const HttpServer server(always({many}));
  const Outcome outcome = run({"swarm", server.at(), "--http", "/", "--patience", "20s"});
  EXPECT_EQ(outcome.status, kUsageError);
  EXPECT_THAT(outcome.errors, HasSubstr("no final response within 64 KiB"));
  EXPECT_EQ(std::ranges::count(outcome.errors, '\n'), 1) << outcome.errors;

  const HttpServer waits(
      [](int, std::string_view) { return HttpServer::Answer{.pieces = {kHints}, .closes = false}; });
  const Outcome silent = run({"swarm", waits.at(), "--http", "/", "--patience", "200ms"});
  EXPECT_EQ(silent.status, kUsageError);
  EXPECT_THAT(silent.errors, HasSubstr("answered \"HTTP/1.1 103 Early Hints\", and no final response within 200ms"));
}

TEST_F(SwarmAnswers, RefusesAServerThatClosesAfterAnInterimResponse) {
  const HttpServer server(always({kHints}));
  const Outcome outcome = run({"swarm", server.at(), "--http", "/"});
  EXPECT_EQ(outcome.status, kUsageError);
  EXPECT_THAT(outcome.errors, HasSubstr("103 Early Hints\", and closed without a final response"));
}

TEST_F(SwarmAnswers, EndsWhenTheLoadMeetsInterimResponsesForEver) {
  std::string many;
  while (many.size() < 200'000) many += kHints;
  for (const std::vector<std::string>& pieces : {std::vector<std::string>{many}, {kHints}}) {
    const Outcome outcome = run_until_trusted(
        after_probes(pieces, false), {"--clients", "10", "--rate", "200", "--patience", "300ms", "-q",
                                      "--fail-if", "unexpected>9", "--fail-if", "unexpected<10"});
    EXPECT_EQ(outcome.status, kBroken);
    EXPECT_THAT(outcome.errors, HasSubstr("unexpected is 10 at backlog "));
    EXPECT_THAT(outcome.errors, Not(HasSubstr("less than 10")));
  }
}

TEST_F(SwarmAnswers, HintsAtTheHostAfterAnswersThatMayComeFromIt) {
  for (const auto& [status, hints] : {std::pair("400 Bad Request", true),
                                      {"404 Not Found", true},
                                      {"421 Misdirected Request", true},
                                      {"403 Forbidden", false},
                                      {"500 Internal Server Error", false}}) {
    const HttpServer server(always({"HTTP/1.1 "s + status + "\r\n\r\n"}));
    const Outcome outcome = run({"swarm", server.at(), "--http", "/"});
    EXPECT_EQ(outcome.status, kUsageError) << status;
    EXPECT_EQ(outcome.errors.find("--host NAME") != std::string::npos, hints) << outcome.errors;
    EXPECT_EQ(std::ranges::count(outcome.errors, '\n'), 1) << outcome.errors;
  }
  const HttpServer server(always({"HTTP/1.1 101 Switching Protocols\r\n\r\n"}));
  EXPECT_THAT(run({"swarm", server.at(), "--http", "/"}).errors, HasSubstr("switched to another protocol"));
}

/// The line of the request that has the Host field, without its end.
std::string host_line(const std::string& request) {
  const std::size_t begin = request.find("Host: ");
  return begin == std::string::npos ? "none" : request.substr(begin, request.find('\r', begin) - begin);
}

TEST_F(SwarmAnswers, SendsNoZoneToALinkLocalServer) {
  if (!test::has_own_network) GTEST_SKIP() << "no network of our own";
  in6_ifreq address{};
  address.ifr6_prefixlen = 64;
  address.ifr6_ifindex = static_cast<int>(::if_nametoindex("lo"));
  ASSERT_EQ(::inet_pton(AF_INET6, "fe80::1", &address.ifr6_addr), 1);
  const Fd socket(::socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!socket || (::ioctl(socket.get(), SIOCSIFADDR, &address) != 0 && errno != EEXIST))
    GTEST_SKIP() << "no link-local address to be had";
  HttpServer server(always({kOk}), {"::", 0});
  const std::string at = server.at("[fe80::1%lo]");
  const Outcome outcome =
      run({"swarm", at, "--i-own-this-server", "fe80::1%lo", "--http", "/", "--burst", "2", "-q"});
  EXPECT_NE(outcome.status, kUsageError) << outcome.errors;
  EXPECT_EQ(host_line(server.request()), "Host: " + server.at("[fe80::1]"));
}

TEST_F(SwarmAnswers, SendsTheHostThatWasTyped) {
  HttpServer server(always({kOk}));
  const Outcome outcome =
      run({"swarm", server.at(), "--http", "/", "--host", "shop.example:8443", "--burst", "2", "-q"});
  EXPECT_NE(outcome.status, kUsageError) << outcome.errors;
  EXPECT_EQ(host_line(server.request()), "Host: shop.example:8443");
}

TEST_F(SwarmAnswers, RefusesAHostThatIsNone) {
  for (const char* host : {"", " ", "a b", "a\r\nX-Injected: 1", "a\nb", "a\tb", "example.com/path", "a@b",
                           "[fe80::1%lo]", "[::1", "a:b", "a:1:2", ":80", "[]", "[::1]x", "\xc3\xa9.example"}) {
    const Outcome outcome = run({"swarm", "127.0.0.1:1", "--http", "/", "--host", host});
    EXPECT_EQ(outcome.status, kUsageError) << host;
    EXPECT_THAT(outcome.errors, HasSubstr("--host")) << host;
    EXPECT_EQ(std::ranges::count(outcome.errors, '\n'), 1) << outcome.errors;
  }
  EXPECT_THAT(run({"swarm", "127.0.0.1:1", "--greeting", "--host", "a"}).errors,
              HasSubstr("--http says which"));
}

TEST_F(SwarmAnswers, RefusesHttpsInWords) {
  for (const char* target : {"https://localhost:8443/", "HTTPS://localhost", "https://127.0.0.1:8443/a?b"}) {
    const Outcome outcome = run({"swarm", target, "--http", "/"});
    EXPECT_EQ(outcome.status, kUsageError) << target;
    EXPECT_THAT(outcome.errors, HasSubstr("TLS, which https:// asks for, is not supported yet")) << target;
    EXPECT_EQ(std::ranges::count(outcome.errors, '\n'), 1) << outcome.errors;
  }
  EXPECT_THAT(run({"swarm", "http://localhost:8080/path", "--http", "/"}).errors,
              HasSubstr("localhost:8080 --http /path"));
}

TEST_F(SwarmAnswers, NamesTheProtocolThatAServerSpeaksInstead) {
  const std::string alert("\x15\x03\x01\x00\x02\x02\x46", 7);
  const std::string settings("\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x64", 15);
  const std::string goaway("\x00\x00\x08\x07\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01", 17);
  const std::string bad = "HTTP/1.1 400 Bad Request\r\n\r\n";
  const std::vector<std::pair<std::vector<std::string>, std::string>> cases = {
      {{alert}, "this port speaks TLS, which is not supported yet"},
      {{alert.substr(0, 1), alert.substr(1)}, "this port speaks TLS, which is not supported yet"},
      {{bad + "<title>400 The plain HTTP request was sent to HTTPS port</title>"}, "this port speaks TLS"},
      {{"HTTP/1.0 400 Bad Request\r\n\r\n", "Client sent an HTTP request to an HTTPS server.\n"},
       "this port speaks TLS"},
      {{bad + "Reason: You're speaking plain HTTP to an SSL-enabled server port.<br />"},
       "this port speaks TLS"},
      {{settings}, "this port speaks HTTP/2 without TLS (h2c) only"},
      {{settings.substr(0, 4), settings.substr(4)}, "this port speaks HTTP/2 without TLS (h2c) only"},
      {{goaway}, "this port speaks HTTP/2 without TLS (h2c) only"},
      {{"SSH-2.0-OpenSSH_9.2\r\n"}, "this is an SSH server, which speaks first: --greeting"},
      {{"220 mail.example ESMTP\r\n"}, "it speaks first, as mail (SMTP) and FTP servers do: --greeting"},
      {{"220-ftp.example\r\n220 ready\r\n"},
       "it speaks first, as mail (SMTP) and FTP servers do: --greeting"},
  };
  for (const auto& [pieces, words] : cases) {
    const HttpServer server(always(pieces));
    const Outcome outcome = run({"swarm", server.at(), "--http", "/"});
    EXPECT_EQ(outcome.status, kUsageError) << words;
    EXPECT_THAT(outcome.errors, HasSubstr(words));
    EXPECT_EQ(std::ranges::count(outcome.errors, '\n'), 1) << outcome.errors;
    EXPECT_TRUE(
        std::ranges::all_of(outcome.errors, [](char c) { return c == '\n' || (c >= ' ' && c <= '~'); }));
  }
}

// OpenSSL's servers, such as node's, close without a word.
TEST_F(SwarmAnswers, AsksASilentServerInTls) {
  const std::string alert("\x15\x03\x03\x00\x02\x02\x28", 7);
  const HttpServer server([&](int, std::string_view request) {
    HttpServer::Answer answer;
    if (request.starts_with('\x16')) answer.pieces = {alert};
    return answer;
  });
  const Outcome outcome = run({"swarm", server.at(), "--http", "/"});
  EXPECT_EQ(outcome.status, kUsageError);
  EXPECT_THAT(outcome.errors, HasSubstr("this port speaks TLS, which is not supported yet"));

  const HttpServer silent(always({}));
  const Outcome other = run({"swarm", silent.at(), "--http", "/"});
  EXPECT_EQ(other.status, kUsageError);
  EXPECT_THAT(other.errors, HasSubstr("closed without a word: it may speak TLS"));
}

}  // namespace
}  // namespace anteroom::tool
