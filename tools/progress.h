#pragma once
#include <anteroom/bench/experiment.h>

#include <chrono>
#include <string>

#include "terminal.h"

namespace anteroom::tool {

/// One line on the terminal, drawn again and again, and gone at the end. Nothing where the standard error is
/// no terminal.
class ProgressLine {
 public:
  explicit ProgressLine(bool quiet);
  ~ProgressLine();
  void show(const bench::ExperimentProgress& progress);
  void show(const std::string& line);

 private:
  Terminal terminal_;
  bool enabled_;
  bool shown_ = false;
  std::chrono::steady_clock::time_point last_;
};

}  // namespace anteroom::tool
