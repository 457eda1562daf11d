// Registry<T, Context>: the named choices of one kind (layers, blocks, models, data sets, …).
//
// An entry is a name, a line of documentation, an options struct (core/fields.h) and a function that makes the thing
// from options and context. Reading a choice from JSON gives a Spec: everything but the context is settled and checked,
// so that all faults of a file are known before anything is built.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/fields.h"

namespace mgic {

template <class T, class Context>
struct Spec {
  std::string type;
  std::shared_ptr<const Json> options;  // as read, defaults filled in, "type" included
  std::function<std::unique_ptr<T>(const Context&)> make;
};

// An integer among a Spec's options, or `otherwise` where the choice has none of that name.
int64_t option_or(const std::shared_ptr<const Json>& options, const char* key, int64_t otherwise);
std::string option_text(const std::shared_ptr<const Json>& options, const char* key);  // "" where there is none
std::shared_ptr<const Json> options_with_type(const std::string& type, const Json& options);
std::string type_of(Fields& fields, const std::string& kind,
                    const std::vector<std::string>& choices);  // "" after reporting the fault
Json parse_json(std::string_view text);                        // throws UserError

template <class T, class Context>
class Registry {
 public:
  using Product = T;
  using SpecType = Spec<T, Context>;

  explicit Registry(std::string kind) : kind_(std::move(kind)) {}

  template <class Options>
  void add(const std::string& name, const std::string& doc,
           std::unique_ptr<T> (*make)(const Options&, const Context&)) {
    check(!has(name), "{} \"{}\" is registered already", kind_, name);
    names_.push_back(name);
    entries_[name] = {doc, schema_of<Options>, [make](Fields& fields) {
                        Options options;
                        options.fields(fields);
                        return [options, make](const Context& context) { return make(options, context); };
                      }};
  }

  bool has(const std::string& name) const { return entries_.contains(name); }
  const std::string& kind() const { return kind_; }
  const std::vector<std::string>& names() const { return names_; }  // in the order of registration
  const std::string& doc(const std::string& name) const { return entry(name).doc; }
  Schema schema(const std::string& name) const { return entry(name).schema(); }

  // Reads {"type": NAME, …options} from the fields of that object.
  void read(Fields& fields, SpecType& spec) const {
    const std::string type = type_of(fields, kind_, names_);
    if (!type.empty()) read_named(type, fields, spec);
  }
  // Reads only the options of the entry `type`. The spec's options are all that `fields` has read so far: read what
  // does not belong to the choice behind it.
  void read_named(const std::string& type, Fields& fields, SpecType& spec) const {
    spec.type = type;
    spec.make = entry(type).read(fields);
    spec.options = options_with_type(type, fields.resolved());
  }
  // From JSON text, for C++ callers and tests; throws UserError with all faults.
  SpecType parse(const std::string& text) const;

 private:
  struct Entry {
    std::string doc;
    Schema (*schema)();
    std::function<std::function<std::unique_ptr<T>(const Context&)>(Fields&)> read;
  };
  const Entry& entry(const std::string& name) const {
    auto it = entries_.find(name);
    if (it == entries_.end()) fail_user("there is no {} \"{}\"{}", kind_, name, suggestion(name, names_));
    return it->second;
  }

  std::string kind_;
  std::vector<std::string> names_;
  std::map<std::string, Entry> entries_;
};

// Reads one JSON object with `read(Fields&)`; used by parse() so that json.hpp stays out of this header.
void read_text(const std::string& text, const std::string& what, const std::function<void(Fields&)>& read);

template <class T, class Context>
typename Registry<T, Context>::SpecType Registry<T, Context>::parse(const std::string& text) const {
  SpecType spec;
  read_text(text, kind_, [&](Fields& fields) { read(fields, spec); });
  return spec;
}

}  // namespace mgic
