#include "scenario.h"

#include <fmt/format.h>

#include <array>
#include <cstddef>

#include "peers.h"
#include "scenarios.h"

namespace anteroom::torture {
namespace {

constexpr std::array<Scenario, 17> kScenarios = {{
    {"a TCP server", tcp_server, true},
    {"a Unix server", unix_server, false, 2},
    {"a crowded server", crowded_server, true, 4},
    {"an overloaded server", overloaded_server, false, 5},
    {"a talking server", talking_server, true, 4},
    {"a patient server", patient_server, false, 5},
    {"a server that drains", drained_server, true, 3},
    {"a server that drains in a hurry", hurried_server, false, 5},
    {"a server that leaves a group", drained_group, true, 5},
    {"a server that is succeeded", handed_over_server, true, 4},
    {"datagrams over UDP", udp_exchange, true},
    {"datagrams at a path", unix_exchange, false},
    {"a torrent of datagrams", torrent, false, 2},
    {"a client", client, true, 2},
    {"a household", household, false, 3},
    {"a textbook server", textbook_server, true},
    {"setting up", setting_up, true},
}};

}  // namespace

std::span<const Scenario> scenarios() { return kScenarios; }

Report run(const Scenario& scenario, const faults::Fault* fault) {
  prepare_deserts();
  const auto open_before = open_descriptors();
  Report report;
  faults::begin(fault, scenario.name);
  scenario.run(fault, report);
  faults::disarm();
  report.injected = faults::injected();
  for (std::size_t call = 0; call < faults::kCalls; ++call) {
    report.counts[call] = faults::count(static_cast<faults::Call>(call));
  }
  const auto open_after = open_descriptors();
  if (report.failure.empty() && open_after != open_before)
    report.failure =
        fmt::format("{} descriptors are open before, {} after", open_before.count(), open_after.count());
  return report;
}

}  // namespace anteroom::torture
