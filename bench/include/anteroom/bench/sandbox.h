#pragma once
#include <string>
#include <string_view>

namespace anteroom::bench {

/// Where a trial runs: a network of its own, if that can be had.
struct Sandbox {
  bool is_private = false;  ///< counters, ports and sysctls are nobody else's
  std::string why_not;      ///< what the system said, if not
};

/// Moves the calling process into a fresh network namespace with only a loopback device (0.7 to 1.8 ms): as
/// root, or by a user namespace (then the process must have one thread). Leaves it where it is if neither is
/// allowed.
Sandbox enter_sandbox();

/// Writes one sysctl of this network namespace, "net.core.somaxconn". False if that is not allowed.
bool write_sysctl(std::string_view name, std::string_view value);

}  // namespace anteroom::bench
