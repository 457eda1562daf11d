// What the kernels of batch normalisation are told; the parameters are expanded to wide rows (columns.h).
#pragma once

#include "backends/backend.h"
#include "backends/cpu/columns.h"

namespace mgic::cpu {

// Bytes from which a map is stored past the caches: little of it would be left there for its next reader. Smaller ones,
// within a network, took as long either way.
constexpr int64_t large_map = int64_t{16} << 20;

// Maps of T, f32 or bf16.
template <class T>
struct NormalizeArgs {
  const float *mean, *scale, *beta;  // (width)
  int64_t width;
  const T *x, *residual;  // residual may be null; then `outer` is not looked at
  Activation inner, outer;
  T* y;
  bool large;  // whether y is a large map
};

template <class T>
struct BackwardArgs {
  const float *mean, *scale, *beta, *shift, *slope;  // (width)
  int64_t width;
  const T *x, *dy, *residual;
  Activation inner, outer;  // outer none where there is no residual
  T *dx = nullptr, *dresidual = nullptr;
  bool accumulate_dx = false, accumulate_dresidual = false;
  bool large = false;  // whether they are large maps
};

template <class T>
struct NormKernels {
  void (*moments)(const T* x, int64_t width, int64_t rows, float* block, double* mean, double* squares);
  void (*normalize)(const NormalizeArgs<T>&, int64_t begin, int64_t end);
  void (*backward_sums)(const BackwardArgs<T>&, int64_t begin, int64_t end, T* dresidual, float* block, double* sums);
  void (*backward_apply)(const BackwardArgs<T>&, int64_t begin, int64_t end);
};

// Σ dz and Σ dz (x − mean) of every channel.
struct NormSums {
  Scratch<double> sum, centred_sum;
  explicit NormSums(int64_t channels) : sum(channels), centred_sum(channels) {
    std::fill_n(sum.data(), channels, 0.0);
    std::fill_n(centred_sum.data(), channels, 0.0);
  }
};

// The first of backward's two passes; it also stores the gradient in front of the residual's addition in dresidual
// where that is given.
NormSums norm_gradient_sums(const Norm& norm, const Tensor& x, const Epilogue& epilogue, const Tensor& dy,
                            Tensor* dresidual);

// What the second pass subtracts: dx = scale dz − shift − (x − mean) slope. (count) each, zeros behind the channels.
struct NormCoefficients {
  Scratch<float> shift, slope;

  // Nothing goes through the statistics where they are not the batch's (`through` false).
  NormCoefficients(const Norm& norm, const NormSums& sums, bool through, int64_t rows, int64_t count);
};

// dgamma (+)= Σ dz (x − mean) / deviation, dbeta (+)= Σ dz.
void write_norm_gradients(const Norm& norm, const NormSums& sums, Sink dgamma, Sink dbeta);

}  // namespace mgic::cpu
