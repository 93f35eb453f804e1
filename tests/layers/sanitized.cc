// Compiled with each sanitizer, and WATCHED as it has to be.
#include "sanitized.h"
static_assert(anteroom::kMemoryIsWatched == WATCHED);
