#include "profile.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string_view>

#include "run_document.h"

namespace anteroom::tool {
namespace {

using std::chrono::nanoseconds;

class Profile {
 public:
  explicit Profile(const std::string& path) : path_(path) {
    try {
      if (path == "-") {
        json_ = Json::parse(std::cin);
      } else {
        std::ifstream file(path);
        if (!file) throw RunDocumentError(fmt::format("cannot read {}", path));
        json_ = Json::parse(file);
      }
    } catch (const Json::exception&) {
      throw RunDocumentError(fmt::format("{} is no JSON", path));
    }
    if (!json_.is_object() || !json_.contains("schema") || json_["schema"] != "anteroom.profile/1")
      throw RunDocumentError(fmt::format("{} is no profile: its schema has to be anteroom.profile/1", path));
  }

  double number(const Json& object, const char* field, double least, double most, double otherwise) const {
    if (!object.is_object() || !object.contains(field)) return otherwise;
    const Json& value = object[field];
    const double number = value.is_number() ? value.get<double>() : std::nan("");
    if (number >= least && number <= most) return number;
    throw RunDocumentError(fmt::format("{}: {} has to be a number from {} to {}", path_, field, least, most));
  }

  const Json& json() const noexcept { return json_; }

 private:
  std::string path_;
  Json json_;
};

nanoseconds in_ns(double seconds) { return nanoseconds(std::llround(seconds * 1e9)); }

}  // namespace

bench::Scenario read_profile(const std::string& path) {
  const Profile profile(path);
  const Json& json = profile.json();
  bench::Scenario load;
  load.arrival = bench::Arrival::kPoisson;
  load.rate = profile.number(json, "rate", 1, 1e6, 0);
  if (load.rate == 0) throw RunDocumentError(fmt::format("{}: there is no rate", path));
  load.dispersion = std::max(profile.number(json, "dispersion", 0, 1e4, 1), 1.0);
  const double for_s = profile.number(json, "for_s", 0.001, 1e9, 1);
  if (!json.contains("stalls")) return load;
  if (!json["stalls"].is_array()) throw RunDocumentError(fmt::format("{}: stalls has to be a list", path));
  double longest_s = 0;
  for (const Json& stall : json["stalls"])
    longest_s = std::max(longest_s, profile.number(stall, "length_s", 0, 60, 0));
  if (longest_s == 0) return load;
  load.stall = in_ns(longest_s);
  // A real one may stall once an hour. What its queue needs is seen in one; so not longer than need be.
  const double every_s = for_s / static_cast<double>(json["stalls"].size());
  load.stall_every = in_ns(std::clamp(every_s, 2 * longest_s, std::max(1.0, 5 * longest_s)));
  load.stall_jitter = 0.5;
  return load;
}

}  // namespace anteroom::tool
