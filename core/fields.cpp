#include "core/fields.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>

namespace mgic {
namespace {

std::string number(double v) {
  if (v == std::floor(v) && std::abs(v) < 1e15) return fmt::format("{}", static_cast<int64_t>(v));
  return fmt::format("{}", v);
}

int64_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<int64_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), int64_t{0});
  for (size_t i = 0; i < a.size(); ++i) {
    int64_t diagonal = row[0];
    row[0] = static_cast<int64_t>(i) + 1;
    for (size_t j = 0; j < b.size(); ++j) {
      const int64_t replaced = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({replaced, row[j] + 1, diagonal + 1});
    }
  }
  return row.back();
}

std::string kind_of(const Json& v) {
  if (v.is_null()) return "null";
  if (v.is_boolean()) return v.get<bool>() ? "true" : "false";
  if (v.is_number()) return v.dump();
  if (v.is_string()) return fmt::format("\"{}\"", v.get<std::string>());
  return v.is_array() ? "a list" : "an object";
}

// One value of JSON as T; the fault where it is none.
std::optional<std::string> take(const Json& v, bool& out) {
  if (!v.is_boolean()) return fmt::format("expects true or false, not {}", kind_of(v));
  out = v.get<bool>();
  return {};
}
std::optional<std::string> take(const Json& v, int64_t& out) {
  if (!v.is_number()) return fmt::format("expects an integer, not {}", kind_of(v));
  const double d = v.get<double>();
  if (d != std::floor(d) || std::abs(d) > 9e15) return fmt::format("expects an integer, not {}", v.dump());
  out = v.is_number_integer() ? v.get<int64_t>() : static_cast<int64_t>(d);
  return {};
}
std::optional<std::string> take(const Json& v, double& out) {
  if (!v.is_number()) return fmt::format("expects a number, not {}", kind_of(v));
  out = v.get<double>();
  if (!std::isfinite(out)) return fmt::format("expects a finite number, not {}", v.dump());
  return {};
}
std::optional<std::string> take(const Json& v, std::string& out) {
  if (!v.is_string()) return fmt::format("expects a string, not {}", kind_of(v));
  out = v.get<std::string>();
  return {};
}

std::optional<std::string> broken(double v, const Rule& rule) {
  const bool low = rule.above_min ? v <= rule.min : v < rule.min;
  if (low || v > rule.max) return fmt::format("must be {}, not {}", rule.range(), number(v));
  return {};
}
std::optional<std::string> broken(bool, const Rule&) { return {}; }
std::optional<std::string> broken(int64_t v, const Rule& rule) { return broken(static_cast<double>(v), rule); }
std::optional<std::string> broken(const std::string& v, const Rule& rule) {
  if (rule.choices.empty() || std::ranges::find(rule.choices, v) != rule.choices.end()) return {};
  return fmt::format("\"{}\" is not a choice; allowed are {}", v, fmt::join(rule.choices, ", "));
}

// The type that JSON holds for a field: that of an optional field is its value's.
template <class T>
struct Unwrapped {
  using type = T;
};
template <class T>
struct Unwrapped<std::optional<T>> {
  using type = T;
};

template <class T>
Json to_json(const T& v) {
  return Json(v);
}
template <class T>
Json to_json(const std::optional<T>& v) {
  return v ? Json(*v) : Json();
}

}  // namespace

std::string Rule::range() const {
  const bool low = std::isfinite(min), high = std::isfinite(max);
  if (low && high)
    return fmt::format("{} {} and at most {}", above_min ? "above" : "at least", number(min), number(max));
  if (low) return fmt::format("{} {}", above_min ? "above" : "at least", number(min));
  if (high) return fmt::format("at most {}", number(max));
  return "";
}

void Faults::raise(std::string_view file) const {
  if (list_.empty()) return;
  std::string text;
  for (const Fault& f : list_) {
    if (!text.empty()) text += '\n';
    text +=
        f.path.empty() ? fmt::format("{}: {}", file, f.message) : fmt::format("{}: {}: {}", file, f.path, f.message);
  }
  throw UserError(text);
}

std::string suggestion(std::string_view given, const std::vector<std::string>& candidates) {
  if (candidates.empty()) return "";
  auto nearest =
      std::ranges::min_element(candidates, {}, [&](const std::string& c) { return edit_distance(given, c); });
  const int64_t distance = edit_distance(given, *nearest);
  if (distance <= std::max<int64_t>(2, static_cast<int64_t>(given.size()) / 3))
    return fmt::format(", did you mean \"{}\"?", *nearest);
  return fmt::format("; valid are {}", fmt::join(candidates, ", "));
}

Fields::Fields(const Json& node, std::string path, Faults& faults)
    : node_(&node), path_(std::move(path)), faults_(&faults), resolved_(std::make_unique<Json>(Json::object())) {
  if (!node.is_object()) faults.add(path_, fmt::format("expects an object, not {}", kind_of(node)));
}

Fields::Fields(Schema& schema) : schema_(&schema), resolved_(std::make_unique<Json>(Json::object())) {}

Fields::~Fields() = default;

std::string Fields::path_of(std::string_view key) const {
  if (key.empty()) return path_;
  return path_.empty() ? std::string(key) : fmt::format("{}.{}", path_, key);
}

const Json* Fields::find(std::string_view key) const {
  if (node_ == nullptr || !node_->is_object()) return nullptr;
  auto it = node_->find(std::string(key));
  return it == node_->end() ? nullptr : &*it;
}

bool Fields::is_string(const Json& node) { return node.is_string(); }
bool Fields::has(std::string_view key) const { return find(key) != nullptr; }
bool Fields::readable() const { return node_ == nullptr || node_->is_object(); }
size_t Fields::fault_count() const { return faults_ == nullptr ? 0 : faults_->size(); }

void Fields::fault(std::string_view key, std::string message) {
  if (faults_ != nullptr) faults_->add(path_of(key), std::move(message));
}

void Fields::accept(std::string_view key) {
  known_.emplace_back(key);
  if (const Json* v = find(key)) (*resolved_)[std::string(key)] = *v;
}

void Fields::accept_all() {
  if (reading() && node_->is_object())
    for (const auto& [key, value] : node_->items()) accept(key);
}

template <class T>
void Fields::read(std::string_view key, T& value, std::string_view type, std::string_view doc, const Rule& rule) {
  known_.emplace_back(key);
  if (schema_ != nullptr) {
    std::string range = rule.choices.empty() ? rule.range() : fmt::format("{}", fmt::join(rule.choices, " | "));
    schema_->push_back({std::string(key), std::string(type), rule.required ? "required" : to_json(value).dump(), range,
                        std::string(doc)});
    return;
  }
  const Json* node = find(key);
  if (node == nullptr) {
    if (rule.required && readable()) fault(key, fmt::format("is missing; it is {}", doc));
  } else if constexpr (std::is_same_v<T, std::vector<int64_t>> || std::is_same_v<T, std::vector<double>>) {
    using Element = typename T::value_type;
    if (!node->is_array()) {
      fault(key, fmt::format("expects a list of {}, not {}", std::is_same_v<Element, double> ? "numbers" : "integers",
                             kind_of(*node)));
    } else {
      value.clear();
      for (size_t i = 0; i < node->size(); ++i) {
        Element v = 0;
        auto wrong = take((*node)[i], v);
        if (!wrong) wrong = broken(v, rule);
        if (wrong) fault(fmt::format("{}[{}]", key, i), *wrong);
        value.push_back(v);
      }
    }
  } else {
    typename Unwrapped<T>::type v{};
    auto wrong = take(*node, v);
    if (!wrong) wrong = broken(v, rule);
    if (wrong)
      fault(key, *wrong);
    else
      value = v;
  }
  (*resolved_)[std::string(key)] = to_json(value);
  if ((*resolved_)[std::string(key)].is_null()) resolved_->erase(std::string(key));
}

void Fields::operator()(std::string_view key, bool& value, std::string_view doc, const Rule& rule) {
  read(key, value, "boolean", doc, rule);
}
void Fields::operator()(std::string_view key, int64_t& value, std::string_view doc, const Rule& rule) {
  read(key, value, "integer", doc, rule);
}
void Fields::operator()(std::string_view key, double& value, std::string_view doc, const Rule& rule) {
  read(key, value, "number", doc, rule);
}
void Fields::operator()(std::string_view key, std::string& value, std::string_view doc, const Rule& rule) {
  read(key, value, "string", doc, rule);
}
void Fields::operator()(std::string_view key, std::vector<int64_t>& value, std::string_view doc, const Rule& rule) {
  read(key, value, "list of integers", doc, rule);
}
void Fields::operator()(std::string_view key, std::vector<double>& value, std::string_view doc, const Rule& rule) {
  read(key, value, "list of numbers", doc, rule);
}
void Fields::operator()(std::string_view key, std::optional<bool>& value, std::string_view doc, const Rule& rule) {
  read(key, value, "boolean", doc, rule);
}
void Fields::operator()(std::string_view key, std::optional<int64_t>& value, std::string_view doc, const Rule& rule) {
  read(key, value, "integer", doc, rule);
}

std::unique_ptr<Fields> Fields::enter(std::string_view key, std::string_view doc, const Rule& rule,
                                      const std::vector<std::string>& choices) {
  known_.emplace_back(key);
  if (schema_ != nullptr) {
    schema_->push_back({std::string(key), "object", rule.required ? "required" : "",
                        fmt::format("{}", fmt::join(choices, " | ")), std::string(doc)});
    return nullptr;
  }
  static const Json nothing = Json::object();
  const Json* node = find(key);
  if (node == nullptr) {
    if (rule.required && readable()) fault(key, fmt::format("is missing; it is {}", doc));
    if (rule.required || !choices.empty()) return nullptr;
    node = &nothing;  // a struct's defaults
  }
  return std::make_unique<Fields>(*node, path_of(key), *faults_);
}

void Fields::leave(std::string_view key, Fields& nested) {
  nested.finish();
  (*resolved_)[std::string(key)] = nested.resolved();
}

void Fields::lift(std::string_view key) {
  const auto found = resolved_->find(std::string(key));
  if (found == resolved_->end() || !found->contains("type")) return;
  const Json object = *found;
  for (const auto& [name, value] : object.items())
    if (name != "type" && std::ranges::find(known_, name) != known_.end()) return;
  (*resolved_)[std::string(key)] = object["type"];
  for (const auto& [name, value] : object.items())
    if (name != "type") (*resolved_)[name] = value;
}

size_t Fields::enter_list(std::string_view key, std::string_view doc, const Rule& rule,
                          const std::vector<std::string>& choices) {
  known_.emplace_back(key);
  if (schema_ != nullptr) {
    schema_->push_back({std::string(key), "list of objects", rule.required ? "required" : "[]",
                        fmt::format("{}", fmt::join(choices, " | ")), std::string(doc)});
    return 0;
  }
  (*resolved_)[std::string(key)] = Json::array();
  const Json* node = find(key);
  if (node == nullptr) {
    if (rule.required && readable()) fault(key, fmt::format("is missing; it is {}", doc));
    return 0;
  }
  if (!node->is_array()) {
    fault(key, fmt::format("expects a list, not {}", kind_of(*node)));
    return 0;
  }
  return node->size();
}

std::unique_ptr<Fields> Fields::element(std::string_view key, size_t i) {
  return std::make_unique<Fields>((*find(key))[i], fmt::format("{}[{}]", path_of(key), i), *faults_);
}

void Fields::leave_element(std::string_view key, Fields& nested) {
  nested.finish();
  (*resolved_)[std::string(key)].push_back(nested.resolved());
}

void Fields::finish() {
  if (!reading() || !node_->is_object()) return;
  std::vector<std::string> valid;
  for (const std::string& k : known_)
    if (std::ranges::find(valid, k) == valid.end()) valid.push_back(k);
  for (const auto& [key, value] : node_->items())
    if (std::ranges::find(valid, key) == valid.end()) fault(key, fmt::format("unknown key{}", suggestion(key, valid)));
}

}  // namespace mgic
