#pragma once

namespace anteroom::test {

#if defined(__has_feature)
#define ANTEROOM_HAS_FEATURE(feature) __has_feature(feature)
#else
#define ANTEROOM_HAS_FEATURE(feature) 0
#endif

#if defined(__SANITIZE_THREAD__) || ANTEROOM_HAS_FEATURE(thread_sanitizer)
inline constexpr bool kIsThreadSanitized = true;
#else
inline constexpr bool kIsThreadSanitized = false;
#endif

/// Whether a sanitizer watches: then everything takes two to ten times as long as it does for users, and what
/// is measured is measured only to see that the code is clean.
#if defined(__SANITIZE_ADDRESS__) || ANTEROOM_HAS_FEATURE(address_sanitizer)
inline constexpr bool kIsSanitized = true;
#else
inline constexpr bool kIsSanitized = kIsThreadSanitized;
#endif

#undef ANTEROOM_HAS_FEATURE

}  // namespace anteroom::test
