// Chains of grouped convolutions, fused (backend.h, "the training unit").
//
// Every phase is one pass of the threads over items of their own, each in its own cache; between two phases lies the
// barrier that the statistics need. Forward, a link a phase: the input is normalised and activated while it is packed,
// the moments of the output are gathered while it is stored. Backward, a link a phase, last to first: the gradient is
// taken through activation and normalisation while it is packed, serves the weights and the input, and on its way out
// goes through the activation of the link before, whose sums are gathered. Evaluation: a whole chain in one phase.
//
// Chains with other convolutions run as Backend composes them.
#include <algorithm>
#include <optional>

#include "backends/cpu/channel_vectors.h"
#include "backends/cpu/cpu_backend.h"
#include "backends/cpu/dense_winograd.h"
#include "backends/cpu/folding.h"
#include "backends/cpu/grouped_weights.h"
#include "backends/cpu/normalization.h"
#include "backends/cpu/passes.h"
#include "backends/cpu/transfer.h"

namespace mgic {
namespace cpu {
namespace {

// The value that link i reads.
template <class T>
struct LinkInput {
  Input<T> in;
  std::optional<NormVectors> norm;
};
template <class T>
LinkInput<T> input_of(const Chain& chain, const ChainInput& in, const std::vector<LinkState>& states, size_t i) {
  LinkInput<T> result;
  if (i == 0) {
    result.in = {in.x.data<T>(), data_or_null<T>(in.minus)};
    return result;
  }
  const Link& before = chain.links[i - 1];
  result.in.x = states[i - 1].raw.template data<T>();
  result.in.activation = before.activation;
  if (before.gamma.defined()) {
    result.norm.emplace(norm_of(before, states[i - 1], chain.training));
    result.in.mean = result.norm->mean.data();
    result.in.scale = result.norm->scale.data();
    result.in.beta = result.norm->beta.data();
  }
  return result;
}

bool fuses(const Chain& chain, const ChainInput& in) {
  Shape x = in.x.shape();
  if (x.count() == 0) return false;
  for (const Link& link : chain.links) {
    if (!grouped_suits(link.conv, x, link.weight.shape())) return false;
    x = {x[0], x[1], x[2], link.weight.shape()[0]};
  }
  return true;
}

template <class T>
void forward_link(const Chain& chain, const ChainInput& in, std::vector<LinkState>& states, size_t i) {
  const Link& link = chain.links[i];
  LinkState& state = states[i];
  const Grouped g = grouped_of(link.conv, i == 0 ? in.x.shape() : states[i - 1].raw.shape(), link.weight.shape(),
                               best_arithmetic<T>())
                        .flattened();
  const LinkInput<T> input = input_of<T>(chain, in, states, i);
  const auto weights = forward_weights(g, link.weight.data<float>());
  ForwardCall<T> call{g, input.in, weights.data(), state.raw.data<T>(), nullptr, nullptr, i % 2 == 1};
  if (link.gamma.defined() && chain.training) {
    call.mean = state.mean.data<float>();
    call.variance = state.variance.data<float>();
  }
  run(call);
}

template <class T>
void evaluate(const Chain& chain, const ChainInput& in, Tensor& y) {
  EvaluationCall<T> call{
      {}, {in.x.data<T>(), data_or_null<T>(in.minus)}, data_or_null<T>(in.residual), chain.outer, y.data<T>()};
  std::vector<std::shared_ptr<const Folded>> keep;
  const bool flat = std::ranges::all_of(chain.links, [](const Link& l) { return l.weight.shape()[1] == 1; });
  Shape x = in.x.shape();
  for (const Link& link : chain.links) {
    const Grouped own = grouped_of(link.conv, x, link.weight.shape(), best_arithmetic<T>()),
                  g = flat ? own.flattened() : own;
    x = {x[0], x[1], x[2], g.out_channels()};
    keep.push_back(FoldCache::instance().get(
        link, 8 * (8 * lanes_of(g.outputs) + 2 * static_cast<int64_t>(g.arithmetic) + (g.rounded ? 1 : 0)) + g.tile,
        [&] {
          const float* w = link.weight.data<float>();
          if (!link.gamma.defined())
            return Folded{
                {}, {}, forward_weights(g, w), channel_vector(g.out_channels(), [](int64_t) { return 0.0f; })};
          const NormVectors norm(norm_of(link, {}, false));
          return Folded{
              {}, {}, forward_weights(g, w, norm.scale.data()), channel_vector(g.out_channels(), [&](int64_t c) {
                return norm.beta[c] - norm.mean[c] * norm.scale[c];
              })};
        }));
    call.links.push_back({g, keep.back()->packed.data(), keep.back()->padded_bias.data(), link.activation});
  }
  // All links walk the same items.
  int64_t stacked = call.links[0].conv.stacked;
  for (const FoldedLink& l : call.links) stacked = std::min(stacked, l.conv.stacked);
  for (FoldedLink& l : call.links) l.conv.stacked = stacked;
  run(call);
}

// A dense link with many channels: y = outer(activation(norm(conv(x))) + residual).
void evaluate_dense(const Link& link, const Tensor& x, const Tensor& residual, Activation outer, Tensor& y) {
  const int64_t outputs = link.weight.shape()[0];
  const Shape& shape = x.shape();
  const int64_t tile = dense_winograd_tile(shape);
  const auto folded = FoldCache::instance().get(link, -tile, [&] {
    std::optional<NormVectors> norm;
    if (link.gamma.defined()) norm.emplace(norm_of(link, {}, false));
    return Folded{{},
                  {},
                  dense_winograd_weights(tile, link.weight.shape(), link.weight.data<float>(),
                                         norm ? norm->scale.data() : nullptr),
                  channel_vector(outputs, [&](int64_t c) {
                    return norm ? norm->beta[c] - norm->mean[c] * norm->scale[c] : 0.0f;
                  })};
  });
  with_storage(y, [&](auto zero) {
    using T = decltype(zero);
    dense_winograd<T>(shape, outputs, x.data<T>(), folded->packed.data(), folded->padded_bias.data(), link.activation,
                      data_or_null<T>(residual), outer, y.data<T>());
  });
}

// Link i's part of backward. `gradient` is that of its output: behind its activation, but of the last link in front of
// it. `before` takes that of the link before's output, behind its activation, and `sums` those of its normalisation.
template <class T>
void backward_link(const Chain& chain, const ChainInput& in, const std::vector<LinkState>& states, size_t i,
                   const Tensor& gradient, const ChainSinks& sinks, std::optional<NormSums>& sums, Tensor& before) {
  const Link& link = chain.links[i];
  const LinkState& state = states[i];
  const LinkSinks& own = sinks.links[i];
  const bool last = i + 1 == chain.links.size();
  const Grouped g = grouped_of(link.conv, i == 0 ? in.x.shape() : states[i - 1].raw.shape(), link.weight.shape(),
                               best_arithmetic<T>())
                        .flattened();
  const LinkInput<T> input = input_of<T>(chain, in, states, i);
  BackwardCall<T> call{g, {gradient.data<T>()}, own.weight, (chain.links.size() - i) % 2 == 1, input.in, nullptr};

  std::optional<NormVectors> norm;
  std::optional<NormCoefficients> through;
  if (last) call.gradient.activation = link.activation;
  if (link.gamma.defined()) {
    const Norm of = norm_of(link, state, chain.training);
    norm.emplace(of);
    through.emplace(of, *sums, chain.training, state.raw.shape().rows(), padded(g.out_channels()));
    write_norm_gradients(of, *sums, own.gamma, own.beta);
    call.gradient.raw = state.raw.data<T>();
    call.gradient.mean = norm->mean.data();
    call.gradient.scale = norm->scale.data();
    call.gradient.beta = norm->beta.data();
    call.gradient.shift = through->shift.data();
    call.gradient.slope = through->slope.data();
  } else if (last && link.activation != Activation::none) {
    call.gradient.raw = state.raw.data<T>();
  }

  if (before.defined()) {
    call.dx = before.data<T>();
    call.before = input.in.x;
    call.mean = input.in.mean;
    call.scale = input.in.scale;
    call.beta = input.in.beta;
    call.activation = input.in.activation;
  } else {
    if (sinks.x) call.dx = (*sinks.x).data<T>(), call.accumulate_dx = accumulates(sinks.x);
    if (sinks.minus) call.dminus = (*sinks.minus).data<T>(), call.accumulate_dminus = accumulates(sinks.minus);
  }
  const bool wants_input = call.dx != nullptr || call.dminus != nullptr;
  if (!wants_input && !call.dw) return;
  const auto weights = wants_input ? transposed_weights(g, link.weight.data<float>()) : Scratch<uint32_t>(0);
  if (wants_input) call.weights = weights.data();

  sums.reset();
  if (i > 0 && chain.links[i - 1].gamma.defined()) call.sums = &sums.emplace(g.in_channels());
  run(call);
}

// Whether the links' bundles lie over each other, so that a chain can be evaluated bundle by bundle, and its planes are
// in cells of one arithmetic.
template <class T>
bool aligned(const Chain& chain, const ChainInput& in) {
  Shape x = in.x.shape();
  int64_t bundles = 0, channels = 0;
  Arithmetic arithmetic{};
  for (const Link& link : chain.links) {
    const Grouped g = grouped_of(link.conv, x, link.weight.shape(), best_arithmetic<T>());
    x = {x[0], x[1], x[2], g.out_channels()};
    if (bundles != 0 && (g.bundles() != bundles || g.bundle() * g.inputs != channels || g.arithmetic != arithmetic))
      return false;
    arithmetic = g.arithmetic;
    bundles = g.bundles();
    channels = g.bundle() * g.outputs;
  }
  return true;
}

}  // namespace

}  // namespace cpu

using namespace cpu;

void CpuBackend::conv_chain(const Chain& chain, const ChainInput& in, std::vector<LinkState>& states, Tensor& y) {
  if (is_transfer(chain, in)) {
    const Link& link = chain.links[0];
    LinkState& state = states[0];
    transfer_forward(chain, in, state, y);
    if (!link.gamma.defined() || !chain.training) return;
    Tensor mean = link.running_mean, variance = link.running_var;
    return update_running(state.mean, state.variance, y.shape().rows(), link.momentum, mean, variance);
  }
  if (!fuses(chain, in)) {
    if (!chain.saves && !chain.training && !in.minus.defined()) return evaluate_folded(chain, in, states, y);
    return Backend::conv_chain(chain, in, states, y);
  }
  if (!chain.saves && !chain.training && with_storage(y, [&](auto zero) { return aligned<decltype(zero)>(chain, in); }))
    return with_storage(y, [&](auto zero) { evaluate<decltype(zero)>(chain, in, y); });
  for (size_t i = 0; i < chain.links.size(); ++i) {
    const Link& link = chain.links[i];
    LinkState& state = states[i];
    with_storage(y, [&](auto zero) { forward_link<decltype(zero)>(chain, in, states, i); });
    if (!link.gamma.defined() || !chain.training) continue;
    Tensor mean = link.running_mean, variance = link.running_var;  // handles: the storage is the module's
    update_running(state.mean, state.variance, state.raw.shape().rows(), link.momentum, mean, variance);
  }
  end_chain(chain, in, states, y);
}

// Link by link, the normalisation in weights and bias, activations and the residual in the convolution's own epilogue.
void CpuBackend::evaluate_folded(const Chain& chain, const ChainInput& in, std::vector<LinkState>& states, Tensor& y) {
  Tensor x = in.x;
  for (size_t i = 0; i < chain.links.size(); ++i) {
    const Link& link = chain.links[i];
    const bool last = i + 1 == chain.links.size(), adds = last && in.residual.defined();
    if (!grouped_suits(link.conv, x.shape(), link.weight.shape()) &&
        dense_winograd_suits(link.conv, x.shape(), link.weight.shape())) {
      Tensor& out = last ? y : states[i].raw;
      evaluate_dense(link, x, adds ? in.residual : Tensor(), adds ? chain.outer : Activation::none, out);
      x = out;
      continue;
    }
    const int64_t outputs = link.weight.shape()[0], count = link.weight.count() / std::max<int64_t>(outputs, 1);
    Tensor weight = link.weight, bias;
    if (link.gamma.defined()) {
      const auto folded = FoldCache::instance().get(link, 0, [&] {
        const NormVectors norm(norm_of(link, {}, false));
        Folded f{Tensor::empty_like(link.weight), Tensor::empty_like(link.beta), Scratch<uint32_t>(0),
                 Scratch<float>(0)};
        const float* w = link.weight.data<float>();
        for (int64_t o = 0; o < outputs; ++o) {
          for (int64_t k = o * count; k < (o + 1) * count; ++k) f.weight.data<float>()[k] = w[k] * norm.scale[o];
          f.bias.data<float>()[o] = norm.beta[o] - norm.mean[o] * norm.scale[o];
        }
        return f;
      });
      weight = folded->weight;
      bias = folded->bias;
    }
    // An activation in front of the residual stands between the convolution and the addition.
    const bool apart = adds && link.activation != Activation::none;
    Tensor& out = last ? y : states[i].raw;
    conv2d(link.conv, x, weight, bias, adds && !apart ? in.residual : Tensor(),
           adds && !apart ? chain.outer : link.activation, out);
    if (apart) {
      add(out, in.residual, Broadcast::same, out);
      if (chain.outer != Activation::none) activation(chain.outer, out, out);
    }
    x = out;
  }
}

void CpuBackend::conv_chain_backward(const Chain& chain, const ChainInput& in, const std::vector<LinkState>& states,
                                     const Tensor& dy, const ChainSinks& sinks) {
  if (is_transfer(chain, in)) return transfer_backward(chain, in, states[0], dy, sinks);
  if (!fuses(chain, in)) return Backend::conv_chain_backward(chain, in, states, dy, sinks);
  const size_t n = chain.links.size();
  const Link& last = chain.links.back();

  // Through the residual's addition and the activation behind it. Where nothing is behind it, dy is the gradient.
  Tensor gradient = dy;
  const bool behind = in.residual.defined() && chain.outer != Activation::none;
  std::optional<NormSums> sums;
  if (last.gamma.defined()) {
    const Norm norm = norm_of(last, states.back(), chain.training);
    const Epilogue end{last.activation, in.residual, chain.outer};
    // The residual's own gradient is that one too: kept in its place where nothing is there and nothing else will be
    // added before it has been read.
    const bool keeps = sinks.residual && !accumulates(sinks.residual) &&
                       !(n == 1 && sinks.x && (*sinks.x).shares_storage(*sinks.residual));
    if (behind) gradient = keeps ? *sinks.residual : Tensor::empty_like(dy);
    sums.emplace(norm_gradient_sums(norm, states.back().raw, end, dy, behind ? &gradient : nullptr));
    if (sinks.residual && !(behind && keeps)) scale(1.0, gradient, sinks.residual);
  } else if (in.residual.defined()) {
    if (behind) {
      Tensor sum = Tensor::empty_like(dy);
      add(states.back().raw, in.residual, Broadcast::same, sum);
      gradient = Tensor::empty_like(dy);
      activation_backward(chain.outer, sum, dy, {&gradient});
    }
    if (sinks.residual) scale(1.0, gradient, sinks.residual);
  }

  for (size_t i = n; i-- > 0;) {
    Tensor before;  // the gradient behind the link before
    if (i > 0) before = Tensor::empty_like(states[i - 1].raw);
    with_storage(
        dy, [&](auto zero) { backward_link<decltype(zero)>(chain, in, states, i, gradient, sinks, sums, before); });
    gradient = before;
  }
}

}  // namespace mgic
