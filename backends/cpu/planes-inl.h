// Between maps and planes (grouped.h), compiled for every target: a map's channels a slab at a time, packing slabs into
// planes with what has to happen to their values on the way, and asking for the next ones' memory.
#if defined(MGIC_CPU_PLANES_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef MGIC_CPU_PLANES_INL_H
#undef MGIC_CPU_PLANES_INL_H
#else
#define MGIC_CPU_PLANES_INL_H
#endif

#include "backends/cpu/ahead.h"
#include "backends/cpu/grouped-inl.h"
#include "backends/cpu/pass_kernels.h"

HWY_BEFORE_NAMESPACE();
namespace mgic::cpu::HWY_NAMESPACE {

// ---- Slabs ----

constexpr int slab_vectors = slab_channels / static_cast<int>(hn::MaxLanes(D()));

struct SlabParameter {
  V v[slab_vectors];
  SlabParameter() = default;
  HWY_INLINE explicit SlabParameter(const float* p) {
    for (int u = 0; u < slab_vectors; ++u) v[u] = p == nullptr ? hn::Zero(D()) : hn::LoadU(D(), p + u * lanes());
  }
  HWY_INLINE V operator[](int u) const { return v[u]; }
};

// f(u, memory) for the vectors of a slab, whole or of `valid` channels.
struct FullSlab {
  template <class F>
  HWY_INLINE void each(F&& f) const {
    for (int u = 0; u < slab_vectors; ++u) f(u, Whole());
  }
};
struct PartSlab {
  int64_t valid;
  template <class F>
  HWY_INLINE void each(F&& f) const {
    for (int u = 0; u < slab_vectors; ++u) f(u, Part{std::clamp<int64_t>(valid - u * lanes(), 0, lanes())});
  }
};
template <class F>
HWY_INLINE void with_slab(int64_t valid, F&& f) {
  if (valid >= slab_channels) return f(FullSlab());
  f(PartSlab{valid});
}

// Whether a map of so many channels is stored past the caches: as large as a thread's own one. Maps of 1 to 8 MiB out
// of cache took 7 to 14 % less time so; within a network it made no difference.
template <class T>
bool streams(const Grouped& g, int64_t channels, const T* map) {
  constexpr int64_t large = 1 << 20;
  return can_stream(map, channels) && g.batch * g.image_pixels() * channels * static_cast<int64_t>(sizeof(T)) >= large;
}

// ---- Packing ----

// Where a slab lies: `channels` to a pixel of the map, `valid` of them from `first` on.
struct Slab {
  int64_t channels, first;
  int64_t valid() const { return std::min(slab_channels, channels - first); }
};

// Zeros in pixels of a plane, and at both ends of a row of it.
template <class A>
HWY_INLINE void clear_pixels(typename A::Cell* begin, const typename A::Cell* end) {
  for (; begin < end; begin += A::pixel)
    for (int u = 0; u < slab_vectors; ++u) A::put(hn::Zero(D()), begin, u);
}
template <class A>
HWY_INLINE void clear_borders(const Grouped& g, typename A::Cell* row) {
  typename A::Cell* const end = row + g.pitch() * A::pixel;
  clear_pixels<A>(row, row + g.border() * A::pixel);
  clear_pixels<A>(end - g.border() * A::pixel, end);
}

// plane ← value(element, u, memory) for rows [y0 − border, y1 + border) of image n and those that are stacked below it,
// zeros outside of the images.
template <class A, class F>
HWY_INLINE void pack(const Grouped& g, Slab slab, int64_t n, int64_t y0, int64_t y1, F&& value,
                     typename A::Cell* plane) {
  using Cell = typename A::Cell;
  const int64_t border = g.border(), row_cells = g.pitch() * A::pixel,
                bottom = g.stacked > 1 ? y1 : std::min(y1 + border, g.height);
  const Cell* const end = plane + g.plane_rows(y1 - y0) * row_cells;
  with_slab(slab.valid(), [&](auto vectors) HWY_ATTR {
    Cell* at = plane;
    for (int64_t y = std::max<int64_t>(g.stacked > 1 ? y0 : y0 - border, 0); y < bottom; ++y) {
      Cell* row = plane + (g.plane_row(y - y0) + border) * row_cells;
      clear_pixels<A>(at, row);
      clear_borders<A>(g, row);
      at = row + row_cells;
      int64_t from = (n * g.height + y) * g.width * slab.channels + slab.first;
      Cell* out = row + border * A::pixel;
      for (int64_t x = 0; x < g.width; ++x, from += slab.channels, out += A::pixel)
        vectors.each([&](int u, auto memory) HWY_ATTR { A::put(value(from + u * lanes(), u, memory), out, u); });
    }
    clear_pixels<A>(at, end);
  });
}

template <class A, class T>
void pack_input(const Grouped& g, const Input<T>& in, int64_t first, int64_t n, int64_t y0, int64_t y1,
                typename A::Cell* plane) {
  const Slab slab{g.in_channels(), first};
  const T* x = in.x;
  if (in.scale != nullptr) {
    const SlabParameter mean(in.mean + first), scale(in.scale + first), beta(in.beta + first);
    return with_activation(in.activation, [&](auto activation) HWY_ATTR {
      pack<A>(
          g, slab, n, y0, y1,
          [&](int64_t at, int u, auto memory) HWY_ATTR {
            return activation.value(hn::MulAdd(hn::Sub(memory.load(x + at), mean[u]), scale[u], beta[u]));
          },
          plane);
    });
  }
  if (in.minus != nullptr)
    return pack<A>(
        g, slab, n, y0, y1,
        [&](int64_t at, int, auto memory) HWY_ATTR { return hn::Sub(memory.load(x + at), memory.load(in.minus + at)); },
        plane);
  with_activation(in.activation, [&](auto activation) HWY_ATTR {
    pack<A>(
        g, slab, n, y0, y1,
        [&](int64_t at, int, auto memory) HWY_ATTR { return activation.value(memory.load(x + at)); }, plane);
  });
}

template <class A, class T>
void pack_gradient(const Grouped& g, const OutputGradient<T>& in, int64_t first, int64_t n, int64_t y0, int64_t y1,
                   typename A::Cell* plane) {
  const Slab slab{g.out_channels(), first};
  if (in.raw == nullptr)
    return pack<A>(
        g, slab, n, y0, y1, [&](int64_t at, int, auto memory) HWY_ATTR { return memory.load(in.dy + at); }, plane);
  with_activation(in.activation, [&](auto activation) HWY_ATTR {
    if (in.scale == nullptr)
      return pack<A>(
          g, slab, n, y0, y1,
          [&](int64_t at, int, auto memory)
              HWY_ATTR { return activation.gradient(memory.load(in.raw + at), memory.load(in.dy + at)); },
          plane);
    const SlabParameter mean(in.mean + first), scale(in.scale + first), beta(in.beta + first), shift(in.shift + first),
        slope(in.slope + first);
    pack<A>(
        g, slab, n, y0, y1,
        [&](int64_t at, int u, auto memory) HWY_ATTR {
          const V centred = hn::Sub(memory.load(in.raw + at), mean[u]);
          const V dz = activation.gradient(hn::MulAdd(centred, scale[u], beta[u]), memory.load(in.dy + at));
          return hn::NegMulAdd(centred, slope[u], hn::MulSub(dz, scale[u], shift[u]));
        },
        plane);
  });
}

// ---- Fetching ahead ----

// What a thread reads next: while the first half of a panel's bundles are computed, the second half; while those are,
// the next item's first half. More would push out what is still wanted, where a power of two of channels leaves it few
// sets of the cache. Each bundle asks for a share: some pixels, in every map. Nobody has asked for a thread's very
// first half: there, every bundle also asks for what the next one reads.
class NextBundles {
 public:
  // Behind that bundle of item i of the walk; the share is asked for while so many of its pixels are computed.
  NextBundles(const Grouped& g, const Bands& bands, const Walk& walk, int64_t i, int64_t bundle, int64_t while_pixels)
      : ahead_(while_pixels), bundles_(g.bundles()) {
    const auto pixels_of = [&](int64_t item, int64_t first, int64_t last, int64_t share, int64_t shares) {
      const int64_t pixels = (bands.end(item) - bands.begin(item)) * g.width, from = pixels * share / shares;
      return Share{bands.image(item) * g.image_pixels() + bands.begin(item) * g.width + from,
                   pixels * (share + 1) / shares - from, first, last};
    };
    const auto middle_of = [](const Chunk& c) { return c.first + (c.last - c.first + 1) / 2; };
    const int64_t first = walk.own.first, last = walk.own.last, middle = middle_of(walk.own);
    if (bundle < middle && middle < last) {
      half_ = pixels_of(walk.item(i), middle, last, bundle - first, middle - first);
    } else if (const auto next = walk.behind(i)) {
      const int64_t from = middle < last ? middle : first;
      half_ = pixels_of(next->begin, next->first, middle_of(*next), bundle - from, last - from);
    }
    if (walk.cold && i == 0 && bundle + 1 < middle) bundle_ = pixels_of(walk.item(i), bundle + 1, bundle + 2, 0, 1);
  }
  // Their part of a map of so many channels; nothing where it is null.
  template <class T>
  void add(const T* map, int64_t channels) {
    if (map == nullptr) return;
    for (const Share& share : {half_, bundle_}) {
      const int64_t first = channels * share.first / bundles_, own = channels * share.last / bundles_ - first;
      if (own == channels)
        ahead_.add(map + share.from * channels, share.pixels * channels);
      else
        ahead_.add(map + share.from * channels + first, share.pixels, own, channels);
    }
  }
  HWY_INLINE void fetch(int64_t pixels) { ahead_.fetch(pixels); }

 private:
  struct Share {
    int64_t from = 0, pixels = 0, first = 0, last = 0;  // pixels, and bundles
  };
  Ahead ahead_;
  int64_t bundles_;
  Share half_, bundle_;
};

}  // namespace mgic::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
