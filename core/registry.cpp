#include "core/registry.h"

#include <nlohmann/json.hpp>

namespace mgic {

int64_t option_or(const std::shared_ptr<const Json>& options, const char* key, int64_t otherwise) {
  if (!options) return otherwise;
  auto it = options->find(key);
  return it != options->end() && it->is_number_integer() ? it->get<int64_t>() : otherwise;
}

std::string option_text(const std::shared_ptr<const Json>& options, const char* key) {
  if (!options) return "";
  auto it = options->find(key);
  return it != options->end() && it->is_string() ? it->get<std::string>() : "";
}

std::shared_ptr<const Json> options_with_type(const std::string& type, const Json& options) {
  auto result = std::make_shared<Json>(Json::object());
  (*result)["type"] = type;
  for (const auto& [key, value] : options.items()) (*result)[key] = value;
  return result;
}

std::string type_of(Fields& fields, const std::string& kind, const std::vector<std::string>& choices) {
  if (!fields.readable()) return "";  // no object: that fault is reported already
  const size_t before = fields.fault_count();
  std::string type;
  Rule rule = one_of(choices).need();
  fields("type", type, fmt::format("the {}", kind), rule);
  if (fields.fault_count() == before) return type;
  fields.accept_all();  // without its type no key can be judged
  return "";
}

Json parse_json(std::string_view text) {
  try {
    return Json::parse(text);
  } catch (const Json::exception& e) {
    fail_user("this is not JSON: {}", e.what());
  }
}

void read_text(const std::string& text, const std::string& what, const std::function<void(Fields&)>& read) {
  const Json node = parse_json(text);
  Faults faults;
  Fields fields(node, "", faults);
  read(fields);
  fields.finish();
  faults.raise(what);
}

}  // namespace mgic
