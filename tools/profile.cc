#include "profile.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <string_view>

#include "run_document.h"

namespace anteroom::tool {
namespace {

using std::chrono::nanoseconds;

class Profile {
 public:
  explicit Profile(const std::string& path) : name_(name_of_file(path)), json_(read_json(path)) {
    if (!json_.is_object() || !json_.contains("schema") || json_["schema"] != "anteroom.profile/1")
      throw RunDocumentError(fmt::format("{} is no profile: its schema has to be anteroom.profile/1", name_));
    has_only(json_, "a profile", {"schema", "rate", "dispersion", "for_s", "stalls"});
  }

  [[noreturn]] void fail(const std::string& why) const {
    throw RunDocumentError(fmt::format("{}: {}", name_, why));
  }

  /// A field that is misspelled would be one that was not given.
  void has_only(const Json& object, std::string_view what,
                std::initializer_list<std::string_view> known) const {
    for (const auto& [field, value] : object.items()) {
      if (std::ranges::count(known, std::string_view(field)) == 0)
        fail(fmt::format("{} has no {}, but {}", what, printable(field, 40), fmt::join(known, ", ")));
    }
  }

  double number(const Json& object, const char* field, double least, double most, double otherwise) const {
    if (!object.is_object() || !object.contains(field)) return otherwise;
    const Json& value = object[field];
    const double number = value.is_number() ? value.get<double>() : std::nan("");
    if (number >= least && number <= most) return number;
    fail(fmt::format("{} has to be a number from {} to {}", field, least, most));
  }

  const Json& json() const noexcept { return json_; }

 private:
  std::string name_;
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
  if (load.rate == 0) profile.fail("there is no rate");
  load.dispersion = std::max(profile.number(json, "dispersion", 0, 1e4, 1), 1.0);
  const double for_s = profile.number(json, "for_s", 0.001, 1e9, 1);
  if (!json.contains("stalls")) return load;
  if (!json["stalls"].is_array()) profile.fail("stalls has to be a list");
  double longest_s = 0;
  for (const Json& stall : json["stalls"]) {
    if (!stall.is_object() || !stall.contains("length_s")) profile.fail("a stall has no length_s");
    profile.has_only(stall, "a stall", {"at_s", "length_s"});
    longest_s = std::max(longest_s, profile.number(stall, "length_s", 0, 60, 0));
  }
  if (longest_s == 0) return load;
  load.stall = in_ns(longest_s);
  // A real one may stall once an hour. What its queue needs is seen in one; so not longer than need be.
  const double every_s = for_s / static_cast<double>(json["stalls"].size());
  load.stall_every = in_ns(std::clamp(every_s, 2 * longest_s, std::max(1.0, 5 * longest_s)));
  load.stall_jitter = 0.5;
  return load;
}

}  // namespace anteroom::tool
