// Batch normalisation with its epilogue.
//
//   z = (x − mean) · scale + beta,  scale = gamma / sqrt(variance + eps);   y = outer(inner(z) + residual)
//
// Statistics: one pass. Each thread walks its rows in blocks; a block's sums are taken in f32, of differences from a
// mean that is close to its own, and blocks, threads and the copies of a channel are combined in f64 by Chan's formula,
// always in the same order.
// Forward: one pass. Backward: one pass for the two sums, one for dx.
#include "backends/cpu/simd.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/normalization.cpp"
#include <hwy/foreach_target.h>
// clang-format off
#include "backends/cpu/simd-inl.h"
#include "backends/cpu/normalization.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace mgic::cpu::HWY_NAMESPACE {
namespace {

// sum[j] += Σ (x − shift), squares[j] += Σ (x − shift)² over the elements [begin, end) of column j.
template <class T>
HWY_INLINE void shifted_sums(const T* x, int64_t width, int64_t begin, int64_t end, const float* shifts, float* sums,
                             float* squares) {
  each_strip_of_rows(begin, end, width, [&](int64_t j, auto memory, auto count, int64_t i, int64_t rows) HWY_ATTR {
    V shift[count.value], sum[count.value], square[count.value];
    load_strip(shifts + j, memory, count, shift);
    load_strip(sums + j, memory, count, sum);
    load_strip(squares + j, memory, count, square);
    for (int64_t r = 0; r < rows; ++r, i += width)
      for (int u = 0; u < count.value; ++u) {
        const V v = hn::Sub(memory.load(x + i + u * lanes()), shift[u]);
        sum[u] = hn::Add(sum[u], v);
        square[u] = hn::MulAdd(v, v, square[u]);
      }
    store_strip(sum, memory, count, sums + j);
    store_strip(square, memory, count, squares + j);
  });
}

// Chan's formula for `n` more rows of every column, given their sums; the first rows have weight 1 and cross 0.
HWY_INLINE void combine_block(int64_t width, double n, double weight, double cross, const float* HWY_RESTRICT shift,
                              const float* HWY_RESTRICT sum, const float* HWY_RESTRICT square,
                              double* HWY_RESTRICT mean, double* HWY_RESTRICT squares) {
  const double inverse = 1.0 / n;
  for (int64_t j = 0; j < width; ++j) {
    const double offset = sum[j] * inverse, delta = shift[j] + offset - mean[j];
    mean[j] += delta * weight;
    squares[j] += square[j] - sum[j] * offset + delta * delta * cross;
  }
}

// Mean and squared deviations of every column over `rows` rows. Sums are taken of x − shift, where the shift is the
// mean of the rows so far (of the first block at first). Σ(x − shift)² − (Σ(x − shift))² / n then cancels no more than
// what Chan's formula adds again for the block's distance from those rows. block is room for 3·width floats.
template <class T>
void moments(const T* x, int64_t width, int64_t rows, float* block, double* mean, double* squares) {
  float *shift = block, *sum = block + width, *square = block + 2 * width;
  std::fill_n(mean, width, 0.0);
  std::fill_n(squares, width, 0.0);
  int64_t done = 0;
  each_block(0, rows * width, width, [&](int64_t begin, int64_t end) HWY_ATTR {
    const int64_t n = (end - begin) / width;
    std::fill_n(block, 3 * width, 0.0f);
    if (done == 0) {
      shifted_sums(x, width, begin, end, shift, sum, square);
      for (int64_t j = 0; j < width; ++j) shift[j] = sum[j] / static_cast<float>(n);
      std::fill_n(sum, 2 * width, 0.0f);
    } else {
      for (int64_t j = 0; j < width; ++j) shift[j] = static_cast<float>(mean[j]);
    }
    shifted_sums(x, width, begin, end, shift, sum, square);
    const double weight = static_cast<double>(n) / (done + n);
    combine_block(width, n, weight, done * weight, shift, sum, square, mean, squares);
    done += n;
  });
}

template <class T>
void normalize_elements(const NormalizeArgs<T>& a, int64_t begin, int64_t end) {
  const bool past = a.large && can_stream(a.y, a.width);
  const auto run = [&](auto inner, auto finish) HWY_ATTR {
    each_strip_of_rows(begin, end, a.width, [&](int64_t j, auto memory, auto count, int64_t i, int64_t rows) HWY_ATTR {
      V mean[count.value], scale[count.value], beta[count.value];
      load_strip(a.mean + j, memory, count, mean);
      load_strip(a.scale + j, memory, count, scale);
      load_strip(a.beta + j, memory, count, beta);
      for (int64_t r = 0; r < rows; ++r, i += a.width)
        for (int u = 0; u < count.value; ++u) {
          const int64_t at = i + u * lanes();
          const V z = hn::MulAdd(hn::Sub(memory.load(a.x + at), mean[u]), scale[u], beta[u]);
          store(finish(inner.value(z), at, memory), past, memory, a.y + at);
        }
    });
  };
  with_activation(a.inner, [&](auto inner) HWY_ATTR {
    if (a.residual == nullptr) return run(inner, [](V z, int64_t, auto) HWY_ATTR { return z; });
    with_activation(a.outer, [&](auto outer) HWY_ATTR {
      run(inner,
          [&](V z, int64_t at, auto memory) HWY_ATTR { return outer.value(hn::Add(z, memory.load(a.residual + at))); });
    });
  });
  hwy::FlushStream();
}

// The gradient in front of the residual's addition, and that in front of `inner`.
template <class T, class Inner, class Outer, class Memory>
HWY_INLINE V through_outer(const BackwardArgs<T>& a, Inner inner, Outer outer, V z, int64_t i, Memory memory) {
  const V dy = memory.load(a.dy + i);
  if constexpr (std::is_same_v<Outer, Identity>)
    return dy;
  else
    return outer.gradient(hn::Add(inner.value(z), memory.load(a.residual + i)), dy);
}

// sum[j] += Σ dz, centred_sum[j] += Σ dz (x − mean) over elements [begin, end) of column j; also stores the residual's
// gradient where `dresidual` is there.
template <class T, class Inner, class Outer>
HWY_INLINE void backward_sums_of(const BackwardArgs<T>& a, Inner inner, Outer outer, int64_t begin, int64_t end,
                                 T* dresidual, float* sums, float* centred_sums) {
  const bool past = a.large && can_stream(dresidual, a.width);
  each_strip_of_rows(begin, end, a.width, [&](int64_t j, auto memory, auto count, int64_t i, int64_t rows) HWY_ATTR {
    constexpr int k = count.value;
    V sum[k], centred_sum[k], mean[k], scale[k], beta[k];
    load_strip(sums + j, memory, count, sum);
    load_strip(centred_sums + j, memory, count, centred_sum);
    load_strip(a.mean + j, memory, count, mean);
    load_strip(a.scale + j, memory, count, scale);
    load_strip(a.beta + j, memory, count, beta);
    for (int64_t r = 0; r < rows; ++r, i += a.width)
      for (int u = 0; u < k; ++u) {
        const int64_t at = i + u * lanes();
        const V centred = hn::Sub(memory.load(a.x + at), mean[u]);
        const V z = hn::MulAdd(centred, scale[u], beta[u]);
        const V g = through_outer(a, inner, outer, z, at, memory);
        if (dresidual != nullptr) store(g, past, memory, dresidual + at);
        const V dz = inner.gradient(z, g);
        sum[u] = hn::Add(sum[u], dz);
        centred_sum[u] = hn::MulAdd(dz, centred, centred_sum[u]);
      }
    store_strip(sum, memory, count, sums + j);
    store_strip(centred_sum, memory, count, centred_sums + j);
  });
}

// dx (+)= scale dz − shift − (x − mean) slope, and the residual's gradient where it was not stored before.
template <class T, class Inner, class Outer>
HWY_INLINE void backward_apply_of(const BackwardArgs<T>& a, Inner inner, Outer outer, int64_t begin, int64_t end) {
  each_strip_of_rows(begin, end, a.width, [&](int64_t j, auto memory, auto count, int64_t i, int64_t rows) HWY_ATTR {
    constexpr int k = count.value;
    V mean[k], scale[k], beta[k], shift[k], slope[k];
    load_strip(a.mean + j, memory, count, mean);
    load_strip(a.scale + j, memory, count, scale);
    load_strip(a.beta + j, memory, count, beta);
    load_strip(a.shift + j, memory, count, shift);
    load_strip(a.slope + j, memory, count, slope);
    for (int64_t r = 0; r < rows; ++r, i += a.width)
      for (int u = 0; u < k; ++u) {
        const int64_t at = i + u * lanes();
        const V centred = hn::Sub(memory.load(a.x + at), mean[u]);
        const V z = hn::MulAdd(centred, scale[u], beta[u]);
        const V g = through_outer(a, inner, outer, z, at, memory);
        if (a.dresidual != nullptr) put(g, a.accumulate_dresidual, memory, a.dresidual + at);
        if (a.dx == nullptr) continue;
        const V direct = hn::MulSub(inner.gradient(z, g), scale[u], shift[u]);
        put(hn::NegMulAdd(centred, slope[u], direct), a.accumulate_dx, memory, a.dx + at);
      }
  });
}

// sums (2, width): of dz and of dz (x − mean). block is room for as many floats.
template <class T>
void backward_sums(const BackwardArgs<T>& a, int64_t begin, int64_t end, T* dresidual, float* block, double* sums) {
  std::fill_n(sums, 2 * a.width, 0.0);
  with_activation(a.inner, [&](auto inner) HWY_ATTR {
    with_activation(a.outer, [&](auto outer) HWY_ATTR {
      each_block(begin, end, a.width, [&](int64_t from, int64_t to) HWY_ATTR {
        std::fill_n(block, 2 * a.width, 0.0f);
        backward_sums_of(a, inner, outer, from, to, dresidual, block, block + a.width);
        for (int64_t j = 0; j < 2 * a.width; ++j) sums[j] += block[j];
      });
    });
  });
  hwy::FlushStream();
}

template <class T>
void backward_apply(const BackwardArgs<T>& a, int64_t begin, int64_t end) {
  with_activation(a.inner, [&](auto inner) HWY_ATTR {
    with_activation(a.outer, [&](auto outer) HWY_ATTR { backward_apply_of(a, inner, outer, begin, end); });
  });
}

template <class T>
void fill_kernels(NormKernels<T>& k) {
  k = {&moments<T>, &normalize_elements<T>, &backward_sums<T>, &backward_apply<T>};
}
void kernels_f32(NormKernels<float>& k) { fill_kernels(k); }
void kernels_bf16(NormKernels<bf16>& k) { fill_kernels(k); }

}  // namespace
}  // namespace mgic::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <cmath>

#include "backends/cpu/cpu_backend.h"

namespace mgic {
namespace cpu {
namespace {

HWY_EXPORT(kernels_f32);
HWY_EXPORT(kernels_bf16);

template <class T>
NormKernels<T> kernels_of() {
  NormKernels<T> k;
  if constexpr (std::is_same_v<T, float>)
    HWY_DYNAMIC_DISPATCH(kernels_f32)(k);
  else
    HWY_DYNAMIC_DISPATCH(kernels_bf16)(k);
  return k;
}

// Maps are all f32 or all bf16, parameters and statistics f32.
void require_maps(std::string_view op, std::initializer_list<const Tensor*> maps,
                  std::initializer_list<const Tensor*> parameters) {
  const bool half = (*maps.begin())->dtype() == DType::bf16;
  for (const Tensor* t : maps)
    if (half && t != nullptr && t->defined() && t->dtype() != DType::bf16)
      fail("{}: maps of bf16 and {} do not mix", op, *t);
  if (!half) require_f32(op, maps);
  require_f32(op, parameters);
}

// A count, a mean and a sum of squared deviations: Chan, Golub & LeVeque, "Updating formulae and a pairwise algorithm
// for computing sample variances", 1982.
struct Moments {
  double count = 0, mean = 0, squares = 0;
  void combine(const Moments& b) {
    const double total = count + b.count, delta = b.mean - mean;
    mean += delta * b.count / total;
    squares += b.squares + delta * delta * count * b.count / total;
    count = total;
  }
};

// The copies of channel c, of `count` rows each, as one: Chan's formula for sets of equal size.
Moments fold(const Columns& columns, int64_t c, double count, const double* mean, const double* squares) {
  const double copies = static_cast<double>(columns.repeat);
  Moments all{count * copies, columns.fold(mean, c) / copies, columns.fold(squares, c)};
  for (int64_t j = c; j < columns.width; j += columns.channels) {
    const double delta = mean[j] - all.mean;
    all.squares += count * delta * delta;
  }
  return all;
}

// What a normalisation multiplies and adds, expanded to wide rows.
struct Parameters {
  Scratch<float> mean, scale, beta;
  Parameters(const Norm& norm, const Columns& columns)
      : mean(columns.expand(norm.mean.data<float>())),
        scale(columns.expand(
            [gamma = norm.gamma.data<float>(), variance = norm.variance.data<float>(), eps = norm.eps](int64_t c) {
              return static_cast<float>(gamma[c] / std::sqrt(static_cast<double>(variance[c]) + eps));
            })),
        beta(columns.expand(norm.beta.data<float>())) {}
};

template <class T>
BackwardArgs<T> backward_args(const Parameters& p, const Columns& columns, const Tensor& x, const Epilogue& epilogue,
                              const Tensor& dy) {
  return {p.mean.data(),
          p.scale.data(),
          p.beta.data(),
          nullptr,
          nullptr,
          columns.width,
          x.data<T>(),
          dy.data<T>(),
          data_or_null<T>(epilogue.residual),
          epilogue.inner,
          epilogue.residual.defined() ? epilogue.outer : Activation::none};
}

template <class T>
bool is_large(const Tensor& map) {
  return map.count() * static_cast<int64_t>(sizeof(T)) >= large_map;
}

double inverse_deviation(const Norm& norm, int64_t c) {
  return 1 / std::sqrt(static_cast<double>(norm.variance.data<float>()[c]) + norm.eps);
}

}  // namespace

NormSums norm_gradient_sums(const Norm& norm, const Tensor& x, const Epilogue& epilogue, const Tensor& dy,
                            Tensor* dresidual) {
  const Columns columns(x.shape().last());
  const int64_t width = columns.width;
  const Parameters p(norm, columns);
  const int parts = columns.parts(x.count());
  Scratch<double> partial(parts * 2 * width);
  with_storage(x, [&](auto zero) {
    using T = decltype(zero);
    const auto kernels = kernels_of<T>();
    BackwardArgs<T> args = backward_args<T>(p, columns, x, epilogue, dy);
    args.large = is_large<T>(x);
    T* early = dresidual == nullptr ? nullptr : dresidual->data<T>();
    columns.parallel_elements(x.count(), [&](int part, int64_t begin, int64_t end) {
      Scratch<float> block(2 * width);
      kernels.backward_sums(args, begin, end, early, block.data(), partial.data() + part * 2 * width);
    });
  });
  NormSums sums(columns.channels);
  for (int64_t c = 0; c < columns.channels; ++c)
    for (int part = 0; part < parts && x.count() > 0; ++part) {
      sums.sum[c] += columns.fold(partial.data() + part * 2 * width, c);
      sums.centred_sum[c] += columns.fold(partial.data() + (part * 2 + 1) * width, c);
    }
  return sums;
}

NormCoefficients::NormCoefficients(const Norm& norm, const NormSums& sums, bool through, int64_t rows, int64_t count)
    : shift(count), slope(count) {
  // scale · Σ dz / rows and scale / deviation² · Σ dz (x − mean) / rows.
  std::fill_n(shift.data(), count, 0.0f);
  std::fill_n(slope.data(), count, 0.0f);
  if (!through || rows == 0) return;
  const double share = 1.0 / static_cast<double>(rows);
  for (int64_t c = 0; c < norm.gamma.count(); ++c) {
    const double inverse = inverse_deviation(norm, c), scale = norm.gamma.data<float>()[c] * inverse;
    shift[c] = static_cast<float>(scale * sums.sum[c] * share);
    slope[c] = static_cast<float>(scale * inverse * inverse * sums.centred_sum[c] * share);
  }
}

void write_norm_gradients(const Norm& norm, const NormSums& sums, Sink dgamma, Sink dbeta) {
  const auto write = [&](Sink sink, auto&& value) {
    if (!sink) return;
    float* out = (*sink).data<float>();
    for (int64_t c = 0; c < norm.gamma.count(); ++c)
      out[c] = static_cast<float>(accumulates(sink) ? out[c] + value(c) : value(c));
  };
  write(dgamma, [&](int64_t c) { return sums.centred_sum[c] * inverse_deviation(norm, c); });
  write(dbeta, [&](int64_t c) { return sums.sum[c]; });
}

}  // namespace cpu

using namespace cpu;

void CpuBackend::norm_statistics(const Tensor& x, Tensor& mean, Tensor& variance) {
  require_maps("norm_statistics", {&x}, {&mean, &variance});
  const Columns columns(x.shape().last());
  const int64_t width = columns.width, channels = columns.channels;
  const int64_t wide_rows = x.count() / width, rest = x.count() - wide_rows * width;
  const int parts = parts_of(wide_rows, elements_per_part / width);
  float *pmean = mean.data<float>(), *pvariance = variance.data<float>();

  Scratch<double> partial(parts * 2 * width);
  Scratch<float> tail(rest);
  with_storage(x, [&](auto zero) {
    using T = decltype(zero);
    const auto kernels = kernels_of<T>();
    const T* px = x.data<T>();
    parallel(wide_rows, parts, [&](int part, int64_t begin, int64_t end) {
      double* mine = partial.data() + part * 2 * width;
      Scratch<float> block(3 * width);
      kernels.moments(px + begin * width, width, end - begin, block.data(), mine, mine + width);
    });
    for (int64_t j = 0; j < rest; ++j) tail[j] = static_cast<float>(px[wide_rows * width + j]);
  });

  for (int64_t c = 0; c < channels; ++c) {
    Moments total;
    for (int part = 0; part < parts; ++part) {
      const double* theirs = partial.data() + part * 2 * width;
      const int64_t rows = part_begin(wide_rows, parts, part + 1) - part_begin(wide_rows, parts, part);
      if (rows > 0) total.combine(fold(columns, c, static_cast<double>(rows), theirs, theirs + width));
    }
    for (int64_t j = c; j < rest; j += channels) total.combine({1, tail[j], 0});
    pmean[c] = static_cast<float>(total.mean);
    pvariance[c] = static_cast<float>(total.squares / total.count);
  }
}

void CpuBackend::update_running(const Tensor& mean, const Tensor& variance, int64_t rows, double momentum,
                                Tensor& running_mean, Tensor& running_var) {
  require_f32("update_running", {&mean, &variance, &running_mean, &running_var});
  // One row has no unbiased variance: its biased one, zero, keeps the estimate finite.
  const double unbiased = rows > 1 ? static_cast<double>(rows) / (rows - 1) : 1;
  const float *m = mean.data<float>(), *v = variance.data<float>();
  float *rm = running_mean.data<float>(), *rv = running_var.data<float>();
  for (int64_t c = 0; c < mean.count(); ++c) {
    rm[c] = static_cast<float>((1 - momentum) * rm[c] + momentum * m[c]);
    rv[c] = static_cast<float>((1 - momentum) * rv[c] + momentum * unbiased * v[c]);
  }
  running_mean.changed_in_place();
  running_var.changed_in_place();
}

void CpuBackend::normalize(const Norm& norm, const Tensor& x, const Epilogue& epilogue, Tensor& y) {
  require_maps("normalize", {&x, &epilogue.residual, &y}, {&norm.gamma, &norm.beta, &norm.mean, &norm.variance});
  const Columns columns(x.shape().last());
  const Parameters p(norm, columns);
  with_storage(x, [&](auto zero) {
    using T = decltype(zero);
    const auto kernels = kernels_of<T>();
    const NormalizeArgs<T> args{
        p.mean.data(),  p.scale.data(), p.beta.data(), columns.width, x.data<T>(), data_or_null<T>(epilogue.residual),
        epilogue.inner, epilogue.outer, y.data<T>(),   is_large<T>(y)};
    columns.parallel_elements(x.count(), [&](int, int64_t begin, int64_t end) { kernels.normalize(args, begin, end); });
  });
}

void CpuBackend::normalize_backward(const Norm& norm, bool training, const Tensor& x, const Epilogue& epilogue,
                                    const Tensor& dy, Sink dx, Sink dgamma, Sink dbeta, Sink dresidual) {
  require_maps("normalize_backward", {&x, &epilogue.residual, &dy, dx.tensor, dresidual.tensor},
               {dgamma.tensor, dbeta.tensor, &norm.gamma, &norm.beta, &norm.mean, &norm.variance});
  with_storage(x, [&](auto zero) {
    using T = decltype(zero);
    const auto kernels = kernels_of<T>();
    const Columns columns(x.shape().last());
    const Parameters p(norm, columns);
    BackwardArgs<T> args = backward_args<T>(p, columns, x, epilogue, dy);

    // An overwritten dresidual is stored by the pass of the sums, since the next one can read it in the place of dy and
    // the residual; one that accumulates is left to the next pass, which would not find the bare gradient there.
    const bool wants_sums = dgamma || dbeta || (dx && training);
    NormSums sums(columns.channels);
    if (wants_sums) {
      const bool store_early = dresidual && !accumulates(dresidual);
      sums = norm_gradient_sums(norm, x, epilogue, dy, store_early ? dresidual.tensor : nullptr);
      if (store_early) {
        args.dy = (*dresidual).data<T>();
        args.outer = Activation::none;
        dresidual = {};
      }
    }
    write_norm_gradients(norm, sums, dgamma, dbeta);
    if (!dx && !dresidual) return;

    const NormCoefficients c(norm, sums, training && wants_sums, x.shape().rows(), columns.channels);
    const auto shift = columns.expand(c.shift.data()), slope = columns.expand(c.slope.data());
    args.shift = shift.data();
    args.slope = slope.data();
    if (dx) {
      args.dx = (*dx).data<T>();
      args.accumulate_dx = accumulates(dx);
    }
    if (dresidual) {
      args.dresidual = (*dresidual).data<T>();
      args.accumulate_dresidual = accumulates(dresidual);
    }
    columns.parallel_elements(x.count(),
                              [&](int, int64_t begin, int64_t end) { kernels.backward_apply(args, begin, end); });
  });
}

}  // namespace mgic
#endif  // HWY_ONCE
