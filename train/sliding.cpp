#include "train/sliding.h"

#include <algorithm>
#include <cstring>

#include "autograd/ops.h"

namespace mgic {
namespace {

// A window of images (N, H, W, C), or of counts with N = C = 1.
struct Window {
  int64_t top, left, height, width;
};

// f(line of the whole, line of the window, bytes of it) for every line of pixels of every image.
template <class F>
void each_line(const Tensor& whole, const Window& w, const F& f) {
  const int64_t h = whole.shape()[1], width = whole.shape()[2], c = whole.shape().last();
  for (int64_t n = 0; n < whole.shape()[0]; ++n)
    for (int64_t y = 0; y < w.height; ++y)
      f(((n * h + w.top + y) * width + w.left) * c, (n * w.height + y) * w.width * c, w.width * c);
}

Tensor cut(const Tensor& images, const Window& w) {
  const Shape& s = images.shape();
  Tensor part = Tensor::empty({s[0], w.height, w.width, s[3]}, images.dtype(), Device::cpu);
  const auto size = static_cast<int64_t>(size_of(images.dtype()));
  each_line(images, w, [&](int64_t from, int64_t to, int64_t count) {
    std::memcpy(static_cast<char*>(part.raw()) + to * size, static_cast<const char*>(images.raw()) + from * size,
                static_cast<size_t>(count * size));
  });
  return part;
}

}  // namespace

void EvaluationOptions::fields(Fields& f) {
  f("window", window, "[height, width] of the windows that segmentation is evaluated in; [] for whole images",
    between(1, max_count));
  f("stride", stride, "[height, width] from one window to the next; [] for half a window", between(1, max_count));
  f.check(window.empty() || window.size() == 2, "window", "must be [height, width] or []");
  f.check(stride.empty() || stride.size() == 2, "stride", "must be [height, width] or []");
  f.check(stride.empty() || !window.empty(), "stride", "needs a window");
  if (window.size() == 2 && stride.size() == 2)
    f.check(stride[0] <= window[0] && stride[1] <= window[1], "stride",
            "must be at most the window, [{}, {}], or pixels are left out", window[0], window[1]);
}

std::vector<int64_t> window_starts(int64_t size, int64_t window, int64_t stride) {
  std::vector<int64_t> starts;
  int64_t at = 0;
  for (; at + window < size; at += stride) starts.push_back(at);
  starts.push_back(std::max<int64_t>(size - window, 0));
  return starts;
}

Tensor sliding_logits(Module& model, const Tensor& images, const EvaluationOptions& o) {
  const NoGrad no_grad;
  const int64_t h = images.shape()[1], w = images.shape()[2];
  const int64_t height = std::min(o.window.at(0), h), width = std::min(o.window.at(1), w);
  const auto stride = [&](size_t i) {
    return o.stride.empty() ? std::max<int64_t>(o.window[i] / 2, 1) : o.stride.at(i);
  };
  const Tensor host = images.to(Device::cpu);
  Tensor sum, covers;
  for (int64_t top : window_starts(h, height, stride(0)))
    for (int64_t left : window_starts(w, width, stride(1))) {
      const Window window{top, left, height, width};
      const Variable output = ops::full_precision(model(Variable(cut(host, window).to(images.device()))));
      const Tensor part = output.value().to(Device::cpu);
      if (!sum.defined()) {
        sum = Tensor::zeros(part.shape().with(1, h).with(2, w), part.dtype(), Device::cpu);
        covers = Tensor::zeros({1, h, w, 1}, part.dtype(), Device::cpu);
      }
      visit_f32_f64(part.dtype(), "sliding_logits", [&](auto zero) {
        using T = decltype(zero);
        each_line(sum, window, [&](int64_t to, int64_t from, int64_t count) {
          for (int64_t i = 0; i < count; ++i) sum.data<T>()[to + i] += part.data<T>()[from + i];
        });
        each_line(covers, window, [&](int64_t to, int64_t, int64_t count) {
          for (int64_t i = 0; i < count; ++i) covers.data<T>()[to + i] += 1;
        });
      });
    }
  visit_f32_f64(sum.dtype(), "sliding_logits", [&](auto zero) {
    using T = decltype(zero);
    const int64_t classes = sum.shape().last();
    for (int64_t i = 0; i < sum.count(); ++i) sum.data<T>()[i] /= covers.data<T>()[i / classes % (h * w)];
  });
  return sum.to(images.device());
}

}  // namespace mgic
