#pragma once
#include <anteroom/bench/scenario.h>

#include <chrono>
#include <string>
#include <string_view>
#include <vector>

namespace CLI {
class App;
}

namespace anteroom::tool {

/// What was typed of a load, before it is understood.
struct TypedLoad {
  std::string server = "reactor";
  std::string clients;
  bool is_burst = false;
  std::string burst;  ///< "2000", "500@1s", or nothing
  std::string within;
  std::string rate;
  std::string arrival;
  std::string dispersion;
  std::string on;
  std::string off;
  std::string stall;
  std::string stall_every;
  std::string stall_jitter;
  std::string handler = "none";
  std::string rtt;
  std::string loss;
  std::vector<std::string> sysctls;
  std::string patience;
  std::string profile;
  std::string threads;
};

constexpr int kClientsMax = 1'000'000;

/// What the options for the calls say of their defaults, which each command has of its own.
struct CallingWords {
  const char* clients;
  const char* burst;
  const char* rate;
  const char* arrival;
};

/// --clients, --burst, --within, --rate, --arrival, --dispersion, --on and --off: when clients call. They
/// write into `typed`, which must live as long as `app`.
void add_calling_options(CLI::App& app, TypedLoad& typed, const CallingWords& words);

/// --patience, whose default is described by `otherwise`.
void add_patience_option(CLI::App& app, TypedLoad& typed, const std::string& otherwise);

/// The group in --help of what only our own servers take.
constexpr const char* kEmbeddedGroup = "The embedded server and its road";

/// All of those, and the others that say what the load is.
void add_load_options(CLI::App& app, TypedLoad& typed);

/// Puts into `load` when the clients call, where it was typed; how many there are is left to the caller.
/// Throws CLI::ValidationError.
void understand_calling(const TypedLoad& typed, bench::Scenario& load);

/// The load that was meant. Throws CLI::ValidationError, or RunDocumentError if it is the profile that is
/// wrong.
bench::Scenario understand_load(const TypedLoad& typed);

// Words of the command line. `option` is named in the CLI::ValidationError that each throws for what it does
// not understand.

/// "5000", "5k", "1.5M", from `least` to `most`.
double parse_count(const std::string& option, const std::string& text, double least, double most);
int parse_whole(const std::string& option, const std::string& text, int least, int most);
/// "100ms", "1.5s".
std::chrono::nanoseconds parse_time(const std::string& option, const std::string& text);
/// "0.1%", "0.001".
double parse_share(const std::string& option, const std::string& text, double most);
constexpr int kListenMax = 1'000'000;  ///< the largest backlog that is tried or given
/// "64,128,1k" and "1..4096", which doubles; ascending, each once.
std::vector<int> parse_backlogs(const std::string& text);
std::uint64_t parse_seed(const std::string& text);
/// Throws that `text` is not `wanted`.
[[noreturn]] void refuse(const std::string& option, const std::string& text, const std::string& wanted);

/// "a,b,c"
std::vector<std::string> split(std::string_view list);

}  // namespace anteroom::tool
