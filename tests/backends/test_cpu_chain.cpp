// Fused chains of the cpu backend against the reference's composed ones: training, evaluation with and without a
// backward to follow, and all gradients, in f32 and in bf16.
#include "tests/backends/parity.h"

using namespace mgic;
using namespace mgic::test;

namespace {

constexpr Activation relu = Activation::relu, none = Activation::none, hswish = Activation::hswish;

struct LinkCase {
  int64_t outputs, kernel, groups;
  Activation activation = none;
  bool norm = true;
};
struct ChainCase {
  Shape x;
  std::vector<LinkCase> links;
  bool minus = false, residual = false;
  Activation outer = none;

  std::string str() const {
    std::string s = fmt::format("x {}{}{}", x.str(), minus ? " − b" : "", residual ? " + residual" : "");
    for (const LinkCase& l : links)
      s += fmt::format(", {} outputs, kernel {}, groups {}{}", l.outputs, l.kernel, l.groups, l.norm ? "" : ", bare");
    return s;
  }
};

// Group sizes that fill, share and cut vectors; images smaller and larger than a tile; one image, and fewer than there
// are threads; a residual behind every kind of end.
const std::vector<ChainCase> chains = {
    {{2, 7, 5, 32}, {{32, 3, 2, relu}, {32, 3, 2}}, false, true, relu},    // the basic smoother, 16 channels a group
    {{3, 4, 4, 64}, {{64, 3, 4, relu}, {64, 3, 4}}, false, true, relu},    // a tile of four rows
    {{1, 8, 8, 32}, {{32, 3, 4, relu}, {32, 3, 4}}, false, true, relu},    // 8
    {{2, 5, 9, 16}, {{16, 3, 4, relu}, {16, 3, 4}}, false, true, relu},    // 4
    {{2, 6, 6, 36}, {{36, 3, 9, relu}, {36, 3, 9}}, false, true, relu},    // 4, an odd number of Winograd's tiles a row
    {{1, 4, 10, 24}, {{24, 3, 3, relu}, {24, 3, 3}}, false, true, relu},   // 8, likewise
    {{2, 6, 33, 16}, {{16, 3, 1, relu}, {16, 3, 1}}, false, true, relu},   // rows of three tiles
    {{5, 3, 7, 24}, {{24, 3, 3, relu}, {24, 3, 3}}, false, true, relu},    // a slab that is half empty
    {{2, 9, 3, 12}, {{12, 3, 3, relu}, {12, 3, 3}}, false, true, relu},    // 4, and three groups
    {{1, 1, 1, 16}, {{16, 3, 1, relu}, {16, 3, 1}}, false, true, relu},    // one pixel
    {{2, 8, 12, 48}, {{48, 3, 3, relu}, {48, 3, 3}}, false, true, relu},   // Winograd's larger tiles: 16,
    {{1, 16, 8, 24}, {{24, 3, 3, relu}, {24, 3, 3}}, false, true, relu},   // 8,
    {{2, 12, 8, 20}, {{20, 3, 5, relu}, {20, 3, 5}}, false, true, relu},   // 4,
    {{1, 44, 36, 48}, {{32, 3, 1, relu}, {48, 3, 1}}, false, true},        // dense, several bands an image
    {{1, 21, 36, 24}, {{24, 3, 3, relu}, {24, 3, 3}}, false, true, relu},  // groups of 8, likewise,
    {{1, 19, 40, 20}, {{20, 3, 5, relu}, {20, 3, 5}}, false, true, relu},  // and of 4
    {{1, 21, 36, 32}, {{32, 3, 4, relu}, {32, 3, 4}}, false, true, relu},  // the first one from the map itself: 8,
    {{3, 12, 8, 16}, {{16, 3, 4, relu}, {16, 3, 4}}, false, true, relu},   // and 4
    {{40, 2, 2, 8}, {{8, 3, 1, relu}, {8, 3, 1}}, false, true, relu},      // more images than chunks
    {{19, 4, 4, 32}, {{32, 3, 2, relu}, {32, 3, 2}}, false, true, relu},   // several images in one plane, the last
    {{21, 6, 2, 20}, {{20, 3, 5, relu}, {20, 3, 5}}, false, true, relu},   // ones fewer,
    {{9, 8, 8, 24}, {{24, 3, 3, relu}, {24, 3, 3}}, false, true, relu},    // with groups of 8,
    {{9, 4, 4, 96}, {{96, 3, 6, relu}, {96, 3, 6}}, false, true, relu},    // two panels of bundles, one of them short,
    {{5, 6, 10, 148}, {{148, 3, 37, relu}, {148, 3, 37}}, false, true, relu},  // three, and a bundle that is not full
    {{18, 4, 4, 16}, {{32, 1, 1, relu}, {32, 3, 2, relu}, {16, 1, 1}}, false, true, relu},  // between 1×1
    {{2, 11, 6, 5}, {{5, 3, 1, relu}, {5, 3, 1}}, false, true, relu},                       // odd, one group
    {{2, 6, 5, 3}, {{20, 3, 1, relu}}},                                                     // a stem
    {{2, 6, 5, 30}, {{20, 5, 1, hswish}}},                   // a large kernel, two slabs to one group
    {{2, 6, 5, 32}, {{32, 5, 2, relu}, {32, 5, 2}}},         // and one whose taps are no pairs, in whole slabs
    {{2, 7, 5, 32}, {{16, 1, 2, none, false}}},              // a restriction, 16 → 8
    {{2, 7, 5, 16}, {{8, 1, 2, none}}},                      // with a normalisation, 8 → 4
    {{3, 7, 5, 16}, {{32, 1, 2}}, true, true},               // a coarse correction, 8 → 16
    {{3, 7, 5, 8}, {{16, 1, 2}}, true, true},                // 4 → 8
    {{2, 9, 5, 12}, {{24, 1, 3}}, true, true},               // 4 → 8, three groups
    {{3, 7, 5, 64}, {{32, 1, 4, none}}},                     // 16 → 8, both sides whole slabs,
    {{2, 7, 5, 64}, {{32, 1, 8, none}}},                     // 8 → 4,
    {{3, 7, 5, 32}, {{64, 1, 4}}, true, true},               // 8 → 16,
    {{9, 5, 3, 16}, {{32, 1, 4}}, true, true},               // 4 → 8,
    {{2, 7, 5, 32}, {{64, 1, 2}}, true, true},               // 16 → 32
    {{2, 5, 3, 10}, {{20, 1, 5}}, true, true},               // 2 → 4, an odd number of groups
    {{2, 5, 3, 24}, {{12, 1, 6}}, true},                     // 4 → 2, merged
    {{2, 6, 5, 24}, {{24, 1, 3}}, false, true},              // 8 → 8
    {{2, 4, 4, 16}, {{32, 1, 2, none, false}}, true, true},  // a correction that is not normalised
    {{1, 40, 30, 64}, {{64, 1, 2}}, true, true},             // 32 → 32, on several threads
    {{3, 1, 2, 16}, {{8, 1, 2}}},                            // few rows
    {{2, 5, 4, 64}, {{16, 1, 1, relu}, {16, 3, 1, relu}, {64, 1, 1, relu}}, false, true, relu},  // a bottleneck
    {{2, 5, 4, 64}, {{32, 1, 2, relu}, {32, 3, 2, relu}, {64, 1, 2}}, false, true, relu},    // 32 → 16 → 16 → 32
    {{2, 5, 4, 16}, {{16, 3, 2, relu, false}, {16, 3, 2, none, false}}, false, true, relu},  // no normalisation
    {{2, 5, 4, 16}, {{16, 3, 2, relu, false}, {16, 3, 2, relu, false}}},
    {{2, 40, 40, 32}, {{32, 3, 2, relu}, {32, 3, 2}}, false, true, relu},  // several bands an image
    {{9, 28, 28, 16}, {{16, 3, 4, relu}, {16, 3, 4}}, false, true, relu},  // more parts of the batch than threads
    {{1, 3, 130, 32}, {{16, 1, 2}}},
    // Maps that are stored past the caches; without kinks, since some of so many values lie within rounding of one.
    {{4, 32, 32, 64}, {{64, 3, 4, none}, {64, 3, 16}}, false, true},
    {{8, 20, 20, 96}, {{96, 3, 6, none}, {96, 3, 12}}, false, true},  // panels of four and two bundles,
    {{7, 20, 24, 80}, {{80, 3, 5, none}, {80, 3, 10}}, false, true},  // an odd number of bundles,
    {{6, 20, 24, 96}, {{96, 3, 6}}, true},                            // two gradients of the input
};

constexpr size_t raw_output = 1;  // of a lone link

// What one step leaves behind. Index 0 is y, then per link raw, mean, variance, running mean and variance.
struct Step {
  const ChainCase& c;
  DType dtype;
  bool training, saves;
  Write write;
  bool rounded = false;  // maps of numbers that bf16 has, in whatever type

  Tensor map(const Shape& shape, uint64_t seed) const {
    const Tensor numbers = random(shape, seed);
    return (rounded ? numbers.to(DType::bf16) : numbers).to(dtype);
  }
  // A vector of channels.
  static Tensor vector(int64_t n, uint64_t seed, double low = -1, double high = 1) {
    return random({n}, seed, low, high);
  }

  Outputs outputs() const {
    Outputs o{map(end(), 7)};
    Shape x = c.x;
    uint64_t seed = 100;
    for (const LinkCase& l : c.links) {
      x = {x[0], x[1], x[2], l.outputs};
      o.push_back(map(x, ++seed));
      o.push_back(vector(l.outputs, ++seed));
      o.push_back(vector(l.outputs, ++seed));
      o.push_back(vector(l.outputs, ++seed));
      o.push_back(vector(l.outputs, ++seed, 0.5, 2));
    }
    o.push_back(map(c.x, ++seed));    // dx
    o.push_back(map(c.x, ++seed));    // dminus
    o.push_back(map(end(), ++seed));  // dresidual
    int64_t inputs = c.x[3];
    for (const LinkCase& l : c.links) {
      o.push_back(random({l.outputs, l.kernel, l.kernel, inputs / l.groups}, ++seed));
      o.push_back(vector(l.outputs, ++seed));
      o.push_back(vector(l.outputs, ++seed));
      inputs = l.outputs;
    }
    return o;
  }
  Shape end() const { return {c.x[0], c.x[1], c.x[2], c.links.back().outputs}; }

  struct Parts {
    Chain chain;
    ChainInput in;
    std::vector<LinkState> states;
  };
  Parts parts(Outputs& o) const {
    Parts p{{{}, c.outer, training, saves},
            {map(c.x, 1), c.minus ? map(c.x, 2) : Tensor(), c.residual ? map(end(), 3) : Tensor()},
            {}};
    int64_t inputs = c.x[3];
    uint64_t seed = 10;
    size_t at = 1;
    for (const LinkCase& l : c.links) {
      const Shape w{l.outputs, l.kernel, l.kernel, inputs / l.groups};
      const double bound = 1.5 / std::sqrt(static_cast<double>(w[1] * w[2] * w[3]));
      Link link{
          {1, l.kernel / 2, 1, l.groups}, random(w, ++seed, -bound, bound), {}, {}, {}, {}, 1e-5, 0.1, l.activation};
      if (l.norm) {
        link.gamma = vector(l.outputs, ++seed, 0.5, 1.5);
        link.beta = vector(l.outputs, ++seed);
        link.running_mean = o[at + 3];
        link.running_var = o[at + 4];
      }
      p.states.push_back({o[at], o[at + 1], o[at + 2]});
      p.chain.links.push_back(link);
      inputs = l.outputs;
      at += 5;
    }
    return p;
  }
  // Where the raw output of the last link is the chain's.
  bool bare() const { return !c.residual && !c.links.back().norm && c.links.back().activation == none; }
  // Of a lone transfer with anything behind it the cpu backend never makes the raw output that the reference goes by.
  bool makes_raw() const {
    const LinkCase& l = c.links[0];
    return bare() || c.links.size() > 1 || l.kernel > 1 || l.activation != none;
  }
  size_t forward_outputs() const { return 1 + 5 * c.links.size(); }

  // What a backend leaves in the states for its own backward.
  std::vector<LinkState> forward(Backend& b, Outputs& o) const {
    Parts p = parts(o);
    Tensor y = bare() ? p.states.back().raw : o[0];
    b.conv_chain(p.chain, p.in, p.states, y);
    return p.states;
  }
  void backward(Backend& b, Outputs& o) const { backward(b, o, parts(o).states); }
  void backward(Backend& b, Outputs& o, const std::vector<LinkState>& states) const {
    const Parts p = parts(o);
    size_t at = forward_outputs();
    ChainSinks sinks{{&o[at], write}, {}, {}, {}};
    if (c.minus) sinks.minus = {&o[at + 1], write};
    if (c.residual) sinks.residual = {&o[at + 2], write};
    at += 3;
    for (const LinkCase& l : c.links) {
      sinks.links.push_back({{&o[at], write}, {}, {}});
      if (l.norm) sinks.links.back().gamma = {&o[at + 1], write}, sinks.links.back().beta = {&o[at + 2], write};
      at += 3;
    }
    b.conv_chain_backward(p.chain, p.in, states, map(end(), 4), sinks);
  }
  void operator()(Backend& b, Outputs& o) const {
    const std::vector<LinkState> states = forward(b, o);
    if (saves) backward(b, o, states);
    if (!makes_raw()) o[raw_output] = Tensor::zeros(o[raw_output].shape(), o[raw_output].dtype(), Device::cpu);
  }
};

// ‖a − b‖ / ‖b‖. Some gradients are zero but for rounding, so that a norm counts as at least that of elements of 0.01.
double relative(const Tensor& a, const Tensor& b) {
  double error = 0, norm = 1e-4 * static_cast<double>(a.count());
  const Tensor x = a.to(DType::f32);
  for (int64_t i = 0; i < x.count(); ++i) {
    const double u = x.data<float>()[i], v = b.data<float>()[i];
    if (!std::isfinite(u)) return INFINITY;
    error += (u - v) * (u - v);
    norm += v * v;
  }
  return std::sqrt(error / norm);
}

}  // namespace

TEST_CASE("cpu chains match the reference") {
  for (const ChainCase& c : chains)
    for (bool training : {true, false})
      for (Write write : {Write::overwrite, Write::accumulate}) {
        const Step step{c, DType::f32, training, true, write};
        check_parity(c.str(), step.outputs(), norm_tolerance, step);
      }
}

TEST_CASE("cpu chains without a backward to follow match the reference") {
  std::vector<ChainCase> cases = chains;
  // Many channels: Winograd's filtering over the whole batch, with few tiles and with many, some of them cut.
  cases.push_back({{3, 5, 6, 144}, {{160, 3, 1, relu}, {144, 3, 1}}, false, true, relu});
  cases.push_back({{6, 13, 14, 144}, {{144, 3, 1, relu, false}}, false, false});
  for (const ChainCase& c : cases) {
    const Step step{c, DType::f32, false, false, Write::overwrite};
    const auto result = [&](Backend& b, Outputs& y) {
      Outputs all = step.outputs();
      step(b, all);
      std::memcpy(y[0].raw(), all[step.bare() ? 1 + 5 * (c.links.size() - 1) : 0].raw(),
                  static_cast<size_t>(y[0].bytes()));
    };
    check_parity(c.str(), {random(step.end(), 9)}, norm_tolerance, result);
  }
}

TEST_CASE("cpu chains of many channels in bf16, evaluated, are those in f32 on the same maps") {
  for (const Shape& shape : {Shape{3, 5, 6, 144}, Shape{6, 13, 14, 144}}) {
    const ChainCase c{shape, {{144, 3, 1}}, false, true, relu};
    const Step half{c, DType::bf16, false, false, Write::overwrite, true};
    const Step full{c, DType::f32, false, false, Write::overwrite, true};
    Outputs y = half.outputs(), expected = full.outputs();
    half(cpu_backend(), y);
    full(cpu_backend(), expected);
    CHECK(equal(y[0], expected[0].to(DType::bf16)));
  }
}

TEST_CASE("cpu chains in bf16 stay close to those in f32, and repeat bit for bit") {
  // A stored bf16 is off by up to 2⁻⁹ of itself, and a chain stores up to four of them between input and output. The
  // backward in f32 begins with the values that the forward in bf16 has stored: else a value near to a kink would have
  // another gradient on either side of it.
  constexpr double tolerance = 0.02;
  for (const ChainCase& c : chains)
    for (bool training : {true, false}) {
      CAPTURE(c.str());
      CAPTURE(training);
      const Step half{c, DType::bf16, training, true, Write::overwrite, true};
      const Step full{c, DType::f32, training, true, Write::overwrite, true};
      Outputs expected = full.outputs();
      full.forward(reference_backend(), expected);
      const auto run_twice = [&](int threads, std::string_view target) {
        CAPTURE(threads);
        CAPTURE(target);
        Machine machine(threads, target);
        Outputs first = half.outputs(), second = half.outputs();
        const std::vector<LinkState> states = half.forward(cpu_backend(), first);
        Outputs gradients;
        for (const Tensor& t : first) gradients.push_back(t.clone().to(DType::f32));
        if (!half.makes_raw()) gradients[raw_output] = expected[raw_output].clone();
        full.backward(reference_backend(), gradients);
        half.backward(cpu_backend(), first, states);
        half(cpu_backend(), second);
        for (size_t i = 0; i < first.size(); ++i) {
          if (i == raw_output && !half.makes_raw()) continue;
          CAPTURE(i);
          CHECK(equal(first[i], second[i]));
          CHECK(relative(first[i], i < half.forward_outputs() ? expected[i] : gradients[i]) <= tolerance);
        }
      };
      for (int threads : {1, 2, 3}) run_twice(threads, "");
      const auto targets = cpu::simd_targets();  // also those without a dot product of bf16
      for (size_t i = 1; i < targets.size(); ++i) run_twice(2, targets[i]);
    }
}

TEST_CASE("cpu chains store large maps as they store small ones") {
  // 6.6 MB, which go past the caches, also where the last image is cut into bands.
  const Step step{{{1, 320, 324, 16}, {{16, 3, 1, relu}}}, DType::f32, true, false, Write::overwrite};
  Outputs expected = step.outputs(), y = step.outputs();
  step(reference_backend(), expected);
  step(cpu_backend(), y);
  for (size_t i = 0; i < y.size(); ++i) CHECK(distance(y[i], expected[i]) <= norm_tolerance);
}

TEST_CASE("cpu chains are folded anew when a weight or a statistic has changed") {
  const ChainCase c{{2, 6, 5, 32}, {{32, 3, 2}}};
  const Tensor x = random(c.x, 1);
  Tensor weight = random({32, 3, 3, 16}, 2), gamma = random({32}, 3), beta = random({32}, 4), mean = random({32}, 5),
         variance = random({32}, 6, 0.5, 2);
  const auto evaluate = [&](Backend& b) {
    Chain chain{{{{1, 1, 1, 2}, weight, gamma, beta, mean, variance}}, none, false, false};
    Tensor y = Tensor::empty(x.shape(), DType::f32, Device::cpu);
    std::vector<LinkState> states{{Tensor::empty_like(y), {}, {}}};
    b.conv_chain(chain, {x, {}, {}}, states, y);
    return y;
  };
  uint64_t seed = 20;
  for (Tensor* changed : {&weight, &gamma, &beta, &mean, &variance}) {
    evaluate(cpu_backend());
    changed->copy_from(random(changed->shape(), ++seed, 0.5, 2));
    CHECK(distance(evaluate(cpu_backend()), evaluate(reference_backend())) <= norm_tolerance);
  }
}
