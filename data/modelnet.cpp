#include "data/modelnet.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <map>
#include <mutex>
#include <sstream>
#include <thread>

#include "core/file.h"
#include "core/log.h"
#include "core/safetensors.h"
#include "data/folder.h"
#include "data/hdf5_file.h"
#include "data/mesh.h"

namespace mgic {
namespace fs = std::filesystem;
namespace {

using Names = std::vector<std::string>;

const Names& class_names_of(int64_t classes) {
  static const Names ten{"bathtub", "bed",         "chair", "desk",  "dresser",
                         "monitor", "night_stand", "sofa",  "table", "toilet"};
  static const Names forty{"airplane",   "bathtub",    "bed",         "bench",    "bookshelf", "bottle", "bowl",
                           "car",        "chair",      "cone",        "cup",      "curtain",   "desk",   "door",
                           "dresser",    "flower_pot", "glass_box",   "guitar",   "keyboard",  "lamp",   "laptop",
                           "mantel",     "monitor",    "night_stand", "person",   "piano",     "plant",  "radio",
                           "range_hood", "sink",       "sofa",        "stairs",   "stool",     "table",  "tent",
                           "toilet",     "tv_stand",   "vase",        "wardrobe", "xbox"};
  return classes == 10 ? ten : forty;
}

class Clouds : public Dataset {
 public:
  Clouds(int64_t points, const Names& names) : points_(points), names_(names) {}

  void add(const float* points, int64_t label) {
    values_.insert(values_.end(), points, points + 3 * points_);
    labels_.push_back(label);
  }

  int64_t size() const override { return static_cast<int64_t>(labels_.size()); }
  SampleShape shape() const override { return {3, points_, 1, true}; }
  int64_t classes() const override { return static_cast<int64_t>(names_.size()); }
  std::vector<std::string> class_names() const override { return names_; }
  void get(int64_t index, Sample& sample) const override {
    check(index >= 0 && index < size(), "sample {} was asked for, but the data set has {}", index, size());
    std::copy_n(values_.begin() + index * 3 * points_, 3 * points_, sample.resize<float>(3 * points_).begin());
    sample.label = labels_[static_cast<size_t>(index)];
  }

 private:
  int64_t points_;
  const Names& names_;
  std::vector<float> values_;  // (N, P, 3)
  std::vector<int64_t> labels_;
};

// ---- OFF ----

struct MeshFile {
  fs::path path;
  std::string key;  // "chair/train/chair_0001.off 12345": its place and size, as the cache knows it
  int64_t label = 0;
};

std::vector<MeshFile> mesh_files(const fs::path& root, const std::string& part, const Names& names) {
  std::vector<MeshFile> files;
  for (size_t c = 0; c < names.size(); ++c) {
    std::error_code error;
    const fs::path folder = root / names[c] / part;
    if (!fs::is_directory(folder, error)) continue;
    for (const std::string& name : files_in(folder)) {
      if (ending_of(name) != ".off") continue;
      const auto bytes = fs::file_size(folder / name, error);
      files.push_back({folder / name, fmt::format("{}/{}/{} {}", names[c], part, name, error ? 0 : bytes),
                       static_cast<int64_t>(c)});
    }
  }
  if (files.empty()) fail_user("{}: has no files CLASS/{}/….off", root.string(), part);
  return files;
}

Tensor draw_cloud(const MeshFile& file, int64_t points) {
  const Mesh mesh = read_off(file.path);
  const std::string place = file.key.substr(0, file.key.rfind(' '));
  Rng rng(0, Purpose::data, 0, hash_name(place.data(), place.size()));
  std::vector<float> cloud;
  try {
    cloud = sample_surface(mesh, points, rng);
  } catch (const UserError& e) {
    fail_user("{}: {}", file.path.string(), e.what());
  }
  to_unit_sphere(cloud);
  return Tensor::from(cloud, {points, 3});
}

std::unique_ptr<Dataset> open_meshes(const fs::path& root, const std::string& part, const ModelNetOptions& options,
                                     const Names& names, const CorruptFiles& corrupt) {
  const std::vector<MeshFile> files = mesh_files(root, part, names);
  const fs::path folder = options.cache.empty() ? root : fs::path(options.cache);
  const fs::path cache = folder / fmt::format("mgic_{}_{}x{}.safetensors", part, names.size(), options.points);
  TensorFile known;
  std::error_code ignored;
  if (fs::exists(cache, ignored)) {
    try {
      known = read_safetensors(cache);
    } catch (const UserError& e) {
      log(LogLevel::warning, "{}; the clouds are drawn from the meshes again", e.what());
    }
  }

  // Meshes that the cache has not are parsed by several threads; a damaged one leaves its place empty.
  std::vector<Tensor> clouds(files.size());
  std::vector<size_t> missing;
  for (size_t i = 0; i < files.size(); ++i) {
    const auto it = known.tensors.find(files[i].key);
    if (it != known.tensors.end() && it->second.shape() == Shape{options.points, 3} && it->second.dtype() == DType::f32)
      clouds[i] = it->second;
    else
      missing.push_back(i);
  }
  if (missing.size() > 100)
    log(LogLevel::info, "{}: drawing points from {} meshes, once; then they lie in {}", root.string(), missing.size(),
        cache.string());
  std::atomic<size_t> next{0};
  std::mutex mutex;
  std::exception_ptr failure;
  const auto work = [&] {
    for (size_t k = next++; k < missing.size(); k = next++) {
      const size_t i = missing[k];
      try {
        corrupt.guard([&] { clouds[i] = draw_cloud(files[i], options.points); });
      } catch (const CorruptSample&) {
      } catch (...) {
        std::lock_guard lock(mutex);
        if (!failure) failure = std::current_exception();
        next = missing.size();
      }
    }
  };
  {
    const size_t threads = std::clamp<size_t>(std::thread::hardware_concurrency(), 1, 8);
    std::vector<std::jthread> workers;
    for (size_t t = 1; t < std::min(threads, missing.size()); ++t) workers.emplace_back(work);
    work();
  }
  if (failure) std::rethrow_exception(failure);

  auto data = std::make_unique<Clouds>(options.points, names);
  TensorFile drawn;
  for (size_t i = 0; i < files.size(); ++i) {
    if (!clouds[i].defined()) continue;
    data->add(clouds[i].data<float>(), files[i].label);
    drawn.tensors[files[i].key] = clouds[i];
  }
  if (data->size() == 0) fail_user("{}: every mesh of the part {} is damaged", root.string(), part);
  if (drawn.tensors.size() != known.tensors.size() || missing.size() > files.size() - drawn.tensors.size()) {
    try {
      write_safetensors(cache, drawn);
    } catch (const Error& e) {
      log(LogLevel::warning,
          "{}; the clouds will be drawn again the next time, unless data.cache names a folder that "
          "can be written",
          e.what());
    }
  }
  return data;
}

// ---- HDF5 ----

std::unique_ptr<Dataset> open_hdf5(const fs::path& root, const std::string& part, const ModelNetOptions& options,
                                   const Names& names, const CorruptFiles& corrupt) {
  const fs::path list = root / (part + "_files.txt");
  auto data = std::make_unique<Clouds>(options.points, names);
  std::istringstream lines(read_file(list));
  for (std::string line; std::getline(lines, line);) {
    while (!line.empty() && std::isspace(static_cast<unsigned char>(line.back())) != 0) line.pop_back();
    if (line.empty()) continue;
    const fs::path file = root / fs::path(line).filename();  // the lists name a folder of their authors'
    try {
      corrupt.guard([&] {
        const auto points = read_hdf5_floats(file, "data");
        const auto labels = read_hdf5_integers(file, "label");
        const std::string name = file.string();
        if (points.sizes.size() != 3 || points.sizes[2] != 3)
          fail_user("{}: \"data\" must have the sizes N, P, 3, not {}", name, fmt::join(points.sizes, ", "));
        const int64_t n = points.sizes[0], each = points.sizes[1];
        if (each < options.points) fail_user("{}: its clouds have {} points, fewer than data.points", name, each);
        if (static_cast<int64_t>(labels.values.size()) != n)
          fail_user("{}: has {} labels for {} clouds", name, labels.values.size(), n);
        for (const int64_t label : labels.values)
          if (label < 0 || label >= static_cast<int64_t>(names.size()))
            fail_user("{}: label {} is not below the number of classes, {}", name, label, names.size());
        for (int64_t i = 0; i < n; ++i)
          data->add(points.values.data() + i * each * 3, labels.values[static_cast<size_t>(i)]);
      });
    } catch (const CorruptSample&) {
    }
  }
  if (data->size() == 0) fail_user("{}: names no file that could be read", list.string());
  return data;
}

std::unique_ptr<DataSource> open(const ModelNetOptions& options, int64_t classes) {
  const Names& names = class_names_of(classes);
  const fs::path meshes = data_folder(options.root, {fmt::format("ModelNet{}", classes)});
  const fs::path arrays = data_folder(options.root, {"modelnet40_ply_hdf5_2048"});
  std::error_code ignored;
  const bool hdf5 = options.format == "hdf5" ||
                    (options.format == "auto" && has_hdf5() && fs::exists(arrays / "train_files.txt", ignored));
  if (hdf5 && classes != 40) fail_user("data.format: the HDF5 files are of ModelNet40, and data.type is modelnet10");

  if (hdf5 && !has_hdf5()) read_hdf5_floats(arrays / "train_files.txt", "data");  // says so

  auto source = std::make_unique<DataSource>();
  const auto corrupt = std::make_shared<const CorruptFiles>(options.corrupt.max_corrupt);
  if (hdf5) {
    source->train = open_hdf5(arrays, "train", options, names, *corrupt);
    source->test = open_hdf5(arrays, "test", options, names, *corrupt);
  } else {
    std::vector<std::string> absent;
    for (const std::string& name : names)
      if (!fs::is_directory(meshes / name, ignored)) absent.push_back(name);
    if (absent.size() == names.size()) {
      if (fs::exists(arrays / "train_files.txt", ignored)) read_hdf5_floats(arrays / "train_files.txt", "data");
      fail_user("{}: has none of the folders {}, …; it is to be the folder of ModelNet{}", meshes.string(),
                names.front(), classes);
    }
    for (const std::string& name : folders_in(meshes))
      if (std::find(names.begin(), names.end(), name) == names.end())
        fail_user("{}: is no class of ModelNet{}", (meshes / name).string(), classes);
    if (!absent.empty())
      log(LogLevel::warning, "{}: {} of {} classes have no folder; the first is {}", meshes.string(), absent.size(),
          names.size(), absent[0]);
    source->train = open_meshes(meshes, "train", options, names, *corrupt);
    source->test = open_meshes(meshes, "test", options, names, *corrupt);
  }
  source->corrupt = corrupt;
  source->normalization = {{0, 0, 0}, {1, 1, 1}};
  options.limits.apply(*source);
  return source;
}

}  // namespace

void register_modelnet(DataRegistry& registry) {
  registry.add<ModelNetOptions>(
      "modelnet10", "clouds of points on 4,899 pieces of furniture in ten classes",
      +[](const ModelNetOptions& options, const DataContext&) { return open(options, 10); });
  registry.add<ModelNetOptions>(
      "modelnet40", "clouds of points on 12,311 things in 40 classes",
      +[](const ModelNetOptions& options, const DataContext&) { return open(options, 40); });
}

}  // namespace mgic
