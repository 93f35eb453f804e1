#pragma once
#include <anteroom/connector.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <functional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "faults.h"

namespace anteroom::torture {

/// One connection that is asked for, and what became of it.
struct Attempt {
  Endpoint to;
  std::string_view request;  // none: it is aborted as soon as it is open
  std::string_view answer;
  int error_expected = 0;
  ConnectOptions options;
  bool stays = false;  // is opened, and left to the destructor

  ConnectResult result;
  int opens = 0;
  int closes = 0;
  std::size_t received = 0;
  std::error_code error;

  bool has_ended() const { return stays || closes > 0 || result.error; }
  bool is_as_expected() const {
    const std::error_code why = result.error ? result.error : error;
    if (stays) return true;
    return why.value() == error_expected && (error_expected != 0 || received == answer.size());
  }
  std::string to_string() const {
    const std::error_code why = result.error ? result.error : error;
    return fmt::format("\n    to {} with '{}': opened {}, closed {} times ({}, expected {}), {} of {} bytes",
                       to.to_string(), request.substr(0, 1), opens, closes, why.message(),
                       std::error_code(error_expected, std::system_category()).message(), received,
                       answer.size());
  }
};

/// Calls out, and watches how its handlers are called.
class Caller {
 public:
  void add(Attempt attempt) { attempts_.push_back(std::move(attempt)); }

  ConnectionHandlers handlers() {
    return {.open = [this](Connection& connection) { open(connection); },
            .data = [this](Connection& connection, std::string_view bytes) { data(connection, bytes); },
            .closed = [this](Connection& connection, std::error_code error) { closed(connection, error); }};
  }

  /// All that were not called yet.
  void call(Connector& connector) {
    for (; called_ < attempts_.size(); ++called_) {
      Attempt& attempt = attempts_[called_];
      attempt.options.context = &attempt;
      const faults::Tortured tortured;
      attempt.result = connector.connect(attempt.to, attempt.options);
    }
  }

  bool is_settled() const { return std::ranges::all_of(attempts_, &Attempt::has_ended); }
  int lost() const {
    return static_cast<int>(
        std::ranges::count_if(attempts_, [](const Attempt& attempt) { return !attempt.is_as_expected(); }));
  }
  const Attempt& last() const { return attempts_.back(); }
  int closes() const { return closes_; }

  std::string trouble() const {
    if (trouble_ != nullptr) return trouble_;
    for (const Attempt& attempt : attempts_) {
      if (attempt.opens > 1 || attempt.closes > 1) return "is opened or closed twice:" + attempt.to_string();
      if (attempt.result.error && attempt.opens + attempt.closes > 0)
        return "is refused, and goes on:" + attempt.to_string();
    }
    return {};
  }
  std::string describe(bool only_unended) const {
    std::string text;
    for (const Attempt& attempt : attempts_) {
      if (only_unended ? !attempt.has_ended() : !attempt.is_as_expected()) text += attempt.to_string();
    }
    return text;
  }

  std::function<void()> changed;

 private:
  void open(Connection& connection) {
    Attempt& attempt = enter(connection);
    ++attempt.opens;
    if (attempt.closes > 0) trouble_ = "open after closed";
    if (!attempt.request.empty()) {
      connection.send(attempt.request);
    } else if (!attempt.stays) {
      connection.abort();
    }
    inside_ = false;
  }

  void data(Connection& connection, std::string_view bytes) {
    Attempt& attempt = enter(connection);
    if (attempt.opens == 0 || attempt.closes > 0) trouble_ = "data of what is not open";
    if (attempt.answer.substr(attempt.received, bytes.size()) != bytes) {
      trouble_ = "wrong bytes";
      connection.abort();
    } else {
      attempt.received += bytes.size();
      if (attempt.received == attempt.answer.size()) connection.close();
    }
    inside_ = false;
  }

  void closed(Connection& connection, std::error_code error) {
    Attempt& attempt = enter(connection);
    ++attempt.closes;
    ++closes_;
    attempt.error = error;
    if (connection.was_open() != (attempt.opens > 0)) trouble_ = "was_open() is wrong";
    inside_ = false;
    if (changed) changed();
  }

  Attempt& enter(Connection& connection) {
    if (std::exchange(inside_, true)) trouble_ = "a handler runs inside another";
    return *static_cast<Attempt*>(connection.context());
  }

  std::vector<Attempt> attempts_ = [] {
    std::vector<Attempt> attempts;
    attempts.reserve(32);  // their addresses are contexts
    return attempts;
  }();
  std::size_t called_ = 0;
  int closes_ = 0;
  bool inside_ = false;
  const char* trouble_ = nullptr;
};

}  // namespace anteroom::torture
