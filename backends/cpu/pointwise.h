// 1×1 convolutions of stride 1 with few channels a group: MGIC's transfers, where oneDNN reaches a tenth of what it
// does elsewhere. A pixel is a row, and all that a transfer ever computes of its maps, normalisation included
// (transfer.cpp), is one of two walks over the rows: a linear map of them, and sums of products of them.
//
//   map    y[r] = A u[r] + B v[r] + shift + residual[r]
//   sums   Σ_r v[r], Σ_r dy[r], Σ_r dy[r] v[r]ᵀ, Σ_r v[r] v[r]ᵀ
//
// Matrices are block diagonal, a block a group.
#pragma once

#include <cstdint>
#include <vector>

#include "backends/cpu/grouped.h"
#include "backends/cpu/parallel.h"

namespace mgic::cpu {

struct Pointwise {
  int64_t rows, groups, inputs, outputs;  // inputs and outputs a group

  int64_t in_channels() const { return groups * inputs; }
  int64_t out_channels() const { return groups * outputs; }
};

bool pointwise_suits(int64_t groups, int64_t inputs, int64_t outputs);

// Maps of T, f32 or bf16: x, or x − minus.
template <class T>
struct Rows {
  const T* x;
  const T* minus = nullptr;
};

// Results that share a vector: all of several groups, or, of one group, those from `first` on.
struct Tile {
  int64_t group, groups, first, results;
};

template <class T>
struct RowMap {
  struct Term {
    Rows<T> rows;
    int64_t depth;                 // channels a group
    const float* weights;          // (groups, width, depth)
    bool transposed = false;       // (groups, depth, width) instead
    const void* packed = nullptr;  // in cells of the arithmetic, (tiles, cells, lanes), for matrices also their
                                   // negatives where there is a minus; null where groups are turned: by run()
  };
  int64_t rows, groups, width;   // width: results a group
  std::vector<Term> terms;       // one or two
  const float* shift = nullptr;  // (groups · width); null: 0
  const T* residual = nullptr;
  T* y = nullptr;  // null: not wanted
  bool accumulate = false;
  T* negated = nullptr;  // the result's negative
  bool accumulate_negated = false;
  std::vector<Tile> tiles;                  // by run()
  Arithmetic arithmetic = Arithmetic::f32;  // by run()
  int64_t turned = 0;                       // lanes a group where groups are turned (pointwise_turned-inl.h), by run()
};
template <class T>
void run(RowMap<T> map);

// Which sums are wanted. v is x − minus − centre, where a centre is given; sums of squares are as exact as that is near
// to the mean.
template <class T>
struct RowSums {
  Pointwise p;
  Rows<T> v;
  const T* dy = nullptr;
  const float* centre = nullptr;  // (in_channels)
  bool gram = false;
  Arithmetic arithmetic = Arithmetic::f32;  // by run()
  int64_t turned = 0;                       // as in a map, by run()
};
struct Sums {
  std::vector<double> v, dy;  // (in_channels), (out_channels)
  std::vector<double> outer;  // (groups, outputs, inputs); empty without dy
  std::vector<double> gram;   // (groups, inputs, inputs)
};
template <class T>
Sums run(RowSums<T> sums);

// Groups with fewer than four channels are taken together, with zeros between them.
struct Merged {
  Pointwise p;
  int64_t of;  // groups that became one

  explicit Merged(const Pointwise& own);
  // f(place in (groups, outputs, inputs), place in the convolution's weights) for every weight.
  template <class F>
  void each_weight(F&& f) const {
    if (of == 1) {  // as most are
      for (int64_t weight = 0; weight < p.out_channels() * p.inputs; ++weight) f(weight, weight);
      return;
    }
    const int64_t inputs = p.inputs / of, outputs = p.outputs / of, own_groups = p.groups * of;
    for (int64_t g = 0, weight = 0, place = 0; g < own_groups; ++g)
      for (int64_t o = 0, first = g % of * inputs; o < outputs; ++o, place += p.inputs)
        for (int64_t i = 0; i < inputs; ++i, ++weight) f(place + first + i, weight);
  }
  std::vector<float> weights(const float* w) const;                      // (groups, outputs, inputs)
  const float* weights(const float* w, std::vector<float>& room) const;  // in `room`, or w where they lie like that
};
// scale[o] w[o][i]: a factor an output channel.
std::vector<float> scaled(const Pointwise& p, std::vector<float> w, const float* scale);

// The convolution alone: x (rows, in_channels), y and dy (rows, out_channels), w (out_channels, inputs).
template <class T>
void pointwise_forward(const Pointwise& p, const T* x, const float* w, const float* bias, const T* residual, T* y);
template <class T>
void pointwise_backward_data(const Pointwise& p, const T* dy, const float* w, bool accumulate, T* dx);
template <class T>
void pointwise_backward_weights(const Pointwise& p, const T* x, const T* dy, bool accumulate, float* dw);

}  // namespace mgic::cpu
