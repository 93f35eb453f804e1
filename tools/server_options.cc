#include "server_options.h"

#include <CLI/CLI.hpp>
#include <limits>

#include "load_options.h"

namespace anteroom::tool {

void add_server_options(CLI::App& app, TypedServer& typed) {
  const std::string group = "The server";
  app.add_option("--pid", typed.pid_text, "A process that runs; of a server with workers, their parent")
      ->group(group);
  app.add_option("--port", typed.port_text, "Where it listens; needed if that is more than one port")
      ->group(group);
}

void understand_server(TypedServer& typed) {
  if (typed.pid_text.empty() && typed.port_text.empty())
    throw CLI::ArgumentMismatch("which server? --pid or --port says it");
  if (!typed.pid_text.empty())
    typed.pid = parse_whole("--pid", typed.pid_text, 1, std::numeric_limits<pid_t>::max());
  if (!typed.port_text.empty())
    typed.port = static_cast<std::uint16_t>(parse_whole("--port", typed.port_text, 1, 65'535));
}

}  // namespace anteroom::tool
