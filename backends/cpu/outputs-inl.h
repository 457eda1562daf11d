// What becomes of a pass's outputs on their way out, compiled for every target: put(place, u, v) takes vectors u of a
// slab at some pixels, from where they have been computed straight to the map, or to the planes of the next link.
#if defined(MGIC_CPU_OUTPUTS_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef MGIC_CPU_OUTPUTS_INL_H
#undef MGIC_CPU_OUTPUTS_INL_H
#else
#define MGIC_CPU_OUTPUTS_INL_H
#endif

#include "backends/cpu/planes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace mgic::cpu::HWY_NAMESPACE {

// Some pixels of an image: the first one, and whether the others lie below it or beside it.
struct Place {
  int64_t y, x;
  bool below;
};

// How a bundle's outputs, whole lines, go past the caches. A core hands lines of even and of odd number to memory
// apart, and those of a bundle are all of one kind where a pixel has an even number of lines: bundle by bundle, they
// took twice as long as in turns. So every other bundle's lines wait, to go beside those of the next one.
struct Past {
  enum Way : uint8_t { no, alone, wait, together };
  Way way = no;
  float* lines = nullptr;  // that wait: the next one

  // past: whether they do; in_turns: whether they may wait for those of the next bundle that is walked, in `room`.
  static Past of(bool past, bool in_turns, int64_t bundle, const Chunk& walked, float* room) {
    if (!past) return {};
    if (!in_turns) return {alone};
    if ((bundle - walked.first) % 2 == 1) return {together, room};
    return {bundle + 1 < walked.last ? wait : alone, room};
  }
};
// Memory for one of those lines.
struct Line : Whole {
  Past::Way way;
  float* waiting;
  using Whole::store;
  HWY_INLINE void store(V v, float* p) const {
    if (way == Past::wait) return hn::StoreU(v, D(), waiting);
    if (way == Past::together) hn::Stream(hn::LoadU(D(), waiting), D(), p - slab_channels);
    hn::Stream(v, D(), p);
  }
};

// A slab in the map of one image.
struct SlabOfImage {
  Slab slab;
  int64_t first, width;

  SlabOfImage(const Slab& slab, const Grouped& g, int64_t image)
      : slab(slab), first(image * g.image_pixels() * slab.channels + slab.first), width(g.width) {}
  // f(element of the map, vector v[i], memory) for vectors u of n pixels.
  template <int n, class F>
  HWY_INLINE void each(const Place& place, int u, V (&v)[n], Past& past, F&& f) const {
    const int64_t at = first + (place.y * width + place.x) * slab.channels + u * lanes(),
                  step = (place.below ? width : 1) * slab.channels, valid = slab.valid() - u * lanes();
    if (past.way != Past::no) {
#pragma GCC unroll 4
      for (int i = 0; i < n; ++i) f(at + i * step, v[i], Line{{}, past.way, past.lines + i * slab_channels});
      past.lines += n * slab_channels;
      return;
    }
    const auto all = [&](auto memory) HWY_ATTR {
#pragma GCC unroll 4
      for (int i = 0; i < n; ++i) f(at + i * step, v[i], memory);
    };
    if (valid >= lanes()) return all(Whole());
    if (valid > 0) all(Part{valid});
  }
};

// A link's raw outputs, and their moments about the first of them.
template <class T>
struct RawOutputs {
  SlabOfImage map;
  T* raw;
  Past past;
  int seen = 0;  // vectors of the first pixel
  SlabParameter shift{nullptr}, sum{nullptr}, square{nullptr};

  template <int n>
  HWY_INLINE void put(const Place& place, int u, V (&v)[n]) {
    if (u == seen) {
      shift.v[u] = stored_as(v[0], T());
      ++seen;
    }
    V own = hn::Zero(D()), own_square = hn::Zero(D());
    map.each(place, u, v, past, [&](int64_t at, V value, auto memory) HWY_ATTR {
      value = stored_as(value, T());
      memory.store(value, raw + at);
      const V offset = hn::Sub(value, shift[u]);
      own = hn::Add(own, offset);
      own_square = hn::MulAdd(offset, offset, own_square);
    });
    sum.v[u] = hn::Add(sum[u], own);
    square.v[u] = hn::Add(square[u], own_square);
  }
};

// The gradients of a link's input; or of what the link before it puts out, with the sums that its normalisation needs.
template <class T>
struct InputGradients {
  const BackwardCall<T>& call;
  SlabOfImage map;
  Past past;
  SlabParameter mean{nullptr}, scale{nullptr}, beta{nullptr}, sum{nullptr}, centred_sum{nullptr};

  InputGradients(const BackwardCall<T>& call, const Slab& slab, int64_t image, const Past& past)
      : call(call), map(slab, call.conv, image), past(past) {
    if (call.scale == nullptr) return;
    mean = SlabParameter(call.mean + slab.first);
    scale = SlabParameter(call.scale + slab.first);
    beta = SlabParameter(call.beta + slab.first);
  }
  template <int n>
  HWY_INLINE void put(const Place& place, int u, V (&v)[n]) {
    const auto each = [&](auto&& f) HWY_ATTR { map.each(place, u, v, past, f); };
    // By value: after every store, the compiler would read them again.
    T* const dx = call.dx;
    const T* const before = call.before;
    if (before == nullptr) {
      T* const dminus = call.dminus;
      const bool adds = call.accumulate_dx, adds_minus = call.accumulate_dminus;
      if (dminus == nullptr && !adds)
        return each([=](int64_t at, V v, auto memory) HWY_ATTR { memory.store(v, dx + at); });
      return each([=](int64_t at, V v, auto memory) HWY_ATTR {
        if (dx != nullptr) cpu::HWY_NAMESPACE::put(v, adds, memory, dx + at);
        if (dminus != nullptr) cpu::HWY_NAMESPACE::put(hn::Neg(v), adds_minus, memory, dminus + at);
      });
    }
    with_activation(call.activation, [&](auto activation) HWY_ATTR {
      if (call.scale == nullptr)
        return each([&](int64_t at, V value, auto memory)
                        HWY_ATTR { memory.store(activation.gradient(memory.load(before + at), value), dx + at); });
      V own = hn::Zero(D()), own_centred = hn::Zero(D());
      each([&](int64_t at, V value, auto memory) HWY_ATTR {
        const V centred = hn::Sub(memory.load(before + at), mean[u]);
        const V dz = stored_as(activation.gradient(hn::MulAdd(centred, scale[u], beta[u]), value), T());
        memory.store(dz, dx + at);
        own = hn::Add(own, dz);
        own_centred = hn::MulAdd(dz, centred, own_centred);
      });
      sum.v[u] = hn::Add(sum[u], own);
      centred_sum.v[u] = hn::Add(centred_sum[u], own_centred);
    });
  }
};

// The outputs of an evaluated chain.
template <class T>
struct EvaluatedOutputs {
  const EvaluationCall<T>& call;
  Activation activation;
  SlabOfImage map;
  Past past;
  SlabParameter bias;

  EvaluatedOutputs(const EvaluationCall<T>& call, const Slab& slab, int64_t image, const Past& past)
      : call(call),
        activation(call.links.back().activation),
        map(slab, call.links.back().conv, image),
        past(past),
        bias(call.links.back().bias + slab.first) {}
  template <int n>
  HWY_INLINE void put(const Place& place, int u, V (&v)[n]) {
    const auto each = [&](auto&& f) HWY_ATTR { map.each(place, u, v, past, f); };
    with_activation(activation, [&](auto inner) HWY_ATTR {
#pragma GCC unroll 4
      for (int i = 0; i < n; ++i) v[i] = inner.value(hn::Add(v[i], bias[u]));
    });
    T* const y = call.y;  // by value, as above
    const T* const residual = call.residual;
    if (residual == nullptr)
      return each([=](int64_t at, V value, auto memory) HWY_ATTR { memory.store(value, y + at); });
    with_activation(call.outer, [&](auto outer) HWY_ATTR {
      each([=](int64_t at, V value, auto memory)
               HWY_ATTR { memory.store(outer.value(hn::Add(value, memory.load(residual + at))), y + at); });
    });
  }
};

// Those of a link within it, which go into a plane of the next link that begins at row `top` − border.
template <class A>
struct InnerOutputs {
  Activation activation;
  const Grouped& next;
  int64_t top;
  typename A::Cell* plane;
  SlabParameter bias;

  InnerOutputs(const FoldedLink& link, const Grouped& next, const Slab& slab, int64_t top, typename A::Cell* plane)
      : activation(link.activation), next(next), top(top), plane(plane), bias(link.bias + slab.first) {}
  template <int n>
  HWY_INLINE void put(const Place& place, int u, V (&v)[n]) {
    const int64_t step = (place.below ? next.pitch() : 1) * A::pixel;
    typename A::Cell* out =
        plane + ((next.plane_row(place.y - top) + next.border()) * next.pitch() + next.border() + place.x) * A::pixel;
    with_activation(activation, [&](auto inner) HWY_ATTR {
#pragma GCC unroll 4
      for (int i = 0; i < n; ++i) A::put(inner.value(hn::Add(v[i], bias[u])), out + i * step, u);
    });
  }
};

}  // namespace mgic::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
