#include "models/dgcnn.h"

#include <numeric>

#include "autograd/ops.h"
#include "layers/dropout.h"
#include "layers/linear.h"

namespace mgic {
namespace {

constexpr double slope = 0.2;

Variable leaky(const Variable& x) { return ops::leaky_relu(x, slope); }

}  // namespace

void DgcnnOptions::fields(Fields& f) {
  f("in_channels", in_channels, "numbers of a point", between(1, max_count));
  f("classes", classes, "logits", between(1, max_count));
  f("k", k, "neighbours of a point, itself among them", between(1, max_count));
  f("channels", channels, "outputs of each edge layer", between(1, max_count));
  f("embedding", embedding, "channels before the pooling over all points", between(1, max_count));
  f("hidden", hidden, "widths of the classifier's layers before the logits", between(1, max_count));
  f("dropout", dropout, "probability, in the classifier", between(0, 0.999));
  f.spec("block", block, point_block_registry(), "what the edge layers and the embedding are made of", any().need());
  f.check(!channels.empty() && channels.size() <= 64, "channels", "must have 1 to 64 elements, one a layer");
  f.check(hidden.size() <= 64, "hidden", "must have at most 64 elements, one a layer");
}

Dgcnn::Dgcnn(const DgcnnOptions& o) : Module("dgcnn"), k_(o.k) {
  int64_t channels = o.in_channels;
  for (size_t i = 0; i < o.channels.size(); ++i) {
    edges_.push_back(&add_child(fmt::format("edge.{}", i), o.block.make({2 * channels, o.channels[i]})));
    channels = o.channels[i];
  }
  embed_ =
      &add_child("embed", o.block.make({std::reduce(o.channels.begin(), o.channels.end(), int64_t{0}), o.embedding}));
  // As published, the first linear layer has no bias and the second has one, though a BN follows both.
  const auto classify = [&](std::unique_ptr<Module> layer) {
    classifier_.push_back(&add_child(fmt::format("classifier.{}", classifier_.size()), std::move(layer)));
  };
  int64_t width = 2 * o.embedding;
  for (int64_t next : o.hidden) {
    classify(std::make_unique<LinearNorm>(width, next, !classifier_.empty()));
    width = next;
  }
  classify(std::make_unique<Linear>(LinearOptions{width, o.classes, true}));
  dropout_ = &add_child("dropout", std::make_unique<Dropout>(DropoutOptions{o.dropout}));
}

Variable Dgcnn::forward(const Variable& points) {
  std::vector<Variable> all;
  Variable x = points;
  for (Module* edge : edges_) {
    const Tensor neighbours = ops::nearest_neighbours(x.value(), k_);
    x = leaky(ops::neighbourhood_max((*edge)(ops::edge_features(x, neighbours))));
    all.push_back(x);
  }
  x = leaky((*embed_)(ops::concat_channels(all)));
  x = ops::concat_channels({ops::global_pool(x, Pool::max), ops::global_pool(x, Pool::average)});
  for (size_t i = 0; i + 1 < classifier_.size(); ++i) x = (*dropout_)(leaky((*classifier_[i])(x)));
  return (*classifier_.back())(x);
}

}  // namespace mgic
