// The three passes: how the batch is cut for the threads, and what of their results is put together behind the barrier.
#include "backends/cpu/passes.h"

#include <utility>

#include "backends/cpu/channel_vectors.h"
#include "backends/cpu/cpu_backend.h"
#include "backends/cpu/grouped_weights.h"
#include "backends/cpu/parallel.h"
#include "backends/cpu/pass_kernels.h"

namespace mgic::cpu {
namespace {

// Bands whose planes, `slabs` of them, stay in a thread's own cache; the first cache where there are no halos to pay
// for. At least one for every thread. A multiple of four rows, for Winograd's tiles.
Bands bands_of(const Grouped& g, int64_t slabs) {
  const int64_t bytes = g.kernel == 1 ? 24 * 1024 : 384 * 1024;
  const int64_t fit = bytes / (slabs * g.pitch() * slab_channels * static_cast<int64_t>(sizeof(float)));
  const int64_t per_image = (threads() + g.batch - 1) / g.batch, most = (g.height + per_image - 1) / per_image;
  const int64_t rows = std::min(std::max<int64_t>(fit - 2 * g.border(), 8), most);
  return {g, (rows + 3) / 4 * 4};
}

// Channels of a panel: bundles that are walked together through all items of a chunk before the next ones are. So few
// that their weights, the gradients of those and what is fetched of the next item stay in a thread's own cache; so many
// that a pixel's are some lines in a row.
constexpr int64_t panel_channels = 64;

// How a pass is cut for the threads: `item_parts` by `bundle_parts` chunks, which are walked panel by panel. Parts of
// the items have sums of their own, which are added in their order.
struct Cut {
  int item_parts = 1, bundle_parts = 1;
  int64_t panel;  // bundles of it
  bool backwards;
  std::vector<Chunk> chunks;

  // gradients: whether those of the weights are computed.
  Cut(const Grouped& g, const Bands& bands, bool gradients, bool backwards)
      : panel(std::max<int64_t>(panel_channels / (g.bundle() * g.inputs), 1)), backwards(backwards) {
    const int64_t items = bands.items(), bundles = g.bundles(), most = parts_of(items, 1);
    const int64_t weights = g.groups * g.inputs * g.outputs * g.positions(),
                  map = g.batch * g.image_pixels() * std::max(g.in_channels(), g.out_channels());
    // Whole items are read as they lie; but weights that are many, against the pixels that they serve, had better stay
    // with one thread. Their gradients are cleared and added for every part of the items, which few are not worth.
    if ((weights * 4 > map || (gradients && items < 4 * threads())) && bundles >= threads()) {
      bundle_parts = parts_of(bundles, 1);
    } else if (gradients) {
      // Parts a thread. A second one pays sooner than more do: without it, all wait for the slower thread's share.
      const int64_t worth = std::max<int64_t>(map / (12 * weights * threads()), map >= 12 * weights ? 2 : 1);
      item_parts = static_cast<int>(std::min(most, worth * threads()));
    } else {
      item_parts = static_cast<int>(most);
    }
    const auto begin = [&](int64_t n, int parts, int part) { return part_begin(n, parts, part, backwards); };
    for (int i = 0; i < item_parts; ++i)
      for (int b = 0; b < bundle_parts; ++b)
        chunks.push_back({begin(items, item_parts, i), begin(items, item_parts, i + 1), begin(bundles, bundle_parts, b),
                          begin(bundles, bundle_parts, b + 1)});
  }
  // f(walk, part of the items, thread) for all panels of all chunks.
  template <class F>
  void run(F&& f) const {
    const int count = static_cast<int>(chunks.size());
    const Deal deal(count, threads(), backwards);
    std::vector<int> expected(static_cast<size_t>(threads()), -1);  // the chunk that a thread has fetched some of
    const auto chunk = [&](int i) { return i < 0 ? Chunk() : chunks[static_cast<size_t>(i)]; };
    const auto panel_at = [&](const Chunk& c, int64_t first) {
      return Chunk{c.begin, c.end, first, std::min(first + panel, c.last)};
    };
    parallel(count, count, backwards, [&](int i, int thread, int64_t, int64_t) {
      const Chunk own = chunk(i), after = chunk(deal.behind(i));
      const bool cold = std::exchange(expected[static_cast<size_t>(thread)], deal.behind(i)) != i;
      for (int64_t b = own.first; b < own.last; b += panel) {
        const Chunk next = b + panel < own.last ? panel_at(own, b + panel) : panel_at(after, after.first);
        f(Walk{panel_at(own, b), next, backwards, cold && b == own.first}, i / bundle_parts, thread);
      }
    });
  }
};

// In cells; planes of pairs take half as many, and leave room.
int64_t plane_size(const Grouped& g, const Bands& bands) {
  return g.plane_rows(bands.rows) * g.pitch() * slab_channels;
}

// Vectors may reach a little beyond the last pixel; the blocks of outputs lie behind the planes.
constexpr int64_t slack = 4 * slab_channels;
// Pixels of a block: rows of tiles, or as many as matrices take at a time (matrix-inl.h).
int64_t block_size(const Grouped& g) { return std::max<int64_t>(64 + 16 * g.width, 192) * slab_channels; }

// Moments of the parts, each of so many pixels, as one: Chan's formula.
void combine(const float* moments, const std::vector<int64_t>& pixels, int64_t stride, int64_t channels, float* mean,
             float* variance) {
  for (int64_t c = 0; c < channels; ++c) {
    double count = 0, m = 0, squares = 0;
    for (size_t part = 0; part < pixels.size(); ++part) {
      const float* own = moments + static_cast<int64_t>(part) * 2 * stride;
      const double n = static_cast<double>(pixels[part]), total = count + n, delta = own[c] - m;
      if (n == 0) continue;
      m += delta * n / total;
      squares += own[stride + c] + delta * delta * count * n / total;
      count = total;
    }
    mean[c] = static_cast<float>(m);
    variance[c] = static_cast<float>(squares / count);
  }
}

}  // namespace

template <class T>
Arithmetic best_arithmetic() {
  return pass_kernels<T>().best;
}

template <class T>
void run(const ForwardCall<T>& call) {
  const auto kernels = pass_kernels<T>();
  const Grouped& g = call.conv;
  const Bands bands = bands_of(g, g.in_slabs());
  const Cut cut(g, bands, false, call.backwards);
  const int64_t planes = g.in_slabs() * plane_size(g, bands) + slack,
                room = planes + waiting_size(g, bands) + block_size(g);
  const int64_t stride = padded(g.out_channels());
  Scratch<float> scratch(threads() * room), moments(cut.item_parts * 2 * stride);
  std::fill_n(moments.data(), moments.count(), 0.0f);
  cut.run([&](const Walk& walk, int part, int thread) {
    float* own = scratch.data() + thread * room;
    kernels.forward(call, bands, walk, own, own + planes, moments.data() + part * 2 * stride);
  });
  if (call.mean == nullptr) return;
  std::vector<int64_t> pixels(static_cast<size_t>(cut.item_parts), 0);
  for (size_t part = 0; part < pixels.size(); ++part) {
    const Chunk& items = cut.chunks[part * static_cast<size_t>(cut.bundle_parts)];
    for (int64_t item = items.begin; item < items.end; ++item)
      pixels[part] += (bands.end(item) - bands.begin(item)) * g.width;
  }
  combine(moments.data(), pixels, stride, g.out_channels(), call.mean, call.variance);
}

template <class T>
void run(const BackwardCall<T>& call) {
  const auto kernels = pass_kernels<T>();
  const Grouped& g = call.conv;
  const int64_t slabs = g.in_slabs() + g.out_slabs();
  const Bands bands = bands_of(g, slabs);
  const Cut cut(g, bands, static_cast<bool>(call.dw), call.backwards);
  const int64_t planes = slabs * plane_size(g, bands) + kernels.room_beside_planes(g, g.plane_rows(bands.rows)) + slack,
                room = planes + waiting_size(g, bands) + block_size(g), stride = padded(g.in_channels());
  WeightGradients dw(g, call.dw ? cut.item_parts : 0);
  Scratch<float> scratch(threads() * room);
  Scratch<double> partial(cut.item_parts * 2 * stride);
  std::fill_n(partial.data(), partial.count(), 0.0);
  cut.run([&](const Walk& walk, int part, int thread) {
    float* own = scratch.data() + thread * room;
    if (call.dw) dw.clear(part, walk.own.first, walk.own.last);
    kernels.backward(call, bands, walk, own, own + planes, call.dw ? dw.part(part) : nullptr,
                     partial.data() + part * 2 * stride);
  });
  if (call.dw) dw.write(call.dw);
  if (call.sums == nullptr) return;
  for (int64_t c = 0; c < g.in_channels(); ++c)
    for (int part = 0; part < cut.item_parts; ++part) {
      call.sums->sum[c] += partial[part * 2 * stride + c];
      call.sums->centred_sum[c] += partial[(part * 2 + 1) * stride + c];
    }
}

template <class T>
void run(const EvaluationCall<T>& call) {
  const auto kernels = pass_kernels<T>();
  int64_t slabs = 1, halo = 0;
  for (const FoldedLink& l : call.links) {
    slabs = std::max({slabs, l.conv.in_slabs(), l.conv.out_slabs()});
    if (&l != &call.links.front()) halo += l.conv.border();
  }
  const int64_t sides = call.links.size() > 1 ? 2 : 1;  // planes that are read, and those that are written meanwhile
  const Bands bands = bands_of(call.links[0].conv, sides * slabs);
  int64_t link_planes = 0, block = 0;
  for (const FoldedLink& l : call.links) {
    const int64_t rows = l.conv.plane_rows(whole_tiles(l.conv, bands.rows + 2 * halo));
    link_planes = std::max(link_planes, slabs * rows * l.conv.pitch() * slab_channels + slack);
    block = std::max(block, block_size(l.conv));
  }
  const int64_t room = sides * link_planes + waiting_size(call.links.back().conv, bands) + block;
  Scratch<float> scratch(threads() * room);
  Cut(call.links.back().conv, bands, false, false).run([&](const Walk& walk, int, int thread) {
    float* own = scratch.data() + thread * room;
    kernels.evaluate(call, bands, walk, own, link_planes, own + sides * link_planes);
  });
}

template <class T>
void grouped_forward(const ConvParams& p, const Tensor& x, const Tensor& w, const Tensor& bias, const Tensor& residual,
                     Activation activation, Tensor& y) {
  const Grouped g = grouped_of(p, x.shape(), w.shape(), best_arithmetic<T>()).flattened();
  const auto weights = forward_weights(g, w.data<float>());
  const float* given = data_or_null(bias);
  const auto padded_bias =
      channel_vector(g.out_channels(), [&](int64_t c) { return given == nullptr ? 0.0f : given[c]; });
  const bool adds = residual.defined();
  run(EvaluationCall<T>{{{g, weights.data(), padded_bias.data(), adds ? Activation::none : activation}},
                        {x.data<T>()},
                        data_or_null<T>(residual),
                        adds ? activation : Activation::none,
                        y.data<T>()});
}

template <class T>
void grouped_backward_data(const ConvParams& p, const Tensor& dy, const Tensor& w, Sink dx) {
  const Grouped g = grouped_of(p, (*dx).shape(), w.shape(), best_arithmetic<T>()).flattened();
  const auto weights = transposed_weights(g, w.data<float>());
  BackwardCall<T> call{g, {dy.data<T>()}, {}, false, {}, weights.data()};
  call.dx = (*dx).data<T>();
  call.accumulate_dx = accumulates(dx);
  run(call);
}

template <class T>
void grouped_backward_weights(const ConvParams& p, const Tensor& x, const Tensor& dy, Sink dw) {
  run(BackwardCall<T>{grouped_of(p, x.shape(), (*dw).shape(), best_arithmetic<T>()).flattened(),
                      {dy.data<T>()},
                      dw,
                      false,
                      {x.data<T>()},
                      nullptr});
}

template Arithmetic best_arithmetic<float>();
template void run(const ForwardCall<float>&);
template void run(const BackwardCall<float>&);
template void run(const EvaluationCall<float>&);
template void grouped_forward<float>(const ConvParams&, const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                                     Activation, Tensor&);
template void grouped_backward_data<float>(const ConvParams&, const Tensor&, const Tensor&, Sink);
template void grouped_backward_weights<float>(const ConvParams&, const Tensor&, const Tensor&, Sink);
template Arithmetic best_arithmetic<bf16>();
template void run(const ForwardCall<bf16>&);
template void run(const BackwardCall<bf16>&);
template void run(const EvaluationCall<bf16>&);
template void grouped_forward<bf16>(const ConvParams&, const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                                    Activation, Tensor&);
template void grouped_backward_data<bf16>(const ConvParams&, const Tensor&, const Tensor&, Sink);
template void grouped_backward_weights<bf16>(const ConvParams&, const Tensor&, const Tensor&, Sink);

}  // namespace mgic::cpu
