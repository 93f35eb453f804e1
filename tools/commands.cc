#include "verb.h"

namespace anteroom::tool {

std::vector<Verb> add_commands(CLI::App& tool) {
  return {add_tune(tool),  add_compare(tool), add_watch(tool), add_retune(tool),
          add_swarm(tool), add_report(tool),  add_diff(tool)};
}

}  // namespace anteroom::tool
