#pragma once
#include <anteroom/connection.h>
#include <anteroom/reactor.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <functional>
#include <new>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>

#include "faults.h"
#include "peers.h"

namespace anteroom::torture {

// The kernel doubles these (socket(7)). Small enough that large answers meet EAGAIN.
inline constexpr int kSendBuffer = 16 * 1024;
inline constexpr int kReceiveBuffer = 16 * 1024;

// One in each file, and not inline: clang 14 initialises an inline one later than what needs it (kHearsALot).
const std::string kLongRequest = pattern('E', 160 * 1024);
const std::string kLongAnswer = pattern('l', 200 * 1024);
const std::string kChatter = "Q" + pattern('q', 3000);

/// Handlers that do what the first byte of a guest says, and watch how they are called.
class House {
 public:
  explicit House(std::optional<Reactor>& reactor) : reactor_(reactor) {}

  ConnectionHandlers handlers() {
    return {.open = [this](Connection& guest) { open(guest); },
            .data = [this](Connection& guest, std::string_view bytes) { data(guest, bytes); },
            .drained = [this](Connection&) { const Inside inside(*this); },
            .closed = [this](Connection& guest, std::error_code) { closed(guest); }};
  }

  /// Who ends their side is told of, and not closed for it.
  ConnectionHandlers handlers_of_half_closed() {
    ConnectionHandlers handlers = this->handlers();
    handlers.peer_ended = [this](Connection& guest) { peer_ended(guest); };
    return handlers;
  }
  /// Whoever has not begun anything is closed when the house is to be left.
  ConnectionHandlers handlers_of_leaving() {
    ConnectionHandlers handlers = this->handlers();
    handlers.draining = [this](Connection& guest) {
      const Inside inside(*this);
      if (static_cast<Record*>(guest.context())->wish == 0) guest.close();
    };
    return handlers;
  }

  static constexpr std::string_view kLastWords = "These are our last words";
  static constexpr std::string_view kPiecesInOne = "three pieces, in one system call";
  /// What a guest hears who asks for the file.
  static const std::string& file_answer() {
    static const std::string answer = "head" + kLongAnswer + "tail";
    return answer;
  }

  int guests() const { return static_cast<int>(guests_); }
  /// Whom there was no memory for.
  int never_opened() const { return never_opened_; }
  int living() const {
    return static_cast<int>(std::count_if(records_.begin(),
                                          records_.begin() + static_cast<std::ptrdiff_t>(guests_),
                                          [](const Record& record) { return record.closes == 0; }));
  }
  const char* trouble() const { return trouble_; }
  std::function<void()> changed;

 private:
  struct Record {
    int closes = 0;
    int ends = 0;
    std::size_t heard = 0;
    char wish = 0;
  };

  class Inside {
   public:
    explicit Inside(House& house) : house_(house) {
      if (house_.inside_++ > 0) house_.trouble_ = "a handler runs inside another";
    }
    ~Inside() { --house_.inside_; }
    Inside(const Inside&) = delete;
    Inside& operator=(const Inside&) = delete;

   private:
    House& house_;
  };

  void open(Connection& guest) {
    const Inside inside(*this);
    if (guests_ == records_.size()) return faults::die("more guests than there are"), void();
    guest.set_context(&records_[guests_++]);
  }

  void data(Connection& guest, std::string_view bytes) {
    const Inside inside(*this);
    Record& record = *static_cast<Record*>(guest.context());
    if (record.closes > 0) trouble_ = "data after closed";
    const bool first = record.wish == 0;
    if (first) record.wish = bytes.front();
    record.heard += bytes.size();
    switch (record.wish) {
      case 'A':  // abort
        return guest.abort();
      case 'L':  // the long answer
        if (first) guest.send(kLongAnswer);
        return guest.close();
      case 'F':  // the file
        if (first) send_file(guest);
        return guest.close();
      case 'H':  // half-closed: the answer comes when they have ended
        return;
      case 'O':  // ours ends before theirs
        if (first) guest.send(kLastWords);
        return guest.end_output();
      case 'V':  // various pieces
        if (first) send_pieces(guest);
        return guest.close();
      case 'Q':  // quit, whatever comes behind it
        guest.send("bye");
        return guest.close();
      case 'W':  // wait
        guest.send(bytes);
        if (first) wait(guest);
        return;
      default:  // echo
        guest.send(bytes);
    }
  }

  static void send_file(Connection& guest) {
    guest.send("head");
    const int file = memory_file(kLongAnswer);
    faults::give(file);
    guest.send_file(Fd(file), 0, kLongAnswer.size());
    guest.send("tail");
  }

  static void send_pieces(Connection& guest) {
    const std::array<std::string_view, 3> pieces{kPiecesInOne.substr(0, 5), kPiecesInOne.substr(5, 10),
                                                 kPiecesInOne.substr(15)};
    guest.send(pieces);
  }

  void peer_ended(Connection& guest) {
    const Inside inside(*this);
    Record& record = *static_cast<Record*>(guest.context());
    if (++record.ends > 1) trouble_ = "the end of a peer is told twice";
    if (record.closes > 0) trouble_ = "the end of a peer is told after closed";
    if (record.wish == 'H') guest.send(kLongAnswer);
    if (record.wish != 'O') guest.close();
  }

  void wait(Connection& guest) {
    guest.pause_reading();
    try {
      reactor_->post([this, id = guest.id()] {
        const Inside inside(*this);
        if (auto* const waiting = reactor_->find<Connection>(id)) waiting->resume_reading();
      });
    } catch (const std::bad_alloc&) {
      guest.resume_reading();
    }
  }

  void closed(Connection& guest) {
    const Inside inside(*this);
    auto* const record = static_cast<Record*>(guest.context());
    if (guest.was_open() != (record != nullptr)) trouble_ = "was_open() is wrong";
    if (record == nullptr) {
      ++never_opened_;
    } else if (++record->closes > 1) {
      trouble_ = "closed is told twice";
    }
    if (changed) changed();
  }

  std::optional<Reactor>& reactor_;
  int inside_ = 0;
  const char* trouble_ = nullptr;
  std::size_t guests_ = 0;
  int never_opened_ = 0;
  std::array<Record, 64> records_;
};

}  // namespace anteroom::torture
