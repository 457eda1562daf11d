// Sums over rows: y (+)= alpha Σ a · b. Gradients of biases and of channel scales, means over images.
//
// A chunk of rows is summed in f32 registers, chunks and threads are added in f64 and in a fixed order.
#include "backends/cpu/simd.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/reduction.cpp"
#include <hwy/foreach_target.h>
// clang-format off
#include "backends/cpu/simd-inl.h"
#include "backends/cpu/columns.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace mgic::cpu::HWY_NAMESPACE {
namespace {

// sums[j] = Σ a b over the elements [begin, end) of column j; b may be null. block is room for `width` sums.
void column_sums(const float* a, const float* b, int64_t width, int64_t begin, int64_t end, float* block,
                 double* sums) {
  std::fill_n(sums, width, 0.0);
  each_block(begin, end, width, [&](int64_t from, int64_t to) HWY_ATTR {
    std::fill_n(block, width, 0.0f);
    each_strip_of_rows(from, to, width, [&](int64_t j, auto memory, auto count, int64_t i, int64_t rows) HWY_ATTR {
      V sum[count.value];
      load_strip(block + j, memory, count, sum);
      for (int64_t r = 0; r < rows; ++r, i += width)
        for (int u = 0; u < count.value; ++u) {
          const int64_t at = i + u * lanes();
          const V v = memory.load(a + at);
          sum[u] = b == nullptr ? hn::Add(sum[u], v) : hn::MulAdd(v, memory.load(b + at), sum[u]);
        }
      store_strip(sum, memory, count, block + j);
    });
    for (int64_t j = 0; j < width; ++j) sums[j] += block[j];
  });
}

}  // namespace
}  // namespace mgic::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "backends/cpu/cpu_backend.h"
#include "backends/cpu/elementwise.h"
#include "backends/cpu/widened.h"

namespace mgic {
namespace cpu {
namespace {

HWY_EXPORT(column_sums);

void put(double value, bool accumulate, float& y) { y = static_cast<float>(accumulate ? y + value : value); }

// y[c] (+)= alpha Σ over the rows of a (rows, C).
void sum_rows(double alpha, const float* a, const float* b, int64_t count, const Columns& columns, bool accumulate,
              float* y) {
  const int64_t width = columns.width;
  const int parts = columns.parts(count);
  Scratch<double> partial(parts * width);
  std::fill_n(partial.data(), partial.count(), 0.0);
  columns.parallel_elements(count, [&](int part, int64_t begin, int64_t end) {
    Scratch<float> block(width);
    HWY_DYNAMIC_DISPATCH(column_sums)(a, b, width, begin, end, block.data(), partial.data() + part * width);
  });
  for (int64_t c = 0; c < columns.channels; ++c) {
    double sum = 0;
    for (int part = 0; part < parts; ++part) sum += columns.fold(partial.data() + part * width, c);
    put(alpha * sum, accumulate, y[c]);
  }
}

}  // namespace
}  // namespace cpu

using namespace cpu;

void CpuBackend::sum_to(double alpha, const Tensor& a, const Tensor& b, Broadcast broadcast, Sink y) {
  if (!y) return;
  if (holds_bf16({&a, &b, y.tensor})) {
    Widened w("sum_to");
    return sum_to(alpha, w(a), w(b), broadcast, w.out(y));
  }
  require_f32("sum_to", {&a, &b, y.tensor});
  const float *pa = a.data<float>(), *pb = data_or_null(b);
  float* py = (*y).data<float>();
  if (broadcast == Broadcast::same) {
    if (pb == nullptr) return scale_all(static_cast<float>(alpha), pa, accumulates(y), py, a.count());
    if (alpha == 1.0) return pairwise_all(Pairwise::multiply, pa, pb, accumulates(y), py, a.count());
    Scratch<float> product(a.count());
    pairwise_all(Pairwise::multiply, pa, pb, false, product.data(), a.count());
    return scale_all(static_cast<float>(alpha), product.data(), accumulates(y), py, a.count());
  }

  const Columns columns(a.shape().last());
  const int64_t samples = broadcast == Broadcast::channel ? 1 : a.shape()[0];
  if (samples == 1) return sum_rows(alpha, pa, pb, a.count(), columns, accumulates(y), py);
  const int64_t sample = a.count() / std::max<int64_t>(samples, 1);
  parallel_ranges(samples, sample, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n)
      sum_rows(alpha, pa + n * sample, pb == nullptr ? nullptr : pb + n * sample, sample, columns, accumulates(y),
               py + n * columns.channels);
  });
}

}  // namespace mgic
#endif  // HWY_ONCE
