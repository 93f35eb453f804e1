// Everything that CLI11 builds and parses for us, whichever of its versions is there (2.1 to 2.4). The
// commands and options are taken from the parser itself, so that a new one is covered without a word here.
#include <anteroom/version.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <functional>
#include <string>
#include <vector>

#include "support/program.h"
#include "verb.h"

namespace anteroom::tool {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

/// A parser with every command, as new: what was parsed stays in its options.
struct CommandLine {
  CLI::App app{"anteroom", "anteroom"};
  std::vector<Verb> commands = add_commands(app);
};

bool is_help(const CLI::Option& option) { return option.check_name("--help"); }

/// As it is typed: "--rate", "-q"; nothing for a word that has its meaning from where it stands.
std::vector<std::string> names_of(const CLI::Option& option) {
  std::vector<std::string> names;
  for (const std::string& name : option.get_lnames()) names.push_back("--" + name);
  for (const std::string& name : option.get_snames()) names.push_back("-" + name);
  return names;
}

/// Calls `visit` with every option of every command, but for --help.
void for_each_option(const std::function<void(CommandLine&, CLI::App&, CLI::Option&)>& visit) {
  CommandLine line;
  for (const Verb& command : line.commands) {
    for (CLI::Option* const option : command.app->get_options({})) {
      if (!is_help(*option)) visit(line, *command.app, *option);
    }
  }
}

/// What the parser finds for `option` when it is `spelled` so, with all that the command cannot do without.
std::vector<std::string> parse(CommandLine& line, CLI::App& command, CLI::Option& option,
                               const std::vector<std::string>& spelled) {
  std::vector<std::string> words{command.get_name()};
  for (CLI::Option* const other : command.get_options({})) {
    if (other == &option) {
      words.insert(words.end(), spelled.begin(), spelled.end());
    } else if (other->get_required()) {
      if (!other->get_positional()) words.push_back(names_of(*other).front());
      words.push_back("1");
    }
  }
  std::string typed;
  for (const std::string& word : words) typed += word + ' ';
  std::reverse(words.begin(), words.end());  // as CLI11 takes a vector
  try {
    line.app.parse(words);
  } catch (const CLI::Error& error) {
    ADD_FAILURE() << typed << ": " << error.get_name() << ": " << error.what();
    return {};
  }
  EXPECT_EQ(option.count(), 1U) << typed;
  return option.results();
}

TEST(CommandLine, HasEveryCommandOfTheHelp) {
  const CommandLine line;
  EXPECT_EQ(line.commands.size(), line.app.get_subcommands({}).size());
  EXPECT_GE(line.commands.size(), 7U);
}

TEST(CommandLine, ParsesEveryNameOfEveryOption) {
  std::size_t tried = 0;
  for_each_option([&](CommandLine& line, CLI::App& command, CLI::Option& option) {
    const bool is_flag = option.get_items_expected_max() == 0;
    for (const std::string& name : names_of(option)) {
      const std::vector<std::string> spelled =
          is_flag ? std::vector<std::string>{name} : std::vector<std::string>{name, "1"};
      EXPECT_THAT(parse(line, command, option, spelled), ElementsAre(is_flag ? "true" : "1")) << name;
      ++tried;
    }
    if (option.get_positional()) {
      EXPECT_THAT(parse(line, command, option, {"1"}), ElementsAre("1"));
    }
  });
  EXPECT_GT(tried, 80U);
}

TEST(CommandLine, PassesEveryTextOnAsItWasTyped) {
  // What one version or another splits, strips, or takes for a list, an empty list, an escape or a number.
  const std::vector<std::string> texts = {
      "x y",   "a,b",   "{}",   "[1,2]", "[]",    "[::1]:80", "%%",  "'q'", "\"q\"",   "`q`", "\\n",
      "a=b",   "=",     "a:b",  "1'000", "1_000", "0x10",     "010", "1e3", "+1",      "-1",  "-x",
      "/path", "@name", "true", "false", "*",     "!x",       "~",   "#",   "\xc3\xa4"};
  for_each_option([&](CommandLine& line, CLI::App& command, CLI::Option& option) {
    if (option.get_items_expected_max() == 0) return;
    for (const std::string& text : texts) {
      const bool looks_like_an_option = text.starts_with('-');
      if (option.get_positional()) {
        if (!looks_like_an_option) {
          EXPECT_THAT(parse(line, command, option, {text}), ElementsAre(text)) << command.get_name();
        }
        continue;
      }
      const std::string name = names_of(option).front();
      EXPECT_THAT(parse(line, command, option, {name + '=' + text}), ElementsAre(text)) << name;
      if (!looks_like_an_option || option.get_items_expected_min() > 0) {
        EXPECT_THAT(parse(line, command, option, {name, text}), ElementsAre(text)) << name;
      }
    }
  });
}

TEST(CommandLine, TakesAnOptionWithoutItsOptionalValue) {
  std::size_t tried = 0;
  for_each_option([&](CommandLine& line, CLI::App& command, CLI::Option& option) {
    if (option.get_items_expected_min() > 0 || option.get_items_expected_max() == 0) return;
    const std::string name = names_of(option).front();
    EXPECT_THAT(parse(line, command, option, {name}), ElementsAre("")) << name;
    ++tried;
  });
  EXPECT_GE(tried, 3U) << "--burst of several commands, --prometheus of watch";
}

struct Outcome {
  int status;
  std::string output;
  std::string errors;
};

Outcome run(const std::vector<std::string>& words) {
  std::vector<std::string> command{PROGRAMS "/anteroom"};
  command.insert(command.end(), words.begin(), words.end());
  test::Program program(command);
  const int status = program.wait(std::chrono::seconds(30));
  return {status, program.output, program.errors};
}

TEST(CommandLine, HelpOfEachCommandNamesEachOfItsOptions) {
  const CommandLine line;
  for (const Verb& command : line.commands) {
    const std::string name = command.app->get_name();
    for (const char* const help : {"--help", "-h"}) {
      const Outcome outcome = run({name, help});
      EXPECT_EQ(outcome.status, 0) << name << ' ' << help << ": " << outcome.errors;
      EXPECT_EQ(outcome.errors, "");
      for (const CLI::Option* const option : command.app->get_options({})) {
        for (const std::string& spelling : names_of(*option))
          EXPECT_THAT(outcome.output, HasSubstr(spelling)) << name;
        EXPECT_THAT(outcome.output, HasSubstr(option->get_description())) << name;
      }
    }
  }
}

TEST(CommandLine, HelpNamesEachCommand) {
  const Outcome outcome = run({"--help"});
  EXPECT_EQ(outcome.status, 0) << outcome.errors;
  const CommandLine line;
  for (const Verb& command : line.commands)
    EXPECT_THAT(outcome.output, HasSubstr("  " + command.app->get_name() + ' '));
}

TEST(CommandLine, ShowsWhatASwarmCallsWithAColon) {
  const std::string help = run({"swarm", "--help"}).output;
  EXPECT_THAT(help, HasSubstr("[OPTIONS] HOST:PORT\n"));
  EXPECT_THAT(help, HasSubstr("\n  HOST:PORT TEXT REQUIRED  "));
  EXPECT_THAT(help, Not(HasSubstr(kHostAndPort)));
  EXPECT_THAT(run({"swarm"}).errors, HasSubstr("anteroom: HOST:PORT is required"));
  EXPECT_THAT(run({"swarm", ""}).errors, HasSubstr("anteroom: HOST:PORT: is empty"));
}

TEST(CommandLine, CountsRunsAsItCountsEverythingElse) {
  for (const char* const count : {"0", "1001", "-1", "1.5", "0x10", "1'000", "1_000", "x", "1k5"}) {
    const Outcome outcome = run({"tune", "--repeat", count});
    EXPECT_EQ(outcome.status, 2) << count;
    EXPECT_THAT(outcome.errors, HasSubstr("--repeat")) << count;
  }
}

TEST(CommandLine, VersionIsThatOfTheHeaders) {
  const Outcome outcome = run({"--version"});
  EXPECT_EQ(outcome.status, 0) << outcome.errors;
  EXPECT_EQ(outcome.output, ANTEROOM_VERSION_STRING "\n");
}

}  // namespace
}  // namespace anteroom::tool
