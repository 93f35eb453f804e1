#include "dealer.h"

#include <algorithm>
#include <array>
#include <new>
#include <utility>

namespace anteroom {

void Share::deal(Fd socket, int family, Ticket ticket) {
  Guest guest{.socket = std::move(socket), .family = family, .ticket = ticket};
  if (is_at_the_door()) {
    ++out_;
    return start(std::move(guest));
  }
  const std::lock_guard lock(mutex_);
  if (tickets_.capacity() <= out_) tickets_.reserve(2 * (out_ + 1));
  dealt_.push_back(std::move(guest));
  try {
    if (!comes_for_guests_) reactor_.post([this] { take_in(); });
  } catch (const std::bad_alloc&) {
    dealt_.pop_back();
    throw;
  }
  comes_for_guests_ = true;
  ++out_;
}

/// With a budget, like the doorman himself; who is left over gets the next turn.
void Share::take_in() noexcept {
  for (int count = 0; count < guests_per_turn_max_ || !come_back(); ++count) {
    if (started_ == taken_over_.size() && !take_over()) return;
    start(std::move(taken_over_[started_++]));
  }
}

bool Share::take_over() noexcept {
  taken_over_.clear();
  started_ = 0;
  const std::lock_guard lock(mutex_);
  taken_over_.swap(dealt_);
  comes_for_guests_ = !taken_over_.empty();
  return comes_for_guests_;
}

bool Share::come_back() noexcept {
  try {
    reactor_.post([this] { take_in(); });
  } catch (const std::bad_alloc&) {
    return false;
  }
  return true;
}

void Share::start(Guest guest) noexcept {
  if (is_past_deadline_) {
    ++cut_off_;
    return left(guest.ticket);
  }
  try {
    Connection::start(reactor_, std::move(guest.socket), *this, guest.family, guest.ticket);
  } catch (const std::bad_alloc&) {
    left(guest.ticket);
  }
}

void Share::left(Ticket ticket) noexcept {
  if (is_at_the_door()) {
    --out_;
    return door_->left(ticket);
  }
  const std::lock_guard lock(mutex_);
  tickets_.push_back(ticket);
  try {
    if (!comes_for_tickets_) first_->post([this] { collect(); });
  } catch (const std::bad_alloc&) {
    collect_later_();  // without this a drain would wait for the last ticket for ever
  }
  comes_for_tickets_ = true;
}

void Share::collect() noexcept {
  std::array<Ticket, 64> some;
  for (bool are_there_more = true; are_there_more;) {
    std::size_t count = 0;
    {
      const std::lock_guard lock(mutex_);
      count = std::min(some.size(), tickets_.size());
      std::copy_n(tickets_.end() - static_cast<std::ptrdiff_t>(count), count, some.begin());
      tickets_.resize(tickets_.size() - count);
      comes_for_tickets_ = are_there_more = !tickets_.empty();
    }
    out_ -= count;
    for (std::size_t i = 0; i < count; ++i) door_->left(some[i]);
  }
}

void Share::cut() noexcept {
  is_past_deadline_ = true;
  cut_off_ = living();
  Connection::close_all(reactor_, *this);
}

Share& Dealer::next() noexcept {
  const std::size_t fewest = (*std::ranges::min_element(shares_, {}, &Share::out))->out();
  for (;;) {
    Share& share = *shares_[turn_++ % shares_.size()];
    if (share.out() <= fewest + fewest / 8 + kLead) return share;
  }
}

}  // namespace anteroom
