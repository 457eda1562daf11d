#include "models/torchvision.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "layers/state.h"

namespace mgic {
namespace {

std::vector<std::string> split(const std::string& name) {
  std::vector<std::string> parts{""};
  for (char c : name)
    if (c == '.')
      parts.emplace_back();
    else
      parts.back() += c;
  return parts;
}

// "conv.weight" → "0.weight", "bn.bias" → "1.bias": a Sequential of a convolution and a norm, numbered from `first`.
std::string numbered(const std::vector<std::string>& parts, size_t at, int first = 0) {
  return fmt::format("{}.{}", first + (parts[at] == "bn" ? 1 : 0), parts[at + 1]);
}

// Names without a classifier; `parts` is the name, split.
std::string resnet_name(const std::vector<std::string>& parts) {
  if (parts[0] == "stem") return fmt::format("{}1.{}", parts[1], parts[2]);
  const std::string block = fmt::format("layer{}.{}", std::stoi(parts[1]) + 1, parts[2]);
  if (parts[3] == "shortcut") return fmt::format("{}.downsample.{}", block, numbered(parts, 4));
  return fmt::format("{}.{}.{}", block, parts[3], parts[4]);
}

class MobileNames {
 public:
  explicit MobileNames(const std::set<std::string>& all) : all_(all) {
    while (has(fmt::format("blocks.{}.project.conv.weight", blocks_))) ++blocks_;
  }

  std::string operator()(const std::vector<std::string>& parts) const {
    if (parts[0] == "stem") return "0." + numbered(parts, 1);
    if (parts[0] == "tail") return fmt::format("{}.{}", blocks_ + 1, numbered(parts, 1));
    const std::string& part = parts[2];
    const std::string ours = fmt::format("blocks.{}", parts[1]);
    // Numbered as they stand: expand (if any), depthwise, se (if any), project.
    int place = 0;
    if (part != "expand" && has(ours + ".expand.conv.weight")) ++place;
    if (part == "se" || part == "project") ++place;
    if (part == "project" && has(ours + ".se.fc1.weight")) ++place;
    const std::string theirs = fmt::format("{}.block.{}", std::stoi(parts[1]) + 1, place);
    if (part == "se") return fmt::format("{}.{}.{}", theirs, parts[3], parts[4]);
    return fmt::format("{}.{}", theirs, numbered(parts, 3));
  }

 private:
  bool has(const std::string& name) const { return all_.contains(name); }

  const std::set<std::string>& all_;
  int blocks_ = 0;
};

std::string deeplab_name(const std::vector<std::string>& p) {
  if (p[0] == "aspp" && p[1] == "branch") return fmt::format("classifier.0.convs.{}.{}", p[2], numbered(p, 3));
  // Behind the pyramid's convolutions stands the pooling: the pool itself, then convolution and norm.
  if (p[0] == "aspp" && p[1] == "pool") return fmt::format("classifier.0.convs.POOL.{}", numbered(p, 2, 1));
  if (p[0] == "aspp") return "classifier.0.project." + numbered(p, 2);
  if (p[0] == "head") return "classifier." + numbered(p, 1, 1);
  if (p[0] == "aux" && p[1] == "head") return "aux_classifier." + numbered(p, 2);
  if (p[0] == "aux") return "aux_classifier.4." + p[2];
  return "classifier.4." + p[1];
}

std::string lraspp_name(const std::vector<std::string>& p) {
  if (p[0] == "head" && p[1] == "cbr") return "classifier.cbr." + numbered(p, 2);
  if (p[0] == "head" && p[1] == "scale") return "classifier.scale.1." + p[2];
  if (p[0] == "head") return "classifier.low_classifier." + p[2];
  return "classifier.high_classifier." + p[1];
}

std::map<std::string, Tensor*> tensors_of(Module& module) {
  std::map<std::string, Tensor*> all;
  module.each_parameter([&](const std::string& name, Variable& p) { all[name] = &p.value(); });
  module.each_buffer([&](const std::string& name, Tensor& b) { all[name] = &b; });
  return all;
}

// A 1×1 convolution here is a linear layer there, or the other way about: in memory they are the same.
bool same_but_ones(const Shape& a, const Shape& b) {
  auto rest = [](const Shape& s) {
    std::vector<int64_t> sizes;
    for (int64_t n : s.sizes())
      if (n != 1) sizes.push_back(n);
    return sizes;
  };
  return rest(a) == rest(b);
}

}  // namespace

std::map<std::string, std::string> torchvision_names(const ModelSpec& spec, Module& module) {
  const Json& options = *spec.options;
  const bool segmentation = segments(spec);
  if (!segmentation && spec.type != "resnet" && spec.type != "mobilenet_v3") return {};
  const Json& body = segmentation ? options["backbone"] : options;
  const std::string network = body["type"].get<std::string>();
  if (body["block"]["type"] == "mgic" || body["stem"] != "imagenet") return {};

  // Names of the backbone as they are without the rest.
  const std::string backbone = "backbone.";
  std::set<std::string> inner;
  const auto all = tensors_of(module);
  size_t branches = 0;
  for (const auto& [name, tensor] : all) {
    if (!segmentation)
      inner.insert(name);
    else if (name.starts_with(backbone))
      inner.insert(name.substr(backbone.size()));
    else if (name.starts_with("aspp.branch.") && name.ends_with(".conv.weight"))
      ++branches;
  }
  const MobileNames mobile(inner);
  auto body_name = [&](const std::string& name) {
    const auto parts = split(name);
    if (network == "resnet") return parts[0] == "classifier" ? "fc." + parts[1] : resnet_name(parts);
    if (parts[0] == "head") return "classifier.0." + parts[1];
    if (parts[0] == "classifier") return "classifier.3." + parts[1];
    return (segmentation ? "" : "features.") + mobile(parts);
  };

  std::map<std::string, std::string> names;
  for (const auto& [name, tensor] : all) {
    if (!segmentation) {
      names[name] = body_name(name);
    } else if (name.starts_with(backbone)) {
      names[name] = backbone + body_name(name.substr(backbone.size()));
    } else {
      std::string theirs = spec.type == "lraspp" ? lraspp_name(split(name)) : deeplab_name(split(name));
      if (const size_t at = theirs.find("POOL"); at != std::string::npos)
        theirs.replace(at, 4, std::to_string(branches));
      names[name] = theirs;
    }
  }
  return names;
}

void load_weights(Module& module, const ModelSpec& spec, const std::map<std::string, Tensor>& tensors,
                  const std::string& source) {
  const auto ours = tensors_of(module);
  const auto names = torchvision_names(spec, module);
  const bool has_ours = std::ranges::any_of(ours, [&](const auto& entry) {
    return tensors.contains(entry.first) && !entry.first.starts_with("classifier.");  // a name of both
  });
  const bool has_theirs = std::ranges::any_of(names, [&](const auto& entry) { return tensors.contains(entry.second); });
  if (has_ours || !has_theirs) return load_state(module, tensors, source);

  std::map<std::string, Tensor> state = tensors;
  if (!ours.contains("aux.classifier.weight"))
    std::erase_if(state, [](const auto& entry) { return entry.first.starts_with("aux_classifier."); });
  std::map<std::string, Tensor> renamed;
  for (const auto& [name, theirs] : names) {
    auto node = state.extract(theirs);
    if (node.empty()) continue;
    const Shape& wanted = ours.at(name)->shape();
    const Tensor& t = node.mapped();
    renamed[name] = t.shape() != wanted && same_but_ones(t.shape(), wanted) ? t.reshape(wanted) : t;
  }
  renamed.merge(state);  // what is left is unexpected, under its own name
  load_state(module, renamed, source);
}

std::map<std::string, Tensor> torchvision_state(const ModelSpec& spec, Module& module) {
  const auto names = torchvision_names(spec, module);
  if (names.empty())
    fail_user(
        "torchvision has no such model: it has dense resnet, mobilenet_v3, deeplabv3 and lraspp with the stem "
        "\"imagenet\"");
  std::map<std::string, Tensor> state;
  for (const auto& [name, tensor] : state_of(module)) {
    const Shape& s = tensor.shape();
    const std::string& theirs = names.at(name);
    const bool excitation = name.ends_with(".se.fc1.weight") || name.ends_with(".se.fc2.weight");
    state[theirs] = excitation              ? tensor.reshape({s[0], 1, 1, s[1]})
                    : name == "head.weight" ? tensor.reshape({s[0], s[3]})
                                            : tensor;
  }
  return state;
}

}  // namespace mgic
