#include "train/config.h"

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>

#include "core/file.h"

namespace mgic {
namespace {

// ---- Inheritance ----

// Objects are merged key by key, so that a file changes only what it names; a new "type" begins its object afresh.
void merge(Json& base, const Json& over) {
  if (!base.is_object() || !over.is_object()) {
    base = over;
    return;
  }
  if (over.contains("type") && base.contains("type") && over["type"] != base["type"]) {
    base = over;
    return;
  }
  for (const auto& [key, value] : over.items()) {
    if (base.contains(key))
      merge(base[key], value);
    else
      base[key] = value;
  }
}

Json parse_file_text(const std::string& text, const std::string& file) {
  try {
    return Json::parse(text, nullptr, true, true);  // comments are welcome
  } catch (const Json::exception& e) {
    // Without the exception's number, and without a quotation of bytes that may be no text at all.
    std::string what = e.what();
    if (const size_t at = what.find("] "); at != std::string::npos) what.erase(0, at + 2);
    fail_user("{}: is not JSON: {}", file, what.substr(0, what.find("; last read")));
  }
}

Json read_with_base(const std::filesystem::path& file, std::vector<std::filesystem::path> above) {
  const auto canonical = std::filesystem::weakly_canonical(file);
  if (std::ranges::find(above, canonical) != above.end())
    fail_user("{}: _base_: inherits from itself; remove one of the links", file.string());
  above.push_back(canonical);
  Json json = parse_file_text(read_file(file), file.string());
  if (!json.is_object() || !json.contains("_base_")) return json;
  if (!json["_base_"].is_string()) fail_user("{}: _base_: expects the name of a file", file.string());
  Json base = read_with_base(file.parent_path() / json["_base_"].get<std::string>(), above);
  json.erase("_base_");
  merge(base, json);
  return base;
}

// ---- Overrides ----

struct Step {
  std::string key;
  int64_t index = -1;  // at least 0: a list element
};

std::vector<Step> parse_path(const std::string& path, const std::string& whole) {
  std::vector<Step> steps;
  size_t at = 0;
  while (at < path.size()) {
    if (path[at] == '[') {
      const size_t end = path.find(']', at);
      Step step;
      const char* first = path.data() + at + 1;
      const char* last = end == std::string::npos ? first : path.data() + end;
      if (auto r = std::from_chars(first, last, step.index); r.ec != std::errc() || r.ptr != last || step.index < 0)
        fail_user("--set {}: \"[\" needs a list index and \"]\"", whole);
      steps.push_back(step);
      at = end + 1;
      if (at < path.size() && path[at] == '.') ++at;
      continue;
    }
    const size_t end = std::min(path.find_first_of(".[", at), path.size());
    if (end == at) fail_user("--set {}: the path has an empty key", whole);
    steps.push_back({path.substr(at, end - at)});
    at = end + (end < path.size() && path[end] == '.' ? 1 : 0);
  }
  if (steps.empty()) fail_user("--set {}: expects KEY=VALUE, for example optimizer.lr=0.05", whole);
  return steps;
}

void apply_override(Json& json, const std::string& text) {
  const size_t equals = text.find('=');
  if (equals == std::string::npos || equals == 0)
    fail_user("--set {}: expects KEY=VALUE, for example optimizer.lr=0.05", text);
  const std::string value_text = text.substr(equals + 1);
  Json value = Json::parse(value_text, nullptr, false);
  if (value.is_discarded()) value = value_text;
  try {
    (void)value.dump();
  } catch (const Json::exception&) {
    fail_user("--set {}: the value is not UTF-8 text", text.substr(0, equals));
  }
  Json* node = &json;
  for (const Step& step : parse_path(text.substr(0, equals), text)) {
    if (step.index >= 0) {
      if (!node->is_array() || step.index >= static_cast<int64_t>(node->size()))
        fail_user("--set {}: there is no list element [{}] here", text, step.index);
      node = &(*node)[static_cast<size_t>(step.index)];
    } else {
      if (node->is_null()) *node = Json::object();
      if (!node->is_object()) fail_user("--set {}: \"{}\" is looked for in a value that is no object", text, step.key);
      node = &(*node)[step.key];
    }
  }
  *node = value;
}

Experiment read_json(Json json, const std::string& file, const Overrides& overrides, const Needs& needs) {
  for (const std::string& o : overrides) apply_override(json, o);
  Experiment experiment{file, {}, nullptr};
  Faults faults;
  Fields fields(json, "", faults);
  experiment.options.fields(fields);
  fields.finish();
  const ExperimentOptions& o = experiment.options;
  if (needs.model && !fields.has("model")) faults.add("model", "is missing; it is the network, for example a resnet");
  if (needs.data && !fields.has("data")) faults.add("data", "is missing; it is the data set, for example shapes");
  if (needs.optimizer && !fields.has("optimizer")) faults.add("optimizer", "is missing; it is sgd or adamw");
  if (o.evaluation.slides() && o.model.make != nullptr && !segments(o.model))
    faults.add("evaluation.window", fmt::format("is for segmentation, and the model is a {}", o.model.type));
  if (o.model.make != nullptr && o.has_data())
    if (const auto declared = declared_data(o.data.source))
      check_against_data(experiment, declared->shape, declared->classes, faults);
  // A network that cannot be built is a fault of the file too; building it on meta costs no memory.
  if (o.model.make != nullptr && faults.empty()) {
    try {
      build_model(experiment, sample_shape(experiment));
    } catch (const Error& e) {
      faults.add("model", e.what());
    }
    try {
      make_loss(o.loss, o.model);
    } catch (const UserError& e) {
      faults.add("loss", e.what());
    }
  }
  faults.raise(file);
  experiment.resolved = std::make_shared<Json>(fields.resolved());
  return experiment;
}

}  // namespace

void CheckpointEvery::fields(Fields& f) {
  f("epochs", epochs, "a checkpoint each so many epochs; 1 where nothing is said", between(1, max_count));
  f("steps", steps, "or each so many steps", between(1, 1e12));
  f("minutes", minutes, "or each so many minutes", between(0, 1e6));
  f.check((epochs ? 1 : 0) + (steps ? 1 : 0) + (minutes > 0 ? 1 : 0) <= 1, "",
          "takes only one of epochs, steps and minutes");
}

void TrainOptions::fields(Fields& f) {
  f("epochs", epochs, "passes over the training part", between(1, max_count));
  f("precision", precision, "of activations and gradients", one_of({"f32", "bf16"}));
  f("checkpoint_every", checkpoint_every, "when the state is saved");
  f("log_seconds", log_seconds, "seconds between progress lines where there is no terminal", above(0));
}

void ExperimentOptions::fields(Fields& f) {
  f("name", name, "names the run folder; default: the file's name");
  f("seed", seed, "of every random stream", between(0, 9e15));
  f("device", device, "where it runs", one_of({"auto", "cpu", "reference", "cuda"}));
  if (f.has("layer")) {
    struct Bare {
      LayerSpec& spec;
      int64_t& channels;
      void fields(Fields& g) {
        g("channels", channels, "the layer's width w_0", between(1, max_count).need());
        layer_registry().read(g, spec);
      }
    } bare{layer, layer_channels};
    f("layer", bare, "a bare layer instead of a model");
  }
  f.spec("model", model, model_registry(), "the network");
  if (f.has("data") || !f.reading())
    f("data", data, "the data set and its batches");
  else
    f.accept("data");
  f.spec("loss", loss, loss_registry(), "what training minimises; default: cross_entropy, or mse of images");
  f.spec("optimizer", optimizer, optimizer_registry(), "how the weights follow the gradients");
  f.spec("schedule", schedule, schedule_registry(), "how the learning rate changes; default: constant");
  f("train", train, "length and precision of the training");
  f("evaluation", evaluation, "how segmentation is evaluated");
  f.check(device != "reference" || train.precision == "f32", "train.precision",
          "must be f32 on the reference device, not {}; use --device cpu", train.precision);
}

Experiment read_experiment(const std::filesystem::path& file, const Overrides& overrides, const Needs& needs) {
  Experiment experiment = read_json(read_with_base(file, {}), file.string(), overrides, needs);
  if (experiment.options.name.empty()) experiment.options.name = file.stem().string();
  return experiment;
}

Experiment parse_experiment(const std::string& text, const std::string& file, const Overrides& overrides,
                            const Needs& needs) {
  return read_json(parse_file_text(text, file), file, overrides, needs);
}

Shape sample_shape(const ModelSpec& model, const SampleShape& s) {
  return takes_points(model) ? Shape{1, s.height, s.channels} : Shape{1, s.height, s.width, s.channels};
}

Shape sample_shape(const Experiment& experiment) {
  const ExperimentOptions& o = experiment.options;
  if (o.has_data())
    if (const auto declared = declared_data(o.data.source)) return sample_shape(o.model, declared->shape);
  const int64_t size = default_image_size(o.model);
  return sample_shape(o.model, {model_channels(o.model), size, size});
}

std::unique_ptr<Module> build_model(const Experiment& experiment, const Shape& input) {
  return experiment.options.model.make({input[1], input[2]});
}

void check_against_data(const Experiment& experiment, const SampleShape& shape, int64_t classes, Faults& faults) {
  const ModelSpec& model = experiment.options.model;
  if (shape.points ? takes_images(model) : takes_points(model)) {
    faults.add("model.type",
               fmt::format("{} takes {}, but the data set {} holds {}", model.type,
                           shape.points ? "images" : "clouds of points", experiment.options.data.source.type,
                           shape.points ? "clouds of points" : "images"));
    return;  // classes and channels of another kind of data say nothing
  }
  // A network without classes gives images back.
  if (const int64_t given = model_classes(model); given != 0 && given != classes)
    faults.add("model.classes", fmt::format("is {}, but the data set {} has {} classes", given,
                                            experiment.options.data.source.type, classes));
  if (const int64_t given = model_channels(model); given != shape.channels)
    faults.add("model.in_channels", fmt::format("is {}, but the images of {} have {} channels", given,
                                                experiment.options.data.source.type, shape.channels));
}

}  // namespace mgic
