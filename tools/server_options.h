#pragma once
#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>

namespace CLI {
class App;
}

namespace anteroom::tool {

/// Which server that runs is meant.
struct TypedServer {
  std::string pid_text;
  std::string port_text;
  std::optional<pid_t> pid;
  std::optional<std::uint16_t> port;
};

/// --pid and --port. They write into `typed`, which must live as long as `app`.
void add_server_options(CLI::App& app, TypedServer& typed);

/// Fills in the numbers. Throws CLI::ValidationError; CLI::ArgumentMismatch if there is neither.
void understand_server(TypedServer& typed);

}  // namespace anteroom::tool
