#pragma once

namespace anteroom {

// gcc defines a macro for each sanitizer, and clang has a feature of the same name.
#if defined(__has_feature)
#define ANTEROOM_HAS_FEATURE(feature) __has_feature(feature)
#else
#define ANTEROOM_HAS_FEATURE(feature) 0
#endif

/// Whether this is compiled with a sanitizer that follows the use of memory. Memory that is used again would
/// hide a reference that is kept too long.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_HWADDRESS__) || defined(__SANITIZE_THREAD__) || \
    ANTEROOM_HAS_FEATURE(address_sanitizer) || ANTEROOM_HAS_FEATURE(hwaddress_sanitizer) ||             \
    ANTEROOM_HAS_FEATURE(memory_sanitizer) || ANTEROOM_HAS_FEATURE(thread_sanitizer)
inline constexpr bool kMemoryIsWatched = true;
#else
inline constexpr bool kMemoryIsWatched = false;
#endif

#undef ANTEROOM_HAS_FEATURE

}  // namespace anteroom
