#pragma once
#include <anteroom/bench/dialogue.h>

#include <string>
#include <string_view>

namespace CLI {
class App;
}

namespace anteroom::tool {

/// What was typed of a conversation, before it is understood.
struct TypedDialogue {
  std::string send;
  std::string expect;
  std::string http;
  std::string host;
  bool has_host = false;  ///< it may be empty, which is refused
  bool is_greeting = false;

  bool is_given() const noexcept {
    return is_greeting || has_host || !(send.empty() && expect.empty() && http.empty());
  }
};

/// --send, --expect, --greeting, --http and --host. They write into `typed`, which must live as long as
/// `app`.
void add_dialogue_options(CLI::App& app, TypedDialogue& typed);

/// The conversation that was meant. `host` is what an HTTP request calls the server if --host does not:
/// "localhost:8080". Throws
/// CLI::ValidationError for what cannot be, and CLI::ArgumentMismatch, with examples, if nothing was said.
bench::Dialogue understand_dialogue(const TypedDialogue& typed, std::string_view host);

}  // namespace anteroom::tool
