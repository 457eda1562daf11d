#include "backends/cpu/transfer.h"

#include <algorithm>
#include <span>
#include <vector>

#include "backends/cpu/channel_vectors.h"
#include "backends/cpu/cpu.h"
#include "backends/cpu/cpu_backend.h"
#include "backends/cpu/normalization.h"
#include "backends/cpu/passes.h"
#include "backends/cpu/pointwise.h"

namespace mgic::cpu {
namespace {

Pointwise sizes_of(const Chain& chain, const ChainInput& in) {
  const Link& link = chain.links[0];
  const int64_t groups = link.conv.groups;
  return {in.x.shape().rows(), groups, link.weight.shape()[3], link.weight.shape()[0] / groups};
}

template <class T>
Rows<T> rows_of(const ChainInput& in) {
  return {in.x.data<T>(), data_or_null<T>(in.minus)};
}

// Mean and covariance of v within the groups, from sums around the first row.
class Moments {
 public:
  template <class T>
  Moments(const Pointwise& p, const Rows<T>& v) : p_(p), centre_(first_row(p, v)) {}

  const float* centre() const { return centre_.data(); }
  void set(const Sums& sums) {
    const auto n = static_cast<double>(p_.rows);
    offset_ = sums.v;
    for (double& d : offset_) d /= n;
    covariance_ = sums.gram;
    for (size_t k = 0; k < covariance_.size(); ++k)
      covariance_[k] =
          covariance_[k] / n - offset_[k / inputs()] * offset_[k / inputs() / inputs() * inputs() + k % inputs()];
  }
  // What forward has found, for backward.
  Tensor save() const {
    Tensor saved = Tensor::empty({p_.in_channels(), p_.inputs + 1}, DType::f64, Device::cpu);
    std::ranges::copy(covariance_, std::ranges::copy(offset_, saved.data<double>()).out);
    return saved;
  }
  void restore(const Tensor& saved) {
    const std::span<const double> all = saved.span<double>();
    const auto end_of_offsets = all.begin() + p_.in_channels();
    offset_.assign(all.begin(), end_of_offsets);
    covariance_.assign(end_of_offsets, all.end());
  }
  double offset(size_t channel) const { return offset_[channel]; }  // of the mean from the centre
  double mean(size_t channel) const { return centre_[channel] + offset_[channel]; }
  // Σ_j w[j] cov(j, i) for input i of a group.
  double covariance(const float* w, size_t group, size_t i) const {
    double sum = 0;
    for (size_t j = 0; j < inputs(); ++j) sum += w[j] * covariance_[(group * inputs() + j) * inputs() + i];
    return sum;
  }

 private:
  template <class T>
  static std::vector<float> first_row(const Pointwise& p, const Rows<T>& v) {
    std::vector<float> row(static_cast<size_t>(p.in_channels()));
    for (size_t c = 0; c < row.size(); ++c)
      row[c] = static_cast<float>(v.x[c]) - (v.minus == nullptr ? 0.0f : static_cast<float>(v.minus[c]));
    return row;
  }
  size_t inputs() const { return static_cast<size_t>(p_.inputs); }

  Pointwise p_;
  std::vector<float> centre_;
  std::vector<double> offset_, covariance_;
};

// f(output, its group, its weights) for every channel.
template <class F>
void each_output(const Pointwise& p, const std::vector<float>& w, F&& f) {
  for (size_t o = 0; o < static_cast<size_t>(p.out_channels()); ++o)
    f(o, o / static_cast<size_t>(p.outputs), w.data() + o * static_cast<size_t>(p.inputs));
}

template <class T>
void forward(const Chain& chain, const ChainInput& in, LinkState& state, Tensor& y) {
  const Link& link = chain.links[0];
  const Merged merged(sizes_of(chain, in));
  const Pointwise& p = merged.p;
  const Rows<T> v = rows_of<T>(in);
  const auto w = merged.weights(link.weight.data<float>());
  RowMap<T> map{p.rows, p.groups, p.outputs, {}, nullptr, data_or_null<T>(in.residual), y.data<T>()};
  if (!link.gamma.defined()) {
    map.terms = {{v, p.inputs, w.data()}};
    return run(map);
  }

  if (chain.training) {
    Moments moments(p, v);
    moments.set(run(RowSums<T>{p, v, nullptr, moments.centre(), true}));
    if (chain.saves) state.raw = moments.save();
    float *mean = state.mean.data<float>(), *variance = state.variance.data<float>();
    each_output(p, w, [&](size_t o, size_t group, const float* weights) {
      double m = 0, square = 0;
      for (size_t i = 0; i < static_cast<size_t>(p.inputs); ++i) {
        m += weights[i] * moments.mean(group * static_cast<size_t>(p.inputs) + i);
        square += weights[i] * moments.covariance(weights, group, i);
      }
      mean[o] = static_cast<float>(m);
      variance[o] = static_cast<float>(std::max(square, 0.0));
    });
  }
  const NormVectors norm(norm_of(link, state, chain.training));
  const auto factors = scaled(p, w, norm.scale.data());
  const auto shift =
      channel_vector(p.out_channels(), [&](int64_t c) { return norm.beta[c] - norm.mean[c] * norm.scale[c]; });
  map.terms = {{v, p.inputs, factors.data()}};
  map.shift = shift.data();
  run(map);
}

// The gradient of the raw outputs W v is g = scale dy − shift − (W v − mean) slope (normalization.h); without a
// normalisation it is dy.
template <class T>
void backward(const Chain& chain, const ChainInput& in, const LinkState& state, const Tensor& dy,
              const ChainSinks& sinks) {
  const Link& link = chain.links[0];
  const LinkSinks& own = sinks.links[0];
  const Merged merged(sizes_of(chain, in));
  const Pointwise& p = merged.p;
  const Rows<T> v = rows_of<T>(in);
  const auto w = merged.weights(link.weight.data<float>());
  const auto inputs = static_cast<size_t>(p.inputs), outputs = static_cast<size_t>(p.outputs);
  const auto write_weights = [&](auto&& value) {
    if (!own.weight) return;
    float* dw = (*own.weight).template data<float>();
    merged.each_weight([&](int64_t place, int64_t weight) {
      const double gradient = value(static_cast<size_t>(place));
      dw[weight] = static_cast<float>(accumulates(own.weight) ? dw[weight] + gradient : gradient);
    });
  };
  RowMap<T> map{p.rows, p.groups, p.inputs};
  if (sinks.x) map.y = (*sinks.x).data<T>(), map.accumulate = accumulates(sinks.x);
  if (sinks.minus) map.negated = (*sinks.minus).data<T>(), map.accumulate_negated = accumulates(sinks.minus);
  const bool wants_input = sinks.x || sinks.minus;

  if (!link.gamma.defined()) {
    if (own.weight) {
      const Sums sums = run(RowSums<T>{p, v, dy.data<T>()});
      write_weights([&](size_t k) { return sums.outer[k]; });
    }
    map.terms = {{{dy.data<T>()}, p.outputs, w.data(), true}};
    if (wants_input) run(map);
    return;
  }

  Moments moments(p, v);
  const Sums sums = run(RowSums<T>{p, v, dy.data<T>(), moments.centre()});
  chain.training ? moments.restore(state.raw) : moments.set(sums);
  // Σ dy (v − mean(v)).
  const auto centred = [&](size_t o, size_t i) {
    return sums.outer[o * inputs + i] - moments.offset(o / outputs * inputs + i) * sums.dy[o];
  };
  const Norm of = norm_of(link, state, chain.training);
  const NormVectors norm(of);
  NormSums through(p.out_channels());
  each_output(p, w, [&](size_t o, size_t group, const float* weights) {
    // Where the statistics are not the batch's, its mean is another.
    double sum = 0, mean = -norm.mean[static_cast<int64_t>(o)];
    for (size_t i = 0; i < inputs; ++i) {
      sum += weights[i] * centred(o, i);
      mean += weights[i] * moments.mean(group * inputs + i);
    }
    through.sum[static_cast<int64_t>(o)] = sums.dy[o];
    through.centred_sum[static_cast<int64_t>(o)] = sum + mean * sums.dy[o];
  });
  write_norm_gradients(of, through, own.gamma, own.beta);
  const NormCoefficients c(of, through, chain.training, p.rows, p.out_channels());
  write_weights([&](size_t k) {
    const size_t o = k / inputs, i = k % inputs, group = o / outputs;
    const auto at = static_cast<int64_t>(o);
    const auto n = static_cast<double>(p.rows);
    double gradient = norm.scale[at] * centred(o, i) +
                      moments.mean(group * inputs + i) * (norm.scale[at] * sums.dy[o] - n * c.shift[at]);
    if (chain.training) gradient -= n * c.slope[at] * moments.covariance(w.data() + o * inputs, group, i);
    return gradient;
  });
  if (!wants_input) return;

  // Wᵀ g = F dy − F (shift + (W v − mean) slope) / scale with F = Wᵀ scale. What is subtracted goes by F as the kernels
  // will round it, so that what the statistics take out of dy is taken out exactly.
  auto factors = scaled(p, w, norm.scale.data());
  if constexpr (std::is_same_v<T, bf16>)
    for (float& f : factors) f = static_cast<float>(bf16(f));
  const auto channels = static_cast<size_t>(p.in_channels());
  std::vector<float> back(channels * inputs), shift(channels);
  each_output(p, w, [&](size_t o, size_t group, const float* weights) {
    const auto at = static_cast<int64_t>(o);
    const double scale = norm.scale[at], inverse = scale == 0 ? 0 : 1 / scale;
    for (size_t i = 0; i < inputs; ++i) {
      const double factor = factors[o * inputs + i] * inverse;
      shift[group * inputs + i] -= static_cast<float>(factor * (c.shift[at] - c.slope[at] * norm.mean[at]));
      for (size_t j = 0; j < inputs; ++j)
        back[(group * inputs + j) * inputs + i] -= static_cast<float>(factor * c.slope[at] * weights[j]);
    }
  });
  map.terms = {{{dy.data<T>()}, p.outputs, factors.data(), true}};
  if (chain.training) map.terms.push_back({v, p.inputs, back.data(), true});
  map.shift = shift.data();
  run(map);
}

}  // namespace

bool is_transfer(const Chain& chain, const ChainInput& in) {
  const Link& link = chain.links[0];
  const Shape& w = link.weight.shape();
  const ConvParams& p = link.conv;
  return chain.links.size() == 1 && link.activation == Activation::none &&
         (!in.residual.defined() || chain.outer == Activation::none) && w[1] == 1 && w[2] == 1 && p.stride == 1 &&
         p.padding == 0 && in.x.count() > 0 && pointwise_suits(p.groups, w[3], w[0] / p.groups);
}

void transfer_forward(const Chain& chain, const ChainInput& in, LinkState& state, Tensor& y) {
  if (!state.raw.shares_storage(y)) state.raw = {};
  with_storage(y, [&](auto zero) { forward<decltype(zero)>(chain, in, state, y); });
}

void transfer_backward(const Chain& chain, const ChainInput& in, const LinkState& state, const Tensor& dy,
                       const ChainSinks& sinks) {
  if (sinks.residual) cpu_backend().scale(1.0, dy, sinks.residual);
  with_storage(dy, [&](auto zero) { backward<decltype(zero)>(chain, in, state, dy, sinks); });
}

}  // namespace mgic::cpu
