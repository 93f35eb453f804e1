#pragma once
#include <anteroom/export.h>

// The version of these headers. CMakeLists.txt reads it from here. Macros, so that #if can compare them.
// Before 1.0 a new MINOR may change the interface, and a shared library of another MINOR has another name.
#define ANTEROOM_VERSION_MAJOR 0
#define ANTEROOM_VERSION_MINOR 1
#define ANTEROOM_VERSION_PATCH 0

/// 1.2.3 is 10203.
#define ANTEROOM_VERSION \
  (ANTEROOM_VERSION_MAJOR * 10000 + ANTEROOM_VERSION_MINOR * 100 + ANTEROOM_VERSION_PATCH)

/// "1.2.3"
#define ANTEROOM_VERSION_STRING          \
  ANTEROOM_QUOTE(ANTEROOM_VERSION_MAJOR) \
  "." ANTEROOM_QUOTE(ANTEROOM_VERSION_MINOR) "." ANTEROOM_QUOTE(ANTEROOM_VERSION_PATCH)
#define ANTEROOM_QUOTE(word) ANTEROOM_QUOTE_AS_IT_IS(word)
#define ANTEROOM_QUOTE_AS_IT_IS(word) #word
