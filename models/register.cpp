// Every model that JSON can name.
#include <nlohmann/json.hpp>

#include "layers/sequential.h"
#include "models/model.h"
#include "models/resnet.h"

namespace mgic {
namespace {

using Made = std::unique_ptr<Module>;

// A network written layer by layer.
struct SequentialModelOptions {
  int64_t in_channels = 3;
  int64_t classes = 10;
  SequentialOptions sequential;

  void fields(Fields& f) {
    f("in_channels", in_channels, "channels of the images", between(1, max_count).need());
    f("classes", classes, "logits; the last layer must put out as many", between(1, max_count).need());
    sequential.fields(f);
  }
};

Made make_sequential(const SequentialModelOptions& o, const ModelContext& c) {
  const Shape input{1, c.height, c.width, o.in_channels};
  auto model = std::make_unique<Sequential>("sequential", o.sequential, LayerContext{o.in_channels, 1, 0, true, input});
  model->train(false);
  const Shape output = (*model)(Variable(Tensor::empty(input, DType::f32, Device::meta))).shape();
  model->train(true);
  if (output != Shape{1, o.classes})
    fail_user("the layers turn one image into shape {}, but \"classes\" asks for {}", output.str(),
              Shape{1, o.classes}.str());
  return model;
}

void add_all(ModelRegistry& r) {
  r.add(
      "resnet", "residual network for classification; block: basic, bottleneck or mgic",
      +[](const ResNetOptions& o, const ModelContext&) -> Made { return std::make_unique<ResNet>(o); });
  r.add("sequential", "a network written layer by layer", &make_sequential);
}

// Dense blocks and layers in place of the MGIC ones.
Json dense(const Json& options) {
  Json twin = options;
  if (auto block = twin.find("block"); block != twin.end() && block->value("type", "") == "mgic")
    *block = {{"type", block->value("smoother", "basic") == "bottleneck" ? "bottleneck" : "basic"}};
  if (auto layers = twin.find("layers"); layers != twin.end()) {
    for (Json& layer : *layers) {
      const std::string type = layer.value("type", "");
      if (type == "mgic" || type == "mgic_stage") {
        // One level that couples all channels: the smoother alone, dense.
        layer["coarsest_rule"] = "reach";
        layer["coarsest_width"] = static_cast<int64_t>(max_count);
      } else {
        layer = dense(layer);
      }
    }
  }
  return twin;
}

}  // namespace

ModelRegistry& model_registry() {
  static ModelRegistry registry = [] {
    ModelRegistry r("model");
    add_all(r);
    return r;
  }();
  return registry;
}

int64_t model_classes(const ModelSpec& model) { return option_or(model.options, "classes", 0); }
int64_t model_channels(const ModelSpec& model) { return option_or(model.options, "in_channels", 3); }

int64_t default_image_size(const ModelSpec& model) {
  return option_text(model.options, "stem") == "imagenet" ? 224 : 32;
}

ModelSpec dense_twin(const ModelSpec& model) { return model_registry().parse(dense(*model.options).dump()); }

}  // namespace mgic
