// Typed JSON reading: options structs name their fields once, and that one list reads them, checks them and documents
// them.
//
//   struct PoolOptions {
//     int64_t kernel = 2;
//     void fields(Fields& f) { f("kernel", kernel, "pixels a side of the window", at_least(1)); }
//   };
//
// In reading mode every fault is collected with its path, never only the first; in describing mode the same calls
// yield the schema: key, type, default, range and one line of documentation.
#pragma once

#include <fmt/core.h>

#include <cstdint>
#include <limits>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "core/error.h"

namespace mgic {

using Json = nlohmann::ordered_json;

// What a value must keep. A list's values each keep the range.
struct Rule {
  double min = -std::numeric_limits<double>::infinity();
  double max = std::numeric_limits<double>::infinity();
  bool above_min = false;  // min itself is excluded
  std::vector<std::string> choices;
  bool required = false;

  Rule need() const {
    Rule r = *this;
    r.required = true;
    return r;
  }
  std::string range() const;  // "at least 1", "" where there is none
};
inline Rule any() { return {}; }
inline Rule at_least(double min) { return {.min = min, .choices = {}}; }
inline Rule above(double min) { return {.min = min, .above_min = true, .choices = {}}; }
inline Rule between(double min, double max) { return {.min = min, .max = max, .choices = {}}; }
inline Rule one_of(std::vector<std::string> choices) { return {.choices = std::move(choices)}; }

constexpr double max_count = 1e6;  // upper bound of counts such as classes and channels

// One key of an options struct, as `mgic describe` shows it.
struct SchemaEntry {
  std::string key, type, default_value, range, doc;
};
using Schema = std::vector<SchemaEntry>;

// Everything that is wrong with a configuration.
class Faults {
 public:
  void add(std::string path, std::string message) { list_.push_back({std::move(path), std::move(message)}); }
  bool empty() const { return list_.empty(); }
  size_t size() const { return list_.size(); }
  // Throws a UserError with one line "FILE: PATH: MESSAGE" a fault; does nothing where there is none.
  void raise(std::string_view file) const;

 private:
  struct Fault {
    std::string path, message;
  };
  std::vector<Fault> list_;
};

// The nearest of the candidates, as `, did you mean "x"?`; else `; valid are a, b, c`.
std::string suggestion(std::string_view given, const std::vector<std::string>& candidates);

class Fields {
 public:
  // Reading from `node` (an object, else that is a fault), whose place in the file is `path`.
  Fields(const Json& node, std::string path, Faults& faults);
  // Describing.
  explicit Fields(Schema& schema);
  ~Fields();
  Fields(const Fields&) = delete;
  Fields& operator=(const Fields&) = delete;

  bool reading() const { return node_ != nullptr; }

  void operator()(std::string_view key, bool& value, std::string_view doc, const Rule& rule = {});
  void operator()(std::string_view key, int64_t& value, std::string_view doc, const Rule& rule = {});
  void operator()(std::string_view key, double& value, std::string_view doc, const Rule& rule = {});
  void operator()(std::string_view key, std::string& value, std::string_view doc, const Rule& rule = {});
  void operator()(std::string_view key, std::vector<int64_t>& value, std::string_view doc, const Rule& rule = {});
  void operator()(std::string_view key, std::vector<double>& value, std::string_view doc, const Rule& rule = {});
  void operator()(std::string_view key, std::optional<bool>& value, std::string_view doc, const Rule& rule = {});
  void operator()(std::string_view key, std::optional<int64_t>& value, std::string_view doc, const Rule& rule = {});

  // A nested options struct.
  template <class Options>
  requires requires(Options o, Fields& f) { o.fields(f); }
  void operator()(std::string_view key, Options& value, std::string_view doc, const Rule& rule = {}) {
    if (auto nested = enter(key, doc, rule)) {
      value.fields(*nested);
      leave(key, *nested);
    }
  }

  // A list of options structs; elements are at key[0], key[1], …
  template <class Options>
  requires requires(Options o, Fields& f) { o.fields(f); }
  void operator()(std::string_view key, std::vector<Options>& values, std::string_view doc, const Rule& rule = {}) {
    const size_t n = enter_list(key, doc, rule, {});
    for (size_t i = 0; i < n; ++i) {
      auto nested = element(key, i);
      values.emplace_back().fields(*nested);
      leave_element(key, *nested);
    }
  }

  // A named choice with its options: a Spec read from a Registry (core/registry.h). `beside` reads the choice's name
  // from a string and its options from the keys of this same object; an object {"type": …} is taken too, and resolved
  // to the same form where its keys are free here.
  template <class Spec, class Registry>
  void spec(std::string_view key, Spec& value, const Registry& registry, std::string_view doc, const Rule& rule = {}) {
    if (auto nested = enter(key, doc, rule, registry.names())) {
      registry.read(*nested, value);
      leave(key, *nested);
    }
  }
  template <class Spec, class Registry>
  void spec_beside(std::string_view key, Spec& value, const Registry& registry, std::string_view doc) {
    if (const Json* child = find(key); child != nullptr && !is_string(*child)) {
      spec(key, value, registry, doc);
      return lift(key);
    }
    std::string type = value.type;
    (*this)(key, type, doc, one_of(registry.names()));
    if (!reading()) return;
    if (registry.has(type))
      registry.read_named(type, *this, value);
    else
      accept_all();  // without its choice no option can be judged
  }
  // A list of choices; elements are at key[0], key[1], …
  template <class Spec, class Registry>
  void specs(std::string_view key, std::vector<Spec>& values, const Registry& registry, std::string_view doc,
             const Rule& rule = {}) {
    const size_t n = enter_list(key, doc, rule, registry.names());
    for (size_t i = 0; i < n; ++i) {
      auto nested = element(key, i);
      registry.read(*nested, values.emplace_back());
      leave_element(key, *nested);
    }
  }

  // A rule over several keys; the fault is reported at `key`. Holds trivially while describing.
  template <class... Args>
  bool check(bool holds, std::string_view key, fmt::format_string<Args...> format, Args&&... args) {
    if (reading() && !holds) fault(key, fmt::format(format, std::forward<Args>(args)...));
    return !reading() || holds;
  }
  void fault(std::string_view key, std::string message);

  bool readable() const;                 // false where an object was expected and something else stands
  bool has(std::string_view key) const;  // the file names this key
  size_t fault_count() const;            // of the whole file, so far
  // Reports every key that nobody asked for. Called once, after the last field.
  void finish();
  const Json& resolved() const { return *resolved_; }  // the values as read, defaults filled in
  std::string path_of(std::string_view key) const;
  // Makes a key acceptable (and copies it to resolved) without reading it here.
  void accept(std::string_view key);
  void accept_all();

 private:
  template <class T>
  void read(std::string_view key, T& value, std::string_view type, std::string_view doc, const Rule& rule);
  const Json* find(std::string_view key) const;
  static bool is_string(const Json& node);
  std::unique_ptr<Fields> enter(std::string_view key, std::string_view doc, const Rule& rule,
                                const std::vector<std::string>& choices = {});
  void leave(std::string_view key, Fields& nested);
  size_t enter_list(std::string_view key, std::string_view doc, const Rule& rule,
                    const std::vector<std::string>& choices);
  void lift(std::string_view key);
  std::unique_ptr<Fields> element(std::string_view key, size_t i);
  void leave_element(std::string_view key, Fields& nested);

  const Json* node_ = nullptr;
  std::string path_;
  Faults* faults_ = nullptr;
  Schema* schema_ = nullptr;
  std::unique_ptr<Json> resolved_;
  std::vector<std::string> known_;
};

// Reads a whole options struct; faults are collected.
template <class Options>
void read_options(const Json& node, const std::string& path, Faults& faults, Options& options) {
  Fields f(node, path, faults);
  options.fields(f);
  f.finish();
}

template <class Options>
Schema schema_of() {
  Schema schema;
  Fields f(schema);
  Options options;
  options.fields(f);
  return schema;
}

}  // namespace mgic
