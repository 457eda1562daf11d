// What the SIMD kernels share, compiled for every target: loops with tails, and the activations of a vector.
#if defined(MGIC_CPU_SIMD_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef MGIC_CPU_SIMD_INL_H
#undef MGIC_CPU_SIMD_INL_H
#else
#define MGIC_CPU_SIMD_INL_H
#endif

#include <hwy/cache_control.h>
#include <hwy/highway.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "backends/backend.h"
#include "core/dtype.h"

HWY_BEFORE_NAMESPACE();
namespace mgic::cpu::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
using D = hn::ScalableTag<float>;
using V = hn::Vec<D>;

inline HWY_ATTR int64_t lanes() { return static_cast<int64_t>(hn::Lanes(D())); }

// bf16 in memory, f32 in registers. Rounded to nearest even; NaN stays NaN. Where the machine's instruction rounds,
// subnormal numbers become zero.
using Half = hn::Rebind<uint16_t, D>;
HWY_INLINE V widen(hn::Vec<Half> v) {
  const hn::Rebind<uint32_t, D> d;
  return hn::BitCast(D(), hn::ShiftLeft<16>(hn::PromoteTo(d, v)));
}
HWY_INLINE hn::Vec<Half> narrow(V v) {
#if HWY_TARGET <= HWY_AVX3 && HWY_ARCH_X86
  if (rounds_to_bf16) {
    hn::Vec<Half> half;
    asm("vcvtneps2bf16 %1, %0" : "=v"(half.raw) : "v"(v.raw));
    return half;
  }
#endif
  const hn::Rebind<uint32_t, D> d;
  const auto bits = hn::BitCast(d, v);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(d, 1));
  const auto rounded = hn::ShiftRight<16>(hn::Add(bits, hn::Add(odd, hn::Set(d, 0x7fff))));
  const auto quiet = hn::Or(hn::ShiftRight<16>(bits), hn::Set(d, 0x40));
  const auto chosen = hn::IfThenElse(hn::RebindMask(d, hn::IsNaN(v)), quiet, rounded);
  return hn::DemoteTo(Half(), hn::BitCast(hn::Rebind<int32_t, D>(), chosen));
}
// Pairs of those, one from either vector.
using Pairs = hn::ScalableTag<uint32_t>;
HWY_INLINE hn::Vec<Pairs> narrow_pairs(V first, V second) {
  const Pairs d;
  return hn::Or(hn::PromoteTo(d, narrow(first)), hn::ShiftLeft<16>(hn::PromoteTo(d, narrow(second))));
}

// f(i) for i = 0 … n − 1, each as a type, so that what it indexes stays in registers.
template <int n, class F>
HWY_INLINE void each(F&& f) {
  [&]<int... i>(std::integer_sequence<int, i...>) HWY_ATTR { (f(std::integral_constant<int, i>()), ...); }
  (std::make_integer_sequence<int, n>());
}

#if HWY_TARGET != HWY_SCALAR
// Lane l ^ k in lane l.
template <int k, class Vector>
HWY_INLINE Vector turned(Vector v) {
  if constexpr ((k & 4) != 0) v = hn::SwapAdjacentBlocks(v);
  if constexpr ((k & 3) == 1) v = hn::Shuffle2301(v);
  if constexpr ((k & 3) == 2) v = hn::Shuffle1032(v);
  if constexpr ((k & 3) == 3) v = hn::Shuffle0123(v);
  return v;
}

// Lane l of vector j gets lane l of vector j ^ (l / lane) % n: its own inverse.
template <int n, int lane>
HWY_INLINE void straighten(V* v) {
  const hn::ScalableTag<uint32_t> d;
  each<n>([&](auto bit) HWY_ATTR {
    if constexpr (bit > 0 && (bit & (bit - 1)) == 0) {
      const auto other = hn::RebindMask(D(), hn::TestBit(hn::Iota(d, 0), hn::Set(d, lane * bit)));
      each<n>([&](auto k) HWY_ATTR {
        if constexpr ((k & bit) == 0) {
          const V low = v[k], high = v[k | bit];
          v[k] = hn::IfThenElse(other, high, low);
          v[k | bit] = hn::IfThenElse(other, low, high);
        }
      });
    }
  });
}
#endif

// How a kernel touches memory: a whole vector, or the part of one that is left at the end of an array. No byte outside
// of the array is read or written.
struct Whole {
  HWY_INLINE V load(const float* p) const { return hn::LoadU(D(), p); }
  HWY_INLINE V load_or(const float* p, float) const { return hn::LoadU(D(), p); }
  HWY_INLINE void store(V v, float* p) const { hn::StoreU(v, D(), p); }
  HWY_INLINE V load(const bf16* p) const { return widen(hn::LoadU(Half(), reinterpret_cast<const uint16_t*>(p))); }
  HWY_INLINE void store(V v, bf16* p) const { hn::StoreU(narrow(v), Half(), reinterpret_cast<uint16_t*>(p)); }
  int64_t size() const { return lanes(); }
};
struct Part {
  int64_t n;
  HWY_INLINE V load(const float* p) const { return load_or(p, 0); }
  HWY_INLINE V load_or(const float* p, float rest) const {
    HWY_ALIGN float buffer[hn::MaxLanes(D())];
    hn::Store(hn::Set(D(), rest), D(), buffer);
    std::memcpy(buffer, p, static_cast<size_t>(n) * sizeof(float));
    return hn::Load(D(), buffer);
  }
  HWY_INLINE void store(V v, float* p) const {
    HWY_ALIGN float buffer[hn::MaxLanes(D())];
    hn::Store(v, D(), buffer);
    std::memcpy(p, buffer, static_cast<size_t>(n) * sizeof(float));
  }
  HWY_INLINE V load(const bf16* p) const {
    HWY_ALIGN uint16_t buffer[hn::MaxLanes(D())] = {};
    std::memcpy(buffer, p, static_cast<size_t>(n) * sizeof(bf16));
    return widen(hn::Load(Half(), buffer));
  }
  HWY_INLINE void store(V v, bf16* p) const {
    HWY_ALIGN uint16_t buffer[hn::MaxLanes(D())];
    hn::Store(narrow(v), Half(), buffer);
    std::memcpy(p, buffer, static_cast<size_t>(n) * sizeof(bf16));
  }
  int64_t size() const { return n; }
};

// Whether vectors of a map with rows of so many elements can be stored past the caches, which keep what else is in
// them, and whose lines need not be read first. They have to be whole lines: with half of one at a time, a convolution
// took five times as long.
template <class T>
bool can_stream(const T* map, int64_t width) {
  constexpr int64_t line = 64;
  return std::is_same_v<T, float> && lanes() * static_cast<int64_t>(sizeof(T)) == line && width % lanes() == 0 &&
         reinterpret_cast<uintptr_t>(map) % line == 0;
}
// Past them or not.
template <class Memory, class T>
HWY_INLINE void store(V v, bool past, Memory memory, T* p) {
  if constexpr (std::is_same_v<Memory, Whole> && std::is_same_v<T, float>)
    if (past) return hn::Stream(v, D(), p);
  memory.store(v, p);
}

// f(i, memory) for the vectors that begin at i = begin, begin + lanes, … before end.
template <class F>
HWY_INLINE void each_vector(int64_t begin, int64_t end, F&& f) {
  int64_t i = begin;
  for (; i + lanes() <= end; i += lanes()) f(i, Whole());
  if (i < end) f(i, Part{end - i});
}

// Rows of `width` are taken in strips of this many vectors, whose parameters and sums stay in registers.
constexpr int strip_vectors = 4;

// The number of vectors in a strip, as a type, so that the loops over them unroll.
template <int n>
struct Count {
  static constexpr int value = n;
};

// f(n) for groups of 4 or 8 channels in one vector, as a type.
template <class F>
HWY_INLINE void with_group(int64_t n, F&& f) {
  if constexpr (hn::MaxLanes(D()) >= 8)
    if (n == 8) return f(Count<8>());
  f(Count<4>());
}

// f(j, memory, count) for strips of whole vectors at columns j, then single vectors, then the part of one.
template <class F>
HWY_INLINE void each_strip(int64_t width, F&& f) {
  int64_t j = 0;
  for (; j + strip_vectors * lanes() <= width; j += strip_vectors * lanes()) f(j, Whole(), Count<strip_vectors>());
  for (; j + lanes() <= width; j += lanes()) f(j, Whole(), Count<1>());
  if (j < width) f(j, Part{width - j}, Count<1>());
}

// f(j, memory, count, i, rows) for every strip of elements [begin, end), some rows at a time: `rows` rows whose strip
// begins at element i = begin + row·width + j. begin is a multiple of width; what is left of a row at the end comes as
// a row of its own. Where a row is longer than a strip, only four rows are taken together, so that memory is read
// nearly in order: with more of them, the hardware did not foresee the reads, and they took up to twice as long.
template <class F>
HWY_INLINE void each_strip_of_rows(int64_t begin, int64_t end, int64_t width, F&& f) {
  const int64_t rows = (end - begin) / width, rest = begin + rows * width, together = width <= 64 ? 64 : 4;
  for (int64_t done = 0; done < rows; done += together)
    each_strip(width, [&](int64_t j, auto memory, auto count)
                          HWY_ATTR { f(j, memory, count, begin + done * width + j, std::min(together, rows - done)); });
  each_strip(end - rest,
             [&](int64_t j, auto memory, auto count) HWY_ATTR { f(j, memory, count, rest + j, int64_t{1}); });
}

// f(begin, end) for blocks of rows of elements [begin, end): sums over a block are taken in f32, and blocks are added
// in f64.
template <class F>
HWY_INLINE void each_block(int64_t begin, int64_t end, int64_t width, F&& f) {
  constexpr int64_t rows = 64;
  for (; begin < end; begin += rows * width) f(begin, std::min(begin + rows * width, end));
}

// Loads the `count` vectors of a strip's parameter.
template <class Memory, class Count, class Vectors>
HWY_INLINE void load_strip(const float* p, Memory memory, Count, Vectors& v) {
  for (int u = 0; u < Count::value; ++u) v[u] = memory.load(p + u * lanes());
}
template <class Memory, class Count, class Vectors>
HWY_INLINE void store_strip(const Vectors& v, Memory memory, Count, float* p) {
  for (int u = 0; u < Count::value; ++u) memory.store(v[u], p + u * lanes());
}

// ---- Activations: value(x), and gradient(x, dy) = dy · activation'(x) with the flat side's slope at a kink ----

struct Identity {
  HWY_INLINE V value(V x) const { return x; }
  HWY_INLINE V gradient(V, V dy) const { return dy; }
};
struct Relu {
  // Written so that NaN stays NaN.
  HWY_INLINE V value(V x) const { return hn::IfThenZeroElse(hn::Le(x, hn::Zero(D())), x); }
  HWY_INLINE V gradient(V x, V dy) const { return hn::IfThenZeroElse(hn::Le(x, hn::Zero(D())), dy); }
};
HWY_INLINE V relu6(V x) {
  const D d;
  const V six = hn::Set(d, 6);
  x = Relu().value(x);
  return hn::IfThenElse(hn::Ge(x, six), six, x);
}
struct Hsigmoid {
  HWY_INLINE V value(V x) const {
    const D d;
    return hn::Mul(relu6(hn::Add(x, hn::Set(d, 3))), hn::Set(d, 1.0f / 6));
  }
  HWY_INLINE V gradient(V x, V dy) const {
    const D d;
    return hn::IfThenElseZero(hn::Lt(hn::Abs(x), hn::Set(d, 3)), hn::Mul(dy, hn::Set(d, 1.0f / 6)));
  }
};
struct Hswish {
  HWY_INLINE V value(V x) const { return hn::Mul(x, Hsigmoid().value(x)); }
  HWY_INLINE V gradient(V x, V dy) const {
    const D d;
    const V inside = hn::Mul(dy, hn::MulAdd(x, hn::Set(d, 1.0f / 3), hn::Set(d, 0.5f)));
    const V right = hn::IfThenElse(hn::Ge(x, hn::Set(d, 3)), dy, inside);
    return hn::IfThenZeroElse(hn::Le(x, hn::Set(d, -3)), right);
  }
};

// f(activation) with the type of a run-time activation.
template <class F>
HWY_INLINE void with_activation(Activation activation, F&& f) {
  switch (activation) {
    case Activation::none:
      return f(Identity());
    case Activation::relu:
      return f(Relu());
    case Activation::hswish:
      return f(Hswish());
    case Activation::hsigmoid:
      return f(Hsigmoid());
  }
}

// Stores v, or adds it to what is there.
template <class Memory, class T>
HWY_INLINE void put(V v, bool accumulate, const Memory& memory, T* p) {
  memory.store(accumulate ? hn::Add(memory.load(p), v) : v, p);
}

}  // namespace mgic::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
