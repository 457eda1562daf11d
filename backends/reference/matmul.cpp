// Matrix product.
//
//   y[m, n] = Σ_k op(a)[m, k] · op(b)[k, n] + bias[n]
//
// y (M, N); a (M, K), or (K, M) where it is transposed; b (K, N), or (N, K) where it is transposed; bias (N).
// A linear layer is y = x wᵀ + bias, its gradients are dx = dy w and dw = dyᵀ x. Tensors of higher rank are taken as
// matrices of their rows.
#include "backends/reference/kernels.h"

namespace mgic {

using namespace reference;

void Backend::matmul(const Tensor& a, bool transpose_a, const Tensor& b, bool transpose_b, const Tensor& bias, Sink y) {
  naive("matmul");
  if (!y) return;
  const int64_t rows = (*y).shape().rows(), columns = (*y).shape().last();
  const int64_t depth = transpose_a ? a.shape().rows() : a.shape().last();
  const Values va = load(a), vb = load(b), vbias = load(bias);
  Values vy(rows * columns);
  for (int64_t m = 0; m < rows; ++m)
    for (int64_t n = 0; n < columns; ++n) {
      double sum = bias.defined() ? vbias[n] : 0;
      for (int64_t k = 0; k < depth; ++k)
        sum += va[transpose_a ? k * rows + m : m * depth + k] * vb[transpose_b ? n * depth + k : k * columns + n];
      vy[m * columns + n] = sum;
    }
  store(vy, y);
}

}  // namespace mgic
