#include "data/mesh.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "core/error.h"
#include "core/file.h"

namespace mgic {
namespace {

using Vector = std::array<double, 3>;
constexpr int64_t most = 100'000'000;  // vertices or faces: a header may promise more than memory holds

// Numbers separated by white space; # begins a comment that ends with its line.
class Words {
 public:
  Words(const std::string& text, const std::string& name) : at_(text.data()), end_(at_ + text.size()), name_(name) {}

  void skip_space() {
    while (at_ < end_ && (std::isspace(static_cast<unsigned char>(*at_)) != 0 || *at_ == '#')) {
      if (*at_ == '#')
        while (at_ < end_ && *at_ != '\n') ++at_;
      else
        line_ += *at_++ == '\n';
    }
  }
  bool take(std::string_view word) {
    skip_space();
    if (!std::string_view(at_, end_).starts_with(word)) return false;
    at_ += word.size();
    return true;
  }
  template <class T>
  T number(const char* what) {
    skip_space();
    T value{};
    if (end_ - at_ > 1 && *at_ == '+' && at_[1] != '-') ++at_;  // from_chars takes no plus
    const auto [next, error] = std::from_chars(at_, end_, value);
    if (at_ == end_) fail_user("{}: is truncated: it ends where {} is expected", name_, what);
    if (error != std::errc()) fail_user("{}: line {}: {} is expected", name_, line_, what);
    at_ = next;
    return value;
  }
  void skip_line() {
    while (at_ < end_ && *at_ != '\n') ++at_;
  }
  int64_t line() const { return line_; }

 private:
  const char* at_;
  const char* end_;
  const std::string& name_;
  int64_t line_ = 1;
};

Vector difference(const Vector& a, const Vector& b) { return {a[0] - b[0], a[1] - b[1], a[2] - b[2]}; }

double area(const Mesh& mesh, const std::array<int64_t, 3>& t) {
  const Vector u = difference(mesh.vertices[t[1]], mesh.vertices[t[0]]);
  const Vector v = difference(mesh.vertices[t[2]], mesh.vertices[t[0]]);
  const Vector cross{u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]};
  return 0.5 * std::sqrt(cross[0] * cross[0] + cross[1] * cross[1] + cross[2] * cross[2]);
}

}  // namespace

Mesh parse_off(const std::string& text, const std::string& name) {
  Words words(text, name);
  if (!words.take("OFF")) fail_user("{}: is no OFF file: its first word is not OFF", name);
  const auto vertices = words.number<int64_t>("the number of vertices");
  const auto faces = words.number<int64_t>("the number of faces");
  words.number<int64_t>("the number of edges");
  if (vertices < 3 || faces < 1 || vertices > most || faces > most)
    fail_user("{}: its header is wrong: {} vertices and {} faces", name, vertices, faces);
  Mesh mesh;
  for (int64_t i = 0; i < vertices; ++i) {
    Vector v;
    for (double& x : v) {
      x = words.number<double>("a coordinate");
      if (!std::isfinite(x)) fail_user("{}: line {}: a coordinate is not finite", name, words.line());
    }
    mesh.vertices.push_back(v);
  }
  for (int64_t i = 0; i < faces; ++i) {
    const auto corners = words.number<int64_t>("the number of a face's corners");
    if (corners < 3 || corners > vertices)
      fail_user("{}: line {}: a face of {} corners, but there are {} vertices", name, words.line(), corners, vertices);
    std::array<int64_t, 3> triangle{};
    for (int64_t k = 0; k < corners; ++k) {
      const auto index = words.number<int64_t>("a vertex's number");
      if (index < 0 || index >= vertices)
        fail_user("{}: line {}: vertex {} does not exist; there are {}", name, words.line(), index, vertices);
      triangle[std::min<int64_t>(k, 2)] = index;
      if (k < 2) continue;
      mesh.triangles.push_back(triangle);
      triangle[1] = index;
    }
    words.skip_line();  // a colour may follow
  }
  return mesh;
}

Mesh read_off(const std::filesystem::path& file) { return parse_off(read_file(file), file.string()); }

double area(const Mesh& mesh) {
  double sum = 0;
  for (const auto& t : mesh.triangles) sum += area(mesh, t);
  return sum;
}

std::vector<float> sample_surface(const Mesh& mesh, int64_t count, Rng& rng) {
  std::vector<double> until;  // the areas' running sum
  double sum = 0;
  for (const auto& t : mesh.triangles) until.push_back(sum += area(mesh, t));
  if (!(sum > 0) || !std::isfinite(sum)) fail_user("the mesh has no area");
  std::vector<float> points;
  points.reserve(static_cast<size_t>(3 * count));
  for (int64_t i = 0; i < count; ++i) {
    const auto place = std::upper_bound(until.begin(), until.end() - 1, rng.uniform() * sum) - until.begin();
    const auto& t = mesh.triangles[static_cast<size_t>(place)];
    double u = rng.uniform(), v = rng.uniform();
    if (u + v > 1) u = 1 - u, v = 1 - v;  // the parallelogram's other half
    for (size_t k = 0; k < 3; ++k)
      points.push_back(static_cast<float>((1 - u - v) * mesh.vertices[t[0]][k] + u * mesh.vertices[t[1]][k] +
                                          v * mesh.vertices[t[2]][k]));
  }
  return points;
}

void to_unit_sphere(std::vector<float>& points) {
  double mean[3] = {};
  const auto n = static_cast<double>(points.size() / 3);
  for (size_t i = 0; i < points.size(); ++i) mean[i % 3] += points[i] / n;
  double farthest = 0;
  for (size_t i = 0; i + 2 < points.size(); i += 3) {
    double squares = 0;
    for (size_t k = 0; k < 3; ++k) squares += (points[i + k] - mean[k]) * (points[i + k] - mean[k]);
    farthest = std::max(farthest, squares);
  }
  const double scale = farthest > 0 ? 1 / std::sqrt(farthest) : 0;
  for (size_t i = 0; i < points.size(); ++i) points[i] = static_cast<float>((points[i] - mean[i % 3]) * scale);
}

}  // namespace mgic
