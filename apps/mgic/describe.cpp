#include <algorithm>
#include <functional>

#include "apps/mgic/commands.h"
#include "models/blocks.h"
#include "models/mobilenet_v3.h"
#include "models/point_blocks.h"
#include "train/reports.h"

namespace mgic::cli {
namespace {

// One kind of named choices, as `list` and `describe` show it.
struct Kind {
  std::string name, what;
  std::vector<std::string> choices;
  std::function<std::string(const std::string&)> doc;
  std::function<Schema(const std::string&)> schema;
};

template <class R>
Kind kind(std::string name, std::string what, const R& registry) {
  return {std::move(name), std::move(what), registry.names(), [&](const std::string& n) { return registry.doc(n); },
          [&](const std::string& n) { return registry.schema(n); }};
}

std::vector<Kind> kinds() {
  std::vector<Kind> all{
      kind("models", "networks: \"model\": {\"type\": …}", model_registry()),
      kind("blocks", "of a ResNet's stages: \"model\": {\"block\": {\"type\": …}}", block_registry()),
      kind("mobile_blocks", "of a mobilenet_v3: \"model\": {\"block\": {\"type\": …}}", mobile_block_registry()),
      kind("point_blocks", "of a pointnet or dgcnn: \"model\": {\"block\": {\"type\": …}}", point_block_registry()),
      kind("backbones", "of a deeplabv3 or lraspp: \"model\": {\"backbone\": {\"type\": …}}", backbone_registry()),
      kind("layers", "of a sequential model: \"layers\": [{\"type\": …}]", layer_registry()),
      kind("smoothers", "layers made for \"smoother\"; any layer that keeps its shape will do", layer_registry()),
      kind("data", "data sets: \"data\": {\"type\": …}", data_registry()),
      kind("augmentations", "of training samples: \"data\": {\"augment\": [{\"type\": …}]}", transform_registry()),
      kind("losses", "\"loss\": {\"type\": …}", loss_registry()),
      kind("optimizers", "\"optimizer\": {\"type\": …}", optimizer_registry()),
      kind("schedules", "of the learning rate: \"schedule\": {\"type\": …}", schedule_registry()),
  };
  auto smoothers = std::ranges::find(all, "smoothers", &Kind::name);
  std::erase_if(smoothers->choices, [&](const std::string& n) { return !smoothers->doc(n).starts_with("smoother"); });
  // The parts of a configuration that have one form.
  const std::vector<std::pair<std::string, Schema>> parts{{"experiment", schema_of<ExperimentOptions>()},
                                                          {"data", schema_of<DataOptions>()},
                                                          {"train", schema_of<TrainOptions>()},
                                                          {"checkpoint_every", schema_of<CheckpointEvery>()}};
  Kind sections{"sections",
                "of an experiment file, and their own keys",
                {},
                [](const std::string&) { return ""; },
                [parts](const std::string& n) {
                  return std::ranges::find(parts, n, &std::pair<std::string, Schema>::first)->second;
                }};
  for (const auto& part : parts) sections.choices.push_back(part.first);
  all.push_back(std::move(sections));
  return all;
}

const Kind& find_kind(const std::vector<Kind>& all, const std::string& name) {
  std::vector<std::string> names;
  for (const Kind& k : all) {
    // "layer" is as good as "layers".
    if (k.name == name || k.name == name + "s" || k.name == name + "es") return k;
    names.push_back(k.name);
  }
  fail_user("there is nothing called \"{}\" to list{}", name, suggestion(name, names));
}

}  // namespace

void add_list(CLI::App& app, Run& run) {
  auto what = std::make_shared<std::string>();
  CLI::App* command = app.add_subcommand("list", "what a configuration can name: models, layers, data, …");
  command->add_option("WHAT", *what,
                      "models, blocks, layers, smoothers, data, augmentations, optimizers, schedules, sections");
  command->callback([what, &run] {
    run = [what] {
      const std::vector<Kind> all = kinds();
      std::vector<std::vector<std::string>> rows;
      if (what->empty()) {
        for (const Kind& k : all) rows.push_back({k.name, k.what});
      } else {
        const Kind& k = find_kind(all, *what);
        for (const std::string& name : k.choices) rows.push_back({name, k.doc(name)});
      }
      fmt::print("{}", format_list(rows));
      return success;
    };
  });
}

void add_describe(CLI::App& app, Run& run) {
  struct Options {
    std::string what, name;
    bool json = false;
  };
  auto o = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("describe", "the keys of one choice: type, default, range, meaning");
  command->add_option("WHAT", o->what, "a kind that `list` shows")->required();
  command->add_option("NAME", o->name, "one of its names")->required();
  command->add_flag("--json", o->json, "prints one JSON object");
  command->callback([o, &run] {
    run = [o] {
      const std::vector<Kind> all = kinds();
      const Kind& k = find_kind(all, o->what);
      if (std::ranges::find(k.choices, o->name) == k.choices.end())
        fail_user("there is no \"{}\" among the {}{}", o->name, k.name, suggestion(o->name, k.choices));
      const Schema schema = k.schema(o->name);
      fmt::print("{}", o->json ? schema_json(o->name, k.doc(o->name), schema) + "\n"
                               : schema_text(o->name, k.doc(o->name), schema));
      return success;
    };
  });
}

}  // namespace mgic::cli
