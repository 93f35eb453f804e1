#pragma once
#include <gtest/gtest.h>

#include <utility>

namespace anteroom::test {

/// Sees to it that no handler runs inside another: put around each of them, it counts how deep they lie.
class Depth {
 public:
  template <class Handler>
  auto guard(Handler handler) {
    return [this, handler = std::move(handler)](auto&&... arguments) mutable {
      EXPECT_EQ(depth_, 0) << "a handler was called from inside another";
      ++depth_;
      ++calls_;
      handler(std::forward<decltype(arguments)>(arguments)...);
      --depth_;
    };
  }
  int depth() const { return depth_; }
  long calls() const { return calls_; }

 private:
  int depth_ = 0;
  long calls_ = 0;
};

}  // namespace anteroom::test
