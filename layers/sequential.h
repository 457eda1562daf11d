// sequential: layers one after another, children named 0, 1, … unless a name is given.
// add: x + sequential(x), a residual around any layers that keep the shape.
#pragma once

#include "layers/module.h"

namespace mgic {

struct NamedLayer {
  std::string name;  // "" : its number
  LayerSpec spec;

  void fields(Fields& f);
};

struct SequentialOptions {
  std::vector<NamedLayer> layers;

  void fields(Fields& f);
};

class Sequential : public Module {
 public:
  // Each layer is built for what the one before puts out, found by running it on meta.
  Sequential(std::string_view type, const SequentialOptions& options, const LayerContext& context);

 protected:
  Variable forward(const Variable& x) override;

 private:
  std::vector<Module*> layers_;
};

class Add final : public Sequential {
 public:
  Add(const SequentialOptions& options, const LayerContext& context);

 protected:
  Variable forward(const Variable& x) override;
};

// Builds a layer for an input of this shape; a layer whose levels carry expansion·w channels gets the width w.
std::unique_ptr<Module> build_layer(const LayerSpec& spec, const Shape& input);

}  // namespace mgic
