#include "backends/cpu/dense_winograd.h"

#include "backends/cpu/simd.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/dense_winograd.cpp"
#include <hwy/foreach_target.h>
// clang-format off
#include "backends/cpu/winograd-inl.h"
// clang-format on

#ifndef MGIC_CPU_DENSE_WINOGRAD_TILES
#define MGIC_CPU_DENSE_WINOGRAD_TILES
namespace mgic::cpu {

// Some images of the batch as tiles of `side` outputs a side.
struct DenseTiles {
  int64_t images, height, width, inputs, outputs, side;

  int64_t positions() const { return (side + 2) * (side + 2); }
  int64_t down() const { return (height + side - 1) / side; }
  int64_t across() const { return (width + side - 1) / side; }
  int64_t count() const { return images * down() * across(); }

  struct Place {
    int64_t image, y, x;  // of the first output
  };
  Place place(int64_t tile) const {
    const int64_t of_image = tile % (down() * across());
    return {tile / (down() * across()), of_image / across() * side, of_image % across() * side};
  }
};

// What happens to an output behind the convolution.
template <class T>
struct DenseEnd {
  const float* bias;
  Activation inner;
  const T* residual;
  Activation outer;
};

}  // namespace mgic::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace mgic::cpu::HWY_NAMESPACE {
namespace {

// v (positions, tiles, inputs) of tiles [begin, end).
template <int M, class T>
void dense_inputs(const DenseTiles& g, const T* x, int64_t begin, int64_t end, float* v) {
  constexpr int side = M + 2;
  const int64_t next = g.count() * g.inputs;
  for (int64_t tile = begin; tile < end; ++tile) {
    const DenseTiles::Place at = g.place(tile);
    for (int64_t c = 0; c < g.inputs; c += lanes()) {
      V columns[side][side];
      for (int j = 0; j < side; ++j) {
        V d[side];
        for (int k = 0; k < side; ++k) {
          const int64_t row = at.y + k - 1, column = at.x + j - 1;
          const bool inside = row >= 0 && row < g.height && column >= 0 && column < g.width;
          d[k] = inside ? Whole().load(x + ((at.image * g.height + row) * g.width + column) * g.inputs + c)
                        : hn::Zero(D());
        }
        all_inputs<M>(d, columns[j]);
      }
      for (int r = 0; r < side; ++r) {
        V d[side], t[side];
        for (int j = 0; j < side; ++j) d[j] = columns[j][r];
        all_inputs<M>(d, t);
        for (int j = 0; j < side; ++j) hn::StoreU(t[j], D(), v + (r * side + j) * next + tile * g.inputs + c);
      }
    }
  }
}

// The outputs of tiles [begin, end) from their products m (positions, tiles, outputs).
template <int M, class T>
void dense_outputs(const DenseTiles& g, const float* m, const DenseEnd<T>& e, int64_t begin, int64_t end, T* y) {
  constexpr int side = M + 2;
  const int64_t next = g.count() * g.outputs;
  with_activation(e.inner, [&](auto inner) HWY_ATTR {
    with_activation(e.outer, [&](auto outer) HWY_ATTR {
      for (int64_t tile = begin; tile < end; ++tile) {
        const DenseTiles::Place at = g.place(tile);
        for (int64_t c = 0; c < g.outputs; c += lanes()) {
          V rows[side][M];
          for (int r = 0; r < side; ++r) {
            V d[side];
            for (int j = 0; j < side; ++j) d[j] = hn::LoadU(D(), m + (r * side + j) * next + tile * g.outputs + c);
            all_outputs<M>(d, rows[r]);
          }
          const V bias = hn::LoadU(D(), e.bias + c);
          for (int j = 0; j < M && at.x + j < g.width; ++j) {
            V d[side], out[M];
            for (int r = 0; r < side; ++r) d[r] = rows[r][j];
            all_outputs<M>(d, out);
            for (int i = 0; i < M && at.y + i < g.height; ++i) {
              const int64_t to = ((at.image * g.height + at.y + i) * g.width + at.x + j) * g.outputs + c;
              V value = inner.value(hn::Add(out[i], bias));
              if (e.residual != nullptr) value = hn::Add(value, Whole().load(e.residual + to));
              Whole().store(outer.value(value), y + to);
            }
          }
        }
      }
    });
  });
}

template <class T>
void inputs_of(const DenseTiles& g, const T* x, int64_t begin, int64_t end, float* v) {
  g.side == 4 ? dense_inputs<4>(g, x, begin, end, v) : dense_inputs<2>(g, x, begin, end, v);
}
template <class T>
void outputs_of(const DenseTiles& g, const float* m, const DenseEnd<T>& e, int64_t begin, int64_t end, T* y) {
  g.side == 4 ? dense_outputs<4>(g, m, e, begin, end, y) : dense_outputs<2>(g, m, e, begin, end, y);
}
void inputs_f32(const DenseTiles& g, const float* x, int64_t begin, int64_t end, float* v) {
  inputs_of(g, x, begin, end, v);
}
void inputs_bf16(const DenseTiles& g, const bf16* x, int64_t begin, int64_t end, float* v) {
  inputs_of(g, x, begin, end, v);
}
void outputs_f32(const DenseTiles& g, const float* m, const DenseEnd<float>& e, int64_t begin, int64_t end, float* y) {
  outputs_of(g, m, e, begin, end, y);
}
void outputs_bf16(const DenseTiles& g, const float* m, const DenseEnd<bf16>& e, int64_t begin, int64_t end, bf16* y) {
  outputs_of(g, m, e, begin, end, y);
}

}  // namespace
}  // namespace mgic::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "backends/cpu/onednn.h"

namespace mgic::cpu {
namespace {

HWY_EXPORT(inputs_f32);
HWY_EXPORT(inputs_bf16);
HWY_EXPORT(outputs_f32);
HWY_EXPORT(outputs_bf16);

void inputs_here(const DenseTiles& g, const float* x, int64_t begin, int64_t end, float* v) {
  HWY_DYNAMIC_DISPATCH(inputs_f32)(g, x, begin, end, v);
}
void inputs_here(const DenseTiles& g, const bf16* x, int64_t begin, int64_t end, float* v) {
  HWY_DYNAMIC_DISPATCH(inputs_bf16)(g, x, begin, end, v);
}
void outputs_here(const DenseTiles& g, const float* m, const DenseEnd<float>& e, int64_t begin, int64_t end, float* y) {
  HWY_DYNAMIC_DISPATCH(outputs_f32)(g, m, e, begin, end, y);
}
void outputs_here(const DenseTiles& g, const float* m, const DenseEnd<bf16>& e, int64_t begin, int64_t end, bf16* y) {
  HWY_DYNAMIC_DISPATCH(outputs_bf16)(g, m, e, begin, end, y);
}

DenseTiles tiles_of(const Shape& x, int64_t outputs) {
  DenseTiles g{x[0], x[1], x[2], x[3], outputs, 4};
  constexpr int64_t enough = 64;
  if (g.count() < enough) g.side = 2;
  return g;
}

// products (positions, tiles, outputs) = v (positions, tiles, inputs) · weights (positions, inputs, outputs)
void multiply(const DenseTiles& g, const float* v, const void* weights, float* products) {
  using onednn::Tag;
  constexpr int64_t operation = 11;
  const auto what = [&] {
    return fmt::format("{} matrix products of ({}, {}) and ({}, {}), of a 3×3 convolution", g.positions(), g.count(),
                       g.inputs, g.inputs, g.outputs);
  };
  const auto v_desc = onednn::f32_desc({g.positions(), g.count(), g.inputs}, Tag::abc),
             w_desc = onednn::f32_desc({g.positions(), g.inputs, g.outputs}, Tag::abc),
             m_desc = onednn::f32_desc({g.positions(), g.count(), g.outputs}, Tag::abc);
  const auto plan = onednn::plan_for({operation, g.positions(), g.count(), g.inputs, g.outputs}, what, [&] {
    const auto description = onednn::describe<dnnl::matmul>(onednn::attributes_with(), v_desc, w_desc, m_desc);
    onednn::Plan made;
    made.primitive = dnnl::matmul(description);
    made.scratchpad = description.scratchpad_desc();
    return made;
  });
  onednn::guarded(what, [&] {
    onednn::run(plan->primitive, plan->scratchpad,
                {{DNNL_ARG_SRC, v_desc, v}, {DNNL_ARG_WEIGHTS, w_desc, weights}, {DNNL_ARG_DST, m_desc, products}});
  });
}

}  // namespace

bool dense_winograd_suits(const ConvParams& p, const Shape& x, const Shape& w) {
  constexpr int64_t vector = 16;
  return p.groups == 1 && p.stride == 1 && p.dilation == 1 && p.padding == 1 && w[1] == 3 && w[2] == 3 &&
         w[0] % vector == 0 && w[3] % vector == 0 && x.count() > 0;
}

int64_t dense_winograd_tile(const Shape& x) { return tiles_of(x, 0).side; }

Scratch<uint32_t> dense_winograd_weights(int64_t tile, const Shape& shape, const float* w, const float* scale) {
  const int64_t outputs = shape[0], inputs = shape[3], side = tile + 2;
  Scratch<uint32_t> packed(side * side * inputs * outputs);
  auto* u = reinterpret_cast<float*>(packed.data());
  // G's rows.
  using winograd::far, winograd::near;
  constexpr float k = winograd::scale;
  constexpr float two[4][3] = {{1, 0, 0}, {0.5f, 0.5f, 0.5f}, {0.5f, -0.5f, 0.5f}, {0, 0, 1}};
  constexpr float four[6][3] = {
      {1, 0, 0}, {-k * far, -k, -k * near}, {-k * far, k, -k * near}, {k * near, k, k * far}, {k * near, -k, k * far},
      {0, 0, 1}};
  const float(*g)[3] = side == 6 ? four : two;
  parallel_ranges(inputs, side * side * outputs, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      for (int64_t o = 0; o < outputs; ++o) {
        const float factor = scale == nullptr ? 1.0f : scale[o];
        float rows[6][3];
        for (int64_t r = 0; r < side; ++r)
          for (int64_t v = 0; v < 3; ++v) {
            const auto tap = [&](int64_t t) { return w[((o * 3 + t) * 3 + v) * inputs + i]; };
            rows[r][v] = factor * (g[r][0] * tap(0) + g[r][1] * tap(1) + g[r][2] * tap(2));
          }
        for (int64_t r = 0; r < side; ++r)
          for (int64_t c = 0; c < side; ++c)
            u[((r * side + c) * inputs + i) * outputs + o] =
                g[c][0] * rows[r][0] + g[c][1] * rows[r][1] + g[c][2] * rows[r][2];
      }
  });
  return packed;
}

template <class T>
void dense_winograd(const Shape& x_shape, int64_t outputs, const T* x, const void* weights, const float* bias,
                    Activation inner, const T* residual, Activation outer, T* y) {
  const DenseTiles all = tiles_of(x_shape, outputs);
  const int64_t channels = std::max(all.inputs, all.outputs), pixels = all.height * all.width,
                image = all.positions() * all.down() * all.across() * channels;
  constexpr int64_t most = 4 << 20;  // floats of transformed inputs at a time, and of products
  const int64_t together = std::clamp<int64_t>(most / image, 1, all.images);
  Scratch<float> v(together * image), m(together * image);
  for (int64_t n = 0; n < all.images; n += together) {
    DenseTiles g = all;
    g.images = std::min(together, all.images - n);
    const int64_t in = n * pixels * g.inputs, out = n * pixels * g.outputs;
    parallel_ranges(g.count(), g.positions() * g.inputs,
                    [&](int64_t begin, int64_t end) { inputs_here(g, x + in, begin, end, v.data()); });
    multiply(g, v.data(), weights, m.data());
    const DenseEnd<T> e{bias, inner, residual == nullptr ? nullptr : residual + out, outer};
    parallel_ranges(g.count(), g.positions() * g.outputs,
                    [&](int64_t begin, int64_t end) { outputs_here(g, m.data(), e, begin, end, y + out); });
  }
}

template void dense_winograd(const Shape&, int64_t, const float*, const void*, const float*, Activation, const float*,
                             Activation, float*);
template void dense_winograd(const Shape&, int64_t, const bf16*, const void*, const float*, Activation, const bf16*,
                             Activation, bf16*);

}  // namespace mgic::cpu
#endif  // HWY_ONCE
