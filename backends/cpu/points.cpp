// Point clouds as graphs: the k nearest neighbours, the edges to them, and the maximum over them.
//
// Neighbours come out exactly as the reference's. Distances in f32, taken as Σ (x_i − x_j)² and never through products,
// which cancel, only rule out the points that cannot be among the nearest: with a bound on their rounding errors, a few
// more than k are left. The distances of those are taken again in f64, and these are sorted.
#include "backends/cpu/simd.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backends/cpu/points.cpp"
#include <hwy/foreach_target.h>
// clang-format off
#include "backends/cpu/simd-inl.h"
#include "backends/cpu/points.h"
#include <limits>
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace mgic::cpu::HWY_NAMESPACE {
namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();

// out[r · tiles · tile_points + j] = ‖x_r − x_j‖² for `rows` points x_r against all, which lie in tiles of
// (channels, tile_points). NaN has no place in an order and counts as infinity.
template <class Rows>
HWY_INLINE void rows_of_distances(const float* x, Rows, const float* tiles, int64_t count, int64_t channels,
                                  float* out) {
  constexpr int rows = Rows::value, vectors = 2;
  const int64_t step = vectors * lanes();
  for (int64_t tile = 0; tile < count; ++tile, tiles += tile_points * channels)
    for (int64_t j = 0; j < tile_points; j += step) {
      V sums[rows][vectors];
      for (int r = 0; r < rows; ++r)
        for (int u = 0; u < vectors; ++u) sums[r][u] = hn::Zero(D());
      for (int64_t c = 0; c < channels; ++c) {
        V others[vectors];
        for (int u = 0; u < vectors; ++u) others[u] = hn::LoadU(D(), tiles + c * tile_points + j + u * lanes());
        for (int r = 0; r < rows; ++r) {
          const V own = hn::Set(D(), x[r * channels + c]);
          for (int u = 0; u < vectors; ++u) {
            const V difference = hn::Sub(own, others[u]);
            sums[r][u] = hn::MulAdd(difference, difference, sums[r][u]);
          }
        }
      }
      for (int r = 0; r < rows; ++r)
        for (int u = 0; u < vectors; ++u) {
          const V known = hn::IfThenElse(hn::IsNaN(sums[r][u]), hn::Set(D(), infinity), sums[r][u]);
          hn::StoreU(known, D(), out + (r * count + tile) * tile_points + j + u * lanes());
        }
    }
}

void distances(const float* x, int64_t rows, const float* tiles, int64_t count, int64_t channels, float* out) {
  if (rows == distance_rows) return rows_of_distances(x, Count<distance_rows>(), tiles, count, channels, out);
  for (int64_t r = 0; r < rows; ++r)
    rows_of_distances(x + r * channels, Count<1>(), tiles, count, channels, out + r * count * tile_points);
}

// The k-th smallest of n floats, n a multiple of tile_points: the smallest that k do not exceed. Counting has no
// branches; a selection by halves waited on those for longer than the distances took.
HWY_INLINE float kth_smallest(const float* values, int64_t n, int64_t k) {
  float smallest = infinity;
  for (int64_t i = 0; i < n; ++i) {
    const V own = hn::Set(D(), values[i]);
    int64_t count = 0;
    for (int64_t j = 0; j < n; j += lanes())
      count += static_cast<int64_t>(hn::CountTrue(D(), hn::Le(hn::LoadU(D(), values + j), own)));
    smallest = std::min(smallest, count >= k ? values[i] : infinity);
  }
  return smallest;
}

// The points, in their order, that may be among the k nearest by the n distances, n a multiple of tile_points. The
// bound: where the points are dealt to more than k groups, the k-th smallest of the groups' minima is not below the
// k-th smallest distance. `minima` has space for groups_of(k) floats, `chosen` for n + tile_points.
int64_t candidates(const float* distance, int64_t n, int64_t k, int64_t channels, float* minima, int32_t* chosen) {
  const hn::RebindToSigned<D> di;
  const int64_t groups = groups_of(k);
  std::fill(minima, minima + groups, infinity);
  for (int64_t begin = 0; begin < n; begin += groups)
    for (int64_t g = 0; g < std::min(groups, n - begin); g += lanes())
      hn::StoreU(hn::Min(hn::LoadU(D(), minima + g), hn::LoadU(D(), distance + begin + g)), D(), minima + g);
  const float near_enough = kth_smallest(minima, groups, k);
  // More than both distances of a comparison may be off: each square and each sum rounds, and small squares vanish.
  using Limits = std::numeric_limits<float>;
  const double roundings = 2.0 * static_cast<double>(channels + 4);
  const double slack = roundings * (Limits::epsilon() * static_cast<double>(near_enough) + 2.0 * Limits::min());
  const V bound = hn::Set(D(), static_cast<float>(near_enough + slack));
  int64_t count = 0;
  for (int64_t j = 0; j < n; j += lanes()) {
    const auto near = hn::Le(hn::LoadU(D(), distance + j), bound);
    if (hn::AllFalse(D(), near)) continue;
    const auto points = hn::Iota(di, static_cast<int32_t>(j));
    count += static_cast<int64_t>(hn::CompressStore(points, hn::RebindMask(di, near), di, chosen + count));
  }
  return count;
}

// Plain loops from here: rows of 3 channels as of 128, without a tail of their own.

// y[e] = (x_m − x_i, x_i) for the k edges of every point i in [begin, end) of a cloud.
void edges(const float* x, const int64_t* neighbours, int64_t k, int64_t channels, int64_t begin, int64_t end,
           float* y) {
  for (int64_t i = begin; i < end; ++i)
    for (int64_t e = i * k; e < (i + 1) * k; ++e) {
      const float *own = x + i * channels, *other = x + neighbours[e] * channels;
      float* HWY_RESTRICT edge = y + e * 2 * channels;
      for (int64_t c = 0; c < channels; ++c) edge[c] = other[c] - own[c];
      for (int64_t c = 0; c < channels; ++c) edge[channels + c] = own[c];
    }
}

// One cloud's edges in their order; no two of them at a time, since neighbours are shared.
void edges_backward(const float* dy, const int64_t* neighbours, int64_t k, int64_t channels, int64_t points,
                    float* dx) {
  for (int64_t i = 0; i < points; ++i)
    for (int64_t e = i * k; e < (i + 1) * k; ++e) {
      const float *difference = dy + e * 2 * channels, *centre = difference + channels;
      float* HWY_RESTRICT own = dx + i * channels;
      for (int64_t c = 0; c < channels; ++c) own[c] += centre[c] - difference[c];
      float* HWY_RESTRICT other = dx + neighbours[e] * channels;
      for (int64_t c = 0; c < channels; ++c) other[c] += difference[c];
    }
}

}  // namespace
}  // namespace mgic::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <cmath>
#include <utility>
#include <vector>

#include "backends/cpu/cpu_backend.h"
#include "backends/cpu/parallel.h"
#include "backends/cpu/widened.h"

namespace mgic {
namespace cpu {
namespace {

HWY_EXPORT(distances);
HWY_EXPORT(candidates);
HWY_EXPORT(edges);
HWY_EXPORT(edges_backward);

// What one thread needs to look for neighbours.
class NeighbourSearch {
 public:
  NeighbourSearch(int64_t points, int64_t channels, int64_t k)
      : points_(points),
        channels_(channels),
        k_(k),
        tiles_((points + tile_points - 1) / tile_points),
        tiled_(tiles_ * tile_points * channels),
        distances_(distance_rows * padded()),
        minima_(groups_of(k)),
        chosen_(padded() + tile_points),
        order_(static_cast<size_t>(points)) {}

  // The k nearest points of each point in [begin, end) of the cloud x.
  void run(const float* x, int64_t begin, int64_t end, int64_t* indices) {
    tile(x);
    for (int64_t i = begin; i < end; i += distance_rows) {
      const int64_t rows = std::min<int64_t>(distance_rows, end - i);
      HWY_DYNAMIC_DISPATCH(distances)(x + i * channels_, rows, tiled_.data(), tiles_, channels_, distances_.data());
      for (int64_t r = 0; r < rows; ++r) {
        int64_t count = HWY_DYNAMIC_DISPATCH(candidates)(distances_.data() + r * padded(), padded(), k_, channels_,
                                                         minima_.data(), chosen_.data());
        while (chosen_[count - 1] >= points_) --count;  // only padding is behind the cloud's last point
        sort(x, i + r, count);
        for (int64_t j = 0; j < k_; ++j) indices[(i + r) * k_ + j] = order_[j].second;
      }
    }
  }

 private:
  int64_t padded() const { return tiles_ * tile_points; }

  void tile(const float* x) {
    for (int64_t j = 0; j < padded(); ++j) {
      float* to = tiled_.data() + j / tile_points * tile_points * channels_ + j % tile_points;
      for (int64_t c = 0; c < channels_; ++c)
        to[c * tile_points] = j < points_ ? x[j * channels_ + c] : std::numeric_limits<float>::infinity();
    }
  }

  // The candidates by (squared distance, index) in f64 as in the reference.
  void sort(const float* x, int64_t i, int64_t count) {
    constexpr int64_t together = 4;  // chains of additions, each in the order of the channels
    for (int64_t begin = 0; begin < count; begin += together) {
      const int64_t size = std::min(together, count - begin);
      const float* others[together];
      for (int64_t u = 0; u < together; ++u) others[u] = x + chosen_[begin + std::min(u, size - 1)] * channels_;
      double sums[together] = {};
      for (int64_t c = 0; c < channels_; ++c)
        for (int64_t u = 0; u < together; ++u) {
          const double d = static_cast<double>(x[i * channels_ + c]) - others[u][c];
          sums[u] += d * d;
        }
      for (int64_t u = 0; u < size; ++u)
        order_[begin + u] = {std::isnan(sums[u]) ? std::numeric_limits<double>::infinity() : sums[u],
                             chosen_[begin + u]};
    }
    std::sort(order_.begin(), order_.begin() + count);
  }

  int64_t points_, channels_, k_, tiles_;
  Scratch<float> tiled_, distances_, minima_;
  Scratch<int32_t> chosen_;
  std::vector<std::pair<double, int32_t>> order_;
};

// f(n, begin, end): points [begin, end) of cloud n, for all clouds; a point costs `cost` floats.
template <class F>
void for_each_cloud(int64_t clouds, int64_t points, int64_t cost, F&& f) {
  parallel_ranges(clouds * points, cost, [&](int64_t begin, int64_t end) {
    while (begin < end) {
      const int64_t n = begin / points, to = std::min(end, (n + 1) * points);
      f(n, begin - n * points, to - n * points);
      begin = to;
    }
  });
}

}  // namespace
}  // namespace cpu

using namespace cpu;

void CpuBackend::nearest_neighbours(const Tensor& x, Tensor& indices) {
  if (holds_bf16({&x})) {
    Widened w("nearest_neighbours");
    return nearest_neighbours(w(x), indices);
  }
  require_f32("nearest_neighbours", {&x});
  const int64_t clouds = x.shape()[0], points = x.shape()[1], channels = x.shape()[2], k = indices.shape()[2];
  check(k <= points, "nearest_neighbours: {} neighbours were asked for, but x is {}", k, x);
  if (points > INT32_MAX - tile_points) fail("nearest_neighbours: a cloud of {} has too many points", x);
  const float* px = x.data<float>();
  int64_t* out = indices.data<int64_t>();
  if (k == 0) return;
  for_each_cloud(clouds, points, points * channels, [&](int64_t n, int64_t begin, int64_t end) {
    NeighbourSearch(points, channels, k).run(px + n * points * channels, begin, end, out + n * points * k);
  });
}

void CpuBackend::edge_features(const Tensor& x, const Tensor& indices, Tensor& y) {
  if (holds_bf16({&x, &y})) {
    Widened w("edge_features");
    return edge_features(w(x), indices, w.out(y));
  }
  require_f32("edge_features", {&x, &y});
  const int64_t points = x.shape()[1], channels = x.shape()[2], k = indices.shape()[2];
  const float* px = x.data<float>();
  const int64_t* neighbours = indices.data<int64_t>();
  float* py = y.data<float>();
  for_each_cloud(x.shape()[0], points, 2 * k * channels, [&](int64_t n, int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(edges)
    (px + n * points * channels, neighbours + n * points * k, k, channels, begin, end,
     py + n * points * k * 2 * channels);
  });
}

void CpuBackend::edge_features_backward(const Tensor& dy, const Tensor& indices, Sink dx) {
  if (!dx) return;
  if (holds_bf16({&dy, dx.tensor})) {
    Widened w("edge_features_backward");
    return edge_features_backward(w(dy), indices, w.out(dx));
  }
  require_f32("edge_features_backward", {&dy, dx.tensor});
  const Shape& shape = (*dx).shape();
  const int64_t points = shape[1], channels = shape[2], k = indices.shape()[2], cloud = points * channels;
  const float* pdy = dy.data<float>();
  const int64_t* neighbours = indices.data<int64_t>();
  float* pdx = (*dx).data<float>();
  parallel_ranges(shape[0], cloud * 2 * k, [&](int64_t begin, int64_t end) {
    if (!accumulates(dx)) std::fill(pdx + begin * cloud, pdx + end * cloud, 0.0f);
    for (int64_t n = begin; n < end; ++n) HWY_DYNAMIC_DISPATCH(edges_backward)
    (pdy + n * cloud * k * 2, neighbours + n * points * k, k, channels, points, pdx + n * cloud);
  });
}

// The maximum over a neighbourhood is that over the pixels of an image; a point is a sample.
void CpuBackend::neighbourhood_max(const Tensor& x, Tensor& y, Tensor& winners) {
  const Shape& shape = x.shape();
  const Shape samples{shape[0] * shape[1], shape[3]};
  Tensor maxima = y.reshape(samples), pixels = winners.reshape(samples);
  global_pool(Pool::max, x.reshape({samples[0], shape[2], samples[1]}), maxima, pixels);
}

void CpuBackend::neighbourhood_max_backward(const Tensor& dy, const Tensor& winners, Sink dx) {
  if (!dx) return;
  const Shape& shape = (*dx).shape();
  const Shape samples{shape[0] * shape[1], shape[3]};
  Tensor images = (*dx).reshape({samples[0], shape[2], samples[1]});
  global_pool_backward(Pool::max, dy.reshape(samples), winners.reshape(samples), {&images, dx.write});
}

}  // namespace mgic
#endif  // HWY_ONCE
