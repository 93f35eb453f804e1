#pragma once
#include <string>
#include <string_view>

namespace anteroom::tool {

/// How one of the standard streams likes to be written to.
struct Terminal {
  bool is_terminal = false;
  bool colours = false;  ///< it is one, NO_COLOR is not set, and TERM is not "dumb"
  bool utf8 = false;     ///< what the locale says; otherwise plain ASCII
  int columns = 1000;    ///< as wide as it is, or COLUMNS; a file has room for everything

  static Terminal of(int descriptor);

  std::string bold(std::string_view text) const { return wrap("1", text); }
  std::string red(std::string_view text) const { return wrap("31", text); }
  std::string dim(std::string_view text) const { return wrap("2", text); }

 private:
  std::string wrap(std::string_view code, std::string_view text) const;
};

}  // namespace anteroom::tool
