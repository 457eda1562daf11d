// The operations of the segmentation and point networks, and the losses, against central differences and against
// PyTorch's numbers.
#include <functional>
#include <numeric>

#include "tests/autograd/support.h"

using namespace mgic;
using namespace mgic::test;

namespace {

Tensor labels_of(const std::vector<int64_t>& values, const Shape& shape) {
  return Tensor::from(values, shape, Device::reference);
}

}  // namespace

TEST_CASE("gradients: leaky_relu and sigmoid") {
  for (const Shape& shape : {Shape{1}, Shape{7}, Shape{1, 3, 5, 1}, Shape{2, 4, 3, 5}}) {
    CAPTURE(shape.str());
    CHECK(gradcheck_fault([](const Inputs& v) { return ops::leaky_relu(v[0], 0.2); }, {away_from_kinks(shape, 1)}) ==
          "");
    CHECK(gradcheck_fault([](const Inputs& v) { return ops::sigmoid(v[0]); }, {normal(shape, 1)}) == "");
    // Both contributions to one gradient.
    CHECK(gradcheck_fault([](const Inputs& v) { return ops::multiply(ops::sigmoid(v[0]), v[0]); },
                          {normal(shape, 2)}) == "");
  }
  const Variable x(Tensor::from(std::vector<double>{-5, 0, 3, -800, 800}, {5}, Device::reference));
  CHECK(list(ops::leaky_relu(x, 0.2).value()) == std::vector<double>{-1, 0, 3, -160, 800});
  const auto s = list(ops::sigmoid(x).value());
  CHECK(s[0] == doctest::Approx(1 / (1 + std::exp(5.0))));
  CHECK(s[1] == 0.5);
  CHECK(s[3] == 0);
  CHECK(s[4] == 1);
}

TEST_CASE("leaky_relu and sigmoid on cpu are those of reference") {
  const Tensor x = normal({3, 5, 7}, 1, DType::f32);
  for (const auto& f :
       std::vector<std::function<Variable(const Variable&)>>{[](const Variable& v) { return ops::leaky_relu(v, 0.2); },
                                                             [](const Variable& v) { return ops::sigmoid(v); }}) {
    const Variable a(x, true), b(x.to(Device::cpu), true);
    const Variable ya = f(a), yb = f(b);
    CHECK(distance(yb.value(), ya.value()) < tolerance_f32);
    backward(ya);
    backward(yb);
    CHECK(distance(b.gradient(), a.gradient()) < tolerance_f32);
  }
}

TEST_CASE("gradients: batched_matmul, plain and transposed, and a matrix with itself") {
  for (const auto& [n, p, q, r] : {std::tuple{1, 1, 1, 1}, std::tuple{3, 4, 2, 5}, std::tuple{2, 1, 3, 1}}) {
    CHECK(gradcheck_fault([](const Inputs& v) { return ops::batched_matmul(v[0], v[1]); },
                          {normal({n, p, q}, 1), normal({n, q, r}, 2)}) == "");
    CHECK(gradcheck_fault([](const Inputs& v) { return ops::batched_matmul(v[0], v[1], true); },
                          {normal({n, p, q}, 1), normal({n, r, q}, 2)}) == "");
  }
  CHECK(gradcheck_fault([](const Inputs& v) { return ops::batched_matmul(v[0], v[0], true); },
                        {normal({2, 3, 4}, 1)}) == "");
  const Variable a(Tensor::from(std::vector<double>{1, 2, 3, 4, 5, 6, 7, 8}, {2, 2, 2}, Device::reference));
  CHECK(list(ops::batched_matmul(a, a).value()) == std::vector<double>{7, 10, 15, 22, 67, 78, 91, 106});
  CHECK(list(ops::batched_matmul(a, a, true).value()) == std::vector<double>{5, 11, 11, 25, 61, 83, 83, 113});
  const Tensor x = normal({3, 5, 7}, 1, DType::f32), y = normal({3, 7, 4}, 2, DType::f32);
  CHECK(distance(ops::batched_matmul(Variable(x.to(Device::cpu)), Variable(y.to(Device::cpu))).value(),
                 ops::batched_matmul(Variable(x), Variable(y)).value()) < tolerance_f32);
  CHECK_THROWS_WITH_AS(ops::batched_matmul(Variable(x), Variable(x)),
                       doctest::Contains("batched_matmul: a must be (N, P, Q) and b (N, Q, R)"), Error);
}

TEST_CASE("gradients: general cross-entropy") {
  struct Case {
    Shape logits;
    std::vector<int64_t> labels;
    CrossEntropyParams params;
    bool weighted;
  };
  const Case cases[] = {
      {{1, 1}, {0}, {}, false},
      {{4, 3}, {0, 2, 1, 1}, {.smoothing = 0.1}, false},
      {{4, 3}, {0, 2, 1, 1}, {}, true},
      {{4, 3}, {0, 255, 1, 255}, {.ignore_index = 255}, false},
      {{2, 2, 3, 4}, {0, 255, 1, 3, 2, 2, 255, 255, 1, 0, 3, 3}, {.smoothing = 0.2, .ignore_index = 255}, true},
      {{2, 3, 5}, {4, 0, 1, 2, 3, 3}, {.smoothing = 0.3}, true},
  };
  for (const Case& c : cases) {
    CAPTURE(c.logits.str());
    const Shape rows(c.logits.sizes().first(static_cast<size_t>(c.logits.rank() - 1)));
    const Tensor labels = labels_of(c.labels, rows);
    const Tensor weights = c.weighted ? positive({c.logits.last()}, 9) : Tensor();
    CHECK(gradcheck_fault([&](const Inputs& v) { return ops::cross_entropy(v[0], labels, c.params, weights); },
                          {normal(c.logits, 1)}) == "");
  }
}

// From PyTorch 1.13: torch.nn.functional.cross_entropy(x, y, weight=w, ignore_index=2, label_smoothing=0.1) with
// x = [[1, 2, 0.5], [0, -1, 3], [2, 2, 2], [0.1, 0.2, 0.3]], y = [1, 0, 2, 0], w = [1, 2, 0.5], in double.
TEST_CASE("general cross-entropy is PyTorch's") {
  const Variable x =
      leaf(Tensor::from(std::vector<double>{1, 2, 0.5, 0, -1, 3, 2, 2, 2, 0.1, 0.2, 0.3}, {4, 3}, Device::reference));
  const Tensor y = labels_of({1, 0, 2, 0}, {4}),
               w = Tensor::from(std::vector<double>{1, 2, 0.5}, {3}, Device::reference);
  Tensor losses;
  const Variable loss = ops::cross_entropy(x, y, {.smoothing = 0.1, .ignore_index = 2}, w, &losses);
  CHECK(loss.value().item() == doctest::Approx(1.3234993418483365).epsilon(tolerance_f64));
  const std::vector<double> rows{0.9483735028735611, 3.1336486354867197, 0.0, 1.2119752290330648};
  for (size_t i = 0; i < rows.size(); ++i) CHECK(std::abs(list(losses)[i] - rows[i]) < tolerance_f64);
  backward(loss);
  const std::vector<double> gradient{0.10246145094394642,
                                     -0.16549521787769716,
                                     0.06303376693375073,
                                     -0.22148595842809832,
                                     -0.012308261007180235,
                                     0.23379421943527853,
                                     0.0,
                                     0.0,
                                     0.0,
                                     -0.15692839197208597,
                                     0.0677738525230591,
                                     0.08915453944902689};
  for (size_t i = 0; i < gradient.size(); ++i) CHECK(std::abs(list(x.gradient())[i] - gradient[i]) < tolerance_f64);
  // All rows ignored: no loss, and no gradient.
  const Variable z = leaf(normal({2, 3}, 1));
  const Variable none = ops::cross_entropy(z, labels_of({7, 7}, {2}), {.ignore_index = 7}, {});
  CHECK(none.value().item() == 0);
  backward(none);
  CHECK(list(z.gradient()) == std::vector<double>(6, 0.0));
}

TEST_CASE("general cross-entropy without options is the plain one, on reference and on cpu") {
  const Tensor labels = labels_of({4, 0, 2}, {3});
  const Variable a = leaf(normal({3, 5}, 1)), b = leaf(a.value().clone());
  Tensor la, lb;
  const Variable ya = ops::cross_entropy(a, labels, &la), yb = ops::cross_entropy(b, labels, {}, {}, &lb);
  CHECK(distance(yb.value(), ya.value()) < tolerance_f64);
  CHECK(distance(lb, la) < tolerance_f64);
  backward(ya);
  backward(yb);
  CHECK(distance(b.gradient(), a.gradient()) < tolerance_f64);

  const Tensor weights = positive({5}, 3);
  const CrossEntropyParams p{.smoothing = 0.1, .ignore_index = 0};
  const Variable r = leaf(a.value().to(DType::f32)), c = leaf(a.value().to(DType::f32).to(Device::cpu));
  const Variable yr = ops::cross_entropy(r, labels, p, weights.to(DType::f32));
  const Variable yc = ops::cross_entropy(c, labels.to(Device::cpu), p, weights.to(DType::f32).to(Device::cpu));
  CHECK(distance(yc.value(), yr.value()) < tolerance_f32);
  backward(yr);
  backward(yc);
  CHECK(distance(c.gradient(), r.gradient()) < tolerance_f32);
}

TEST_CASE("general cross-entropy refuses labels that are no classes, and shapes that do not fit") {
  const Variable x(normal({2, 3}, 1));
  CHECK_THROWS_WITH_AS(ops::cross_entropy(x, labels_of({0, 255}, {2}), {.ignore_index = 254}, {}),
                       doctest::Contains("the label of row 1 is 255"), UserError);
  CHECK_THROWS_WITH_AS(ops::cross_entropy(x, labels_of({0}, {1}), {.ignore_index = 1}, {}),
                       doctest::Contains("the labels must be i64 with the logits' shape"), Error);
  CHECK_THROWS_WITH_AS(ops::cross_entropy(x, labels_of({0, 1}, {2}), {}, normal({4}, 1)),
                       doctest::Contains("there must be 3 weights"), Error);
}

TEST_CASE("gradients: mean squared error") {
  for (const Shape& shape : {Shape{1}, Shape{3, 5}, Shape{2, 3, 2, 3}}) {
    const Tensor target = normal(shape, 2);
    CHECK(gradcheck_fault([&](const Inputs& v) { return ops::mean_squared_error(v[0], target); }, {normal(shape, 1)}) ==
          "");
  }
  const Variable x(Tensor::from(std::vector<double>{1, 2, 3, 5}, {2, 2}, Device::reference));
  const Tensor t = Tensor::from(std::vector<double>{1, 0, 3, 2}, {2, 2}, Device::reference);
  CHECK(ops::mean_squared_error(x, t).value().item() == 3.25);
}

TEST_CASE("accumulate_confusion: by hand") {
  const Tensor logits = Tensor::from(
      std::vector<double>{3, 1, 2, 0, 0, 0, 0, 1, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 7, 6, 5, 4, 3, 2, 1}, {4, 7},
      Device::reference);
  const Tensor labels = labels_of({0, 2, 99, 5}, {4});
  const Tensor losses = Tensor::from(std::vector<double>{0.5, 1, 100, 2}, {4}, Device::reference);
  Tensor sums = Tensor::zeros({4 + 49}, DType::f64, Device::reference);
  backend_of(Device::reference).accumulate_confusion(99, losses, logits, labels, sums);
  auto v = list(sums);
  CHECK(v[0] == 3.5);
  CHECK(v[1] == 1);
  CHECK(v[2] == 3);
  CHECK(v[3] == 2);  // the third label is among the five best, the last is sixth
  CHECK(v[4 + 0 * 7 + 0] == 1);
  CHECK(v[4 + 2 * 7 + 1] == 1);
  CHECK(v[4 + 5 * 7 + 0] == 1);
  CHECK(std::accumulate(v.begin() + 4, v.end(), 0.0) == 3);
  backend_of(Device::reference).accumulate_confusion(99, losses, logits, labels, sums);
  CHECK(list(sums)[2] == 6);  // it adds
}
