#include <anteroom/bench/kernel_counters.h>

#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <string_view>

namespace anteroom::bench {
namespace {

using Values = std::map<std::string, std::uint64_t, std::less<>>;

/// netstat and snmp come in pairs of lines, "TcpExt: name name ..." and "TcpExt: 1 2 ...". Keys are
/// "TcpExt.name".
void read_pairs(const char* path, Values& values) {
  std::ifstream file(path);
  std::string names;
  std::string numbers;
  while (std::getline(file, names) && std::getline(file, numbers)) {
    std::istringstream name_stream(names);
    std::istringstream number_stream(numbers);
    std::string group;
    std::string name;
    std::int64_t number = 0;  // some are signed: Tcp.MaxConn is -1
    name_stream >> group;
    number_stream >> group;
    if (group.empty()) continue;
    group.back() = '.';
    while (name_stream >> name && number_stream >> number)
      values[group + name] = static_cast<std::uint64_t>(number);
  }
}

}  // namespace

KernelCounters read_kernel_counters() {
  Values values;
  read_pairs("/proc/thread-self/net/netstat", values);
  read_pairs("/proc/thread-self/net/snmp", values);
  KernelCounters counters;
  for (const auto& [counter, name] : kCounters) {
    const auto found = values.find(name);
    if (found == values.end()) {
      counters.note_missing(counter);
    } else {
      counters[counter] = found->second;
    }
  }
  return counters;
}

/// One line a processor, in hexadecimal; the second number is what was dropped.
std::uint64_t read_softnet_drops() {
  std::ifstream file("/proc/net/softnet_stat");
  std::uint64_t drops = 0;
  for (std::string line; std::getline(file, line);) {
    std::istringstream stream(line);
    std::uint64_t processed = 0;
    std::uint64_t dropped = 0;
    if (stream >> std::hex >> processed >> dropped) drops += dropped;
  }
  return drops;
}

}  // namespace anteroom::bench
