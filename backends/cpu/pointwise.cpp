// A few rows at a time: what is not f32, or has to be subtracted first, is copied to the first cache, then all groups
// are multiplied, which read their rows in short pieces far apart that the hardware does not foresee.
//
// In the product a vector holds neighbouring results of one row, every factor of the row is broadcast, and eight rows
// run side by side, so that eight sums hide the latency of an addition and one load of the weights serves them all. The
// sums hold a tile of a matrix in registers while the rows stream by.
#include "backends/cpu/simd.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/pointwise.cpp"
#include <hwy/foreach_target.h>
// clang-format off
#include "backends/cpu/grouped-inl.h"
#include "backends/cpu/pointwise.h"
// clang-format on

#ifndef MGIC_CPU_POINTWISE_BLOCK
#define MGIC_CPU_POINTWISE_BLOCK
namespace mgic::cpu {
constexpr int64_t block_rows = 16;
}
#endif

HWY_BEFORE_NAMESPACE();
namespace mgic::cpu::HWY_NAMESPACE {
namespace {

// f(vector type's tag) with the widest vector that divides n: 16, 8 or 4 floats, or what the machine has.
template <class F>
HWY_INLINE void with_lanes(int64_t n, F&& f) {
  if (n % 16 == 0) return f(hn::CappedTag<float, 16>());
  if (n % 8 == 0) return f(hn::CappedTag<float, 8>());
  f(hn::CappedTag<float, 4>());
}

// Lines of memory that the next block of rows will touch. Every product asks for its share of them: in one go, or while
// rows are only copied, they would wait for each other. What is read comes into the second cache: the first one may not
// hold two blocks.
class NextRows {
 public:
  explicit NextRows(int64_t products) : products_(products) {}
  // The `elements` behind p.
  template <class T>
  void add(const T* p, int64_t elements, bool written = false) {
    const int64_t bytes = elements * static_cast<int64_t>(sizeof(T)), share = (bytes / products_ + 63) / 64 * 64;
    const auto* at = reinterpret_cast<const std::byte*>(p);
    if (p != nullptr) spans_[count_++] = {at, at + bytes, share, written};
  }
  HWY_INLINE void fetch() {
    for (int i = 0; i < count_; ++i) {
      Span& s = spans_[i];
      const std::byte* to = std::min(s.at + s.share, s.end);
      for (; s.at < to; s.at += 64)
        if (s.written)
          __builtin_prefetch(s.at, 1, 3);
        else
          __builtin_prefetch(s.at, 0, 2);
    }
  }

 private:
  struct Span {
    const std::byte *at, *end;
    int64_t share;
    bool written;
  };
  Span spans_[6];
  int count_ = 0;
  int64_t products_;
};

// Whole vectors are stored with the arithmetic's own rounding.
template <class A>
HWY_INLINE WholeOf<A> rounding(Whole) {
  return {};
}
template <class A>
HWY_INLINE Part rounding(Part part) {
  return part;
}

// Whether numbers of T are cells of the arithmetic as they lie in memory.
template <class A, class T>
constexpr bool are_cells = A::pairs ? std::is_same_v<T, bf16> : std::is_same_v<T, float>;

// Element i of a row, which lies at `at`, of x − minus − centre.
template <class T, class Memory>
HWY_INLINE V row_value(const Rows<T>& source, const float* centre, int64_t at, int64_t i, Memory memory) {
  V v = memory.load(source.x + at);
  if (source.minus != nullptr) v = hn::Sub(v, memory.load(source.minus + at));
  return centre == nullptr ? v : hn::Sub(v, memory.load(centre + i));
}

// Rows in cells of neighbouring channels: in `block`, or where they lie if they are just that.
template <class A, class T>
const typename A::Cell* load_rows(const Rows<T>& source, const float* centre, int64_t channels, int64_t row,
                                  int64_t rows, void* block) {
  if constexpr (are_cells<A, T>)
    if (source.minus == nullptr && centre == nullptr)
      return reinterpret_cast<const typename A::Cell*>(source.x + row * channels);
  auto* to = static_cast<std::conditional_t<A::pairs, bf16, float>*>(block);
  const int64_t all = rows * channels, width = centre == nullptr ? all : channels;
  for (int64_t begin = 0; begin < all; begin += width)
    each_vector(0, width, [&](int64_t i, auto whole_or_part) HWY_ATTR {
      const auto memory = rounding<A>(whole_or_part);
      memory.store(row_value(source, centre, row * channels + begin + i, i, memory), to + begin + i);
    });
  return static_cast<const typename A::Cell*>(block);
}

// Rows as summands: in cells of neighbouring rows, half as many as a block has room for. A row's last vector may write
// beyond its end: the next row comes after it, or the other half.
template <class A, class T>
const typename A::Cell* load_summands(const Rows<T>& source, const float* centre, int64_t channels, int64_t row,
                                      int64_t rows, void* block) {
  if constexpr (A::pairs) {
    auto* cells = static_cast<typename A::Cell*>(block);
    for (int64_t r = 0; r < rows; r += 2)
      each_vector(0, channels, [&](int64_t i, auto memory) HWY_ATTR {
        const int64_t at = (row + r) * channels + i;
        const V second = r + 1 < rows ? row_value(source, centre, at + channels, i, memory) : hn::Zero(D());
        A::put_summands(row_value(source, centre, at, i, memory), second, cells + r / 2 * channels + i, 0, 0);
      });
    return cells;
  } else {
    return load_rows<A>(source, centre, channels, row, rows, block);
  }
}

// R rows of y[r, 0 … n) = Σ_k x[r, k] w[k, 0 … n) over k < cells, added to y where `accumulate` says so, else to shift
// (n) where there is one; x and y have row strides, w is (cells, n).
template <class A, int R, class Tag>
HWY_INLINE void multiply_rows(Tag d, const typename A::Cell* HWY_RESTRICT x, int64_t x_stride,
                              const typename A::Cell* HWY_RESTRICT w, int64_t cells, int64_t n,
                              const float* HWY_RESTRICT shift, bool accumulate, float* HWY_RESTRICT y,
                              int64_t y_stride) {
  // Some factors at a time, so that one address a row serves them all; a group has at least as many.
  constexpr int together = A::pairs ? 2 : 4;
  for (int64_t j = 0; j < n; j += static_cast<int64_t>(hn::Lanes(d))) {
    hn::Vec<Tag> sum[R];
    const hn::Vec<Tag> first = shift == nullptr ? hn::Zero(d) : hn::LoadU(d, shift + j);
    for (int r = 0; r < R; ++r) sum[r] = accumulate ? hn::LoadU(d, y + r * y_stride + j) : first;
    for (int64_t k = 0; k < cells; k += together) {
      decltype(A::load(d, w)) weights[together];
      for (int i = 0; i < together; ++i) weights[i] = A::load(d, w + (k + i) * n + j);
      for (int r = 0; r < R; ++r)
        for (int i = 0; i < together; ++i) sum[r] = A::step(d, sum[r], weights[i], x + r * x_stride + k + i);
    }
    for (int r = 0; r < R; ++r) hn::StoreU(sum[r], d, y + r * y_stride + j);
  }
}

// x (rows, groups·cells), w (groups, cells, n), shift (groups·n), y (rows, groups·n).
template <class A>
void multiply(const typename A::Cell* x, const typename A::Cell* w, int64_t rows, int64_t groups, int64_t cells,
              int64_t n, const float* shift, bool accumulate, NextRows& ahead, float* y) {
  const int64_t x_stride = groups * cells, y_stride = groups * n;
  with_lanes(n, [&](auto d) HWY_ATTR {
    int64_t row = 0;
    const auto rows_of = [&](auto count) HWY_ATTR {
      constexpr int R = decltype(count)::value;
      for (; row + R <= rows; row += R)
        for (int64_t g = 0; g < groups; ++g) {
          if (R > 1) ahead.fetch();
          multiply_rows<A, R>(d, x + row * x_stride + g * cells, x_stride, w + g * cells * n, cells, n,
                              shift == nullptr ? nullptr : shift + g * n, accumulate, y + row * y_stride + g * n,
                              y_stride);
        }
    };
    rows_of(Count<8>());
    rows_of(Count<1>());
  });
}

// The rows' results are in `block`.
template <class A, class T>
void store_rows(const RowMap<T>& map, int64_t row, int64_t rows, const float* block) {
  const int64_t channels = map.groups * map.width, at = row * channels;
  each_vector(0, rows * channels, [&](int64_t i, auto whole_or_part) HWY_ATTR {
    const auto memory = rounding<A>(whole_or_part);
    V v = memory.load(block + i);
    if (map.residual != nullptr) v = hn::Add(v, memory.load(map.residual + at + i));
    if (map.y != nullptr) put(v, map.accumulate, memory, map.y + at + i);
    if (map.negated != nullptr) put(hn::Neg(v), map.accumulate_negated, memory, map.negated + at + i);
  });
}

// Rows [begin, end); `in` and `out` hold a block of rows each.
template <class A, class T>
void map_rows(const RowMap<T>& map, int64_t begin, int64_t end, float* in, float* out) {
  const int64_t channels = map.groups * map.width;
  for (int64_t row = begin; row < end; row += block_rows) {
    const int64_t rows = std::min(block_rows, end - row), next = row + rows, more = std::min(block_rows, end - next);
    NextRows ahead((rows + 7) / 8 * map.groups * static_cast<int64_t>(map.terms.size()));
    for (const auto& term : map.terms)
      for (const T* x : {term.rows.x, term.rows.minus})
        if (x != nullptr) ahead.add(x + next * map.groups * term.depth, more * map.groups * term.depth);
    if (map.residual != nullptr) ahead.add(map.residual + next * channels, more * channels);
    for (T* y : {map.y, map.negated})
      if (y != nullptr) ahead.add(y + next * channels, more * channels, true);
    // Sums that nothing more is done to go where they belong, if that is not where they come from.
    float* to = out;
    if constexpr (std::is_same_v<T, float>) {
      const bool apart = std::ranges::none_of(map.terms, [&](const auto& term) { return term.rows.x == map.y; });
      const bool adds = map.residual != nullptr || (map.accumulate && map.shift != nullptr);
      if (apart && !adds && map.negated == nullptr) to = map.y + row * channels;
    }
    bool accumulate = to != out && map.accumulate;
    for (const auto& term : map.terms) {
      const auto* x = load_rows<A>(term.rows, nullptr, map.groups * term.depth, row, rows, in);
      multiply<A>(x, static_cast<const typename A::Cell*>(term.packed), rows, map.groups, A::cells(term.depth),
                  map.width, map.shift, accumulate, ahead, to);
      accumulate = true;
    }
    if (to == out) store_rows<A>(map, row, rows, out);
  }
}

// T rows of dw[0 … T, 0 … lanes) += Σ_r dy[r, 0 … T) x[r, 0 … lanes).
template <class A, int T, class Tag>
HWY_INLINE void outer_tile(Tag d, const typename A::Cell* HWY_RESTRICT x, int64_t x_stride,
                           const typename A::Cell* HWY_RESTRICT dy, int64_t dy_stride, int64_t steps,
                           float* HWY_RESTRICT dw, int64_t dw_stride) {
  hn::Vec<Tag> sum[T];
  for (int t = 0; t < T; ++t) sum[t] = hn::Zero(d);
  for (int64_t r = 0; r < steps; ++r) {
    const auto values = A::load(d, x + r * x_stride);
    for (int t = 0; t < T; ++t) sum[t] = A::step(d, sum[t], values, dy + r * dy_stride + t);
  }
  for (int t = 0; t < T; ++t) hn::StoreU(hn::Add(hn::LoadU(d, dw + t * dw_stride), sum[t]), d, dw + t * dw_stride);
}

// dw (groups·outputs, inputs) += dyᵀ x per group, of summands.
template <class A>
void outer(const typename A::Cell* x, const typename A::Cell* dy, int64_t steps, int64_t groups, int64_t inputs,
           int64_t outputs, NextRows& ahead, float* dw) {
  const int64_t x_stride = groups * inputs, dy_stride = groups * outputs;
  with_lanes(inputs, [&](auto d) HWY_ATTR {
    const int64_t step = static_cast<int64_t>(hn::Lanes(d));
    for (int64_t g = 0; g < groups; ++g) {
      ahead.fetch();
      for (int64_t i = 0; i < inputs; i += step) {
        int64_t o = 0;
        const auto tile = [&](auto size) HWY_ATTR {
          constexpr int T = decltype(size)::value;
          for (; o + T <= outputs; o += T)
            outer_tile<A, T>(d, x + g * inputs + i, x_stride, dy + g * outputs + o, dy_stride, steps,
                             dw + (g * outputs + o) * inputs + i, inputs);
        };
        tile(Count<16>());
        tile(Count<8>());
        tile(Count<4>());
      }
    }
  });
}

// sums (channels) += the summands of a block.
template <class A>
void add_rows(const typename A::Cell* block, int64_t channels, int64_t steps, float* sums) {
  with_lanes(channels, [&](auto d) HWY_ATTR {
    for (int64_t i = 0; i < channels; i += static_cast<int64_t>(hn::Lanes(d))) {
      auto sum = hn::Zero(d);
      for (int64_t r = 0; r < steps; ++r) sum = A::step(d, sum, A::load(d, block + r * channels + i), &A::one);
      hn::StoreU(hn::Add(hn::LoadU(d, sums + i), sum), d, sums + i);
    }
  });
}

// Rows [begin, end), added to sums: those of v, of dy, the outer products and the Gram matrices, one behind the other.
template <class A, class T>
void sum_rows(const RowSums<T>& s, int64_t begin, int64_t end, float* v_block, float* dy_block, float* sums) {
  const Pointwise& p = s.p;
  float *dy_sums = sums + p.in_channels(), *products = dy_sums + p.out_channels(),
        *gram = products + p.out_channels() * p.inputs;
  const int64_t in = p.in_channels(), out = p.out_channels();
  for (int64_t row = begin; row < end; row += block_rows) {
    const int64_t rows = std::min(block_rows, end - row), next = row + rows, more = std::min(block_rows, end - next);
    NextRows ahead(p.groups * ((s.gram ? 1 : 0) + (s.dy != nullptr ? 1 : 0)));
    for (const T* x : {s.v.x, s.v.minus})
      if (x != nullptr) ahead.add(x + next * in, more * in);
    if (s.dy != nullptr) ahead.add(s.dy + next * out, more * out);
    const int64_t steps = A::steps(rows);
    const auto* v = load_summands<A>(s.v, s.centre, in, row, rows, v_block);
    if (s.centre != nullptr) add_rows<A>(v, in, steps, sums);
    if (s.gram) outer<A>(v, v, steps, p.groups, p.inputs, p.inputs, ahead, gram);
    if (s.dy == nullptr) continue;
    const auto* dy = load_summands<A>(Rows<T>{s.dy}, nullptr, out, row, rows, dy_block);
    if (s.centre != nullptr) add_rows<A>(dy, out, steps, dy_sums);
    outer<A>(v, dy, steps, p.groups, p.inputs, p.outputs, ahead, products);
  }
}

void map_f32(const RowMap<float>& m, int64_t begin, int64_t end, float* in, float* out) {
  map_rows<F32>(m, begin, end, in, out);
}
void map_bf16(bool pairs [[maybe_unused]], const RowMap<bf16>& m, int64_t begin, int64_t end, float* in, float* out) {
#if MGIC_HAS_BF16_DOT
  if (pairs) return map_rows<Bf16>(m, begin, end, in, out);
#endif
  map_rows<F32>(m, begin, end, in, out);
}
void sum_f32(const RowSums<float>& s, int64_t begin, int64_t end, float* v, float* dy, float* sums) {
  sum_rows<F32>(s, begin, end, v, dy, sums);
}
void sum_bf16(bool pairs [[maybe_unused]], const RowSums<bf16>& s, int64_t begin, int64_t end, float* v, float* dy,
              float* sums) {
#if MGIC_HAS_BF16_DOT
  if (pairs) return sum_rows<Bf16>(s, begin, end, v, dy, sums);
#endif
  sum_rows<F32>(s, begin, end, v, dy, sums);
}

}  // namespace
}  // namespace mgic::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "backends/cpu/grouped.h"
#include "backends/cpu/passes.h"

namespace mgic::cpu {
namespace {

HWY_EXPORT(map_f32);
HWY_EXPORT(map_bf16);
HWY_EXPORT(sum_f32);
HWY_EXPORT(sum_bf16);

void map_here(const RowMap<float>& m, int64_t begin, int64_t end, float* in, float* out) {
  HWY_DYNAMIC_DISPATCH(map_f32)(m, begin, end, in, out);
}
void map_here(const RowMap<bf16>& m, int64_t begin, int64_t end, float* in, float* out) {
  HWY_DYNAMIC_DISPATCH(map_bf16)(packs_pairs<bf16>(), m, begin, end, in, out);
}
void sum_here(const RowSums<float>& s, int64_t begin, int64_t end, float* v, float* dy, float* sums) {
  HWY_DYNAMIC_DISPATCH(sum_f32)(s, begin, end, v, dy, sums);
}
void sum_here(const RowSums<bf16>& s, int64_t begin, int64_t end, float* v, float* dy, float* sums) {
  HWY_DYNAMIC_DISPATCH(sum_bf16)(packs_pairs<bf16>(), s, begin, end, v, dy, sums);
}

// Parts of the rows, of which each is worth a thread's while; several a thread where there are rows enough.
int row_parts(int64_t rows, int64_t channels) {
  return std::min(parts_of(rows, elements_per_thread / channels) * chunks_per_thread, chunks_of(rows));
}

}  // namespace

template <class T>
void run(RowMap<T> map) {
  std::vector<std::vector<bf16>> pairs;  // of factors that follow each other, (groups, depth / 2, width, 2)
  for (auto& term : map.terms) {
    term.packed = term.weights;
    if (!packs_pairs<T>()) continue;
    const int64_t all = map.groups * term.depth * map.width;
    auto& packed = pairs.emplace_back(static_cast<size_t>(all));
    for (int64_t k = 0; k < all; k += 2 * map.width)
      for (int64_t o = 0; o < map.width; ++o)
        for (int64_t i = 0; i < 2; ++i)
          packed[static_cast<size_t>(k + 2 * o + i)] = bf16(term.weights[k + i * map.width + o]);
    term.packed = packed.data();
  }
  int64_t depth = 0, channels = map.groups * map.width;
  for (const auto& term : map.terms) {
    depth = std::max(depth, term.depth);
    channels += map.groups * term.depth;
  }
  const int64_t in = block_rows * map.groups * depth, room = in + block_rows * map.groups * map.width;
  Scratch<float> scratch(threads() * room);
  parallel_chunks(map.rows, row_parts(map.rows, channels), true, [&](int, int thread, int64_t begin, int64_t end) {
    float* own = scratch.data() + thread * room;
    map_here(map, begin, end, own, own + in);
  });
}

template <class T>
Sums run(const RowSums<T>& s) {
  const Pointwise& p = s.p;
  const int64_t in = p.in_channels(), out = p.out_channels(), products = out * p.inputs,
                count = in + out + products + in * p.inputs, room = block_rows * (in + out);
  const int parts = row_parts(p.rows, in + out);
  Scratch<float> scratch(threads() * room), partial(parts * count);
  parallel_chunks(p.rows, parts, false, [&](int part, int thread, int64_t begin, int64_t end) {
    float *own = scratch.data() + thread * room, *sums = partial.data() + part * count;
    std::fill_n(sums, count, 0.0f);
    sum_here(s, begin, end, own, own + block_rows * in, sums);
  });
  const auto total = [&](int64_t first, int64_t n) {
    std::vector<double> sum(static_cast<size_t>(n));
    for (int part = 0; part < parts; ++part)
      for (int64_t i = 0; i < n; ++i) sum[static_cast<size_t>(i)] += partial[part * count + first + i];
    return sum;
  };
  const bool dy = s.dy != nullptr;
  return {total(0, in), total(in, dy ? out : 0), total(in + out, dy ? products : 0),
          total(in + out + products, s.gram ? in * p.inputs : 0)};
}

Merged::Merged(const Pointwise& own) : of(merged_groups(own.groups, own.inputs, own.outputs)) {
  p = {own.rows, own.groups / of, own.inputs * of, own.outputs * of};
}

std::vector<float> Merged::weights(const float* w) const {
  std::vector<float> all(static_cast<size_t>(p.out_channels() * p.inputs));
  each_weight([&](int64_t place, int64_t own) { all[static_cast<size_t>(place)] = w[own]; });
  return all;
}

std::vector<float> forward_factors(const Pointwise& p, const std::vector<float>& w, const float* scale) {
  std::vector<float> factors(w.size());
  for (int64_t o = 0; o < p.out_channels(); ++o)
    for (int64_t i = 0; i < p.inputs; ++i)
      factors[static_cast<size_t>((o / p.outputs * p.inputs + i) * p.outputs + o % p.outputs)] =
          w[static_cast<size_t>(o * p.inputs + i)] * (scale == nullptr ? 1.0f : scale[o]);
  return factors;
}

std::vector<float> backward_factors(const Pointwise& p, const std::vector<float>& w, const float* scale) {
  std::vector<float> factors(w);
  if (scale == nullptr) return factors;
  for (size_t k = 0; k < factors.size(); ++k) factors[k] *= scale[static_cast<int64_t>(k) / p.inputs];
  return factors;
}

bool pointwise_suits(int64_t groups, int64_t inputs, int64_t outputs) {
  const int64_t merged = inputs > 1 && outputs > 1 ? merged_groups(groups, inputs, outputs) : 1;
  return merged > 0 && merged * inputs % 4 == 0 && merged * outputs % 4 == 0 && inputs <= 32 && outputs <= 32;
}

template <class T>
void pointwise_forward(const Pointwise& own, const T* x, const float* w, const float* bias, const T* residual, T* y) {
  const Merged merged(own);
  const Pointwise& p = merged.p;
  const auto factors = forward_factors(p, merged.weights(w), nullptr);
  run(RowMap<T>{p.rows, p.groups, p.outputs, {{{x}, p.inputs, factors.data()}}, bias, residual, y});
}

template <class T>
void pointwise_backward_data(const Pointwise& own, const T* dy, const float* w, bool accumulate, T* dx) {
  const Merged merged(own);
  const Pointwise& p = merged.p;
  const auto factors = merged.weights(w);
  run(RowMap<T>{p.rows, p.groups, p.inputs, {{{dy}, p.outputs, factors.data()}}, nullptr, nullptr, dx, accumulate});
}

template <class T>
void pointwise_backward_weights(const Pointwise& own, const T* x, const T* dy, bool accumulate, float* dw) {
  const Merged merged(own);
  const Sums sums = run(RowSums<T>{merged.p, {x}, dy});
  merged.each_weight([&](int64_t place, int64_t weight) {
    dw[weight] = static_cast<float>((accumulate ? dw[weight] : 0.0) + sums.outer[static_cast<size_t>(place)]);
  });
}

#define MGIC_POINTWISE(T)                                                                                   \
  template void run(RowMap<T>);                                                                             \
  template Sums run(const RowSums<T>&);                                                                     \
  template void pointwise_forward<T>(const Pointwise&, const T*, const float*, const float*, const T*, T*); \
  template void pointwise_backward_data<T>(const Pointwise&, const T*, const float*, bool, T*);             \
  template void pointwise_backward_weights<T>(const Pointwise&, const T*, const T*, bool, float*);
MGIC_POINTWISE(float)
MGIC_POINTWISE(bf16)
#undef MGIC_POINTWISE

}  // namespace mgic::cpu
#endif  // HWY_ONCE
