#include "layers/sequential.h"

#include "autograd/ops.h"

namespace mgic {

void NamedLayer::fields(Fields& f) {
  f("name", name, "the child's name; default: its number");
  layer_registry().read(f, spec);
}

void SequentialOptions::fields(Fields& f) {
  f("layers", layers, "the layers, first to last", any().need());
  for (size_t i = 0; i < layers.size(); ++i)
    f.check(layers[i].name.find('.') == std::string::npos, fmt::format("layers[{}].name", i), "must not hold a dot");
}

std::unique_ptr<Module> build_layer(const LayerSpec& spec, const Shape& input) {
  const int64_t expansion = option_or(spec.options, "expansion", 1);
  return spec.make({input.last() / expansion, 1, 0, true, input});
}

Sequential::Sequential(std::string_view type, const SequentialOptions& options, const LayerContext& context)
    : Module(type) {
  NoGrad no_grad;
  // Where only the channels are known, any size will do to follow them.
  Shape shape = context.input.rank() > 0 ? context.input : Shape{1, 32, 32, context.channels};
  for (size_t i = 0; i < options.layers.size(); ++i) {
    const NamedLayer& layer = options.layers[i];
    const std::string name = layer.name.empty() ? std::to_string(i) : layer.name;
    try {
      layers_.push_back(&add_child(name, build_layer(layer.spec, shape)));
      Module& last = *layers_.back();
      last.train(false);  // one meta pixel has no batch statistics
      shape = last(Variable(Tensor::empty(shape, DType::f32, Device::meta))).shape();
      last.train(true);
    } catch (const Error& e) {
      fail_user("layer {}: {}", name, e.what());
    }
  }
}

Variable Sequential::forward(const Variable& x) {
  Variable y = x;
  for (Module* layer : layers_) y = (*layer)(y);
  return y;
}

Add::Add(const SequentialOptions& options, const LayerContext& context) : Sequential("add", options, context) {}

Variable Add::forward(const Variable& x) { return ops::add(x, Sequential::forward(x)); }

}  // namespace mgic
