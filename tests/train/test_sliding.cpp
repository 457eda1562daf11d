// Sliding windows: where they lie, that one window is no window, and the mean over the windows that overlap.
#include <doctest/doctest.h>

#include "core/rng.h"
#include "layers/simple.h"
#include "models/model.h"
#include "train/sliding.h"

using namespace mgic;

namespace {

using List = std::vector<int64_t>;

Tensor normal(const Shape& shape) {
  Rng rng(5, Purpose::test);
  Tensor t = Tensor::empty(shape, DType::f32, Device::cpu);
  for (float& v : t.span<float>()) v = static_cast<float>(rng.normal());
  return t;
}

EvaluationOptions options(List window, List stride) {
  EvaluationOptions o;
  o.window = std::move(window);
  o.stride = std::move(stride);
  return o;
}

// Gives each pixel its window's place: the first pixel's value, which tells windows apart.
class FirstPixel final : public Module {
 public:
  FirstPixel() : Module("first_pixel") {}
  std::vector<Shape> seen;

 protected:
  Variable forward(const Variable& x) override {
    seen.push_back(x.shape());
    Tensor y = Tensor::empty(x.shape(), DType::f32, Device::cpu);
    const int64_t each = x.shape().count() / x.shape()[0];
    for (int64_t i = 0; i < y.count(); ++i) y.data<float>()[i] = x.value().data<float>()[i / each * each];
    return Variable(y);
  }
};

}  // namespace

TEST_CASE("windows cover the side and the last one is shifted inside") {
  CHECK(window_starts(10, 4, 3) == List{0, 3, 6});
  CHECK(window_starts(11, 4, 3) == List{0, 3, 6, 7});
  CHECK(window_starts(8, 4, 4) == List{0, 4});
  CHECK(window_starts(9, 4, 4) == List{0, 4, 5});
  CHECK(window_starts(4, 4, 1) == List{0});
  CHECK(window_starts(3, 4, 2) == List{0});  // cut to the side
  for (int64_t size = 1; size < 30; ++size)
    for (int64_t window = 1; window <= size; ++window)
      for (int64_t stride = 1; stride <= window; ++stride) {
        const List starts = window_starts(size, window, stride);
        CHECK(starts.front() == 0);
        CHECK(starts.back() == size - window);
        for (size_t i = 1; i < starts.size(); ++i) {
          CHECK(starts[i] > starts[i - 1]);
          CHECK(starts[i] - starts[i - 1] <= stride);
        }
      }
}

TEST_CASE("a window as large as the image changes nothing, to the last bit") {
  const auto model = model_registry()
                         .parse(R"({"type": "lraspp", "classes": 3, "in_channels": 2, "backbone": {"type": "resnet",
                                    "channels": [4, 8], "blocks": [1, 1], "strides": [1, 2],
                                    "block": {"type": "mgic", "group_size": 2, "coarsest_width": 2}}})")
                         .make({13, 10});
  model->to(Device::cpu, DType::f32);
  model->initialize(1);
  model->train(false);
  const NoGrad no_grad;
  const Tensor x = normal({3, 13, 10, 2});
  const Tensor whole = (*model)(Variable(x)).value();
  for (const List& window : {List{13, 10}, List{100, 10}}) {
    const Tensor slid = sliding_logits(*model, x, options(window, {5, 5}));
    REQUIRE(slid.shape() == whole.shape());
    for (int64_t i = 0; i < whole.count(); ++i) CHECK(slid.data<float>()[i] == whole.data<float>()[i]);
  }
}

TEST_CASE("windows that overlap give their mean") {
  // Two images of 3 × 5 pixels and one channel, windows of 2 × 4 at rows 0, 1 and columns 0, 1.
  const int64_t n = 2, h = 3, w = 5;
  const Tensor x = normal({n, h, w, 1});
  FirstPixel model;
  const Tensor slid = sliding_logits(model, x, options({2, 4}, {2, 3}));
  CHECK(model.seen == std::vector<Shape>(4, Shape{n, 2, 4, 1}));
  REQUIRE(slid.shape() == Shape{n, h, w, 1});
  for (int64_t image = 0; image < n; ++image)
    for (int64_t y = 0; y < h; ++y)
      for (int64_t column = 0; column < w; ++column) {
        double sum = 0, count = 0;
        for (int64_t top : {0, 1})
          for (int64_t left : {0, 1})
            if (y >= top && y < top + 2 && column >= left && column < left + 4) {
              sum += x.data<float>()[(image * h + top) * w + left];
              ++count;
            }
        CHECK(slid.data<float>()[(image * h + y) * w + column] == doctest::Approx(sum / count));
      }
  // Half a window apart where nothing is said: rows 0, 1; columns 0, 1 (2 would leave the image).
  model.seen.clear();
  sliding_logits(model, x, options({2, 4}, {}));
  CHECK(model.seen.size() == 4);
}
