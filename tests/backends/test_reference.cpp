// The reference backend against PyTorch, in f32 and f64, and the default conv_chain against PyTorch in both.
//
// Inputs are sample(shape, phase), numbers that f32 holds exactly; expected values were computed in f64 by PyTorch 1.13
// from the same inputs (channels-first there, permuted), by the expressions that the comments name. Larger results are
// compared by their fingerprint: their products with three fixed vectors.
#include <doctest/doctest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "backends/reference/reference.h"
#include "core/rng.h"

using namespace mgic;

namespace {

constexpr Device device = Device::reference;

using List = std::vector<double>;

// Expected values are written with 12 digits.
constexpr double tolerance_f64 = 1e-10;
// One rounding (6e-8) an element where one function is checked; a chain rounds several times, and its gradients
// divide by deviations. Relative to 1 + |expected|.
constexpr double tolerance_f32 = 2e-6;
constexpr double tolerance_chain_f32 = 1e-4;

template <class T>
constexpr double tolerance = std::is_same_v<T, float> ? tolerance_f32 : tolerance_f64;
template <class T>
constexpr double tolerance_chain = std::is_same_v<T, float> ? tolerance_chain_f32 : tolerance_f64;

// hsigmoid's slope is 1/6 as f32 rounds it, as in PyTorch and the golden vectors; the tables below hold gradients for
// an exact 1/6, and all gradients are linear in the slope.
List with_slope(Activation activation, List gradients) {
  if (activation == Activation::hsigmoid)
    for (double& g : gradients) g *= 6.0 * (1.0F / 6.0F);
  return gradients;
}

// Integers in -498 … 498, divided by 256. In Python:
//   i = torch.arange(n); ((i*i*37 + i*11 + phase*101) % 997 - 498) / 256
double sample_at(int64_t i, int64_t phase) {
  return static_cast<double>((i * i * 37 + i * 11 + phase * 101) % 997 - 498) / 256;
}
template <class T>
Tensor sample(const Shape& shape, int64_t phase, double factor = 1) {
  Tensor t = Tensor::empty(shape, DTypeOf<T>::value, device);
  for (int64_t i = 0; i < t.count(); ++i) t.data<T>()[i] = static_cast<T>(sample_at(i, phase) * factor);
  return t;
}
template <class T>
Tensor of(const List& values, const Shape& shape) {
  return Tensor::from(std::vector<T>(values.begin(), values.end()), shape, device);
}
template <class T>
Tensor output(const Shape& shape) {
  Tensor t = Tensor::empty(shape, DTypeOf<T>::value, device);
  t.fill(std::numeric_limits<double>::quiet_NaN());  // whoever reads it is found out
  return t;
}
Tensor integers(const Shape& shape) {
  Tensor t = Tensor::empty(shape, DType::i64, device);
  t.fill(-7);
  return t;
}

List list(const Tensor& t) {
  return visit_any(t.dtype(), [&](auto zero) {
    List result;
    for (auto v : t.span<decltype(zero)>()) {
      if constexpr (std::is_same_v<decltype(zero), bf16>)
        result.push_back(static_cast<float>(v));
      else
        result.push_back(static_cast<double>(v));
    }
    return result;
  });
}

// [(t.flatten() * sample(n, 90 + k)).sum() for k in range(3)]
List fingerprint(const Tensor& t) {
  List result(3, 0.0);
  const List values = list(t);
  for (int64_t k = 0; k < 3; ++k)
    for (int64_t i = 0; i < t.count(); ++i) result[k] += values[i] * sample_at(i, 90 + k);
  return result;
}

void check_list(const List& found, const List& expected, double tolerance) {
  REQUIRE(found.size() == expected.size());
  for (size_t i = 0; i < found.size(); ++i) {
    CAPTURE(i);
    CAPTURE(found[i]);
    CAPTURE(expected[i]);
    CHECK(std::abs(found[i] - expected[i]) <= tolerance * (1 + std::abs(expected[i])));
  }
}

// Runs a function that writes through a sink: overwriting NaN, and adding to a sample. `view` is what is compared.
template <class T>
void check_sink(const Shape& shape, const List& expected, List (*view)(const Tensor&),
                const std::function<void(Sink)>& run) {
  Tensor t = output<T>(shape);
  run({&t, Write::overwrite});
  check_list(view(t), expected, tolerance<T>);
  t = sample<T>(shape, 50);
  const List before = view(t);
  const uint64_t version = t.version();
  run({&t, Write::accumulate});
  List sum = expected;
  for (size_t i = 0; i < sum.size(); ++i) sum[i] += before[i];
  check_list(view(t), sum, tolerance<T>);
  CHECK(t.version() == version);  // a sink is a fresh output, not a change in place
}

Backend& backend() { return reference_backend(); }

constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();

}  // namespace

TEST_CASE("reference: what it supports") {
  CHECK(&backend_of(Device::reference) == &reference_backend());
  for (const char* op : {"conv2d", "normalize", "cast"}) {
    CHECK(backend().supports(op, DType::f32));
    CHECK(backend().supports(op, DType::f64));
    CHECK_FALSE(backend().supports(op, DType::i64));
  }
  CHECK(backend().supports("cast", DType::bf16));
  CHECK_FALSE(backend().supports("conv2d", DType::bf16));
  Tensor x = Tensor::zeros({2}, DType::bf16, device), y = Tensor::zeros({2}, DType::bf16, device);
  CHECK_THROWS_AS(backend().activation(Activation::relu, x, y), Error);
}

// ---- Convolution ----

TEST_CASE_TEMPLATE("reference: a convolution by hand", T, float, double) {
  // One row of three pixels, kernel (1, 2), stride 1: 1·10 + 2·100, 2·10 + 3·100.
  const Tensor x = of<T>({1, 2, 3}, {1, 1, 3, 1}), w = of<T>({10, 100}, {1, 1, 2, 1});
  Tensor y = output<T>({1, 1, 2, 1});
  backend().conv2d({}, x, w, {}, {}, Activation::none, y);
  check_list(list(y), {210, 320}, 0);
  // bias, then the residual, then the activation
  backend().conv2d({}, x, w, of<T>({-300}, {1}), of<T>({1, 2}, {1, 1, 2, 1}), Activation::relu, y);
  check_list(list(y), {0, 22}, 0);

  const Tensor dy = of<T>({1, 2}, {1, 1, 2, 1});
  check_sink<T>(x.shape(), {10, 100 + 20, 200}, list, [&](Sink dx) { backend().conv2d_backward_data({}, dy, w, dx); });
  check_sink<T>(w.shape(), {1 * 1 + 2 * 2, 2 * 1 + 3 * 2}, list,
                [&](Sink dw) { backend().conv2d_backward_weights({}, x, dy, dw); });
  backend().conv2d_backward_data({}, dy, w, {});  // no gradient wanted: nothing happens
  backend().conv2d_backward_weights({}, x, dy, {});
}

TEST_CASE_TEMPLATE("reference: convolutions", T, float, double) {
  struct Case {
    Shape x, w;
    ConvParams p;
    Shape y;
    bool bias, residual;
    Activation activation;
    List forward, dx, dw;  // fingerprints
  };
  // F.conv2d(x, w, None, stride, padding, dilation, groups) with x = sample(., 1), w = sample(., 2); then + bias
  // sample(., 3), + residual sample(., 4), activation. Gradients of the bare convolution for dy = sample(., 5).
  // clang-format off
  const std::vector<Case> cases{
      {{1, 5, 4, 1}, {1, 3, 3, 1}, {.stride = 1, .padding = 1, .dilation = 1, .groups = 1}, {1, 5, 4, 1}, false,
       false, Activation::none, {6.72862869501, -1.13665783405, -1.59546536207}, {-6.39636278152, 8.28698295355,
       4.27359551191}, {-9.66790282726, -16.6559870243, -23.6440712214}},
      {{2, 5, 7, 4}, {6, 3, 2, 2}, {.stride = 2, .padding = 1, .dilation = 1, .groups = 2}, {2, 3, 4, 6}, true,
       false, Activation::relu, {12.6855185628, -8.42941570282, 28.2823911905}, {32.1845941544, 13.9821298122,
       -17.6451051235}, {23.1874055266, 40.2597236633, 25.2080421448}},
      {{1, 7, 6, 4}, {4, 3, 3, 1}, {.stride = 3, .padding = 2, .dilation = 2, .groups = 4}, {1, 3, 2, 4}, false,
       true, Activation::hswish, {-33.33798206, -18.7644750881, -2.8758147926}, {5.56963354349, 1.95258122683,
       3.13303565979}, {21.4218895435, 7.3217690587, 1.90298992395}},
      {{2, 4, 4, 6}, {9, 1, 1, 2}, {.stride = 1, .padding = 0, .dilation = 1, .groups = 3}, {2, 4, 4, 9}, true,
       true, Activation::relu, {-11.0542269945, 50.1758734584, 150.826455355}, {11.6563611031, 20.1294702888,
       29.9891029596}, {-16.0054674745, 29.5972060561, 40.4736227989}},
      {{1, 6, 5, 6}, {3, 2, 3, 6}, {.stride = 2, .padding = 0, .dilation = 2, .groups = 1}, {1, 2, 1, 3}, true,
       false, Activation::none, {-39.2941191792, -37.0383812189, -34.7826432586}, {20.2204053402, -3.52799391747,
       -32.5626773834}, {18.8676443696, 24.3335644603, 0.518892049789}},
      {{1, 3, 3, 8}, {8, 5, 5, 1}, {.stride = 1, .padding = 2, .dilation = 1, .groups = 8}, {1, 3, 3, 8}, false,
       false, Activation::hsigmoid, {-7.93237605691, -2.65048424403, 4.69352351626}, {56.3308900595,
       -37.0425451994, 57.4704312086}, {-34.7769312859, 47.0251238942, 66.0496125221}},
  };
  // clang-format on
  for (const Case& c : cases) {
    CAPTURE(c.x.str());
    CAPTURE(c.w.str());
    const Tensor x = sample<T>(c.x, 1), w = sample<T>(c.w, 2), dy = sample<T>(c.y, 5);
    const Tensor bias = c.bias ? sample<T>({c.w[0]}, 3) : Tensor(),
                 residual = c.residual ? sample<T>(c.y, 4) : Tensor();
    Tensor y = output<T>(c.y);
    backend().conv2d(c.p, x, w, bias, residual, c.activation, y);
    check_list(fingerprint(y), c.forward, tolerance<T>);
    check_sink<T>(c.x, c.dx, fingerprint, [&](Sink dx) { backend().conv2d_backward_data(c.p, dy, w, dx); });
    check_sink<T>(c.w, c.dw, fingerprint, [&](Sink dw) { backend().conv2d_backward_weights(c.p, x, dy, dw); });
  }
}

// ---- Normalisation ----

TEST_CASE_TEMPLATE("reference: statistics", T, float, double) {
  const Tensor x = sample<T>({2, 3, 2, 4}, 1);
  Tensor mean = output<T>({4}), variance = output<T>({4});
  backend().norm_statistics(x, mean, variance);
  // x.mean((0, 1, 2)), x.var((0, 1, 2), unbiased=False)
  check_list(list(mean), {0.190755208333, -0.0777994791667, -0.3818359375, 0.576822916667}, tolerance<T>);
  check_list(list(variance), {0.806210411919, 1.39926264021, 1.03219636281, 1.28336164686}, tolerance<T>);

  // A mean that is large beside the deviation must not cancel: 10000 ± 1.
  Tensor one = output<T>({1}), two = output<T>({1});
  backend().norm_statistics(of<T>({9999, 10001, 9999, 10001}, {4, 1}), one, two);
  check_list(list(one), {10000}, 0);
  check_list(list(two), {1}, 0);
}

TEST_CASE_TEMPLATE("reference: running statistics", T, float, double) {
  const Tensor mean = of<T>({1, 2}, {2}), variance = of<T>({3, 6}, {2});
  Tensor running_mean = of<T>({0, 10}, {2}), running_var = of<T>({1, 1}, {2});
  const uint64_t version = running_mean.version();
  backend().update_running(mean, variance, 4, 0.25, running_mean, running_var);
  check_list(list(running_mean), {0.25, 8}, tolerance<T>);
  check_list(list(running_var), {0.75 + 0.25 * 4, 0.75 + 0.25 * 8}, tolerance<T>);  // times 4/3
  CHECK(running_mean.version() == version + 1);
  CHECK(running_var.version() == version + 1);
  // One row: no unbiased variance; the biased one is zero and the estimate stays finite.
  backend().update_running(mean, of<T>({0, 0}, {2}), 1, 0.5, running_mean, running_var);
  check_list(list(running_var), {0.875, 1.375}, tolerance<T>);
}

TEST_CASE_TEMPLATE("reference: normalise and back", T, float, double) {
  struct Case {
    Activation inner;
    bool residual;
    Activation outer;
    bool training;
    List forward, dx, dgamma, dbeta, dresidual;  // fingerprints but for dgamma and dbeta
  };
  // z = F.batch_norm(x, mean, variance, gamma, beta, training, 0.1, 1e-3) with x, gamma, beta, residual, dy, mean =
  // sample(., 1 … 6) and variance = sample(., 7)**2 + 0.5; y = outer(inner(z) + residual), or inner(z) without.
  // clang-format off
  const std::vector<Case> cases{
      {Activation::none, false, Activation::none, true, {-32.9128032749, -21.6823664854, -14.5565198315},
       {-0.939380426612, -2.42921848685, -5.37510788772}, {-6.66965331357, -5.02478508258, -2.02506128153,
       -4.70302705912}, {1.75390625, -1.46875, 6.56640625, -5.296875}, {}},
      {Activation::relu, false, Activation::none, true, {-8.66065929318, -10.3531738976, -4.53162319227},
       {-0.952193260621, -1.572225151, -1.78952283568}, {-0.518689641297, -0.096781004595, -0.780624932803,
       -4.70302705912}, {0.30859375, 0.30078125, 2.37890625, -5.296875}, {}},
      {Activation::none, true, Activation::relu, true, {-3.98779107898, 4.48538690253, 13.4675965744},
       {-0.155160395207, -3.89033733964, -5.9065948116}, {-2.05830157278, -0.700744333243, 0.630662231474,
       -3.3753888372}, {6.4140625, 2.86328125, 8.5078125, -1.79296875}, {-5.0418548584, 3.03227233887,
       9.34169006348}},
      {Activation::relu, true, Activation::none, true, {-21.7559656897, -4.90081183702, 10.5079428478},
       {-0.952193260621, -1.572225151, -1.78952283568}, {-0.518689641297, -0.096781004595, -0.780624932803,
       -4.70302705912}, {0.30859375, 0.30078125, 2.37890625, -5.296875}, {-21.2398223877, -9.04934692383,
       -1.20979309082}},
      {Activation::hswish, true, Activation::relu, false, {-2.23711703572, 8.72755273705, 19.6922225098},
       {0.801633195604, -1.50908456918, -3.81980233396}, {-1.53768230261, -1.17650029008, -4.46375578205,
       -0.390615670425}, {2.76686383574, 1.61883127772, 5.16135868526, -0.467689652165}, {-5.69526672363,
       1.10731506348, 7.90989685059}},
      {Activation::hsigmoid, false, Activation::relu, false, {-5.46035179102, -3.92499633792, 2.78503978549},
       {1.83324517315, 0.792898478617, -0.0633531759021}, {-0.986826847914, -0.669828379649, -1.18795434272,
       0.132128440799}, {0.292317708333, -0.244791666667, 1.09440104167, -0.8828125}, {}},
  };
  // clang-format on
  const Shape shape{2, 3, 2, 4}, channels{4};
  for (const Case& c : cases) {
    CAPTURE(name_of(c.inner));
    CAPTURE(name_of(c.outer));
    CAPTURE(c.training);
    const Tensor x = sample<T>(shape, 1), dy = sample<T>(shape, 5);
    Norm norm{sample<T>(channels, 2), sample<T>(channels, 3), sample<T>(channels, 6), output<T>(channels), 1e-3};
    for (int64_t i = 0; i < 4; ++i)
      norm.variance.data<T>()[i] = static_cast<T>(sample_at(i, 7) * sample_at(i, 7) + 0.5);
    if (c.training) backend().norm_statistics(x, norm.mean, norm.variance);
    const Epilogue epilogue{c.inner, c.residual ? sample<T>(shape, 4) : Tensor(), c.outer};
    Tensor y = output<T>(shape);
    backend().normalize(norm, x, epilogue, y);
    // The statistics are rounded to f32 on the way.
    check_list(fingerprint(y), c.forward, tolerance_chain<T>);
    for (Write write : {Write::overwrite, Write::accumulate}) {
      const bool add = write == Write::accumulate;
      Tensor dx = add ? sample<T>(shape, 50) : output<T>(shape),
             dresidual = add ? sample<T>(shape, 50) : output<T>(shape);
      Tensor dgamma = add ? sample<T>(channels, 50) : output<T>(channels);
      Tensor dbeta = add ? sample<T>(channels, 50) : output<T>(channels);
      const auto plus = [&](List expected, const List& before) {
        for (size_t i = 0; i < expected.size(); ++i) expected[i] += add ? before[i] : 0;
        return expected;
      };
      const List map = fingerprint(sample<T>(shape, 50)), vector = list(sample<T>(channels, 50));
      backend().normalize_backward(norm, c.training, x, epilogue, dy, {&dx, write}, {&dgamma, write}, {&dbeta, write},
                                   c.residual ? Sink{&dresidual, write} : Sink{});
      check_list(fingerprint(dx), plus(with_slope(c.inner, c.dx), map), tolerance_chain<T>);
      check_list(list(dgamma), plus(with_slope(c.inner, c.dgamma), vector), tolerance_chain<T>);
      check_list(list(dbeta), plus(with_slope(c.inner, c.dbeta), vector), tolerance_chain<T>);
      if (c.residual) check_list(fingerprint(dresidual), plus(c.dresidual, map), tolerance_chain<T>);
    }
    backend().normalize_backward(norm, c.training, x, epilogue, dy, {}, {}, {}, {});
  }
}

// ---- The training unit: the default bodies of Backend ----

TEST_CASE_TEMPLATE("reference: chains of convolutions", T, float, double) {
  struct LinkCase {
    Shape weight;
    ConvParams conv;
    bool norm;
    Activation activation;
  };
  struct Case {
    const char* what;
    Shape x;
    std::vector<LinkCase> links;
    Shape y;
    bool minus, residual;
    Activation outer;
    bool training;
    // Fingerprints of y; the gradients of x, minus, residual, and of each link's weight, gamma, beta; each link's
    // running mean and variance afterwards; without what is not there.
    std::vector<List> expected;
  };
  // F.conv2d, F.batch_norm(…, 0.1, 1e-5) and activations one after the other, as in backend.h. x, minus, residual, dy =
  // sample(., 1), (., 2), (., 8), (., 9); link i has weight sample(., 10 i + 3) / 4, gamma, beta, running mean =
  // sample(., 10 i + 4 … 6) and running variance sample(., 10 i + 7)**2 + 0.5.
  // clang-format off
  const std::vector<Case> cases{
      {"basic smoother", {2, 4, 5, 4}, {{{4, 3, 3, 2}, {.stride = 1, .padding = 1, .dilation = 1, .groups = 2},
       true, Activation::relu}, {{4, 3, 3, 2}, {.stride = 1, .padding = 1, .dilation = 1, .groups = 2}, true,
       Activation::none}}, {2, 4, 5, 4}, false, true, Activation::relu, true, {{-42.7089950895, -121.373676431,
       -78.7047776878}, {0.910051302858, -1.38872894545, 0.706656513066}, {-18.7501373291, -77.4951324463,
       -73.7602844238}, {-19.3209007457, 32.6235957905, 0.824687838121}, {-3.05471347927, -1.74855284374,
       -0.442392208216}, {1.51647634849, 0.950760909167, 0.385045469839}, {5.17554625817, -2.93991466057,
       0.248894172139}, {11.5212858958, 5.788867222, 0.0564485481739}, {-52.6406402588, -29.7069702148,
       -6.7733001709}, {-2.10173789557, -0.72169513166, 0.658347632252}, {-5.90699849785, -2.66607028657,
       0.574857924712}, {-2.40613700292, -0.935540470708, 0.535056061505}, {-5.96998677166, -2.74791049535,
       0.474165780965}}},
      {"basic smoother, evaluation", {2, 4, 5, 4}, {{{4, 3, 3, 2}, {.stride = 1, .padding = 1, .dilation = 1,
       .groups = 2}, true, Activation::relu}, {{4, 3, 3, 2}, {.stride = 1, .padding = 1, .dilation = 1, .groups =
       2}, true, Activation::none}}, {2, 4, 5, 4}, false, true, Activation::relu, false, {{-55.9251582115,
       -92.7767436854, -68.6330975479}, {-1.18603027141, -2.21199350281, -1.30869103571}, {-16.2278594971,
       -74.9863739014, -68.2832946777}, {-8.33658714838, 3.07461466994, -4.20999097003}, {-7.01099547303,
       -2.45255251741, 2.1058904382}, {8.53914890623, 3.69265178177, -1.15384534269}, {23.231875539,
       -11.3520880474, -15.6856248392}, {19.8257176406, 3.13683520323, -13.5520472341}, {-55.7840118408,
       -29.8821105957, -3.98020935059}, {-2.42407226562, -0.858276367188, 0.70751953125}, {-6.10460096598,
       -2.71814954281, 0.66830188036}, {-2.61053466797, -0.964599609375, 0.681335449219}, {-6.48421901464,
       -3.02748930454, 0.42924040556}}},
      {"coarse correction", {2, 3, 4, 4}, {{{8, 1, 1, 2}, {.stride = 1, .padding = 0, .dilation = 1, .groups = 2},
       true, Activation::none}}, {2, 3, 4, 8}, true, true, Activation::none, true, {{-16.1241955123,
       -122.942995261, -116.163237599}, {-7.23733012671, -3.98717697329, -8.88140141946}, {7.23733012671,
       3.98717697329, 8.88140141946}, {5.63333129883, -106.00289917, -123.227172852}, {43.9174750194,
       11.3057672151, -2.13879973498}, {44.5471684362, 40.4839948554, 36.4208212746}, {-34.9722290039,
       -23.8698730469, -12.7675170898}, {-3.84239630053, -3.30579858062, -2.76920086071}, {-7.36201211517,
       -2.33646523655, 2.68908164206}}},
      {"coarse correction, evaluation", {1, 3, 4, 4}, {{{8, 1, 1, 2}, {.stride = 1, .padding = 0, .dilation = 1,
       .groups = 2}, true, Activation::none}}, {1, 3, 4, 8}, true, true, Activation::none, false,
       {{-24.7710220128, -50.013953568, -66.2129869784}, {-4.31885637713, 3.1559509676, 0.249378208591},
       {4.31885637713, -3.1559509676, -0.249378208591}, {-9.38827514648, -51.6977539062, -58.2110137939},
       {-37.2194278987, -33.0280995695, -25.7407401985}, {4.02671457853, 6.24842219747, 8.47012981641},
       {-33.0767669678, -29.9297637939, -26.7827606201}, {-4.13966369629, -3.56944274902, -2.99922180176},
       {-7.95562565327, -2.45110923052, 3.05340719223}}},
      {"bare convolution", {1, 5, 7, 3}, {{{2, 3, 2, 3}, {.stride = 2, .padding = 1, .dilation = 2, .groups = 1},
       false, Activation::none}}, {1, 2, 4, 2}, false, false, Activation::none, true, {{0.00870282948017,
       5.16339710355, 5.08015008271}, {-6.51935306191, -8.07705497742, -13.4205388725}, {-1.57234960794,
       -17.6634589434, -25.010592103}}},
      {"convolution and activation", {1, 5, 4, 2}, {{{3, 3, 3, 2}, {.stride = 1, .padding = 1, .dilation = 1,
       .groups = 1}, false, Activation::hswish}}, {1, 5, 4, 3}, false, false, Activation::none, true,
       {{11.7027463956, -3.4740002501, -0.530912484686}, {-0.406464463314, -5.98639096434, -8.05153394512},
       {12.3531084242, 36.8180554655, 16.5287610336}}},
      {"convolution, residual and relu", {1, 5, 4, 2}, {{{2, 3, 3, 1}, {.stride = 1, .padding = 1, .dilation = 1,
       .groups = 2}, false, Activation::none}}, {1, 5, 4, 2}, false, true, Activation::relu, true,
       {{-1.32666121423, -11.247690767, -12.89025639}, {0.0174283832312, -5.69490545988, -5.09637948871},
       {-9.62933349609, -16.3696594238, -16.3097686768}, {9.11604225636, -1.89126503468, 1.5564044714}}},
      {"convolution, norm and relu", {3, 5, 4, 2}, {{{4, 3, 3, 2}, {.stride = 2, .padding = 1, .dilation = 1,
       .groups = 1}, true, Activation::relu}}, {3, 3, 2, 4}, false, false, Activation::none, true,
       {{3.09093479663, -18.2766377593, -3.17853068082}, {-0.919120076461, -1.81150941083, -2.99126265947},
       {19.4532521859, 18.360197489, 0.38748607806}, {-3.89857445063, -0.607998801539, 2.68257684755},
       {-0.268280029297, -0.668975830078, -1.06967163086}, {-2.29506234245, -0.831554157535, 0.631954027381},
       {-5.90568039862, -2.67805438728, 0.54957162406}}},
      {"coarsest bottleneck", {2, 3, 3, 8}, {{{2, 1, 1, 8}, {.stride = 1, .padding = 0, .dilation = 1, .groups =
       1}, true, Activation::relu}, {{2, 3, 3, 2}, {.stride = 1, .padding = 1, .dilation = 1, .groups = 1}, true,
       Activation::relu}, {{8, 1, 1, 2}, {.stride = 1, .padding = 0, .dilation = 1, .groups = 1}, true,
       Activation::relu}}, {2, 3, 3, 8}, false, true, Activation::relu, true, {{-31.785805987, -83.5630273677,
       -57.4541286281}, {0.32315366917, 1.65130523128, 2.32606899695}, {-23.2155151367, -74.3160247803,
       -70.4975585938}, {1.03145248724, 11.4464108981, -2.15458313809}, {-5.04101920088, -3.2453137597,
       -1.44960831852}, {-3.13862996495, -2.33789828325, -1.53716660155}, {45.0515617523, 0.0489161449931,
       0.092528394255}, {-37.138503594, -25.9242958378, -14.7100880815}, {-35.1249731204, -25.3120370186,
       -15.4991009168}, {-6.03816766558, -8.1156374449, -0.708127498104}, {23.2205830714, 15.2016149374,
       7.18264680334}, {-23.8020629883, -15.2210083008, -6.63995361328}, {-1.26398235112, -0.900553437074,
       -0.537124523024}, {-3.46569984928, -2.47683751048, -1.48797517168}, {-1.4560186422, -1.03977543143,
       -0.623532220666}, {-3.57595309359, -2.55564764091, -1.53534218823}, {-4.10299683308, -4.67148437094,
       -5.23997190879}, {-8.37009839253, -3.33440581718, 1.70128675817}}},
      {"inverted residual, no norm at the middle", {1, 4, 5, 2}, {{{6, 1, 1, 2}, {.stride = 1, .padding = 0,
       .dilation = 1, .groups = 1}, true, Activation::hswish}, {{6, 3, 3, 1}, {.stride = 2, .padding = 1,
       .dilation = 1, .groups = 6}, false, Activation::relu}, {{2, 1, 1, 6}, {.stride = 1, .padding = 0, .dilation
       = 1, .groups = 1}, true, Activation::none}}, {1, 2, 3, 2}, false, false, Activation::none, true,
       {{-1.65018633265, -1.90780976155, -0.853671577958}, {0.272279206011, 0.330559405653, 0.522546363246},
       {-1.40053182043, -0.456038021968, 0.0855011570212}, {2.03196342318, 1.52810492436, 1.02424642553},
       {-0.393714006872, -0.665600530684, -0.937487054495}, {0.764006482758, 2.41110399041, -0.052925043256},
       {-0.665636358595, -0.413302824507, -0.0197056434776}, {12.0752702518, 8.70070616757, 5.32614208336},
       {-2.27398681641, -1.57739257812, -0.880798339844}, {-3.57767228074, -2.39470564887, -1.21173901699},
       {-6.32547061662, -2.54949835099, 1.22647391463}, {-1.55559460871, -1.11089185637, -0.666189104035},
       {-3.81580588767, -2.72720170195, -1.63859751623}}},
  };
  // clang-format on
  for (const Case& c : cases)
    for (Write write : {Write::overwrite, Write::accumulate}) {
      CAPTURE(c.what);
      const bool add = write == Write::accumulate;
      Chain chain{{}, c.outer, c.training};
      std::vector<LinkState> states;
      ChainInput in{sample<T>(c.x, 1), c.minus ? sample<T>(c.x, 2) : Tensor(),
                    c.residual ? sample<T>(c.y, 8) : Tensor()};
      Tensor y = output<T>(c.y);
      Shape shape = c.x;
      for (size_t i = 0; i < c.links.size(); ++i) {
        const LinkCase& from = c.links[i];
        const int64_t phase = 10 * static_cast<int64_t>(i);
        const Shape channels{from.weight[0]};
        Link link{.conv = from.conv, .weight = sample<T>(from.weight, phase + 3, 0.25), .activation = from.activation};
        const auto size = [&](int d) {
          return (shape[d] + 2 * from.conv.padding - from.conv.dilation * (from.weight[d] - 1) - 1) / from.conv.stride +
                 1;
        };
        shape = {shape[0], size(1), size(2), from.weight[0]};
        LinkState state{output<T>(shape), {}, {}};
        if (from.norm) {
          link.gamma = sample<T>(channels, phase + 4);
          link.beta = sample<T>(channels, phase + 5);
          link.running_mean = sample<T>(channels, phase + 6);
          link.running_var = output<T>(channels);
          for (int64_t j = 0; j < channels[0]; ++j)
            link.running_var.data<T>()[j] = static_cast<T>(sample_at(j, phase + 7) * sample_at(j, phase + 7) + 0.5);
          if (c.training) state.mean = output<T>(channels), state.variance = output<T>(channels);
        } else if (i + 1 == c.links.size() && !c.residual && from.activation == Activation::none) {
          state.raw = y;  // the chain ends in a bare convolution
        }
        chain.links.push_back(link);
        states.push_back(state);
      }
      REQUIRE(shape == c.y);

      backend().conv_chain(chain, in, states, y);

      // Every gradient, in the order of Case::expected.
      std::vector<Tensor> gradients;
      gradients.reserve(3 + 3 * chain.links.size());  // sinks keep pointers
      const auto sink = [&](const Tensor& of) -> Sink {
        if (!of.defined()) return {};
        gradients.push_back(add ? sample<T>(of.shape(), 50) : output<T>(of.shape()));
        return {&gradients.back(), write};
      };
      ChainSinks sinks;
      sinks.x = sink(in.x);
      sinks.minus = sink(in.minus);
      sinks.residual = sink(in.residual);
      for (const Link& link : chain.links) {
        LinkSinks& s = sinks.links.emplace_back();
        s.weight = sink(link.weight);
        s.gamma = sink(link.gamma);
        s.beta = sink(link.beta);
      }
      backend().conv_chain_backward(chain, in, states, sample<T>(c.y, 9), sinks);

      size_t at = 0;
      check_list(fingerprint(y), c.expected.at(at++), tolerance_chain<T>);
      for (const Tensor& gradient : gradients) {
        CAPTURE(at);
        List expected = c.expected.at(at++);
        const List before = fingerprint(sample<T>(gradient.shape(), 50));
        for (size_t k = 0; k < expected.size(); ++k) expected[k] += add ? before[k] : 0;
        check_list(fingerprint(gradient), expected, tolerance_chain<T>);
      }
      for (const Link& link : chain.links) {
        if (!link.gamma.defined()) continue;
        check_list(fingerprint(link.running_mean), c.expected.at(at++), tolerance_chain<T>);
        check_list(fingerprint(link.running_var), c.expected.at(at++), tolerance_chain<T>);
      }
      CHECK(at == c.expected.size());
    }
}

// ---- Elementwise ----

TEST_CASE_TEMPLATE("reference: activations", T, float, double) {
  struct Case {
    Activation activation;
    List forward, backward;
  };
  const Tensor x = of<T>({-4, -2, -0.5, 0, 0.25, 2.5, 3.5}, {7}), dy = of<T>(List(7, 2.0), {7});
  // F.relu, F.hardswish, F.relu6(x + 3) / 6 (F.hardsigmoid's gradient holds 1/6 in f32); the gradients for dy = 2
  // clang-format off
  const std::vector<Case> cases{
      {Activation::none, {-4, -2, -0.5, 0, 0.25, 2.5, 3.5}, {2, 2, 2, 2, 2, 2, 2}},
      {Activation::relu, {0, 0, 0, 0, 0.25, 2.5, 3.5}, {0, 0, 0, 0, 2, 2, 2}},
      {Activation::hswish, {0, -0.333333333333, -0.208333333333, 0, 0.135416666667, 2.29166666667, 3.5}, {0,
       -0.333333333333, 0.666666666667, 1, 1.16666666667, 2.66666666667, 2}},
      {Activation::hsigmoid, {0, 0.166666666667, 0.416666666667, 0.5, 0.541666666667, 0.916666666667, 1}, {0,
       0.333333333333, 0.333333333333, 0.333333333333, 0.333333333333, 0.333333333333, 0}},
  };
  // clang-format on
  for (const Case& c : cases) {
    CAPTURE(name_of(c.activation));
    Tensor y = output<T>({7});
    backend().activation(c.activation, x, y);
    check_list(list(y), c.forward, tolerance<T>);
    check_sink<T>({7}, with_slope(c.activation, c.backward), list,
                  [&](Sink dx) { backend().activation_backward(c.activation, x, dy, dx); });
    // NaN stays NaN, so that a network that has gone wrong shows it.
    Tensor one = output<T>({1});
    backend().activation(c.activation, of<T>({not_a_number}, {1}), one);
    CHECK(std::isnan(one.item()));
  }
  // At the kinks: the flat or linear side's slope.
  check_sink<T>({2}, {0, 1}, list, [&](Sink dx) {
    backend().activation_backward(Activation::hswish, of<T>({-3, 3}, {2}), of<T>({1, 1}, {2}), dx);
  });
  check_sink<T>({2}, {0, 0}, list, [&](Sink dx) {
    backend().activation_backward(Activation::hsigmoid, of<T>({-3, 3}, {2}), of<T>({1, 1}, {2}), dx);
  });
}

TEST_CASE_TEMPLATE("reference: scale, add, subtract, multiply, sum_to", T, float, double) {
  // a (N = 2, P = 2, C = 2)
  const Shape shape{2, 2, 2};
  const Tensor a = of<T>({1, 2, 3, 4, 5, 6, 7, 8}, shape), b = of<T>({8, 7, 6, 5, 4, 3, 2, 1}, shape);
  const Tensor channel = of<T>({10, 20}, {2}), sample_channel = of<T>({10, 20, 30, 40}, {2, 2});
  check_sink<T>(shape, {-2, -4, -6, -8, -10, -12, -14, -16}, list, [&](Sink y) { backend().scale(-2, a, y); });

  Tensor y = output<T>(shape);
  backend().add(a, b, Broadcast::same, y);
  check_list(list(y), List(8, 9.0), 0);
  backend().add(a, channel, Broadcast::channel, y);
  check_list(list(y), {11, 22, 13, 24, 15, 26, 17, 28}, 0);
  backend().add(a, sample_channel, Broadcast::sample_channel, y);
  check_list(list(y), {11, 22, 13, 24, 35, 46, 37, 48}, 0);
  backend().subtract(a, b, y);
  check_list(list(y), {-7, -5, -3, -1, 1, 3, 5, 7}, 0);

  check_sink<T>(shape, {8, 14, 18, 20, 20, 18, 14, 8}, list,
                [&](Sink s) { backend().multiply(a, b, Broadcast::same, s); });
  check_sink<T>(shape, {10, 40, 30, 80, 50, 120, 70, 160}, list,
                [&](Sink s) { backend().multiply(a, channel, Broadcast::channel, s); });
  check_sink<T>(shape, {10, 40, 30, 80, 150, 240, 210, 320}, list,
                [&](Sink s) { backend().multiply(a, sample_channel, Broadcast::sample_channel, s); });

  check_sink<T>(shape, {4, 7, 9, 10, 10, 9, 7, 4}, list,
                [&](Sink s) { backend().sum_to(0.5, a, b, Broadcast::same, s); });
  check_sink<T>({2}, {0.5 * 60, 0.5 * 60}, list, [&](Sink s) { backend().sum_to(0.5, a, b, Broadcast::channel, s); });
  check_sink<T>({2, 2}, {26, 34, 34, 26}, list,
                [&](Sink s) { backend().sum_to(1, a, b, Broadcast::sample_channel, s); });
  check_sink<T>({2}, {16, 20}, list, [&](Sink s) { backend().sum_to(1, a, {}, Broadcast::channel, s); });
  check_sink<T>({2, 2}, {2, 3, 6, 7}, list,
                [&](Sink s) { backend().sum_to(0.5, a, {}, Broadcast::sample_channel, s); });
}

TEST_CASE_TEMPLATE("reference: dropout", T, float, double) {
  const Shape shape{3, 5, 7};
  const uint64_t key = Rng(1, Purpose::dropout).key();
  const Tensor x = sample<T>(shape, 1);
  List expected;
  int64_t kept = 0;
  for (int64_t i = 0; i < x.count(); ++i) {
    const bool keep = uniform_at(key, i) >= 0.25;
    kept += keep;
    expected.push_back(keep ? sample_at(i, 1) / 0.75 : 0);
  }
  CHECK(kept > 60);  // 105 · 0.75 = 79 expected, deviation 4.4
  CHECK(kept < 98);
  check_sink<T>(shape, expected, list, [&](Sink y) { backend().dropout(key, 0.25, x, y); });
  check_sink<T>(shape, list(x), list, [&](Sink y) { backend().dropout(key, 0, x, y); });
  check_sink<T>(shape, List(105, 0.0), list, [&](Sink y) { backend().dropout(key, 1, x, y); });
}

TEST_CASE("reference: cast, fill, random") {
  // 1 + 2^-8 lies halfway between two bf16 and goes to the even one, 1; 1 + 3·2^-8 goes up to 1 + 2^-6.
  const List values{1, -2.5, 1 + 0x1p-8, 1 + 0x3p-8}, rounded{1, -2.5, 1, 1 + 0x1p-6};
  for (DType from : {DType::f32, DType::f64, DType::bf16})
    for (DType to : {DType::f32, DType::f64, DType::bf16}) {
      CAPTURE(name_of(from));
      CAPTURE(name_of(to));
      const Tensor x = of<double>(values, {4}).to(from);
      Tensor y = Tensor::zeros({4}, to, device);
      backend().cast(x, y);
      check_list(list(y), from == DType::bf16 || to == DType::bf16 ? rounded : values, 0);
    }

  Tensor t = output<float>({3});
  const uint64_t version = t.version();
  backend().fill(1.5, t);
  check_list(list(t), {1.5, 1.5, 1.5}, 0);
  CHECK(t.version() == version + 1);

  Tensor u = output<double>({5});
  backend().random_uniform(7, -2, 4, u);
  for (int64_t i = 0; i < 5; ++i) CHECK(u.data<double>()[i] == -2 + 6.0 * uniform_at(7, i));
}

// ---- Pooling ----

TEST_CASE_TEMPLATE("reference: pooling", T, float, double) {
  struct Case {
    Pool kind;
    Shape x, y;
    int64_t kernel, stride, padding;
    List forward, dx, indices;  // fingerprints
  };
  // F.max_pool2d(x, kernel, stride, padding, return_indices=True), F.avg_pool2d(…, count_include_pad=True);
  // x = sample(., 1), dy = sample(., 5)
  // clang-format off
  const std::vector<Case> cases{
      {Pool::max, {2, 5, 7, 3}, {2, 3, 4, 3}, 3, 2, 1, {14.3452148438, -6.04214477539, 10.6141815186},
       {-7.36399841309, 17.5619659424, 11.2860412598}, {202.640625, 104.23046875, 110.97265625}},
      {Pool::max, {1, 4, 5, 2}, {1, 2, 2, 2}, 2, 2, 0, {-9.4454498291, -4.94995117188, -0.454452514648},
       {-2.61218261719, -0.38151550293, 5.86538696289}, {-54.14453125, -24.16015625, 5.82421875}},
      {Pool::max, {1, 5, 4, 1}, {1, 5, 4, 1}, 3, 1, 1, {-4.66812133789, -0.975799560547, 10.2621765137},
       {1.46632385254, -4.46565246582, -3.08016967773}, {-24.78515625, 24.4921875, 101.03125}},
      {Pool::max, {1, 6, 6, 2}, {1, 2, 2, 2}, 2, 3, 0, {-7.24273681641, -3.83682250977, -0.430908203125},
       {-1.14184570312, -4.85946655273, -3.99797058105}, {-82.16015625, -38.3671875, 5.42578125}},
      {Pool::average, {2, 5, 7, 3}, {2, 3, 4, 3}, 3, 2, 1, {4.43764411079, 2.36430867513, -1.00551350911},
       {-1.08293660482, 5.31014675564, 2.759668986}, {}},
      {Pool::average, {1, 4, 5, 2}, {1, 2, 2, 2}, 2, 2, 0, {-1.82974243164, -1.47913360596, -1.12852478027},
       {-0.829387664795, 0.374401092529, 2.62028121948}, {}},
      {Pool::average, {1, 5, 4, 1}, {1, 5, 4, 1}, 3, 1, 1, {2.0884958903, 0.739028930664, 0.391930474175},
       {-2.23119439019, -0.991945054796, 0.654674953885}, {}},
      {Pool::average, {1, 6, 6, 2}, {1, 2, 2, 2}, 2, 3, 0, {-0.120700836182, -0.653549194336, -1.18639755249},
       {-0.692462921143, -0.975746154785, -0.114250183105}, {}},
  };
  // clang-format on
  for (const Case& c : cases) {
    CAPTURE(c.x.str());
    const PoolParams p{c.kind, c.kernel, c.stride, c.padding};
    Tensor y = output<T>(c.y), indices = c.kind == Pool::max ? integers(c.y) : Tensor();
    backend().pool2d(p, sample<T>(c.x, 1), y, indices);
    check_list(fingerprint(y), c.forward, tolerance<T>);
    if (c.kind == Pool::max) check_list(fingerprint(indices), c.indices, tolerance_f64);
    check_sink<T>(c.x, c.dx, fingerprint,
                  [&](Sink dx) { backend().pool2d_backward(p, sample<T>(c.y, 5), indices, dx); });
  }
}

TEST_CASE_TEMPLATE("reference: max pooling's ties, padding and NaN", T, float, double) {
  const double low = -std::numeric_limits<double>::infinity();
  Tensor y = output<T>({1, 1, 1, 1}), indices = integers({1, 1, 1, 1});
  const auto winner = [&](const List& x) {
    backend().pool2d({Pool::max, 2, 2, 0}, of<T>(x, {1, 2, 2, 1}), y, indices);
    return indices.data<int64_t>()[0];
  };
  CHECK(winner({1, 3, 3, 2}) == 1);
  CHECK(winner({low, low, low, low}) == 0);
  CHECK(winner({1, not_a_number, 3, 2}) == 1);
  CHECK(std::isnan(y.item()));
  // Negative values surrounded by padding, which is no zero here.
  backend().pool2d({Pool::max, 3, 3, 1}, of<T>({-4, -3, -2, -5}, {1, 2, 2, 1}), y, indices);
  CHECK(y.item() == -2);
  CHECK(indices.data<int64_t>()[0] == 2);

  Tensor whole = output<T>({1, 1}), at = integers({1, 1});
  backend().global_pool(Pool::max, of<T>({-4, -2, -2, -5}, {1, 2, 2, 1}), whole, at);
  CHECK(at.data<int64_t>()[0] == 1);
}

TEST_CASE_TEMPLATE("reference: global pooling", T, float, double) {
  struct Case {
    Pool kind;
    List forward, dx, indices;  // dx: fingerprint
  };
  // x.flatten(1, 2).max(1), .mean(1) with x = sample(., 1), dy = sample(., 5)
  // clang-format off
  const std::vector<Case> cases{
      {Pool::max, {1.86328125, 1.9375, 1.8984375, 1.78125, 1.83203125, 1.88671875}, {-1.54866027832,
       -1.56199645996, -1.17979431152}, {13, 2, 7, 14, 3, 10}},
      {Pool::average, {0.13359375, 0.16015625, -0.0434895833333, 0.084375, 0.136979166667, 0.219010416667},
       {-0.231647745768, -1.07257181803, 0.0134857177734}, {}},
  };
  // clang-format on
  for (const Case& c : cases)
    for (const Shape& shape : {Shape{2, 3, 5, 3}, Shape{2, 15, 3}}) {  // an image, and a point cloud
      Tensor y = output<T>({2, 3}), indices = c.kind == Pool::max ? integers({2, 3}) : Tensor();
      backend().global_pool(c.kind, sample<T>(shape, 1), y, indices);
      check_list(list(y), c.forward, tolerance<T>);
      if (c.kind == Pool::max) check_list(list(indices), c.indices, 0);
      check_sink<T>(shape, c.dx, fingerprint, [&](Sink dx) {
        backend().global_pool_backward(c.kind, sample<T>({2, 3}, 5), indices, dx);
      });
    }
}

// ---- Matrices ----

TEST_CASE_TEMPLATE("reference: matmul", T, float, double) {
  struct Case {
    bool transpose_a, transpose_b;
    List expected;
  };
  // a @ b, (3, 5) and (5, 2) after the transpositions; a = sample(., 1), b = sample(., 2)
  // clang-format off
  const std::vector<Case> cases{
      {false, false, {1.84211730957, 1.70635986328, 3.7999420166, -0.343688964844, -1.80763244629,
       -1.93313598633}},
      {false, true, {4.75701904297, 1.94734191895, -0.544342041016, -0.0280151367188, -2.6882019043,
       -2.19465637207}},
      {true, false, {1.60317993164, 3.00500488281, 4.40921020508, -3.41816711426, 2.57569885254, -1.2811126709}},
      {true, true, {1.99548339844, 0.855041503906, 0.257202148438, 0.0417633056641, 2.85009765625,
       0.476211547852}},
  };
  // clang-format on
  for (const Case& c : cases) {
    const Tensor a = sample<T>(c.transpose_a ? Shape{5, 3} : Shape{3, 5}, 1);
    const Tensor b = sample<T>(c.transpose_b ? Shape{2, 5} : Shape{5, 2}, 2);
    check_sink<T>({3, 2}, c.expected, list,
                  [&](Sink y) { backend().matmul(a, c.transpose_a, b, c.transpose_b, {}, y); });
    List with_bias = c.expected;
    for (size_t i = 0; i < 6; ++i) with_bias[i] += i % 2 == 0 ? 10 : 20;
    check_sink<T>({3, 2}, with_bias, list, [&](Sink y) {
      backend().matmul(a, c.transpose_a, b, c.transpose_b, of<T>({10, 20}, {2}), y);
    });
  }
}

// ---- Loss ----

TEST_CASE_TEMPLATE("reference: cross-entropy", T, float, double) {
  const Tensor logits = sample<T>({4, 5}, 1, 3), labels = Tensor::from<int64_t>({0, 4, 2, 2}, {4}, device);
  // F.cross_entropy(3 * sample(., 1), [0, 4, 2, 2], reduction='none'), and the gradient of 0.25 · 1.5 · the sum
  Tensor losses = output<T>({4});
  backend().cross_entropy(logits, labels, losses);
  check_list(list(losses), {7.50010420282, 9.24398741192, 4.14717670847, 9.39777908312}, tolerance<T>);
  check_sink<T>(
      {4, 5}, {-0.374792614972,   0.00036397205843, 0.00152045453016, 0.0151179733362,  0.357790215048,
               8.67986862365e-06, 0.00116379778973, 0.371412614865,   0.00237864824977, -0.374963740773,
               0.333952683744,    0.028840497641,   -0.369071629906,  0.00290056506353, 0.00337788345803,
               0.035591814899,    0.234823564513,   -0.374968909503,  0.00116211392159, 0.103391416169},
      list, [&](Sink dlogits) { backend().cross_entropy_backward(logits, labels, of<T>({1.5}, {}), 0.25, dlogits); });

  // Nothing overflows: log(1 + exp(-2000)) = 0.
  Tensor extreme = output<T>({2});
  backend().cross_entropy(of<T>({1000, -1000, 1000, -1000}, {2, 2}), Tensor::from<int64_t>({0, 1}, {2}, device),
                          extreme);
  check_list(list(extreme), {0, 2000}, tolerance<T>);

  for (int64_t label : {int64_t{-1}, int64_t{5}}) {
    const Tensor wrong = Tensor::from<int64_t>({0, 1, label, 2}, {4}, device);
    const std::string message =
        "cross_entropy: the label of row 2 is " + std::to_string(label) + ", but with 5 classes labels are 0 … 4";
    CHECK_THROWS_WITH_AS(backend().cross_entropy(logits, wrong, losses), message.c_str(), UserError);
    Tensor dlogits = output<T>({4, 5});
    CHECK_THROWS_AS(backend().cross_entropy_backward(logits, wrong, of<T>({1}, {1}), 1, {&dlogits}), UserError);
  }
}

TEST_CASE_TEMPLATE("reference: metrics", T, float, double) {
  // Predictions 1, 0 (the first of equals), 2.
  const Tensor logits = of<T>({0, 2, 1, 5, 5, 5, -3, -2, -1}, {3, 3}), losses = of<T>({0.5, 1, 2}, {3});
  Tensor sums = Tensor::zeros({3}, DType::f64, device);
  const uint64_t version = sums.version();
  backend().accumulate_metrics(losses, logits, Tensor::from<int64_t>({1, 0, 1}, {3}, device), sums);
  check_list(list(sums), {3.5, 2, 3}, 0);
  backend().accumulate_metrics(losses, logits, Tensor::from<int64_t>({0, 1, 2}, {3}, device), sums);
  check_list(list(sums), {7, 3, 6}, 0);
  CHECK(sums.version() == version + 2);
}

// ---- Channels ----

TEST_CASE_TEMPLATE("reference: copy_channels", T, float, double) {
  const Tensor x = of<T>({1, 2, 3, 4, 5, 6}, {2, 1, 3});
  Tensor y = of<T>({10, 20, 30, 40, 50, 60, 70, 80}, {2, 1, 4});
  backend().copy_channels(x, 1, 2, {&y, Write::overwrite}, 0);
  check_list(list(y), {2, 3, 30, 40, 5, 6, 70, 80}, 0);
  backend().copy_channels(x, 0, 1, {&y, Write::accumulate}, 3);
  check_list(list(y), {2, 3, 30, 41, 5, 6, 70, 84}, 0);
}

TEST_CASE_TEMPLATE("reference: bilinear resize", T, float, double) {
  struct Case {
    Shape x, y;
    bool align_corners;
    List forward, dx;  // fingerprints
  };
  // F.interpolate(x, y's size, mode='bilinear', align_corners=…); x = sample(., 1), dy = sample(., 5)
  // clang-format off
  const std::vector<Case> cases{
      {{1, 3, 5, 2}, {1, 7, 2, 2}, false, {0.0611299787249, -0.807079860142, -0.117585863386}, {8.22883061,
       8.5937096732, 10.9732262748}},
      {{1, 3, 5, 2}, {1, 7, 2, 2}, true, {5.05355326335, 6.60358683268, 6.70838419596}, {1.94870503743,
       -3.13629659017, -0.756779988607}},
      {{2, 4, 4, 1}, {2, 1, 9, 1}, false, {-4.31205452813, -2.14783138699, -0.210535685221}, {0.733127593994,
       1.84601126777, 3.47191153632}},
      {{2, 4, 4, 1}, {2, 1, 9, 1}, true, {1.94352340698, -2.76715278625, -7.59572982788}, {-7.15773200989,
       -5.53183174133, -3.90593147278}},
      {{1, 1, 3, 1}, {1, 4, 3, 1}, false, {5.65097045898, 4.96220397949, -1.03590393066}, {-3.17543029785,
       -2.26770019531, -1.35997009277}},
      {{1, 1, 3, 1}, {1, 4, 3, 1}, true, {5.65097045898, 4.96220397949, -1.03590393066}, {-3.17543029785,
       -2.26770019531, -1.35997009277}},
      {{1, 5, 6, 3}, {1, 10, 12, 3}, false, {24.5085983276, 2.08662414551, -7.66956615448}, {5.07785987854,
       30.238275528, 9.31847572327}},
      {{1, 5, 6, 3}, {1, 10, 12, 3}, true, {24.8007741601, 7.36164008247, 3.53000802705}, {-1.1549391313,
       30.5292466289, 4.66352736348}},
  };
  // clang-format on
  for (const Case& c : cases) {
    CAPTURE(c.x.str());
    CAPTURE(c.align_corners);
    Tensor y = output<T>(c.y);
    backend().resize_bilinear(c.align_corners, sample<T>(c.x, 1), y);
    check_list(fingerprint(y), c.forward, tolerance<T>);
    check_sink<T>(c.x, c.dx, fingerprint,
                  [&](Sink dx) { backend().resize_bilinear_backward(c.align_corners, sample<T>(c.y, 5), dx); });
  }
}

// ---- Points ----

TEST_CASE_TEMPLATE("reference: nearest neighbours", T, float, double) {
  // Points 0, 1, 2, 4 on a line, then the origin again: of equally near points the lower index comes first.
  Tensor indices = integers({1, 5, 3});
  backend().nearest_neighbours(of<T>({0, 1, 2, 4, 0}, {1, 5, 1}), indices);
  check_list(list(indices), {0, 4, 1, 1, 0, 2, 2, 1, 0, 3, 2, 1, 0, 4, 1}, 0);
  Tensor all = integers({1, 2, 2});
  backend().nearest_neighbours(of<T>({not_a_number, 0}, {1, 2, 1}), all);
  check_list(list(all), {0, 1, 1, 0}, 0);
  Tensor many = integers({1, 2, 3});
  CHECK_THROWS_AS(backend().nearest_neighbours(of<T>({1, 2}, {1, 2, 1}), many), Error);
}

TEST_CASE_TEMPLATE("reference: edge features", T, float, double) {
  const Tensor x = sample<T>({2, 7, 3}, 1);
  Tensor indices = integers({2, 7, 3}), y = output<T>({2, 7, 3, 6});
  backend().nearest_neighbours(x, indices);
  // torch.sort(((x[:, :, None] - x[:, None])**2).sum(-1), dim=-1)[1][:, :, :3]
  check_list(list(indices), {0, 6, 4, 1, 5, 6, 2, 3, 4, 3, 2, 4, 4, 6, 2, 5, 1, 6, 6, 1, 5,
                             0, 4, 2, 1, 2, 5, 2, 1, 0, 3, 5, 1, 4, 0, 1, 5, 3, 1, 6, 4, 1},
             0);
  backend().edge_features(x, indices, y);
  // torch.cat([neighbours - x[:, :, None], x[:, :, None].expand_as(neighbours)], -1), dy = sample(., 5)
  check_list(fingerprint(y), {10.2461547852, 21.1599578857, -0.0256958007812}, tolerance<T>);
  check_sink<T>(x.shape(), {2.71022033691, 3.9278717041, -15.3311920166}, fingerprint,
                [&](Sink dx) { backend().edge_features_backward(sample<T>(y.shape(), 5), indices, dx); });
}

TEST_CASE_TEMPLATE("reference: neighbourhood maximum", T, float, double) {
  // x.max(2) with x = sample(., 1), dy = sample(., 5)
  const Tensor x = sample<T>({2, 4, 3, 5}, 1);
  Tensor y = output<T>({2, 4, 5}), winners = integers({2, 4, 5});
  backend().neighbourhood_max(x, y, winners);
  check_list(fingerprint(y), {6.19897460938, 8.81582641602, 13.8819732666}, tolerance<T>);
  check_list(fingerprint(winners), {-5.9140625, -1.421875, 6.96484375}, tolerance_f64);
  check_sink<T>(x.shape(), {-14.5171661377, 12.2805480957, 9.44331359863}, fingerprint,
                [&](Sink dx) { backend().neighbourhood_max_backward(sample<T>(y.shape(), 5), winners, dx); });

  Tensor one = output<T>({1, 1, 1}), at = integers({1, 1, 1});
  backend().neighbourhood_max(of<T>({1, 2, 2}, {1, 1, 3, 1}), one, at);
  CHECK(at.data<int64_t>()[0] == 1);  // the first of equals
  backend().neighbourhood_max(of<T>({1, not_a_number, 2}, {1, 1, 3, 1}), one, at);
  CHECK(std::isnan(one.item()));
}

// ---- Optimizers ----

TEST_CASE_TEMPLATE("reference: optimizers", T, float, double) {
  // Three steps of torch.optim from p = sample((3,), 1) with gradients sample((3,), 10 … 12), decay 0.2, lr 0.1.
  const Shape shape{3};
  const auto sgd = [&](double momentum, bool nesterov, const List& expected) {
    std::vector<Update> updates(1);
    updates[0].parameter = sample<T>(shape, 1);
    updates[0].weight_decay = 0.2;
    if (momentum != 0) updates[0].first = output<T>(shape);  // NaN: the first step must not read it
    for (int64_t step = 0; step < 3; ++step) {
      updates[0].gradient = sample<T>(shape, 10 + step);
      const uint64_t version = updates[0].parameter.version();
      backend().sgd_update({.lr = 0.1, .momentum = momentum, .nesterov = nesterov, .first_step = step == 0}, updates);
      CHECK(updates[0].parameter.version() == version + 1);
      check_list(list(updates[0].gradient), list(sample<T>(shape, 10 + step)), 0);  // left as it is
    }
    check_list(list(updates[0].parameter), expected, tolerance<T>);
  };
  sgd(0, false, {-1.02008525, -0.89874425, -0.590335875});
  sgd(0.9, false, {-0.4881065, -0.4246805, -0.26347275});
  sgd(0.9, true, {-0.0909403188125, -0.0783459498125, -0.0463352619375});

  // torch.optim.AdamW(lr=0.1, betas=(0.8, 0.95), eps=1e-3, weight_decay=0.2); the second parameter has no decay
  std::vector<Update> updates(2);
  for (Update& u : updates) {
    u.parameter = sample<T>(shape, 1);
    u.first = Tensor::zeros(shape, DTypeOf<T>::value, device);
    u.second = Tensor::zeros(shape, DTypeOf<T>::value, device);
  }
  updates[0].weight_decay = 0.2;
  for (int64_t step = 0; step < 3; ++step) {
    for (Update& u : updates) u.gradient = sample<T>(shape, 10 + step);
    backend().adamw_update({.lr = 0.1, .beta1 = 0.8, .beta2 = 0.95, .eps = 1e-3, .step = step + 1}, updates);
  }
  check_list(list(updates[0].parameter), {-1.17254704198, -0.997456592899, -0.556076285184}, tolerance<T>);
  check_list(list(updates[1].parameter), {-1.25782186522, -1.07171122392, -0.602335514518}, tolerance<T>);
  CHECK(updates[0].second.version() == 3);
}
