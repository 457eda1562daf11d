// Models: networks from images to logits, chosen by "model" in a configuration.
#pragma once

#include "layers/module.h"

namespace mgic {

struct ModelContext {
  int64_t height = 0, width = 0;  // of the images, for models that need to know
};

using ModelRegistry = Registry<Module, ModelContext>;
using ModelSpec = ModelRegistry::SpecType;
ModelRegistry& model_registry();  // models/register.cpp

int64_t model_classes(const ModelSpec& model);
int64_t model_channels(const ModelSpec& model);  // of its input
// The image size that a model is made for: 224 for an `imagenet` stem, else 32.
int64_t default_image_size(const ModelSpec& model);

// The same network with its block replaced by the dense one; the spec itself where there is nothing to replace.
ModelSpec dense_twin(const ModelSpec& model);

}  // namespace mgic
