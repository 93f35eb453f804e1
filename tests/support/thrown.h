#pragma once
#include <string>
#include <system_error>

namespace anteroom::test {

/// The std::system_error that `call` throws; no error if it throws none.
struct Thrown {
  std::error_code code;
  std::string what;
};

template <class Call>
Thrown thrown_by(Call call) {
  try {
    (void)call();
  } catch (const std::system_error& error) {
    return {error.code(), error.what()};
  }
  return {};
}

/// Whether the library asserts: it is built like the tests.
#ifdef NDEBUG
inline constexpr bool kAsserts = false;
#else
inline constexpr bool kAsserts = true;
#endif

}  // namespace anteroom::test
