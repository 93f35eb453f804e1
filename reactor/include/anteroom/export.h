#pragma once
// Every public header includes this one first.

#if __cplusplus < 202002L
#error \
    "anteroom needs C++20: compile with -std=c++20, or in CMake link an anteroom target, which sets the standard"
#endif

/// Stands before the name of the namespace in a public header, and before each function that is declared
/// there at namespace scope (clang does not take those from the namespace). What has this mark can be linked
/// when the libraries are shared and compiled with -fvisibility=hidden, and has one typeinfo in the whole
/// process.
#define ANTEROOM_EXPORT [[gnu::visibility("default")]]
