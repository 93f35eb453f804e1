#pragma once
#include "run_document.h"
#include "watch.h"

namespace anteroom::tool {

/// `anteroom.watch/1`, as tools/JSON.md has it.
Json watch_document(const WatchState& state);

/// What one group of sockets has seen, as a load that `tune --profile` plays: `anteroom.profile/1`. Null if
/// nobody came.
Json watch_profile(const WatchState& state, const RoomGroup& group);

}  // namespace anteroom::tool
