// bench_convolutions [--json] [--rounds N] [--footprint-mb M] [--batch N] [--dtype f32|bf16|both] [--seconds S]
//
// The convolutions of MGIC, one by one: does work that is saved by small groups become time that is saved?
//
//   3×3       (N, H, W, C) → (N, H, W, C) in C/s_g groups: time per multiply-accumulate over that with s_g = 16
//   restrict  (N, H, W, C) → (N, H, W, C/2), 1×1, in C/s_g groups, s_g → s_g/2 channels a group: time over its limit
//   prolong   (N, H, W, C/2) → (N, H, W, C), the way back
//   plain     a transfer's maps read and written with nothing computed: what the memory gives
//
// for s_g = 16, 8, 4, on the four stages of the network (batch 32: 32×32×64, 16×16×128, 8×8×256, 4×4×512), forward,
// data gradient and weight gradient. The limit is max(flops / peak, bytes / triad) with the roofs measured in the same
// run; bytes are the two feature maps and the weights, each once.
//
// Out of cache: a pass calls the operation on one set of tensors after the other, --footprint-mb MiB of them, and its
// time is divided by their number. The passes of all cases of a stage alternate; medians over the rounds are shown.
#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "backends/backend.h"
#include "bench/machine.h"
#include "core/rng.h"
#include "core/tensor.h"

namespace mgic::bench {
namespace {

using Json = nlohmann::json;

struct Options {
  bool json = false;
  int64_t rounds = 9, footprint_mb = 256, batch = 32;
  double seconds = 2;
  std::vector<DType> dtypes{DType::f32, DType::bf16};
};

struct Stage {
  int64_t size, channels;
  std::string name() const { return fmt::format("{0}x{0}x{1}", size, channels); }
};
constexpr std::array<Stage, 4> stages{{{32, 64}, {16, 128}, {8, 256}, {4, 512}}};
constexpr std::array<int64_t, 3> group_sizes{16, 8, 4};

enum class Kind { conv3x3, restriction, prolongation, plain };
constexpr std::array<const char*, 4> kind_names{"3x3", "restrict", "prolong", "plain"};
constexpr std::array<const char*, 3> direction_names{"forward", "data", "weights"};

// At most this, per multiply-accumulate, against s_g = 16; and a transfer against its limit (issue 4, item 3).
double allowed(Kind kind, int64_t group) {
  if (kind == Kind::plain) return 0;
  if (kind != Kind::conv3x3) return 1.35;
  return group == 8 ? 1.6 : group == 4 ? 2.8 : 0;
}

struct Case {
  Stage stage;
  Kind kind;
  int64_t group;
  size_t direction;
  double macs, bytes;
  std::function<void(size_t set)> call;
  std::vector<double> passes;  // ms a call
  double triad_gb_s = 0;       // the median of those between the passes
  double ms() const { return median(passes); }
};

Tensor random_tensor(const Shape& shape, DType dtype, Rng& rng) {
  Tensor t = Tensor::empty(shape, DType::f32, Device::cpu);
  for (float& v : t.span<float>()) v = static_cast<float>(rng.uniform()) - 0.5f;
  return t.to(dtype);
}

// `count` copies of one random tensor, each in memory of its own.
std::vector<Tensor> pool(size_t count, const Shape& shape, DType dtype, Rng& rng) {
  std::vector<Tensor> tensors{random_tensor(shape, dtype, rng)};
  while (tensors.size() < count) tensors.push_back(tensors.front().clone());
  return tensors;
}

// The feature maps of a stage, shared by its cases: wide and wide again for the 3×3 convolutions, wide and half for the
// transfers.
struct Maps {
  std::vector<Tensor> wide, other, half;
};

void add_cases(Backend& backend, const Stage& stage, Kind kind, int64_t group, Maps& maps, Rng& rng,
               std::vector<Case>& cases) {
  const int64_t c = stage.channels, kernel = kind == Kind::conv3x3 ? 3 : 1;
  const int64_t inputs = kind == Kind::prolongation ? c / 2 : c, outputs = kind == Kind::restriction ? c / 2 : c;
  const ConvParams p{.stride = 1, .padding = kernel / 2, .dilation = 1, .groups = c / group};
  std::vector<Tensor>& xs = kind == Kind::prolongation ? maps.half : maps.wide;
  std::vector<Tensor>& ys = kind == Kind::restriction ? maps.half : maps.other;
  const Tensor w = random_tensor({outputs, kernel, kernel, inputs / p.groups}, DType::f32, rng);
  // Weight gradients are f32 in either precision.
  const auto dw = std::make_shared<Tensor>(Tensor::zeros(w.shape(), DType::f32, Device::cpu));
  const double macs = static_cast<double>(ys[0].count() * w.count() / outputs);
  const double maps_bytes = static_cast<double>(xs[0].bytes() + ys[0].bytes());

  const std::array<std::function<void(size_t)>, 3> calls{
      [=, &backend, &xs, &ys](size_t i) { backend.conv2d(p, xs[i], w, {}, {}, Activation::none, ys[i]); },
      [=, &backend, &xs, &ys](size_t i) {
        backend.conv2d_backward_data(p, ys[i], w, {&xs[i], Write::overwrite});
      },
      [=, &backend, &xs, &ys](size_t i) {
        backend.conv2d_backward_weights(p, xs[i], ys[i], {dw.get(), Write::overwrite});
      }};
  for (size_t d = 0; d < calls.size(); ++d)
    cases.push_back(
        {stage, kind, group, d, macs, maps_bytes + static_cast<double>((d == 2 ? *dw : w).bytes()), calls[d], {}});
}

std::span<float> floats(Tensor& t) {
  return {static_cast<float*>(t.raw()), static_cast<size_t>(t.bytes()) / sizeof(float)};
}

void add_plain_cases(int threads, const Stage& stage, Maps& maps, std::vector<Case>& cases) {
  const auto bytes = static_cast<double>(maps.wide[0].bytes() + maps.half[0].bytes());
  const std::array<std::function<void(size_t)>, 3> calls{
      [=, &maps](size_t i) { plain_pass(threads, floats(maps.wide[i]), {}, floats(maps.half[i])); },
      [=, &maps](size_t i) { plain_pass(threads, floats(maps.half[i]), {}, floats(maps.wide[i])); },
      [=, &maps](size_t i) { plain_pass(threads, floats(maps.wide[i]), floats(maps.half[i]), {}); }};
  for (size_t d = 0; d < calls.size(); ++d) cases.push_back({stage, Kind::plain, 0, d, 0, bytes, calls[d], {}});
}

std::vector<Case> measure(Backend& backend, const Stage& stage, DType dtype, const Options& o, Triad& triad) {
  Rng rng(1, Purpose::test);
  const Shape shape{o.batch, stage.size, stage.size, stage.channels};
  const int64_t set_bytes = 2 * shape.count() * size_of(dtype);
  const auto sets = static_cast<size_t>(std::max<int64_t>((o.footprint_mb << 20) / set_bytes, 2));
  Maps maps{pool(sets, shape, dtype, rng), pool(sets, shape, dtype, rng),
            pool(sets, shape.with(3, stage.channels / 2), dtype, rng)};
  std::vector<Case> cases;
  for (const Kind kind : {Kind::conv3x3, Kind::restriction, Kind::prolongation})
    for (const int64_t group : group_sizes) add_cases(backend, stage, kind, group, maps, rng, cases);
  add_plain_cases(backend.threads(), stage, maps, cases);
  std::vector<double> bandwidths;
  for (int64_t round = -1; round < o.rounds; ++round) {  // the first is warm-up
    for (size_t k = 0; k < cases.size(); ++k) {
      Case& c = cases[k];
      const auto pass = [&] {
        for (size_t i = 0; i < sets; ++i) c.call(i);
      };
      if (k % 9 == 0) {
        bandwidths.push_back(triad.run());
        pass();  // or what the triad has left in the caches would be written back while this one is timed
      }
      const auto start = std::chrono::steady_clock::now();
      pass();
      const std::chrono::duration<double, std::milli> spent = std::chrono::steady_clock::now() - start;
      if (round >= 0) c.passes.push_back(spent.count() / static_cast<double>(sets));
    }
  }
  for (Case& c : cases) {
    c.triad_gb_s = median(bandwidths);
    c.call = nullptr;  // it refers to the maps
  }
  return cases;
}

// One row of the table, and one object of the JSON.
struct Row {
  const Case& c;
  double limit_ms, per_mac;  // per_mac: time per multiply-accumulate over that with s_g = 16
  double over_limit() const { return c.ms() / limit_ms; }
  bool has_ratio() const { return c.kind == Kind::conv3x3; }
  double judged() const { return has_ratio() ? per_mac : over_limit(); }
};

std::vector<Row> rows_of(const std::vector<Case>& cases, double gflops) {
  std::vector<Row> rows;
  for (const Case& c : cases) {
    const auto base = std::ranges::find_if(cases, [&](const Case& b) {
      return b.stage.size == c.stage.size && b.kind == c.kind && b.direction == c.direction && b.group == 16;
    });
    const double limit = 1e3 * std::max(2 * c.macs / (1e9 * gflops), c.bytes / (1e9 * c.triad_gb_s));
    rows.push_back({c, limit, base == cases.end() ? 0 : (c.ms() / c.macs) / (base->ms() / base->macs)});
  }
  return rows;
}

Json json_of(const Row& r) {
  return {{"stage", r.c.stage.name()},
          {"kind", kind_names[static_cast<size_t>(r.c.kind)]},
          {"group_size", r.c.group},
          {"direction", direction_names[r.c.direction]},
          {"ms", r.c.ms()},
          {"gflops", 2e-6 * r.c.macs / r.c.ms()},
          {"gb_s", 1e-6 * r.c.bytes / r.c.ms()},
          {"triad_gb_s", r.c.triad_gb_s},
          {"limit_ms", r.limit_ms},
          {"over_limit", r.over_limit()},
          {"per_mac", r.per_mac},
          {"allowed", allowed(r.c.kind, r.c.group)}};
}

void print_table(const std::vector<Row>& rows, std::string_view dtype) {
  fmt::print("\n{}\n{:<10} {:<9} {:>4} {:<8} {:>8} {:>8} {:>7} {:>8} {:>9} {:>8}\n", dtype, "stage", "kind", "s_g",
             "pass", "ms", "Gflop/s", "GB/s", "x limit", "x s_g=16", "at most");
  for (const Row& r : rows) {
    const double most = allowed(r.c.kind, r.c.group);
    const std::string verdict = most > 0 ? fmt::format("{:.2f} {}", most, r.judged() <= most ? "" : "<-") : "";
    const std::string ratio = r.has_ratio() ? fmt::format("{:.2f}", r.per_mac) : "";
    fmt::print("{:<10} {:<9} {:>4} {:<8} {:>8.3f} {:>8.1f} {:>7.1f} {:>8.2f} {:>9} {:>8}\n", r.c.stage.name(),
               kind_names[static_cast<size_t>(r.c.kind)], r.c.group, direction_names[r.c.direction], r.c.ms(),
               2e-6 * r.c.macs / r.c.ms(), 1e-6 * r.c.bytes / r.c.ms(), r.over_limit(), ratio, verdict);
  }
}

int run(const Options& o) {
  Backend& backend = backend_of(Device::cpu);
  Triad triad(backend.threads(), o.footprint_mb);
  const Machine machine = measure_machine(backend.threads(), o.seconds, triad);
  Json json{{"machine", machine.json()}, {"batch", o.batch}, {"footprint_mb", o.footprint_mb}, {"rounds", o.rounds}};
  if (!o.json)
    fmt::print("{}, {} threads: f32 {:.0f} Gflop/s, bf16 {:.0f} Gflop/s, triad {:.1f} GB/s; batch {}, {} MiB a pass\n",
               machine.cpu, machine.threads, machine.f32_gflops(), machine.bf16_gflops(), machine.triad_gb_s, o.batch,
               o.footprint_mb);
  for (const DType dtype : o.dtypes) {
    const std::string name(name_of(dtype));
    if (!backend.supports("conv2d", dtype)) {
      json["not_built"][name] = "the cpu backend has no conv2d for it";
      if (!o.json) fmt::print("\n{}: not built yet\n", name);
      continue;
    }
    const double gflops = dtype == DType::bf16 ? machine.bf16_gflops() : machine.f32_gflops();
    std::vector<Case> cases;
    for (const Stage& stage : stages)
      std::ranges::move(measure(backend, stage, dtype, o, triad), std::back_inserter(cases));
    const std::vector<Row> rows = rows_of(cases, gflops);
    for (const Row& r : rows) json[name].push_back(json_of(r));
    if (!o.json) print_table(rows, name);
  }
  if (o.json) fmt::print("{}\n", json.dump(1));
  return 0;
}

}  // namespace
}  // namespace mgic::bench

int main(int argc, char** argv) {
  mgic::bench::Options o;
  std::map<std::string, std::function<void(const std::string&)>> keys{
      {"--rounds", [&](const std::string& v) { o.rounds = std::stoll(v); }},
      {"--footprint-mb", [&](const std::string& v) { o.footprint_mb = std::stoll(v); }},
      {"--batch", [&](const std::string& v) { o.batch = std::stoll(v); }},
      {"--seconds", [&](const std::string& v) { o.seconds = std::stod(v); }},
      {"--dtype", [&](const std::string& v) {
         if (v != "both") o.dtypes = {mgic::parse_dtype(v)};
       }}};
  try {
    for (int i = 1; i < argc; ++i) {
      const std::string key = argv[i];
      if (key == "--json") {
        o.json = true;
      } else if (keys.contains(key) && i + 1 < argc) {
        keys[key](argv[++i]);
      } else {
        mgic::fail_user(
            "{}: usage: bench_convolutions [--json] [--rounds N] [--footprint-mb M] [--batch N] "
            "[--dtype f32|bf16|both] [--seconds S]",
            key);
      }
    }
    if (o.rounds < 1 || o.footprint_mb < 1 || o.batch < 1) mgic::fail_user("all numbers must be at least 1");
    return mgic::bench::run(o);
  } catch (const mgic::Error& e) {
    fmt::print(stderr, "error: {}\n", e.what());
    return 2;
  } catch (const std::logic_error&) {
    fmt::print(stderr, "error: an option's value is not a number\n");
    return 2;
  }
}
