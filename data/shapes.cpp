#include "data/shapes.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include "core/rng.h"

namespace mgic {
namespace {

struct Point {
  double x = 0, y = 0;
};
using Polygon = std::vector<Point>;

double length(Point p) { return std::hypot(p.x, p.y); }

// Signed distances, negative inside (after I. Quilez, "2D distance functions"). Figures lie in the unit circle.
double circle(Point p, Point centre, double radius) { return length({p.x - centre.x, p.y - centre.y}) - radius; }

double polygon(Point p, const Polygon& v) {
  double nearest = std::numeric_limits<double>::infinity();
  bool inside = false;
  for (size_t i = 0, j = v.size() - 1; i < v.size(); j = i++) {
    const Point edge{v[j].x - v[i].x, v[j].y - v[i].y}, w{p.x - v[i].x, p.y - v[i].y};
    const double along = std::clamp((w.x * edge.x + w.y * edge.y) / (edge.x * edge.x + edge.y * edge.y), 0.0, 1.0);
    const double dx = w.x - edge.x * along, dy = w.y - edge.y * along;
    nearest = std::min(nearest, dx * dx + dy * dy);
    const bool crosses = (v[i].y > p.y) != (v[j].y > p.y);  // the ray from p to the right, even-odd rule
    if (crosses && w.x < edge.x * w.y / edge.y) inside = !inside;
  }
  return inside ? -std::sqrt(nearest) : std::sqrt(nearest);
}

Polygon star_points() {
  Polygon v;
  for (int i = 0; i < 10; ++i) {
    const double radius = i % 2 == 0 ? 1.0 : 0.42, angle = i * std::numbers::pi / 5;
    v.push_back({radius * std::sin(angle), radius * std::cos(angle)});
  }
  return v;
}

double disk(Point p) { return circle(p, {}, 0.85); }
double square(Point p) { return std::max(std::abs(p.x), std::abs(p.y)) - 0.7; }
double triangle(Point p) {
  static const Polygon v{{0, 1}, {0.866, -0.5}, {-0.866, -0.5}};
  return polygon(p, v);
}
double star(Point p) {
  static const Polygon v = star_points();
  return polygon(p, v);
}
double cross(Point p) {
  const double x = std::abs(p.x), y = std::abs(p.y);
  return std::min(std::max(x - 0.95, y - 0.27), std::max(x - 0.27, y - 0.95));
}
double ring(Point p) { return std::abs(circle(p, {}, 0.72)) - 0.2; }
double crescent(Point p) { return std::max(circle(p, {}, 0.95), -circle(p, {0.5, 0}, 0.8)); }
double arrow(Point p) {
  static const Polygon v{{1, 0}, {0.15, 0.7}, {0.15, 0.22}, {-0.95, 0.22}, {-0.95, -0.22}, {0.15, -0.22}, {0.15, -0.7}};
  return polygon(p, v);
}
double half_disk(Point p) { return std::max(circle(p, {0.4, 0}, 0.9), p.x - 0.4); }
double bar(Point p) { return std::max(std::abs(p.x) - 0.95, std::abs(p.y) - 0.25); }
double frame(Point p) { return std::abs(std::max(std::abs(p.x), std::abs(p.y)) - 0.53) - 0.17; }
double heart(Point p) {
  static const Polygon v{{-0.82, 0.07}, {0, -0.95}, {0.82, 0.07}, {0, 0.45}};
  return std::min({circle(p, {-0.45, 0.35}, 0.46), circle(p, {0.45, 0.35}, 0.46), polygon(p, v)});
}

struct Figure {
  const char* name;
  double (*distance)(Point);
};
constexpr Figure figures[] = {{"circle", disk},         {"square", square}, {"triangle", triangle}, {"star", star},
                              {"cross", cross},         {"ring", ring},     {"crescent", crescent}, {"arrow", arrow},
                              {"half_disk", half_disk}, {"bar", bar},       {"frame", frame},       {"heart", heart}};

// About normal, mean 0 and deviation 1: the sum of four random bytes. Much cheaper than Box-Muller, and noise on
// 8-bit pixels needs no better tails.
double rough_normal(Rng& rng) {
  constexpr double mean = 4 * 127.5, deviation = 147.8;  // √(4 · (256² - 1) / 12)
  const uint32_t b = rng.bits();
  return ((b & 255) + (b >> 8 & 255) + (b >> 16 & 255) + (b >> 24) - mean) / deviation;
}

class ShapesDataset : public Dataset {
 public:
  ShapesDataset(const ShapesOptions& options, uint64_t seed, uint64_t split)
      : shape_{options.channels, options.image_size, options.image_size},
        classes_(options.classes),
        size_(split == 0 ? options.train_size : options.test_size),
        seed_(seed),
        split_(split) {}

  int64_t size() const override { return size_; }
  SampleShape shape() const override { return shape_; }
  int64_t classes() const override { return classes_; }
  std::vector<std::string> class_names() const override {
    return {shape_names().begin(), shape_names().begin() + classes_};
  }

  void get(int64_t index, Sample& sample) const override {
    check(index >= 0 && index < size_, "sample {} was asked for, but the data set has {}", index, size_);
    sample.label = index % classes_;
    draw(figures[sample.label], Rng(seed_, Purpose::data, split_, static_cast<uint64_t>(index)),
         sample.resize<uint8_t>(shape_.count()));
  }

 private:
  void draw(const Figure& figure, Rng rng, std::vector<uint8_t>& pixels) const {
    const int64_t side = shape_.height, channels = shape_.channels;
    const double radius = rng.uniform(0.24, 0.42) * side;  // pixels
    const Point centre{rng.uniform(0.95 * radius, side - 0.95 * radius),
                       rng.uniform(0.95 * radius, side - 0.95 * radius)};
    const double angle = rng.uniform(0, 2 * std::numbers::pi), cosine = std::cos(angle), sine = std::sin(angle);

    // Figure lighter or darker than the background, both tinted, the background sloping in a random direction.
    const double contrast = rng.uniform(0.22, 0.6);
    const double darker = rng.uniform(0.1, 0.9 - contrast);
    const bool light_figure = rng.chance(0.5);
    const Point slope{rng.uniform(-0.15, 0.15) / side, rng.uniform(-0.15, 0.15) / side};
    const double noise = rng.uniform(0.02, 0.1);
    std::vector<double> ground(channels), ink(channels);
    for (int64_t c = 0; c < channels; ++c) {
      ground[c] = darker + (light_figure ? 0 : contrast) + rng.uniform(-0.07, 0.07);
      ink[c] = darker + (light_figure ? contrast : 0) + rng.uniform(-0.07, 0.07);
    }

    uint8_t* out = pixels.data();
    for (int64_t y = 0; y < side; ++y)
      for (int64_t x = 0; x < side; ++x) {
        const double dx = x + 0.5 - centre.x, dy = y + 0.5 - centre.y;
        const Point p{(cosine * dx + sine * dy) / radius, (cosine * dy - sine * dx) / radius};
        // Anti-aliasing: how much of the pixel the figure covers, from the distance to its edge in pixels.
        const bool near = dx * dx + dy * dy < (radius + 1) * (radius + 1);
        const double cover = near ? std::clamp(0.5 - figure.distance(p) * radius, 0.0, 1.0) : 0.0;
        const double light = slope.x * (x - side / 2) + slope.y * (y - side / 2);
        for (int64_t c = 0; c < channels; ++c) {
          const double value = (1 - cover) * (ground[c] + light) + cover * ink[c] + noise * rough_normal(rng);
          *out++ = static_cast<uint8_t>(std::lround(255 * std::clamp(value, 0.0, 1.0)));
        }
      }
  }

  SampleShape shape_;
  int64_t classes_, size_;
  uint64_t seed_, split_;
};

}  // namespace

const std::vector<std::string>& shape_names() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> n;
    for (const Figure& figure : figures) n.push_back(figure.name);
    return n;
  }();
  return names;
}

void register_shapes(DataRegistry& registry) {
  registry.add<ShapesOptions>(
      "shapes", "drawn figures in up to twelve classes; needs no files",
      [](const ShapesOptions& options, const DataContext& context) {
        auto source = std::make_unique<DataSource>();
        source->train = std::make_unique<ShapesDataset>(options, context.seed, 0);
        source->test = std::make_unique<ShapesDataset>(options, context.seed, 1);
        const auto channels = static_cast<size_t>(options.channels);
        source->normalization = {std::vector<double>(channels, 0.5), std::vector<double>(channels, 0.25)};  // measured
        options.limits.apply(*source);
        return source;
      });
}

}  // namespace mgic
