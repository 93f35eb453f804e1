// A command's words are read before anything is done. Linked with the command, which is no part of a library.
#include "verb.h"

#include <anteroom/bench/running_server.h>
#include <anteroom/fd.h>
#include <anteroom/listener.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <string>
#include <vector>

#include "support/peer.h"

namespace anteroom::tool {
namespace {

/// `anteroom watch` with these words, which are parsed.
struct Watch {
  explicit Watch(std::vector<std::string> words) {
    words.insert(words.begin(), "watch");
    tool.parse(std::vector<std::string>(words.rbegin(), words.rend()));
  }
  int run() {
    const std::atomic<bool> interrupted{false};
    return verb.run({.command_line = "anteroom watch", .interrupted = interrupted});
  }
  CLI::App tool{"a tool", "anteroom"};
  Verb verb = add_watch(tool);
};

ino_t network_namespace() {
  struct stat status {};
  EXPECT_EQ(::stat("/proc/thread-self/ns/net", &status), 0);
  return status.st_ino;
}

TEST(WatchVerb, BindsItsPortWhenItRunsAndNotWhenItsWordsAreRead) {
  const Listener other(test::kLoopback, {});
  Watch watch({"--prometheus", std::to_string(other.endpoint().port()), "--for", "10ms", "--json", "-"});
  EXPECT_NO_THROW(watch.verb.understand());
  try {
    watch.run();
    ADD_FAILURE() << "another socket has that port";
  } catch (const bench::TargetError& error) {
    EXPECT_NE(std::string(error.what()).find("--prometheus takes another port"), std::string::npos)
        << error.what();
  }
}

TEST(WatchVerb, OpensNoDescriptorWhenItsWordsAreRead) {
  Watch watch({"--prometheus", "0", "--port", "1", "--top", "3", "--fail-if", "drops>0"});
  const int before = Fd(::dup(0)).get();  // the lowest that is free
  watch.verb.understand();
  EXPECT_EQ(Fd(::dup(0)).get(), before);
}

TEST(WatchVerb, FindsItsProcessWhenItRunsAndNotWhenItsWordsAreRead) {
  const ino_t before = network_namespace();
  Watch watch({"--pid", "999999999"});
  EXPECT_NO_THROW(watch.verb.understand());
  EXPECT_EQ(network_namespace(), before);
  EXPECT_THROW(watch.run(), bench::TargetError);
}

TEST(WatchVerb, RefusesAWrongPortWhenItsWordsAreRead) {
  for (const char* port : {"65536", "-1", "http"}) {
    Watch watch({std::string("--prometheus=") + port});
    EXPECT_THROW(watch.verb.understand(), CLI::Error) << port;
  }
}

}  // namespace
}  // namespace anteroom::tool
