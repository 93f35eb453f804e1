#include <anteroom/endpoint.h>
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <net/if.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <string>
#include <system_error>
#include <vector>

#include "support/thrown.h"

namespace anteroom {
namespace {

std::string round_trip(std::string_view text) {
  const auto endpoint = Endpoint::parse(text);
  if (!endpoint) return "(not parsed)";
  EXPECT_EQ(Endpoint::parse(endpoint->to_string()), endpoint) << text;
  EXPECT_EQ(Endpoint::from(endpoint->data(), endpoint->size()), *endpoint) << text;
  return endpoint->to_string();
}

TEST(Endpoint, PrintsWhatItParses) {
  for (const char* text :
       {"127.0.0.1:7777", "0.0.0.0:0", "255.255.255.255:65535", "[::1]:7777", "[::]:1",
        "[2001:db8::ff00:42:8329]:443", "[::ffff:10.0.0.1]:80", "unix:/run/door", "unix:door", "unix:@door",
        "unix:@@", "unix:/a:b", "unix:unix:x", "[fe80::1%7]:80"}) {
    EXPECT_EQ(round_trip(text), text);
  }
}

TEST(Endpoint, PrintsIPv6InItsShortForm) {
  EXPECT_EQ(round_trip("[2001:0DB8:0:0:0:0:0:1]:080"), "[2001:db8::1]:80");
}

TEST(Endpoint, KnowsItsParts) {
  const Endpoint v4("127.0.0.1", 7777);
  EXPECT_EQ(v4.family(), AF_INET);
  EXPECT_EQ(v4.port(), 7777);
  EXPECT_EQ(v4.size(), sizeof(sockaddr_in));
  EXPECT_EQ(v4.path(), "");
  EXPECT_EQ(reinterpret_cast<const sockaddr_in*>(v4.data())->sin_port, htons(7777));

  const Endpoint v6("::1", 7777);
  EXPECT_EQ(v6.family(), AF_INET6);
  EXPECT_EQ(v6.port(), 7777);
  EXPECT_EQ(v6.size(), sizeof(sockaddr_in6));

  const Endpoint door = Endpoint::unix_path("/run/door");
  EXPECT_EQ(door.family(), AF_UNIX);
  EXPECT_EQ(door.port(), 0);
  EXPECT_EQ(door.path(), "/run/door");
}

TEST(Endpoint, WithoutAnAddressIsNone) {
  const Endpoint none;
  EXPECT_EQ(none.family(), AF_UNSPEC);
  EXPECT_EQ(none.port(), 0);
  EXPECT_EQ(none.path(), "");
  EXPECT_FALSE(none.is_loopback());
  EXPECT_EQ(none.to_string(), "(no address)");
  EXPECT_EQ(none, Endpoint());
}

TEST(Endpoint, RefusesGarbage) {
  for (const char* text : {"",
                           ":",
                           "::",
                           "unix:",
                           "unix:@",
                           "unix",
                           "127.0.0.1",
                           "127.0.0.1:",
                           ":80",
                           "127.0.0.1:65536",
                           "127.0.0.1:99999999999",
                           "127.0.0.1:-1",
                           "127.0.0.1:+1",
                           "127.0.0.1: 80",
                           "127.0.0.1:80 ",
                           " 127.0.0.1:80",
                           "127.0.0.1:8o",
                           "127.0.0.1:0x50",
                           "127.0.0:80",
                           "127.0.0.1.1:80",
                           "256.0.0.1:80",
                           "1.2.3.04x:80",
                           "localhost:80",
                           "::1:80",
                           "[::1]",
                           "[::1]80",
                           "[::1]:",
                           "[::1:80",
                           "::1]:80",
                           "[]:80",
                           "[127.0.0.1]:80",
                           "[[::1]]:80",
                           "[::1%]:80",
                           "[::1%0]:80",
                           "[fe80::1%no-such-interface]:80",
                           "[fe80::1%4294967296]:80",
                           "[:::]:80",
                           "[1:2:3:4:5:6:7:8:9]:80",
                           "tcp:127.0.0.1:80",
                           "127.0.0.1/8:80",
                           "127.0.0.1:80:80"}) {
    EXPECT_EQ(Endpoint::parse(text), std::nullopt) << text;
  }
}

TEST(Endpoint, RefusesEveryBeginningOfAnAddress) {
  const std::string whole = "[2001:db8::1]:1";
  for (std::size_t length = 0; length < whole.size(); ++length) {
    EXPECT_EQ(Endpoint::parse(whole.substr(0, length)), std::nullopt) << whole.substr(0, length);
  }
}

// Found by this test: what came after a zero was not looked at.
TEST(Endpoint, RefusesTextWithAZeroInIt) {
  using namespace std::string_view_literals;
  EXPECT_EQ(Endpoint::parse("127.0.0.1\0x:80"sv), std::nullopt);
  EXPECT_EQ(Endpoint::parse("[::1\0x]:80"sv), std::nullopt);
  EXPECT_EQ(Endpoint::parse("[fe80::1%1\0x]:80"sv), std::nullopt);
  EXPECT_EQ(Endpoint::parse("unix:/run/door\0x"sv), std::nullopt);
  EXPECT_EQ(Endpoint::parse("unix:\0door"sv), std::nullopt) << "an abstract name is written with @";
  EXPECT_THROW(Endpoint("127.0.0.1\0"sv, 80), std::system_error);
}

TEST(Endpoint, SaysWhatItCouldNotRead) {
  try {
    const Endpoint endpoint("localhost", 80);
    FAIL();
  } catch (const std::system_error& error) {
    EXPECT_EQ(error.code(), std::errc::invalid_argument);
    EXPECT_NE(std::string(error.what()).find("\"localhost\""), std::string::npos) << error.what();
  }
}

TEST(Endpoint, SurvivesAnyText) {
  std::mt19937 random(7);
  const std::string_view alphabet = "0123456789abcdef:.[]%@/unix \xff";
  const std::string valid[] = {"127.0.0.1:7777", "[fe80::1%2]:7777", "unix:/run/door", "unix:@door"};
  for (int i = 0; i < 20'000; ++i) {
    std::string text = valid[random() % std::size(valid)];
    for (unsigned changes = random() % 4; changes > 0; --changes) {
      const std::size_t at = random() % (text.size() + 1);
      const char letter = alphabet[random() % alphabet.size()];
      switch (random() % 3) {
        case 0:
          text.insert(at, 1, letter);
          break;
        case 1:
          text.erase(at, 1);
          break;
        default:
          if (at < text.size()) text[at] = letter;
      }
    }
    if (Endpoint::parse(text)) (void)round_trip(text);
  }
}

TEST(Endpoint, KeepsTheScopeOfALinkLocalAddress) {
  const Endpoint by_number("fe80::1%3", 80);
  EXPECT_EQ(reinterpret_cast<const sockaddr_in6*>(by_number.data())->sin6_scope_id, 3U);
  EXPECT_NE(by_number, Endpoint("fe80::1%4", 80));
  EXPECT_NE(by_number, Endpoint("fe80::1", 80));
  const unsigned loopback = ::if_nametoindex("lo");
  if (loopback == 0) GTEST_SKIP() << "no interface lo here";
  EXPECT_EQ(Endpoint("fe80::1%lo", 80), Endpoint("fe80::1%" + std::to_string(loopback), 80));
}

TEST(Endpoint, TakesAUnixPathOf107BytesAndNotOf108) {
  const std::string longest(107, 'p');
  const Endpoint endpoint = Endpoint::unix_path(longest);
  EXPECT_EQ(endpoint.path(), longest);
  EXPECT_EQ(endpoint.size(), sizeof(sockaddr_un));
  EXPECT_EQ(round_trip("unix:" + longest), "unix:" + longest);
  try {
    (void)Endpoint::unix_path(longest + 'p');
    FAIL();
  } catch (const std::system_error& error) {
    EXPECT_EQ(error.code(), std::errc::filename_too_long);
  }
  EXPECT_EQ(Endpoint::parse("unix:" + longest + 'p'), std::nullopt);
  EXPECT_THROW((void)Endpoint::unix_path(""), std::system_error);
}

TEST(Endpoint, TakesAnAbstractNameOf106Bytes) {
  const std::string longest = '@' + std::string(106, 'n');
  const Endpoint endpoint = Endpoint::unix_path(longest);
  EXPECT_EQ(endpoint.path(), longest);
  EXPECT_EQ(reinterpret_cast<const sockaddr_un*>(endpoint.data())->sun_path[0], '\0');
  EXPECT_EQ(endpoint.size(), offsetof(sockaddr_un, sun_path) + 107) << "the name has no zero at its end";
  EXPECT_NE(Endpoint::unix_path("@a"), Endpoint::unix_path("@aa"));
}

TEST(Endpoint, IsComparedByItsValue) {
  const std::vector<Endpoint> all = {Endpoint(),
                                     Endpoint("127.0.0.1", 1),
                                     Endpoint("127.0.0.1", 2),
                                     Endpoint("127.0.0.2", 1),
                                     Endpoint("::1", 1),
                                     Endpoint("::2", 1),
                                     Endpoint::unix_path("/a"),
                                     Endpoint::unix_path("/b"),
                                     Endpoint::unix_path("/bb"),
                                     Endpoint::unix_path("@a")};
  for (std::size_t i = 0; i < all.size(); ++i) {
    for (std::size_t k = 0; k < all.size(); ++k) {
      EXPECT_EQ(all[i] == all[k], i == k);
      EXPECT_EQ(all[i]<all[k], all[k]> all[i]);
      EXPECT_EQ((all[i] <=> all[k]) == 0, i == k);
    }
  }
  std::vector<Endpoint> sorted = all;
  std::sort(sorted.begin(), sorted.end());
  std::vector<Endpoint> reversed(all.rbegin(), all.rend());
  std::sort(reversed.begin(), reversed.end());
  EXPECT_EQ(sorted, reversed);
}

TEST(Endpoint, KnowsLoopback) {
  EXPECT_TRUE(Endpoint("127.0.0.1", 1).is_loopback());
  EXPECT_TRUE(Endpoint("127.255.3.4", 1).is_loopback());
  EXPECT_FALSE(Endpoint("128.0.0.1", 1).is_loopback());
  EXPECT_FALSE(Endpoint("126.255.255.255", 1).is_loopback());
  EXPECT_TRUE(Endpoint("::1", 1).is_loopback());
  EXPECT_FALSE(Endpoint("::", 1).is_loopback());
  EXPECT_FALSE(Endpoint("0.0.0.0", 1).is_loopback());
  EXPECT_TRUE(Endpoint::unix_path("/run/door").is_loopback());
}

TEST(Endpoint, TakesNothingFromTooFewBytes) {
  const Endpoint v4("127.0.0.1", 80);
  const Endpoint v6("::1", 80);
  for (socklen_t size = 0; size < v4.size(); ++size) EXPECT_EQ(Endpoint::from(v4.data(), size), Endpoint());
  for (socklen_t size = 0; size < v6.size(); ++size) EXPECT_EQ(Endpoint::from(v6.data(), size), Endpoint());
}

TEST(Endpoint, TakesNothingFromAnUnknownFamily) {
  sockaddr_storage address{};
  address.ss_family = AF_APPLETALK;
  EXPECT_EQ(Endpoint::from(reinterpret_cast<const sockaddr*>(&address), sizeof(address)), Endpoint());
}

// getsockname(2) may count the zero behind a path of 108 bytes, unix(7): more than a sockaddr_un holds.
TEST(Endpoint, TakesAPathThatFillsTheWholeAddress) {
  struct {
    sockaddr_un address;
    char zero;
  } kernel{};
  kernel.address.sun_family = AF_UNIX;
  std::memset(kernel.address.sun_path, 'p', sizeof(kernel.address.sun_path));
  const auto endpoint = Endpoint::from(reinterpret_cast<const sockaddr*>(&kernel), sizeof(sockaddr_un) + 1);
  EXPECT_EQ(endpoint.family(), AF_UNIX);
  EXPECT_EQ(endpoint.path(), std::string(108, 'p'));
}

TEST(Endpoint, OfAUnixSocketWithoutANameHasNoPath) {
  sockaddr_un unnamed{};
  unnamed.sun_family = AF_UNIX;
  const auto endpoint = Endpoint::from(reinterpret_cast<const sockaddr*>(&unnamed), sizeof(sa_family_t));
  EXPECT_EQ(endpoint.family(), AF_UNIX);
  EXPECT_EQ(endpoint.path(), "");
}

TEST(Endpoint, RefusesAnEmptyAbstractName) {
  for (const char* path : {"@", ""}) {
    const test::Thrown thrown = test::thrown_by([&] { return Endpoint::unix_path(path); });
    EXPECT_EQ(thrown.code, std::errc::invalid_argument) << '"' << path << '"';
    EXPECT_NE(thrown.what.find(std::string("\"unix:") + path + '"'), std::string::npos) << thrown.what;
  }
  EXPECT_EQ(Endpoint::unix_path("@x").path(), "@x") << "one byte is a name";
  EXPECT_EQ(Endpoint::unix_path("@@").path(), "@@");
}

TEST(Endpoint, FromNoAddressIsNone) { EXPECT_EQ(Endpoint::from(nullptr, sizeof(sockaddr_in)), Endpoint()); }

TEST(Endpoint, KeepsItsValueWhenMovedFrom) {
  Endpoint first("127.0.0.1", 80);
  const Endpoint second(std::move(first));
  EXPECT_EQ(second, first);  // NOLINT(bugprone-use-after-move): a value, which a move copies
  Endpoint& alias = first;
  first = std::move(alias);
  EXPECT_EQ(second, first);
}

}  // namespace
}  // namespace anteroom
