// Models: networks from images or point clouds to logits or images, chosen by "model" in a configuration.
#pragma once

#include <functional>

#include "layers/module.h"

namespace mgic {

struct ModelContext {
  int64_t height = 0, width = 0;  // of the images, for models that need to know; of point clouds P and C
};

using ModelRegistry = Registry<Module, ModelContext>;
using ModelSpec = ModelRegistry::SpecType;
ModelRegistry& model_registry();  // models/register.cpp

int64_t model_classes(const ModelSpec& model);
int64_t model_channels(const ModelSpec& model);  // of its input
// The image size that a model is made for: 224 for an `imagenet` stem, else 32; of point clouds the points, 1024.
int64_t default_image_size(const ModelSpec& model);

// Whether it takes point clouds (N, P, C); images (N, H, W, C) and nothing else, which a network written layer by layer
// leaves to its layers; and maps each pixel of an image to logits (N, H, W, K).
bool takes_points(const ModelSpec& model);
bool takes_images(const ModelSpec& model);
bool segments(const ModelSpec& model);

// A network whose training has terms beside the loss of its output: an auxiliary head, a regularised transform.
class ExtraLoss {
 public:
  virtual ~ExtraLoss() = default;
  // Of the last forward in training; undefined where there is none. `of` is the loss of logits. To be called once.
  virtual Variable extra_loss(const std::function<Variable(const Variable& logits)>& of) = 0;
};

// The same network with its block replaced by the dense one; the spec itself where there is nothing to replace.
ModelSpec dense_twin(const ModelSpec& model);

}  // namespace mgic
