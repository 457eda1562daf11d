#include "models/pointnet.h"

#include "autograd/ops.h"
#include "layers/dropout.h"
#include "layers/linear.h"

namespace mgic {
namespace {

constexpr int64_t widths[] = {64, 64, 64, 128, 1024};  // of the point-wise layers
constexpr size_t before_transform = 2;                 // of them before the feature transform
constexpr int64_t tnet_widths[] = {64, 128, 1024};
constexpr int64_t hidden[] = {512, 256};

// n identity matrices (n, size, size), beside t.
Tensor identities(const Tensor& t, int64_t n, int64_t size) {
  Tensor eye = Tensor::empty({n, size, size}, t.dtype(), t.device());
  if (t.device() == Device::meta) return eye;
  Tensor host = Tensor::zeros(eye.shape(), DType::f64, Device::cpu);
  for (int64_t i = 0; i < n; ++i)
    for (int64_t d = 0; d < size; ++d) host.data<double>()[(i * size + d) * size + d] = 1;
  return host.to(t.dtype()).to(t.device());
}

// linear, BN, relu, twice, and a last linear layer, which may begin as the constant 0.
std::vector<std::unique_ptr<Module>> head(int64_t in, int64_t out, bool zero) {
  std::vector<std::unique_ptr<Module>> layers;
  for (int64_t width : hidden) {
    layers.push_back(std::make_unique<LinearNorm>(in, width, false));
    in = width;
  }
  layers.push_back(std::make_unique<Linear>(LinearOptions{in, out, true, zero}));
  return layers;
}

class TransformNet final : public Module {
 public:
  TransformNet(int64_t channels, const PointBlockSpec& block) : Module("transform_net"), channels_(channels) {
    int64_t in = channels;
    for (int64_t width : tnet_widths) {
      mlp_.push_back(&add_child(fmt::format("mlp.{}", mlp_.size()), block.make({in, width, Activation::relu})));
      in = width;
    }
    for (auto& layer : head(in, channels * channels, true))  // as published, T begins as the identity

      fc_.push_back(&add_child(fmt::format("fc.{}", fc_.size()), std::move(layer)));
  }

 protected:
  // (N, P, C) → (N, C, C)
  Variable forward(const Variable& points) override {
    Variable x = points;
    for (Module* layer : mlp_) x = (*layer)(x);
    x = ops::global_pool(x, Pool::max);
    for (size_t i = 0; i < 2; ++i) x = ops::relu((*fc_[i])(x));
    const int64_t n = x.shape()[0];
    x = ops::reshape((*fc_[2])(x), {n, channels_, channels_});
    return ops::add(x, Variable(identities(x.value(), n, channels_)));
  }

 private:
  int64_t channels_;
  std::vector<Module*> mlp_, fc_;
};

}  // namespace

void PointNetOptions::fields(Fields& f) {
  f("in_channels", in_channels, "numbers of a point", between(1, 1024));
  f("classes", classes, "logits", between(1, max_count));
  f("transforms", transforms, "the two transform nets");
  f("transform_weight", transform_weight, "of the loss that keeps the feature transform orthogonal", between(0, 1e3));
  f("dropout", dropout, "probability, in the classifier", between(0, 0.999));
  f.spec("block", block, point_block_registry(), "what the point-wise layers are made of", any().need());
}

PointNet::PointNet(const PointNetOptions& o) : Module("pointnet"), transform_weight_(o.transform_weight) {
  int64_t in = o.in_channels;
  if (o.transforms) {
    tnets_.push_back(&add_child("tnet.0", std::make_unique<TransformNet>(in, o.block)));
    tnets_.push_back(&add_child("tnet.1", std::make_unique<TransformNet>(widths[before_transform - 1], o.block)));
  }
  for (int64_t width : widths) {
    mlp_.push_back(&add_child(fmt::format("mlp.{}", mlp_.size()), o.block.make({in, width, Activation::relu})));
    in = width;
  }
  for (auto& layer : head(in, o.classes, false))
    classifier_.push_back(&add_child(fmt::format("classifier.{}", classifier_.size()), std::move(layer)));
  dropout_ = &add_child("dropout", std::make_unique<Dropout>(DropoutOptions{o.dropout}));
}

Variable PointNet::forward(const Variable& points) {
  Variable x = points;
  if (!tnets_.empty()) x = ops::batched_matmul(x, (*tnets_[0])(x));
  for (size_t i = 0; i < mlp_.size(); ++i) {
    if (i == before_transform && !tnets_.empty()) {
      const Variable transform = (*tnets_[1])(x);
      x = ops::batched_matmul(x, transform);
      if (training()) transform_ = transform;
    }
    x = (*mlp_[i])(x);
  }
  x = ops::global_pool(x, Pool::max);
  for (size_t i = 0; i < 2; ++i) x = ops::relu((*classifier_[i])(x));
  return (*classifier_[2])((*dropout_)(x));
}

Variable PointNet::extra_loss(const std::function<Variable(const Variable&)>&) {
  const Variable t = std::exchange(transform_, {});
  if (!t.defined() || transform_weight_ == 0) return {};
  const int64_t n = t.shape()[0], size = t.shape()[1];
  const Variable gap = ops::mean_squared_error(ops::batched_matmul(t, t, true), identities(t.value(), n, size));
  return ops::scale(gap, transform_weight_ * static_cast<double>(size * size));  // a sum over each matrix
}

}  // namespace mgic
