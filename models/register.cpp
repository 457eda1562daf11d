// Every model that JSON can name.
#include <nlohmann/json.hpp>

#include "layers/sequential.h"
#include "models/autoencoder.h"
#include "models/dgcnn.h"
#include "models/mobilenet_v3.h"
#include "models/model.h"
#include "models/pointnet.h"
#include "models/resnet.h"
#include "models/segmentation.h"

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
  r.add(
      "mobilenet_v3", "inverted residuals for classification; block: inverted_residual or mgic",
      +[](const MobileNetV3Options& o, const ModelContext&) -> Made { return std::make_unique<MobileNetV3>(o); });
  r.add(
      "deeplabv3", "segmentation by a pyramid of dilated convolutions on a backbone",
      +[](const DeepLabV3Options& o, const ModelContext&) -> Made { return std::make_unique<DeepLabV3>(o); });
  r.add(
      "lraspp", "segmentation with little work on top of a backbone",
      +[](const LrasppOptions& o, const ModelContext&) -> Made { return std::make_unique<Lraspp>(o); });
  r.add(
      "pointnet", "classification of point clouds, each point alone; block: conv or mgic",
      +[](const PointNetOptions& o, const ModelContext&) -> Made { return std::make_unique<PointNet>(o); });
  r.add(
      "dgcnn", "classification of point clouds by their neighbourhoods; block: conv or mgic",
      +[](const DgcnnOptions& o, const ModelContext&) -> Made { return std::make_unique<Dgcnn>(o); });
  r.add(
      "autoencoder", "images to images, for removing noise; block: basic, bottleneck or mgic",
      +[](const AutoencoderOptions& o, const ModelContext&) -> Made { return std::make_unique<Autoencoder>(o); });
  r.add("sequential", "a network written layer by layer", &make_sequential);
}

// The dense block in place of an MGIC one, in a network of this type.
std::string dense_block(const std::string& network, const Json& block) {
  if (network == "mobilenet_v3") return "inverted_residual";
  if (network == "pointnet" || network == "dgcnn") return "conv";
  return block.value("smoother", "basic") == "bottleneck" ? "bottleneck" : "basic";
}

// Dense blocks and layers in place of the MGIC ones.
Json dense(const Json& options) {
  Json twin = options;
  if (auto block = twin.find("block"); block != twin.end() && block->value("type", "") == "mgic")
    *block = {{"type", dense_block(twin.value("type", ""), *block)}};
  if (auto backbone = twin.find("backbone"); backbone != twin.end()) *backbone = dense(*backbone);
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

BackboneRegistry& backbone_registry() {
  static BackboneRegistry registry = [] {
    BackboneRegistry r("backbone");
    r.add(
        "resnet", "a residual network without its classifier",
        +[](const ResNetBackboneOptions& o, const BackboneContext& c) -> std::unique_ptr<Backbone> {
          return std::make_unique<ResNetBackbone>(o.body, c.in_channels, o.output_stride);
        });
    r.add(
        "mobilenet_v3", "a MobileNetV3 without its head and classifier",
        +[](const MobileBackboneOptions& o, const BackboneContext& c) -> std::unique_ptr<Backbone> {
          return std::make_unique<MobileBackbone>(o.body, c.in_channels, o.output_stride);
        });
    return r;
  }();
  return registry;
}

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
  if (takes_points(model)) return 1024;
  if (auto backbone = model.options->find("backbone"); backbone != model.options->end())
    return backbone->value("stem", "") == "imagenet" ? 224 : 32;
  return option_text(model.options, "stem") == "imagenet" ? 224 : 32;
}

bool takes_points(const ModelSpec& model) { return model.type == "pointnet" || model.type == "dgcnn"; }
bool takes_images(const ModelSpec& model) {
  return model.type == "resnet" || model.type == "mobilenet_v3" || model.type == "autoencoder" || segments(model);
}
bool segments(const ModelSpec& model) { return model.type == "deeplabv3" || model.type == "lraspp"; }

ModelSpec dense_twin(const ModelSpec& model) { return model_registry().parse(dense(*model.options).dump()); }

}  // namespace mgic
