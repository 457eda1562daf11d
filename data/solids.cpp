#include "data/solids.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>

#include "core/rng.h"
#include "data/point_transforms.h"

namespace mgic {
namespace {

constexpr double pi = std::numbers::pi;
constexpr int64_t around = 32;  // edges of what is round

struct Point2 {
  double x = 0, y = 0;
};
using Line = std::vector<Point2>;

// Joins rings of `n` vertices each, one after the other; the last with the first where `closed`.
void join_rings(Mesh& mesh, int64_t rings, int64_t n, bool closed) {
  for (int64_t r = 0; r + (closed ? 0 : 1) < rings; ++r)
    for (int64_t i = 0; i < n; ++i) {
      const int64_t next_ring = (r + 1) % rings, next = (i + 1) % n;
      const int64_t a = r * n + i, b = r * n + next, c = next_ring * n + next, d = next_ring * n + i;
      mesh.triangles.push_back({a, b, c});
      mesh.triangles.push_back({a, c, d});
    }
}

// A line (radius, height) turned about z in `sides` steps: sphere, cone, cylinder; with 4 sides a pyramid.
Mesh revolve(const Line& line, int64_t sides = around, bool closed = false) {
  Mesh mesh;
  for (const Point2& p : line)
    for (int64_t i = 0; i < sides; ++i) {
      const double angle = 2 * pi * static_cast<double>(i) / static_cast<double>(sides);
      mesh.vertices.push_back({p.x * std::cos(angle), p.x * std::sin(angle), p.y});
    }
  join_rings(mesh, static_cast<int64_t>(line.size()), sides, closed);
  return mesh;
}

// A polygon that every point of it sees from the origin, from -height to height, with both caps.
Mesh extrude(const Line& polygon, double height) {
  Mesh mesh;
  const auto n = static_cast<int64_t>(polygon.size());
  for (const double z : {-height, height})
    for (const Point2& p : polygon) mesh.vertices.push_back({p.x, p.y, z});
  join_rings(mesh, 2, n, false);
  for (const int64_t end : {int64_t{0}, int64_t{1}}) {
    const auto middle = static_cast<int64_t>(mesh.vertices.size());
    mesh.vertices.push_back({0, 0, end == 0 ? -height : height});
    for (int64_t i = 0; i < n; ++i) mesh.triangles.push_back({middle, end * n + i, end * n + (i + 1) % n});
  }
  return mesh;
}

Line regular(int64_t corners, double radius, double inner = 1) {
  Line line;
  for (int64_t i = 0; i < corners; ++i) {
    const double angle = 2 * pi * static_cast<double>(i) / static_cast<double>(corners);
    const double r = i % 2 == 0 ? radius : radius * inner;
    line.push_back({r * std::cos(angle), r * std::sin(angle)});
  }
  return line;
}

// An arc of a circle around (0, height), from one angle to another, measured from the equator.
Line arc(double radius, double height, double from, double to, int64_t steps = 12) {
  Line line;
  for (int64_t i = 0; i <= steps; ++i) {
    const double angle = from + (to - from) * static_cast<double>(i) / static_cast<double>(steps);
    line.push_back({std::max(0.0, radius * std::cos(angle)), height + radius * std::sin(angle)});
  }
  return line;
}

Mesh sphere(Rng&) { return revolve(arc(1, 0, -pi / 2, pi / 2)); }
Mesh box(Rng& rng) {
  const double x = rng.uniform(0.4, 1), y = rng.uniform(0.4, 1);
  return extrude({{x, y}, {-x, y}, {-x, -y}, {x, -y}}, rng.uniform(0.4, 1));
}
Mesh cylinder(Rng& rng) {
  const double r = rng.uniform(0.35, 0.8);
  return revolve({{0, -1}, {r, -1}, {r, 1}, {0, 1}});
}
Mesh cone(Rng& rng) {
  const double r = rng.uniform(0.45, 1);
  return revolve({{0, -0.8}, {r, -0.8}, {0, 0.8}});
}
Mesh torus(Rng& rng) {
  Line circle;
  const double thick = rng.uniform(0.15, 0.35);
  for (int64_t i = 0; i < 16; ++i) {
    const double angle = 2 * pi * static_cast<double>(i) / 16;
    circle.push_back({1 - thick + thick * std::cos(angle), thick * std::sin(angle)});
  }
  return revolve(circle, around, true);
}
Mesh pyramid(Rng& rng) {
  const double r = rng.uniform(0.7, 1.1);
  return revolve({{0, -0.6}, {r, -0.6}, {0, 0.8}}, 4);
}
Mesh tetrahedron(Rng&) {
  Mesh mesh;
  mesh.vertices = {{1, 1, 1}, {1, -1, -1}, {-1, 1, -1}, {-1, -1, 1}};
  mesh.triangles = {{0, 1, 2}, {0, 1, 3}, {0, 2, 3}, {1, 2, 3}};
  return mesh;
}
Mesh octahedron(Rng& rng) {
  const double z = rng.uniform(0.8, 1.4);
  return revolve({{0, -z}, {1, 0}, {0, z}}, 4);
}
Mesh capsule(Rng& rng) {
  const double r = rng.uniform(0.3, 0.45), half = 1 - r;
  Line line = arc(r, -half, -pi / 2, 0);
  for (const Point2& p : arc(r, half, 0, pi / 2)) line.push_back(p);
  return revolve(line);
}
Mesh hemisphere(Rng&) {
  Line line = arc(1, -0.4, 0, pi / 2);
  line.insert(line.begin(), {0, -0.4});
  return revolve(line);
}
Mesh prism(Rng& rng) {
  const double radius = rng.uniform(0.6, 0.9), half = rng.uniform(0.6, 1);
  return extrude(regular(3, radius), half);
}
Mesh star(Rng& rng) {
  const double inner = rng.uniform(0.4, 0.5), half = rng.uniform(0.15, 0.35);
  return extrude(regular(10, 1, inner), half);
}
Mesh tube(Rng& rng) {
  const double outer = rng.uniform(0.6, 0.9), inner = outer * rng.uniform(0.55, 0.75), half = rng.uniform(0.5, 0.9);
  return revolve({{inner, -half}, {outer, -half}, {outer, half}, {inner, half}}, around, true);
}
Mesh helix(Rng& rng) {
  // A wire around a coil; its rings lie across the coil's direction, nearly upright.
  constexpr int64_t steps = 96, sides = 8;
  const double turns = rng.uniform(2, 3), wire = rng.uniform(0.08, 0.13), radius = 0.65;
  Mesh mesh;
  for (int64_t i = 0; i <= steps; ++i) {
    const double t = static_cast<double>(i) / steps, angle = 2 * pi * turns * t;
    for (int64_t k = 0; k < sides; ++k) {
      const double a = 2 * pi * static_cast<double>(k) / sides, r = radius + wire * std::cos(a);
      mesh.vertices.push_back({r * std::cos(angle), r * std::sin(angle), 2 * t - 1 + wire * std::sin(a)});
    }
  }
  join_rings(mesh, steps + 1, sides, false);
  return mesh;
}

struct Solid {
  const char* name;
  Mesh (*make)(Rng&);
};
constexpr Solid solids[] = {{"sphere", sphere},
                            {"box", box},
                            {"cylinder", cylinder},
                            {"cone", cone},
                            {"torus", torus},
                            {"pyramid", pyramid},
                            {"helix", helix},
                            {"octahedron", octahedron},
                            {"tetrahedron", tetrahedron},
                            {"star", star},
                            {"tube", tube},
                            {"hemisphere", hemisphere},
                            {"prism", prism},
                            {"capsule", capsule}};

class SolidsDataset : public Dataset {
 public:
  SolidsDataset(const SolidsOptions& options, uint64_t seed, uint64_t split)
      : options_(options), size_(split == 0 ? options.train_size : options.test_size), seed_(seed), split_(split) {}

  int64_t size() const override { return size_; }
  SampleShape shape() const override { return {3, options_.points, 1, true}; }
  int64_t classes() const override { return options_.classes; }
  std::vector<std::string> class_names() const override {
    return {solid_names().begin(), solid_names().begin() + options_.classes};
  }

  void get(int64_t index, Sample& sample) const override {
    check(index >= 0 && index < size_, "sample {} was asked for, but the data set has {}", index, size_);
    Rng rng(seed_, Purpose::data, split_, static_cast<uint64_t>(index));
    sample.label = index % options_.classes;
    Mesh mesh = make_solid(sample.label, rng);
    const double stretch = rng.uniform(0.85, 1.15);
    for (auto& v : mesh.vertices) v[2] *= stretch;

    const double hidden = rng.uniform(0, options_.occlusion);
    const auto drawn = static_cast<int64_t>(std::ceil(static_cast<double>(options_.points) / (1 - hidden)));
    std::vector<float> cloud = sample_surface(mesh, drawn, rng);
    if (options_.pose != "fixed")
      rotate(cloud, options_.pose == "any" ? random_rotation(rng) : rotation_about(2, rng.uniform(0, 2 * pi)));

    // Only the points nearest to the viewer, along a random direction, are seen; they keep their random order.
    const auto r = random_rotation(rng);
    const auto depth = [&](int64_t i) {
      return r[0] * cloud[3 * i] + r[1] * cloud[3 * i + 1] + r[2] * cloud[3 * i + 2];
    };
    std::vector<int64_t> order(static_cast<size_t>(drawn));
    std::iota(order.begin(), order.end(), int64_t{0});
    std::nth_element(order.begin(), order.begin() + (options_.points - 1), order.end(), [&](int64_t a, int64_t b) {
      return std::pair{depth(a), a} < std::pair{depth(b), b};
    });
    std::sort(order.begin(), order.begin() + options_.points);

    const double noise = rng.uniform(0, options_.noise);
    std::vector<float>& out = sample.resize<float>(3 * options_.points);
    for (int64_t i = 0; i < options_.points; ++i) {
      const bool outlier = rng.chance(options_.outliers);
      for (int64_t k = 0; k < 3; ++k) {
        const double place = outlier ? rng.uniform(-1, 1) : cloud[3 * order[i] + k] + noise * rng.normal();
        out[3 * i + k] = static_cast<float>(place);
      }
    }
    to_unit_sphere(out);
  }

 private:
  SolidsOptions options_;
  int64_t size_;
  uint64_t seed_, split_;
};

}  // namespace

const std::vector<std::string>& solid_names() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> n;
    for (const Solid& solid : solids) n.push_back(solid.name);
    return n;
  }();
  return names;
}

Mesh make_solid(int64_t kind, Rng& rng) { return solids[kind].make(rng); }

void register_solids(DataRegistry& registry) {
  registry.add<SolidsOptions>(
      "solids", "clouds of points on parametric solids in up to fourteen classes; needs no files",
      +[](const SolidsOptions& options, const DataContext& context) {
        auto source = std::make_unique<DataSource>();
        source->train = std::make_unique<SolidsDataset>(options, context.seed, 0);
        source->test = std::make_unique<SolidsDataset>(options, context.seed, 1);
        source->normalization = {{0, 0, 0}, {1, 1, 1}};
        options.limits.apply(*source);
        return source;
      });
}

}  // namespace mgic
