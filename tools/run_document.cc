#include "run_document.h"

#include <anteroom/bench/scenario.h>
#include <anteroom/fd.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <system_error>
#include <utility>

namespace anteroom::tool {
namespace {

/// A run of 31 trials has 0.1 MB. This is for who names /dev/zero.
constexpr std::size_t kDocumentBytesMax = std::size_t{256} << 20;
/// Ours are 6 deep. What is deeper could end our stack when it is copied.
constexpr std::size_t kDepthMax = 64;
/// Far beyond any run; every row is looked for among the trials.
constexpr std::size_t kRowsMax = 10'000;
constexpr std::size_t kTrialsMax = 20'000;
constexpr std::size_t kBinsMax = 10'000;
constexpr std::size_t kLowerBoundsMax = 10;
constexpr std::size_t kStepsMax = 1'000'000;  // of the queue over time
constexpr std::size_t kSentencesMax = 10'000;
/// Before it is parsed. A member of an object is looked for among all before it, so that 60,000 in one would
/// take half a minute; ours have 40. A run of 20,000 trials and 10,000 rows has 8 million values.
constexpr std::size_t kMembersMax = 200;
constexpr std::size_t kValuesMax = 10'000'000;
/// Up to here a double has every whole number.
constexpr double kCountMax = 9007199254740992;  // 2^53
constexpr std::size_t kNameBytesMax = 64;
/// A median of shares may be a rounding error more than all.
constexpr double kWhole = 1 + 1e-9;

constexpr const char* kTuneSchema = "anteroom.tune/2";
constexpr const char* kCompareSchema = "anteroom.compare/2";
constexpr const char* kSwarmSchema = "anteroom.swarm/1";

std::string dump(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

/// "a string", "-1": what was found where something else was wanted.
std::string in_words(const Json& json) {
  if (json.is_object()) return "an object";
  if (json.is_array()) return "an array";
  if (json.is_number_float() && !std::isfinite(json.get<double>())) return "no finite number";
  return printable(dump(json), 40);
}

/// One field of the document, which knows its own name.
class Field {
 public:
  Field(const Json& json, std::string name) : json_(&json), name_(std::move(name)) {}

  [[noreturn]] void fail(const std::string& wanted) const {
    throw RunDocumentError(fmt::format("{} is {}, not {}", name_, in_words(*json_), wanted));
  }

  /// Nothing if it is not there, or null.
  std::optional<Field> find(const char* key) const {
    if (!json_->is_object()) fail("an object");
    const auto found = json_->find(key);
    if (found == json_->end() || found->is_null()) return std::nullopt;
    return Field(*found, name_of(key));
  }

  Field operator[](const char* key) const {
    if (!json_->is_object()) fail("an object");
    const auto found = json_->find(key);
    if (found == json_->end()) throw RunDocumentError(fmt::format("{} is missing", name_of(key)));
    return Field(*found, name_of(key));
  }

  bool is_null() const { return json_->is_null(); }
  const Json& json() const { return *json_; }
  const std::string& name() const { return name_; }

  double number() const {
    if (!json_->is_number() || !std::isfinite(json_->get<double>())) fail("a number");
    return json_->get<double>();
  }
  double amount() const {
    const double value = number();
    if (value < 0) fail("a number from 0 on");
    return value;
  }
  double share() const {
    const double value = number();
    if (value < 0 || value > kWhole) fail("a share from 0 to 1");
    return std::min(value, 1.0);
  }
  double count(double most = kCountMax) const {
    const double value = json_->is_number() ? json_->get<double>() : -1;
    if (!(value >= 0 && value <= most) || value != std::floor(value)) {
      fail(fmt::format("a whole number from 0 to {}", most));
    }
    return value;
  }
  bool yes() const {
    if (!json_->is_boolean()) fail("true or false");
    return json_->get<bool>();
  }
  std::string text() const {
    if (!json_->is_string()) fail("a text");
    return json_->get<std::string>();
  }
  /// Of a server or a loop: it is printed as it is.
  std::string label() const {
    std::string text = this->text();
    if (text.empty() || printable(text, kNameBytesMax) != text) {
      fail(fmt::format("a name of 1 to {} printable bytes", kNameBytesMax));
    }
    return text;
  }
  /// null is unlimited.
  int backlog() const {
    if (is_null()) return bench::kUnlimitedBacklog;
    return static_cast<int>(count(std::numeric_limits<int>::max()));
  }

  /// Calls back with each element.
  template <class Call>
  void each(std::size_t most, Call call) const {
    if (!json_->is_array()) fail("an array");
    if (json_->size() > most) {
      throw RunDocumentError(
          fmt::format("{} has {} elements, more than the {} that we read", name_, json_->size(), most));
    }
    for (std::size_t i = 0; i < json_->size(); ++i) call(Field((*json_)[i], fmt::format("{}[{}]", name_, i)));
  }

 private:
  std::string name_of(const char* key) const { return name_.empty() ? key : name_ + '.' + key; }

  const Json* json_;
  std::string name_;
};

std::optional<double> amount_if_any(const Field& of, const char* key) {
  const Field field = of[key];
  if (field.is_null()) return std::nullopt;
  return field.amount();
}

std::optional<double> share_if_any(const Field& of, const char* key) {
  const Field field = of[key];
  if (field.is_null()) return std::nullopt;
  return field.share();
}

/// null, as a whole or for its median, is what could not be measured.
std::optional<Estimate> estimate(const Field& field, double (Field::*value)() const = &Field::amount) {
  if (field.is_null() || field["median"].is_null()) return std::nullopt;
  const auto read = [&](const char* key) { return (field[key].*value)(); };
  return Estimate{.median = read("median"),
                  .low = read("low"),
                  .high = read("high"),
                  .best = read("best"),
                  .worst = read("worst")};
}

/// How long they waited in the queue has fewer percentiles.
Latencies waits(const Field& field) {
  Latencies latencies;
  if (field.is_null()) return latencies;
  latencies.p50 = amount_if_any(field, "p50");
  latencies.p99 = amount_if_any(field, "p99");
  latencies.max = amount_if_any(field, "max");
  return latencies;
}

Latencies latencies_of(const Field& field) {
  Latencies latencies = waits(field);
  if (field.is_null()) return latencies;
  latencies.p90 = amount_if_any(field, "p90");
  latencies.p99_9 = amount_if_any(field, "p99_9");
  if (const Field unserved = field["unserved"]; !unserved.is_null()) latencies.unserved = unserved.count();
  field["lower_bounds"].each(kLowerBoundsMax,
                             [&](const Field& name) { latencies.lower_bounds.push_back(name.label()); });
  return latencies;
}

FateCounts fates_of(const Field& field) {
  FateCounts fates{};
  for (std::size_t i = 0; i < fates.size(); ++i) {
    const std::string name(kFateNames[i]);
    const bool is_new = name == "answered_otherwise";  // older runs have none
    if (is_new && !field.find(name.c_str())) continue;
    const Field clients = field[name.c_str()];
    if (!clients.is_null()) fates[i] = clients.count();
  }
  return fates;
}

std::optional<double> served_of(const FateCounts& fates) {
  return sum(fate(fates, "served_at_once"), fate(fates, "served_after_retransmit"));
}

/// In earlier documents 0 stands for the percentiles of nobody.
void forget_zeros_of_nobody(Latencies& latencies) {
  if (latencies.max.value_or(0) > 0) return;
  for (std::optional<double> Latencies::*percentile :
       {&Latencies::p50, &Latencies::p90, &Latencies::p99, &Latencies::p99_9, &Latencies::max})
    (latencies.*percentile).reset();
}

std::vector<double> bins(const Field& field, std::size_t count) {
  std::vector<double> clients;
  field.each(kBinsMax, [&](const Field& bin) { clients.push_back(bin.count()); });
  if (clients.size() != count) {
    throw RunDocumentError(
        fmt::format("{} has {} bins, where edges_s has {}", field.name(), clients.size(), count));
  }
  return clients;
}

std::vector<double> edges_of(const Field& field) {
  std::vector<double> edges;
  field.each(kBinsMax + 1, [&](const Field& edge) {
    if (!edges.empty() && edge.amount() <= edges.back()) edge.fail("above the one before it");
    edges.push_back(edge.amount());
  });
  if (edges.size() < 2) throw RunDocumentError(field.name() + " has no bin");
  return edges;
}

RowName row_name(const Field& field) {
  return {.server = field["server"].label(),
          .loop = field["loop"].label(),
          .backlog = field["backlog"].backlog()};
}

/// What earlier documents have as 0, although it was not measured.
void forget_zeros(const Field& field, Measured& row) {
  const auto is_of_nobody = [](const std::vector<double>& clients) {
    return std::ranges::all_of(clients, [](double count) { return count == 0; });
  };
  if (is_of_nobody(row.first_byte_clients) && is_of_nobody(row.unfinished_clients))
    forget_zeros_of_nobody(row.first_byte);
  const Field histograms = field["histograms"];
  if (const auto connect = histograms.find("connect")) {
    if (is_of_nobody(bins(*connect, row.first_byte_clients.size()))) forget_zeros_of_nobody(row.connect);
  }
  const auto& cpu = row.server_cpu_s_per_connection;
  if (cpu && cpu->largest() == 0) row.server_cpu_s_per_connection.reset();
}

Measured measured(const Field& field, std::size_t bin_count) {
  Measured row{.clients = field["clients"].count()};
  row.connections_per_second = estimate(field["connections_per_second"]);
  row.lost_first_syn = estimate(field["lost_first_syn"], &Field::share);
  if (const auto turned_away = field.find("turned_away")) {
    row.turned_away = estimate(*turned_away, &Field::share);
    if (const auto upper = turned_away->find("upper")) row.turned_away_upper = upper->share();
  }
  row.model_loss = share_if_any(field, "model_loss");
  row.fates = fates_of(field["fates"]);
  row.ghosts = estimate(field["ghosts"]);
  row.listen_overflows = estimate(field["listen_overflows"]);
  row.listen_drops = estimate(field["listen_drops"]);
  row.syn_retransmits = estimate(field["syn_retransmits"]);
  row.first_stall_drops = estimate(field["first_stall_drops"]);
  row.law = amount_if_any(field, "law");
  row.deepest_queue = estimate(field["deepest_queue"]);
  row.server_cpu_s_per_connection = estimate(field["server_cpu_s_per_connection"]);
  row.first_byte = latencies_of(field["first_byte_s"]);
  row.connect = latencies_of(field["connect_s"]);
  row.queue_wait = waits(field["queue_wait_s"]);
  const Field histograms = field["histograms"];
  row.first_byte_clients = bins(histograms["first_byte"], bin_count);
  row.unfinished_clients = bins(histograms["unfinished"], bin_count);
  if (const auto queue = field.find("queue_over_time")) {
    (*queue)["step_s"].amount();
    (*queue)["depth"].each(kStepsMax, [](const Field& depth) {
      if (!depth.is_null()) depth.count();
    });
  }
  forget_zeros(field, row);
  return row;
}

Row row_of(const Field& field, std::size_t bin_count) {
  Row row{.name = row_name(field), .runs = field["runs"].count(), .void_runs = field["void_runs"].count()};
  if (row.runs > 0) row.measured = measured(field, bin_count);
  return row;
}

/// Looked at, as the page shows them; nobody needs their values here.
void texts_if_any(const Field& of, const char* key) {
  if (const auto texts = of.find(key)) texts->each(kSentencesMax, [](const Field& text) { text.text(); });
}
void text_if_any(const Field& of, const char* key) {
  if (const auto text = of.find(key)) text->text();
}

void look_at_theory(const Field& model) {
  for (const char* key : {"server", "model"}) model[key].text();
  for (const char* key : {"predicted_loss", "measured_loss"}) share_if_any(model, key);
  if (const auto backlog = model.find("backlog")) backlog->backlog();
}

void look_at_comparison(const Field& comparison) {
  for (const char* key : {"server", "against", "metric", "verdict", "method"}) comparison[key].text();
  for (const char* key : {"ratio", "low", "high", "p", "p_holm"}) amount_if_any(comparison, key);
  comparison["backlog"].backlog();
  comparison["n"].count();
}

void look_at_advice(const Field& advice) {
  for (const char* key : {"reason", "dominant"}) text_if_any(advice, key);
  for (const char* key : {"loss_upper", "deepest_queue", "headroom", "predicted_depth", "upper_bound"}) {
    if (const auto number = advice.find(key)) number->number();
  }
  if (const auto limits = advice.find("limits")) {
    limits->each(kSentencesMax, [](const Field& limit) {
      for (const char* key : {"name", "command"}) text_if_any(limit, key);
      for (const char* key : {"now", "needed"}) limit[key].amount();
    });
  }
}

/// Of a trial that was cut short only the first fields are there.
Trial trial_of(const Field& field) {
  Trial trial{.name = row_name(field), .is_void = field["void"].yes()};
  const double clients = field["clients"].count();
  const auto share_of_clients = [&](const char* key) -> std::optional<double> {
    const auto lost = field.find(key);
    if (!lost || clients == 0) return std::nullopt;
    const double count = lost->count();
    if (count > clients) lost->fail(fmt::format("at most the trial's {} clients", clients));
    return count / clients;
  };
  trial.lost_first_syn = share_of_clients("lost_first_syn");
  trial.turned_away = share_of_clients("turned_away");
  texts_if_any(field, "problems");
  double served = 0;
  if (const auto field_of_fates = field.find("fates")) {
    const FateCounts fates = fates_of(*field_of_fates);
    served = served_of(fates).value_or(0);
    trial.ghosts = sum(fate(fates, "ghost_half_open"), fate(fates, "ghost_unknown"));
  }
  const auto cpu = field.find("server_cpu_s");
  const double cpu_s = cpu ? cpu->amount() : 0;
  if (cpu_s > 0 && served > 0) trial.server_cpu_s_per_connection = cpu_s / served;
  if (const auto rate = field.find("connections_per_second")) trial.connections_per_second = rate->amount();
  if (const auto depth = field.find("deepest_queue")) trial.deepest_queue = depth->amount();
  if (const auto latency = field.find("first_byte_s")) {
    const auto p99 = latency->find("p99");
    if (p99 && p99->amount() > 0) trial.first_byte_p99_s = p99->amount();  // 0 is of nobody, in older runs
  }
  return trial;
}

void add_condition(const Json& json, const std::string& name, std::vector<Condition>& conditions) {
  Condition& condition = conditions.emplace_back();
  condition.field = printable(name);
  condition.value = printable(json.is_string() ? json.get<std::string>() : dump(json));
  if (json.is_number() && std::isfinite(json.get<double>())) condition.number = json.get<double>();
}

/// Who was called, and how: a process has another pid after each restart, and may be given another backlog.
void add_target(const Json& target, std::vector<Condition>& conditions) {
  for (const char* key : {"name", "address", "request", "expect"}) {
    if (target.is_object() && target.contains(key))
      add_condition(target[key], fmt::format("target.{}", key), conditions);
  }
}

/// Every field of an object, but for those that are only words about the others.
void add_conditions(const Field& field, const std::string& prefix, std::vector<Condition>& conditions) {
  if (!field.json().is_object()) field.fail("an object");
  for (const auto& [key, value] : field.json().items()) {
    if (key == "in_words" || key == "why") continue;
    if (key == "sysctls") {
      add_conditions(Field(value, field.name() + ".sysctls"), "", conditions);
    } else {
      add_condition(value, prefix + key, conditions);
    }
  }
}

/// Whether this is of a tune; else it is of a compare or a swarm. `name` is what a refusal calls the
/// document.
bool is_tune(const Json& run, const std::string& name) {
  const auto schema = run.is_object() ? run.find("schema") : run.end();
  if (schema == run.end() || !schema->is_string()) {
    throw RunDocumentError(name + " is not a run of anteroom: no schema");
  }
  const auto& text = schema->get_ref<const std::string&>();
  if (text != kTuneSchema && text != kCompareSchema && text != kSwarmSchema) {
    throw RunDocumentError(fmt::format("{} has schema {}; this anteroom reads {}, {} and {}", name,
                                       printable(text, 60), kTuneSchema, kCompareSchema, kSwarmSchema));
  }
  return text == kTuneSchema;
}

/// How many bytes the UTF-8 character at the beginning has; 0 if there is none.
std::size_t character_at(std::string_view text) {
  const auto byte = static_cast<unsigned char>(text.front());
  const std::size_t length = byte < 0x80   ? 1
                             : byte < 0xc2 ? 0
                             : byte < 0xe0 ? 2
                             : byte < 0xf0 ? 3
                             : byte < 0xf5 ? 4
                                           : 0;
  if (text.size() < length) return 0;
  const bool is_whole = std::ranges::all_of(text.substr(1, length > 1 ? length - 1 : 0),
                                            [](char c) { return (c & 0xc0) == 0x80; });
  return is_whole ? length : 0;
}

/// U+0000 to U+001F, U+007F, and U+0080 to U+009F, which is ESC and its like in 8 bits.
bool is_control(std::string_view character) {
  const auto byte = static_cast<unsigned char>(character.front());
  if (character.size() == 1) return byte < 0x20 || byte == 0x7f;
  return byte == 0xc2 && static_cast<unsigned char>(character[1]) < 0xa0;
}

std::string last_words() { return std::system_category().message(errno); }

/// All of it.
std::string read_all(const std::string& path, const std::string& name) {
  const Fd opened(path == "-" ? -1 : ::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  const int descriptor = path == "-" ? STDIN_FILENO : opened.get();
  if (descriptor < 0) throw RunDocumentError(fmt::format("cannot read {}: {}", name, last_words()));
  std::string text;
  std::vector<char> part(std::size_t{64} << 10);
  for (;;) {
    const ssize_t count = ::read(descriptor, part.data(), part.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw RunDocumentError(fmt::format("cannot read {}: {}", name, last_words()));
    if (count == 0) return text;
    text.append(part.data(), static_cast<std::size_t>(count));
    if (text.size() > kDocumentBytesMax) {
      throw RunDocumentError(
          fmt::format("{} is too long for a run: more than {} MiB", name, kDocumentBytesMax >> 20));
    }
  }
}

/// "line 3, column 10", of the byte before which reading ended.
std::string place(std::string_view text, std::size_t byte) {
  const std::string_view read = text.substr(0, std::min(byte > 0 ? byte - 1 : 0, text.size()));
  const std::size_t line_start = read.rfind('\n');
  return fmt::format("line {}, column {}", std::ranges::count(read, '\n') + 1,
                     read.size() - (line_start == read.npos ? 0 : line_start + 1) + 1);
}

[[noreturn]] void refuse_count(const std::string& name, std::string_view of, std::size_t count,
                               std::string_view what, std::size_t most) {
  throw RunDocumentError(
      fmt::format("{}: {} has {} {}, more than the {} that we read", name, of, count, what, most));
}

/// Counts what a document has before it is parsed, which takes time and memory for each value. What is no
/// JSON is left to the parser to find.
class Counts {
 public:
  Counts(std::string_view text, const std::string& name) : text_(text), name_(name) {}

  /// Throws RunDocumentError.
  void check() {
    for (std::size_t i = 0; i < text_.size(); ++i) {
      switch (text_[i]) {
        case '"':
          i = end_of_string(i);
          break;
        case '{':
        case '[':
          begin(text_[i] == '{');
          break;
        case '}':
        case ']':
          if (containers_.empty()) return;
          end();
          break;
        case ',':
          if (!containers_.empty()) ++containers_.back().commas;
          if (++values_ > kValuesMax)
            refuse_count(name_, "the document", values_, "values or more", kValuesMax);
          break;
        default:
          break;
      }
    }
  }

 private:
  struct Container {
    bool is_object = false;
    std::size_t commas = 0;
    std::string_view key;  // of an object, the last string
  };

  std::size_t end_of_string(std::size_t begin) {
    std::size_t end = begin + 1;
    while (end < text_.size() && text_[end] != '"') end += text_[end] == '\\' ? 2 : 1;
    const bool is_in_root = containers_.size() == 1 && containers_.back().is_object;
    if (is_in_root) containers_.back().key = text_.substr(begin + 1, std::min(end, text_.size()) - begin - 1);
    return end;
  }

  void begin(bool is_object) {
    if (containers_.size() == kDepthMax)
      throw RunDocumentError(
          fmt::format("{} is not a run of anteroom: nested deeper than {}", name_, kDepthMax));
    containers_.push_back({.is_object = is_object, .commas = 0, .key = {}});
  }

  void end() {
    const Container ended = containers_.back();
    containers_.pop_back();
    const std::size_t count = ended.commas + 1;
    if (ended.is_object && count > kMembersMax)
      refuse_count(name_, "an object", count, "fields", kMembersMax);
    if (ended.is_object || containers_.size() != 1) return;
    const std::string_view key = containers_.back().key;
    if (key == "rows" && count > kRowsMax) refuse_count(name_, key, count, "elements", kRowsMax);
    if (key == "trials" && count > kTrialsMax) refuse_count(name_, key, count, "elements", kTrialsMax);
  }

  std::string_view text_;
  const std::string& name_;
  std::vector<Container> containers_;
  std::size_t values_ = 0;
};

Json parse(const std::string& text, const std::string& name) {
  if (text.empty()) throw RunDocumentError(name + " is empty");
  Counts(text, name).check();
  try {
    // Not with a callback: for each that ends, the parser then looks through all elements before it.
    return Json::parse(text);
  } catch (const Json::parse_error& error) {
    throw RunDocumentError(fmt::format("{} is no JSON: {}{}", name,
                                       error.byte > text.size() ? "it ends too early, at " : "",
                                       place(text, error.byte)));
  } catch (const Json::exception&) {  // 1e999
    throw RunDocumentError(name + " is no JSON: it has a number that is too large to be one");
  }
}

}  // namespace

bool Latencies::is_lower_bound(std::string_view name) const noexcept {
  return std::ranges::find(lower_bounds, name) != lower_bounds.end();
}

std::optional<double> fate(const FateCounts& fates, std::string_view name) noexcept {
  const auto* const found = std::ranges::find(kFateNames, name);
  if (found == kFateNames.end()) return std::nullopt;
  return fates[static_cast<std::size_t>(found - kFateNames.begin())];
}

std::optional<double> sum(const std::optional<double>& a, const std::optional<double>& b) noexcept {
  return a && b ? std::optional(*a + *b) : std::nullopt;
}

std::string name_of_file(const std::string& path) {
  return path == "-" ? "the standard input" : printable(path);
}

Json read_json(const std::string& path) {
  const std::string name = name_of_file(path);
  return parse(read_all(path, name), name);
}

Json read_run(const std::string& path) {
  const std::string name = name_of_file(path);
  Json run = read_json(path);
  is_tune(run, name);
  try {
    understand(run);
  } catch (const RunDocumentError& error) {
    throw RunDocumentError(fmt::format("{}: {}", name, error.what()));
  }
  return run;
}

RunDocument understand(const Json& run) {
  RunDocument document{.is_tune = is_tune(run, "the document"), .is_swarm = run["schema"] == kSwarmSchema};
  const Field field(run, "");
  if (const auto version = field.find("version")) document.version = printable(version->text());
  if (document.is_tune) {
    const Field recommended = field["recommended"];
    if (!recommended.is_null()) document.recommended = recommended.backlog();
    document.target_loss = share_if_any(field, "target_loss");
    if (const auto advice = field.find("advice")) {
      look_at_advice(*advice);
      if (const auto confirmed = advice->find("confirmed")) document.confirmed = confirmed->yes();
    }
  }
  if (const auto interrupted = field.find("interrupted")) document.interrupted = interrupted->yes();
  for (const char* key : {"started", "command"}) text_if_any(field, key);
  texts_if_any(field, "notes");
  if (const auto theory = field.find("theory")) theory->each(kRowsMax, look_at_theory);
  if (const auto comparisons = field.find("comparisons")) comparisons->each(kRowsMax, look_at_comparison);
  for (const std::string key : {"load", "machine", "network"}) {
    add_conditions(field[key.c_str()], key + '.', document.conditions);
  }
  if (const auto target = field.find("target")) add_target(target->json(), document.conditions);
  document.edges_s = edges_of(field["edges_s"]);
  const std::size_t bin_count = document.edges_s.size() - 1;
  field["rows"].each(kRowsMax, [&](const Field& row) { document.rows.push_back(row_of(row, bin_count)); });
  field["trials"].each(kTrialsMax, [&](const Field& trial) { document.trials.push_back(trial_of(trial)); });
  return document;
}

std::string printable(std::string_view text, std::size_t most) {
  std::string line;
  for (std::size_t i = 0; i < text.size();) {
    const std::size_t length = character_at(text.substr(i));
    const std::string_view character = text.substr(i, std::max<std::size_t>(length, 1));
    line += length == 0 || is_control(character) ? "?" : character;
    i += character.size();
  }
  if (line.size() <= most) return line;
  std::size_t end = most > 3 ? most - 3 : 0;
  while (end > 0 && (static_cast<unsigned char>(line[end]) & 0xc0) == 0x80) --end;  // not within a character
  return line.substr(0, end) + "...";
}

}  // namespace anteroom::tool
