#pragma once
#include <string_view>

#include "terminal.h"

namespace anteroom::tool {

/// A screen of its own, with no cursor, for what is drawn over and over. It is left as the terminal was: at
/// the end, when a signal ends the program (SIGHUP, SIGQUIT, a second SIGINT or SIGTERM), when it crashes
/// (std::terminate(), SIGABRT, SIGSEGV and the like), and while it is stopped (SIGTSTP). Only SIGKILL and
/// SIGSTOP are too quick for that. The first SIGINT or SIGTERM goes to whoever listened to it before. There
/// is one at a time.
class Screen {
 public:
  /// Takes the standard output, if that is a terminal that has such a thing, and if it is wanted.
  explicit Screen(bool wanted);
  ~Screen() { leave(); }
  Screen(const Screen&) = delete;
  Screen& operator=(const Screen&) = delete;

  bool is_on() const noexcept { return is_on_; }
  /// Whether what is drawn would be seen: not while another job has the terminal.
  bool is_seen() const noexcept;
  const Terminal& terminal();  ///< it may have been made larger
  int lines() const noexcept;
  void draw(std::string_view text);
  void leave() noexcept;

 private:
  Terminal terminal_;
  bool is_on_;
};

}  // namespace anteroom::tool
