// What one thread does with its items of one pass (passes.h): packing them into planes (planes-inl.h), computing a
// block of rows, and where its outputs go (outputs-inl.h).
#include "backends/cpu/simd.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/pass_kernels.cpp"
#include <hwy/foreach_target.h>
// clang-format off
#include "backends/cpu/matrix-inl.h"
#include "backends/cpu/outputs-inl.h"
#include "backends/cpu/planes-inl.h"
#include "backends/cpu/winograd_rows-inl.h"
#include "backends/cpu/pass_kernels.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace mgic::cpu::HWY_NAMESPACE {
namespace {

// Rows that are computed at a time: enough for the tiles, few enough for the first cache.
template <class A>
int64_t block_rows(const Grouped& g) {
#if MGIC_HAS_MATRICES
  if (g.arithmetic == Arithmetic::matrices) return matrix_rows(g);
#endif
  const int64_t tile = g.tile == 4   ? 4 * winograd_strips<4>(g.width, winograd_tiles)
                       : g.tile == 2 ? 2 * winograd_strips<2>(g.width, winograd_tiles)
                                     : tile_rows(g.width);
  return std::max<int64_t>(64 / g.width / tile, 1) * tile;
}

// f(tag, quads) with the vectors that hold so many results of a group, or several groups of four channels.
template <class F>
HWY_INLINE void with_vectors(const Grouped& g, int64_t results, F&& f) {
  if (quad_lanes(g) > 0) return f(D(), std::true_type());
  with_result_lanes(results, [&](auto d) HWY_ATTR { f(d, std::false_type()); });
}

// f(M, n) for Winograd's filtering in rows: its tiles, and the channels of a group.
template <class F>
HWY_INLINE void with_rows(const Grouped& g, F&& f) {
  const auto channels = [&](auto tile) HWY_ATTR {
    if constexpr (hn::MaxLanes(D()) > 8)
      if (g.inputs == 8) return f(tile, Count<8>());
    if constexpr (hn::MaxLanes(D()) > 4) f(tile, Count<4>());
  };
  if (g.tile == 4) return channels(Count<4>());
  channels(Count<2>());
}

// Rows of a block of outputs from row y on, whose rows lie `pitch` pixels apart, go to their place.
template <class Outputs>
HWY_INLINE void put_block(const float* block, int64_t pitch, int64_t y, int64_t rows, int64_t width, Outputs& outputs) {
  for (int64_t r = 0; r < rows; ++r) {
    int64_t x = 0;
    const auto some = [&](auto at_once) HWY_ATTR {
      constexpr int n = decltype(at_once)::value;
      for (; x + n <= width; x += n)
        for (int u = 0; u < slab_vectors; ++u) {
          V v[n];
#pragma GCC unroll 4
          for (int i = 0; i < n; ++i) v[i] = hn::LoadU(D(), block + (r * pitch + x + i) * slab_channels + u * lanes());
          outputs.put({y + r, x, false}, u, v);
        }
    };
    some(Count<4>());
    some(Count<1>());
  }
}

// Outputs of rows [y, y + rows) of a slab of a bundle. The planes begin at row `top` − border.
template <class A, class Outputs>
void compute_rows(const Grouped& g, const typename A::Cell* planes, int64_t plane, int64_t top,
                  const typename A::Cell* weights, int64_t bundle, int64_t slab, int64_t y, int64_t rows,
                  NextBundles* next, float* block, Outputs& outputs) {
  const int64_t row_cells = g.pitch() * A::pixel;
  const int64_t groups = std::min(g.bundle(), g.groups - bundle * g.bundle());
  const int64_t cells = A::cells(std::min(g.inputs, slab_channels)), slabs = Grouped::slabs(g.inputs);
  const auto fetch = [next](int64_t pixels) HWY_ATTR {
    if (next != nullptr) next->fetch(pixels);
  };
  const int64_t first = slab * slab_channels;
  with_vectors(g, g.outputs, [&](auto d, auto quads) HWY_ATTR {
    constexpr int64_t lanes = hn::MaxLanes(d);
    const int64_t own = std::min(groups * g.outputs - first, slab_channels);
    const int64_t blocks = quads.value ? slab_channels / lanes : (own + lanes - 1) / lanes;
    const int64_t blocks_of_group = (g.outputs + lanes - 1) / lanes;
    const auto tiles_from = [&](int64_t lane) HWY_ATTR {
      const int64_t channel = first + lane, group = channel / g.outputs;
      const int64_t in = quads.value ? channel : group * g.inputs;
      const int64_t block_of_weights =
          quads.value ? (bundle * slab_channels + channel) / lanes
                      : (bundle * g.bundle() + group) * blocks_of_group + channel % g.outputs / lanes;
      return Tiles<typename A::Cell>{
          planes + in / slab_channels * plane + g.plane_row(y - top) * row_cells + A::cells(in % slab_channels),
          plane,
          row_cells,
          slabs,
          g.kernel,
          cells,
          weights + block_of_weights * slabs * g.positions() * cells * lanes,
          block + lane,
          g.width * slab_channels,
          &g,
          y - top};
    };
#if MGIC_HAS_MATRICES
    if constexpr (std::is_same_v<A, Bf16>)
      if (g.arithmetic == Arithmetic::matrices) {
        matrix_outputs(tiles_from(0), rows, g.width, fetch);  // rows of the plane
        for (int64_t r = 0; r < rows; ++r)
          put_block(block + (g.plane_row(y - top + r) - g.plane_row(y - top)) * g.pitch() * slab_channels, 0, y + r, 1,
                    g.width, outputs);
        return;
      }
#endif
    if constexpr (!quads.value) {
      if constexpr (!A::pairs)
        if (g.tile == 4) return winograd<A, 4>(d, tiles_from(0), blocks, y, rows, g.width, fetch, outputs);
      if (g.tile == 2) return winograd<A, 2>(d, tiles_from(0), blocks, y, rows, g.width, fetch, outputs);
    }
    fetch(rows * g.width);
    for (int64_t i = 0; i < blocks; ++i) tiles<A, quads.value>(d, tiles_from(i * lanes), rows, g.width);
    put_block(block, g.width, y, rows, g.width, outputs);
  });
}

// A bundle's rows of an item in a map of so many channels, where they are filtered straight from there: nothing happens
// to `plain` values on the way.
template <class T>
ImageRows<T> rows_of_map(const Grouped& g, bool plain, const T* map, int64_t channels, int64_t bundle, int64_t n,
                         int64_t y0) {
  const bool suits = plain && g.in_rows && g.whole_tiles() && channels % slab_channels == 0;
  return suits ? ImageRows<T>::of_map(g, map, channels, bundle * slab_channels, n, y0) : ImageRows<T>{};
}

// f(rows) with those of the map, or of the planes.
template <class T, class F>
HWY_INLINE void with_rows_of(const ImageRows<T>& map, const Grouped& g, const float* plane, F&& f) {
  if (map) return f(map);
  f(ImageRows<float>::of_plane(g, plane));
}

// f(arithmetic) of filtering along rows for maps of T.
template <class T, class F>
HWY_INLINE void with_products([[maybe_unused]] const Grouped& g, F&& f) {
#if MGIC_HAS_BF16_DOT
  if constexpr (std::is_same_v<T, bf16>)
    if (g.rounded) return f(Bf16());
#endif
  f(F32());
}

// The outputs of a bundle whose groups share a vector, whose first channel the rows begin at.
template <class A, class T, class Outputs>
void filter_rows(const Grouped& g, const ImageRows<T>& in, const void* weights, int64_t bundle, int64_t y0, int64_t y1,
                 NextBundles* next, Outputs& outputs) {
  const auto fetch = [next](int64_t pixels) HWY_ATTR {
    if (next != nullptr) next->fetch(pixels);
  };
  with_rows(g, [&](auto tile, auto n) HWY_ATTR {
    for (int u = 0; u < slab_vectors; ++u) {
      const int64_t channel = u * lanes(), first = bundle * slab_channels + channel;
      const auto* own = static_cast<const typename A::Cell*>(weights) + first * g.positions() * A::cells(g.inputs);
      winograd_rows<A, tile.value, n.value>(g, in.from_channel(channel), own, u, y0, y1 - y0, fetch, outputs);
    }
  });
}

// All rows of one slab, from the planes or, where it is given, from the map, while memory is fetched ahead where that
// is given.
template <class A, class T, class Outputs>
HWY_INLINE void compute_slab(const Grouped& g, const typename A::Cell* planes, int64_t plane, const ImageRows<T>& map,
                             const void* weights, int64_t bundle, int64_t slab, int64_t y0, int64_t y1,
                             NextBundles* next, float* block, Outputs& outputs) {
  if constexpr (!A::pairs)
    if (g.in_rows)
      return with_products<T>(g, [&](auto products) {
        with_rows_of(map, g, planes, [&](const auto& in) {
          filter_rows<decltype(products)>(g, in, weights, bundle, y0, y1, next, outputs);
        });
      });
  const int64_t step = block_rows<A>(g);
  for (int64_t y = y0; y < y1; y += step)
    compute_rows<A>(g, planes, plane, y0, static_cast<const typename A::Cell*>(weights), bundle, slab, y,
                    std::min(step, y1 - y), next, block, outputs);
}

// Chan's formula: a slab's part of an item joins what the thread has seen.
HWY_INLINE void combine_moments(int64_t before, int64_t count, const SlabParameter& shift, const SlabParameter& sum,
                                const SlabParameter& square, float* mean, float* squares) {
  const D d;
  const float total = static_cast<float>(before + count), n = static_cast<float>(count);
  const V inverse = hn::Set(d, 1 / n), weight = hn::Set(d, n / total),
          cross = hn::Set(d, static_cast<float>(before) * n / total);
  for (int u = 0; u < slab_vectors; ++u) {
    float *m = mean + u * lanes(), *s = squares + u * lanes();
    const V offset = hn::Mul(sum[u], inverse);
    const V own = hn::NegMulAdd(sum[u], offset, square[u]);
    const V delta = hn::Sub(hn::Add(shift[u], offset), hn::LoadU(d, m));
    hn::StoreU(hn::MulAdd(delta, weight, hn::LoadU(d, m)), d, m);
    hn::StoreU(hn::MulAdd(hn::Mul(delta, delta), cross, hn::Add(own, hn::LoadU(d, s))), d, s);
  }
}

// moments is (2, padded channels): mean and squared deviations of the items' outputs.
template <class A, class T>
void forward_items(const ForwardCall<T>& call, const Bands& bands, const Walk& walk, void* scratch, float* block,
                   float* moments) {
  auto* planes = static_cast<typename A::Cell*>(scratch);
  const Grouped& g = call.conv;
  const int64_t plane = g.plane_rows(bands.rows) * g.pitch() * A::pixel;
  const int64_t channels = g.out_channels(), padded = Grouped::slabs(channels) * slab_channels;
  const bool past = streams(g, channels, call.raw), in_turns = g.bundles() % 2 == 0 && g.out_slabs() == 1;
  float* const waiting = block;
  block += waiting_size(g, bands);
  int64_t done = 0;
  for (int64_t i = 0; i < walk.count(); ++i) {
    const int64_t item = walk.item(i);
    const int64_t n = bands.image(item), y0 = bands.begin(item), y1 = bands.end(item), pixels = (y1 - y0) * g.width;
    for (int64_t b = walk.own.first; b < walk.own.last; ++b) {
      const int64_t in = b * g.bundle() * g.inputs, out = b * g.bundle() * g.outputs;
      NextBundles next(g, bands, walk, i, b, pixels);
      for (const T* x : {call.in.x, call.in.minus}) next.add(x, g.in_channels());
      if (!past) next.add(call.raw, channels);
      const auto map = rows_of_map(g, call.in.plain(), call.in.x, g.in_channels(), b, n, y0);
      if (!map)
        for (int64_t s = 0; s < g.in_slabs() && in + s * slab_channels < g.in_channels(); ++s)
          pack_input<A>(g, call.in, in + s * slab_channels, n, y0, y1, planes + s * plane);
      for (int64_t s = 0; s < g.out_slabs() && out + s * slab_channels < channels; ++s) {
        const Slab slab{channels, out + s * slab_channels};
        RawOutputs<T> outputs{SlabOfImage(slab, g, n), call.raw, Past::of(past, in_turns, b, walk.own, waiting)};
        compute_slab<A>(g, planes, plane, map, call.weights, b, s, y0, y1, s == 0 ? &next : nullptr, block, outputs);
        if (call.mean != nullptr)
          combine_moments(done, pixels, outputs.shift, outputs.sum, outputs.square, moments + slab.first,
                          moments + padded + slab.first);
      }
    }
    done += pixels;
  }
  hwy::FlushStream();
}

// Room that one bundle's planes need beside them, as pairs of pixels and the like, in cells; Winograd's filtering needs
// none.
int64_t room_beside_planes(const Grouped& g, int64_t plane_rows) {
  if (g.arithmetic == Arithmetic::f32 || g.whole_tiles()) return 0;
#if MGIC_HAS_MATRICES
  if (g.arithmetic == Arithmetic::matrices) {
    const MatrixSummands s(g, plane_rows);
    return g.in_slabs() * s.input_cells() + g.out_slabs() * s.gradient_cells();
  }
#endif
  return (2 * g.in_slabs() + g.out_slabs()) * plane_rows * (g.pitch() / 2 + 1) * slab_channels;
}

// The gradient of a bundle's weights from its planes or, where they are given, from the maps, while memory is fetched
// ahead; dw (groups, vectors of inputs, slabs of outputs, taps, outputs, lanes). `room` takes the pairs of pixels where
// the arithmetic wants them.
template <class A, class T>
void backward_weights(const Grouped& g, const typename A::Cell* x_planes, const typename A::Cell* dy_planes,
                      int64_t plane, const ImageRows<T>& x_map, const ImageRows<T>& dy_map, int64_t bundle,
                      int64_t first_row, int64_t rows, NextBundles& next, [[maybe_unused]] typename A::Cell* room,
                      float* dw) {
  using Cell = typename A::Cell;
  const auto fetch = [&](int64_t pixels) HWY_ATTR { next.fetch(pixels); };
  const int64_t border = g.border(), groups = std::min(g.bundle(), g.groups - bundle * g.bundle());
  const Cell* from = dy_planes + border * (g.pitch() + 1) * A::pixel;
  if constexpr (!A::pairs)
    if (g.in_rows && g.whole_tiles())
      return with_rows_of(x_map, g, x_planes, [&](const auto& x) HWY_ATTR {
        with_rows_of(dy_map, g, dy_planes, [&](const auto& dy) HWY_ATTR {
          with_products<T>(g, [&](auto products) HWY_ATTR {
            with_rows(g, [&](auto tile, auto n) HWY_ATTR {
              for (int64_t c = 0; c < slab_channels; c += lanes())
                winograd_rows_weights<decltype(products), tile.value, n.value>(
                    g, x.from_channel(c), dy.from_channel(c), rows,
                    dw + (bundle * slab_channels + c) * g.positions() * g.inputs, fetch);
            });
          });
        });
      });
  if (g.whole_tiles()) {
    return with_result_lanes(g.inputs, [&](auto d) HWY_ATTR {
      constexpr int64_t lanes = hn::MaxLanes(d);
      const int64_t out_slabs = Grouped::slabs(g.outputs), own = std::min(g.outputs, slab_channels),
                    vector = g.positions() * own * lanes;
      // Slabs of inputs, and those of outputs that they are coupled with.
      for (int64_t in = 0; in < groups * g.inputs; in += slab_channels)
        for (int64_t o = 0; o < out_slabs; ++o) {
          const int64_t out = in / g.inputs * g.outputs + o * slab_channels;
          const int64_t blocks = std::min(groups * g.inputs - in, slab_channels) / lanes;
          const auto tiles_of = [&](auto tile) HWY_ATTR {
            winograd_weights<A, decltype(tile)::value>(
                d, g, x_planes + in / slab_channels * plane, from + out / slab_channels * plane, rows, blocks, own,
                dw + ((bundle * g.bundle() * g.inputs + in) / lanes * out_slabs + o) * vector, out_slabs * vector,
                fetch);
          };
          if constexpr (!A::pairs)
            if (g.tile == 4) {
              tiles_of(Count<4>());
              continue;
            }
          tiles_of(Count<2>());
        }
    });
  }
#if MGIC_HAS_MATRICES
  if constexpr (std::is_same_v<A, Bf16>)
    if (g.arithmetic == Arithmetic::matrices)
      return matrix_weights(g, x_planes, dy_planes, plane, rows, room, dw + bundle * g.inputs * g.outputs * g.taps(),
                            fetch);
#endif
  // Where a slab's cells begin for even and for odd columns of the kernel, and from one row to the next.
  const Cell *x_even = x_planes, *x_odd = x_planes + A::pixel, *dy = from;
  int64_t x_plane = plane, dy_plane = plane, row_cells = g.pitch() * A::pixel, stride = 2 * A::pixel, count = g.width;
#if MGIC_HAS_BF16_DOT
  if constexpr (A::pairs) {
    const int64_t pairs = g.pitch() / 2 + 1, in_rows = rows + 2 * border;
    row_cells = pairs * slab_channels;
    x_plane = 2 * in_rows * row_cells;
    dy_plane = rows * row_cells;
    stride = slab_channels;
    count = (g.width + 1) / 2;
    for (int64_t s = 0; s < g.in_slabs(); ++s)
      for (int64_t odd = 0; odd < std::min<int64_t>(g.kernel, 2); ++odd)
        pair_pixels(x_planes + s * plane, in_rows, g.pitch(), odd, pairs,
                    room + s * x_plane + odd * in_rows * row_cells);
    Cell* dy_pairs = room + g.in_slabs() * x_plane;
    for (int64_t s = 0; s < g.out_slabs(); ++s)
      pair_pixels(dy_planes + s * plane + border * g.pitch() * A::pixel, rows, g.pitch(), border, pairs,
                  dy_pairs + s * dy_plane);
    x_even = room;
    x_odd = room + in_rows * row_cells;
    dy = dy_pairs;
  }
#endif
  // f(outers) for blocks of rows whose planes and gradient stay in the first cache.
  const auto each_block = [&](int64_t x_at, int64_t dy_at, float* target, int64_t outputs, auto&& f) HWY_ATTR {
    const int64_t step = std::max<int64_t>(64 / g.width, 1);
    for (int64_t y = 0; y < rows; y += step) {
      fetch(step * g.width);
      f(Outers<Cell>{{x_even + x_at + y * row_cells, x_odd + x_at + y * row_cells},
                     stride,
                     row_cells,
                     dy + dy_at + y * row_cells,
                     row_cells,
                     std::min(step, rows - y),
                     count,
                     g.kernel,
                     first_row + y,
                     g.height,
                     target,
                     outputs});
    }
  };
  if (quad_lanes(g) > 0) {
    for (int64_t lane = 0; lane < slab_channels; lane += lanes())
      each_block(lane, lane, dw + (bundle * slab_channels + lane) * g.taps() * g.outputs, g.outputs,
                 [](const Outers<Cell>& t) HWY_ATTR { outers<A, true>(D(), t); });
    return;
  }
  with_result_lanes(g.inputs, [&](auto d) HWY_ATTR {
    constexpr int64_t lanes = hn::MaxLanes(d);
    const int64_t vectors = (g.inputs + lanes - 1) / lanes;
    for (int64_t group = 0; group < groups; ++group)
      for (int64_t v = 0; v < vectors; ++v)
        for (int64_t o = 0; o < g.outputs; o += slab_channels) {
          const int64_t in = group * g.inputs + v * lanes, out = group * g.outputs + o;
          const int64_t size = g.taps() * std::min(g.outputs, slab_channels) * lanes;
          float* target =
              dw +
              (((bundle * g.bundle() + group) * vectors + v) * Grouped::slabs(g.outputs) + o / slab_channels) * size;
          each_block(in / slab_channels * x_plane + in % slab_channels,
                     out / slab_channels * dy_plane + out % slab_channels, target,
                     std::min(g.outputs - o, slab_channels), [&](const Outers<Cell>& t) HWY_ATTR { outers<A>(d, t); });
        }
  });
}

// dw: of the chunk's part of the items; sums (2, padded channels of the input): Σ dz and Σ dz (raw − mean) of the link
// before.
template <class A, class T>
void backward_items(const BackwardCall<T>& call, const Bands& bands, const Walk& walk, void* scratch, float* block,
                    float* dw, double* sums) {
  auto* planes = static_cast<typename A::Cell*>(scratch);
  const Grouped g = call.conv, t = g.transposed();
  const int64_t plane = g.plane_rows(bands.rows) * g.pitch() * A::pixel;
  const int64_t channels = g.in_channels(), padded = Grouped::slabs(channels) * slab_channels;
  const bool past = streams(g, channels, call.dx) && streams(g, channels, call.dminus) && !call.accumulate_dx &&
                    !call.accumulate_dminus;
  const bool in_turns = g.bundles() % 2 == 0 && g.in_slabs() == 1 && (call.dx == nullptr || call.dminus == nullptr);
  float* const waiting = block;
  block += waiting_size(g, bands);
  auto* x_planes = planes + g.out_slabs() * plane;
  // In whole lines, beyond which vectors may reach.
  auto* pairs = planes + (Grouped::slabs((g.in_slabs() + g.out_slabs()) * plane) + 1) * slab_channels;
  for (int64_t i = 0; i < walk.count(); ++i) {
    const int64_t item = walk.item(i);
    const int64_t n = bands.image(item), y0 = bands.begin(item), y1 = bands.end(item);
    for (int64_t b = walk.own.first; b < walk.own.last; ++b) {
      const int64_t in = b * g.bundle() * g.inputs, out = b * g.bundle() * g.outputs;
      const int64_t passes = (call.dw ? 1 : 0) + (call.weights != nullptr ? 1 : 0);
      NextBundles next(g, bands, walk, i, b, passes * (y1 - y0) * g.width);
      for (const T* p : {call.gradient.dy, call.gradient.raw}) next.add(p, g.out_channels());
      if (call.dw) next.add(call.in.x, channels);
      if (!past) next.add(call.dx, channels);
      const auto dy_map = rows_of_map(g, call.gradient.plain(), call.gradient.dy, g.out_channels(), b, n, y0);
      if (!dy_map)
        for (int64_t s = 0; s < g.out_slabs() && out + s * slab_channels < g.out_channels(); ++s)
          pack_gradient<A>(g, call.gradient, out + s * slab_channels, n, y0, y1, planes + s * plane);
      if (call.dw) {
        const auto x_map = rows_of_map(g, call.in.plain(), call.in.x, channels, b, n, y0);
        if (!x_map)
          for (int64_t s = 0; s < g.in_slabs() && in + s * slab_channels < channels; ++s)
            pack_input<A>(g, call.in, in + s * slab_channels, n, y0, y1, x_planes + s * plane);
        backward_weights<A>(g, x_planes, planes, plane, x_map, dy_map, b, y0, y1 - y0, next, pairs, dw);
      }
      if (call.weights == nullptr) continue;
      for (int64_t s = 0; s < g.in_slabs() && in + s * slab_channels < channels; ++s) {
        const Slab slab{channels, in + s * slab_channels};
        InputGradients<T> gradients(call, slab, n, Past::of(past, in_turns, b, walk.own, waiting));
        compute_slab<A>(t, planes, plane, dy_map, call.weights, b, s, y0, y1, s == 0 ? &next : nullptr, block,
                        gradients);
        if (call.sums == nullptr) continue;
        HWY_ALIGN float own[2 * slab_channels];
        for (int u = 0; u < slab_vectors; ++u) {
          hn::Store(gradients.sum[u], D(), own + u * lanes());
          hn::Store(gradients.centred_sum[u], D(), own + slab_channels + u * lanes());
        }
        for (int64_t i = 0; i < slab.valid(); ++i) {
          sums[slab.first + i] += own[i];
          sums[padded + slab.first + i] += own[slab_channels + i];
        }
      }
    }
  }
  hwy::FlushStream();
}

// Whole chains, bundle by bundle: every link's output goes straight into the planes of the next.
template <class A, class T>
void evaluate_items(const EvaluationCall<T>& call, const Bands& bands, const Walk& walk, void* scratch,
                    int64_t planes_of_a_link, float* block) {
  using Cell = typename A::Cell;
  auto* planes = static_cast<Cell*>(scratch);
  const FoldedLink& last = call.links.back();
  const Grouped& final_conv = last.conv;
  const int64_t channels = final_conv.out_channels();
  const bool past = streams(final_conv, channels, call.y),
             in_turns = final_conv.bundles() % 2 == 0 && final_conv.out_slabs() == 1;
  float* const waiting = block;
  block += waiting_size(final_conv, bands);
  for (int64_t i = 0; i < walk.count(); ++i) {
    const int64_t item = walk.item(i), n = bands.image(item);
    for (int64_t b = walk.own.first; b < walk.own.last; ++b) {
      // Rows that the links behind this one will read.
      int64_t halo = 0;
      for (size_t i = 1; i < call.links.size(); ++i) halo += call.links[i].conv.border();
      int64_t y0 = std::max<int64_t>(bands.begin(item) - halo, 0),
              y1 = std::min(bands.end(item) + halo, bands.bottom(item));
      Cell *from = planes, *to = planes + planes_of_a_link;
      const Grouped& head = call.links[0].conv;
      NextBundles next_bundles(head, bands, walk, i, b, (y1 - y0) * head.width);
      for (const T* x : {call.in.x, call.in.minus}) next_bundles.add(x, head.in_channels());
      if (call.residual != call.in.x) next_bundles.add(call.residual, channels);
      if (!past) next_bundles.add(call.y, channels);
      const auto plane_of = [&](const Grouped& g, int64_t rows) {
        return g.plane_rows(whole_tiles(g, rows)) * g.pitch() * A::pixel;
      };
      const auto map = rows_of_map(head, call.in.plain(), call.in.x, head.in_channels(), b, n, y0);
      for (int64_t s = 0; !map && s < head.in_slabs(); ++s) {
        const int64_t channel = b * head.bundle() * head.inputs + s * slab_channels;
        if (channel < head.in_channels())
          pack_input<A>(head, call.in, channel, n, y0, y0 + whole_tiles(head, y1 - y0),
                        from + s * plane_of(head, y1 - y0));
      }
      for (size_t i = 0; i < call.links.size(); ++i) {
        const FoldedLink& link = call.links[i];
        const Grouped& g = link.conv;
        const bool is_last = i + 1 == call.links.size();
        const int64_t plane = plane_of(g, y1 - y0);
        // The next link's planes: rows [z0 − border, z1 + border).
        const Grouped& next = call.links[is_last ? i : i + 1].conv;
        halo -= is_last ? 0 : next.border();
        const int64_t z0 = is_last ? y0 : std::max<int64_t>(bands.begin(item) - halo, 0),
                      z1 = is_last ? y1 : std::min(bands.end(item) + halo, bands.bottom(item));
        const int64_t next_plane = plane_of(next, z1 - z0), next_row = next.pitch() * A::pixel;
        for (int64_t s = 0; s < g.out_slabs(); ++s) {
          const Slab slab{g.out_channels(), b * g.bundle() * g.outputs + s * slab_channels};
          if (slab.first >= slab.channels) continue;
          Cell* own = to + s * next_plane;
          if (!is_last) {
            // Rows [y0, y1) are computed; the others lie outside of the images.
            Cell* at = own;
            for (int64_t y = y0; y < y1; ++y) {
              Cell* row = own + (next.plane_row(y - z0) + next.border()) * next_row;
              clear_pixels<A>(at, row);
              clear_borders<A>(next, row);
              at = row + next_row;
            }
            clear_pixels<A>(at, own + next_plane);
          }
          NextBundles* ahead = i == 0 && s == 0 ? &next_bundles : nullptr;
          if (is_last) {
            EvaluatedOutputs<T> outputs(call, slab, n, Past::of(past, in_turns, b, walk.own, waiting));
            compute_slab<A>(g, from, plane, i == 0 ? map : ImageRows<T>{}, link.weights, b, s, y0, y1, ahead, block,
                            outputs);
          } else {
            InnerOutputs<A> outputs(link, next, slab, z0, own);
            compute_slab<A>(g, from, plane, i == 0 ? map : ImageRows<T>{}, link.weights, b, s, y0, y1, ahead, block,
                            outputs);
          }
        }
        std::swap(from, to);
        y0 = z0;
        y1 = z1;
      }
    }
  }
  hwy::FlushStream();
}

int64_t lanes_here(int64_t results) { return result_lanes(results); }

// f(planes) for planes of maps of T that all kernels of the arithmetic can read, or Winograd's filtering alone.
template <class T, class F>
HWY_INLINE void with_planes([[maybe_unused]] Arithmetic arithmetic, [[maybe_unused]] bool winograd, F&& f) {
#if MGIC_HAS_BF16_DOT
  if constexpr (std::is_same_v<T, bf16>) {
#if MGIC_HAS_MATRICES
    if (arithmetic == Arithmetic::matrices) {
      const AmxRegisters registers(register_shapes);
      return f(Bf16());
    }
#endif
    if (arithmetic == Arithmetic::pairs) return winograd ? f(Bf16InF32Planes()) : f(Bf16());
  }
#endif
  f(F32());
}

// What is there in bf16 for this target, of what the machine has.
Arithmetic best_in_bf16([[maybe_unused]] Arithmetic machine) {
#if MGIC_HAS_MATRICES
  return machine;
#elif MGIC_HAS_BF16_DOT
  return machine == Arithmetic::matrices ? Arithmetic::pairs : machine;
#else
  return Arithmetic::f32;
#endif
}

template <class T>
PassKernels<T> kernels_of(Arithmetic best) {
  return {[](const ForwardCall<T>& call, auto... rest) {
            with_planes<T>(call.conv.arithmetic, call.conv.whole_tiles(),
                           [&](auto planes) { forward_items<decltype(planes)>(call, rest...); });
          },
          [](const BackwardCall<T>& call, auto... rest) {
            with_planes<T>(call.conv.arithmetic, call.conv.whole_tiles(),
                           [&](auto planes) { backward_items<decltype(planes)>(call, rest...); });
          },
          [](const EvaluationCall<T>& call, auto... rest) {
            const bool whole = std::ranges::all_of(call.links, [](const auto& l) { return l.conv.whole_tiles(); });
            with_planes<T>(call.links[0].conv.arithmetic, whole,
                           [&](auto planes) { evaluate_items<decltype(planes)>(call, rest...); });
          },
          &room_beside_planes, best};
}
void kernels_f32(PassKernels<float>& k) { k = kernels_of<float>(Arithmetic::f32); }
void kernels_bf16(Arithmetic machine, PassKernels<bf16>& k) { k = kernels_of<bf16>(best_in_bf16(machine)); }

}  // namespace
}  // namespace mgic::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mgic::cpu {
namespace {

HWY_EXPORT(lanes_here);
HWY_EXPORT(kernels_f32);
HWY_EXPORT(kernels_bf16);

}  // namespace

int64_t lanes_of(int64_t results) { return HWY_DYNAMIC_DISPATCH(lanes_here)(results); }

template <>
PassKernels<float> pass_kernels() {
  PassKernels<float> k;
  HWY_DYNAMIC_DISPATCH(kernels_f32)(k);
  return k;
}
template <>
PassKernels<bf16> pass_kernels() {
  PassKernels<bf16> k;
  HWY_DYNAMIC_DISPATCH(kernels_bf16)(bf16_arithmetic(), k);
  return k;
}

}  // namespace mgic::cpu
#endif  // HWY_ONCE
