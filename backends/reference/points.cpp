// Point clouds as graphs: every point's nearest neighbours, the edges to them, and the maximum over them
// (Wang et al., "Dynamic Graph CNN for Learning on Point Clouds", 2019).
//
//   nearest_neighbours: x (N, P, C) → indices (N, P, k), by ‖x_i − x_j‖, nearest first; of equally near points the one
//                       with the lower index. A point's distance to itself is 0, so it is its own first neighbour
//                       unless another lies on the same spot.
//   edge_features:      y[n, i, j, :] = (x_m − x_i, x_i), m = indices[n, i, j]; y (N, P, k, 2C)
//   neighbourhood_max:  y[n, i, c] = max_j x[n, i, j, c]; x (N, P, k, C), y (N, P, C), winners as y: the j of the
//                       maximum, the first of equals; NaN wins
#include <cmath>
#include <limits>
#include <utility>

#include "backends/reference/kernels.h"

namespace mgic {

using namespace reference;

namespace {

// Calls visit(i, m, e) for edge e from point i to its neighbour m; points and edges count through the batch.
template <class Visit>
void for_each_edge(const Tensor& indices, Visit&& visit) {
  const int64_t points = indices.shape()[1], k = indices.shape()[2];
  const int64_t* neighbour = indices.data<int64_t>();
  for (int64_t e = 0; e < indices.count(); ++e) {
    const int64_t i = e / k, cloud = i / points;
    visit(i, cloud * points + neighbour[e], e);
  }
}

}  // namespace

void Backend::nearest_neighbours(const Tensor& x, Tensor& indices) {
  naive("nearest_neighbours");
  const int64_t clouds = x.shape()[0], points = x.shape()[1], channels = x.shape()[2], k = indices.shape()[2];
  check(k <= points, "nearest_neighbours: {} neighbours were asked for, but x is {}", k, x);
  const Values vx = load(x);
  int64_t* out = indices.data<int64_t>();
  std::vector<std::pair<double, int64_t>> order(points);  // (squared distance, index), compared in this order
  for (int64_t n = 0; n < clouds; ++n)
    for (int64_t i = 0; i < points; ++i) {
      for (int64_t j = 0; j < points; ++j) {
        double distance = 0;
        for (int64_t c = 0; c < channels; ++c) {
          const double d = vx[(n * points + i) * channels + c] - vx[(n * points + j) * channels + c];
          distance += d * d;
        }
        // NaN has no place in an order.
        order[j] = {std::isnan(distance) ? std::numeric_limits<double>::infinity() : distance, j};
      }
      std::sort(order.begin(), order.end());
      for (int64_t j = 0; j < k; ++j) out[(n * points + i) * k + j] = order[j].second;
    }
}

void Backend::edge_features(const Tensor& x, const Tensor& indices, Tensor& y) {
  naive("edge_features");
  const int64_t channels = x.shape().last();
  const Values vx = load(x);
  Values vy(y.count());
  for_each_edge(indices, [&](int64_t i, int64_t m, int64_t e) {
    for (int64_t c = 0; c < channels; ++c) {
      vy[e * 2 * channels + c] = vx[m * channels + c] - vx[i * channels + c];
      vy[e * 2 * channels + channels + c] = vx[i * channels + c];
    }
  });
  store(vy, y);
}

void Backend::edge_features_backward(const Tensor& dy, const Tensor& indices, Sink dx) {
  naive("edge_features_backward");
  if (!dx) return;
  const int64_t channels = (*dx).shape().last();
  const Values vdy = load(dy);
  Values vdx((*dx).count(), 0.0);
  for_each_edge(indices, [&](int64_t i, int64_t m, int64_t e) {
    for (int64_t c = 0; c < channels; ++c) {
      const double difference = vdy[e * 2 * channels + c], centre = vdy[e * 2 * channels + channels + c];
      vdx[m * channels + c] += difference;
      vdx[i * channels + c] += centre - difference;
    }
  });
  store(vdx, dx);
}

void Backend::neighbourhood_max(const Tensor& x, Tensor& y, Tensor& winners) {
  naive("neighbourhood_max");
  const int64_t k = x.shape()[2], channels = x.shape()[3];
  const Values vx = load(x);
  Values vy(y.count());
  int64_t* winner = winners.data<int64_t>();
  for (int64_t at = 0; at < y.count(); ++at) {
    const int64_t i = at / channels, c = at % channels;
    for (int64_t j = 0; j < k; ++j) {
      const double value = vx[(i * k + j) * channels + c];
      if (j > 0 && !(value > vy[at]) && !std::isnan(value)) continue;
      vy[at] = value;
      winner[at] = j;
    }
  }
  store(vy, y);
}

void Backend::neighbourhood_max_backward(const Tensor& dy, const Tensor& winners, Sink dx) {
  naive("neighbourhood_max_backward");
  if (!dx) return;
  const int64_t k = (*dx).shape()[2], channels = (*dx).shape()[3];
  const Values vdy = load(dy);
  const int64_t* winner = winners.data<int64_t>();
  Values vdx((*dx).count(), 0.0);
  for (int64_t at = 0; at < dy.count(); ++at) {
    const int64_t i = at / channels, c = at % channels;
    vdx[(i * k + winner[at]) * channels + c] = vdy[at];
  }
  store(vdx, dx);
}

}  // namespace mgic
