#pragma once
#include "faults.h"
#include "scenario.h"

/// Each of the little worlds. `fault` may be null.
namespace anteroom::torture {

void tcp_server(const faults::Fault* fault, Report& report);
void unix_server(const faults::Fault* fault, Report& report);
void crowded_server(const faults::Fault* fault, Report& report);
void overloaded_server(const faults::Fault* fault, Report& report);
void talking_server(const faults::Fault* fault, Report& report);
void patient_server(const faults::Fault* fault, Report& report);
void drained_server(const faults::Fault* fault, Report& report);
void hurried_server(const faults::Fault* fault, Report& report);
void drained_group(const faults::Fault* fault, Report& report);
void handed_over_server(const faults::Fault* fault, Report& report);
void udp_exchange(const faults::Fault* fault, Report& report);
void unix_exchange(const faults::Fault* fault, Report& report);
void torrent(const faults::Fault* fault, Report& report);
void client(const faults::Fault* fault, Report& report);
void household(const faults::Fault* fault, Report& report);
void textbook_server(const faults::Fault* fault, Report& report);
void setting_up(const faults::Fault* fault, Report& report);

/// Makes what all runs of clients have in common, which has to be there before descriptors are counted.
void prepare_deserts();

}  // namespace anteroom::torture
