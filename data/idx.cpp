#include "data/idx.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <utility>

#include "data/byte_reader.h"

namespace mgic {
namespace fs = std::filesystem;
namespace {

constexpr uint32_t images_magic = 0x00000803, labels_magic = 0x00000801;
constexpr int64_t max_side = 1 << 14;     // keeps count · height · width far from overflow
constexpr int64_t chunk_bytes = 1 << 22;  // memory follows the bytes that are there, not those that a header promises

// One IDX file: its sizes, then its bytes.
struct IdxFile {
  std::vector<int64_t> sizes;
  std::vector<uint8_t> bytes;
};

IdxFile read_idx(const fs::path& path, uint32_t magic, int rank) {
  const std::string name = path.string();
  ByteReader reader(path);
  const auto number = [&] {
    std::array<uint8_t, 4> b{};
    if (reader.read(b.data(), 4) != 4)
      fail_user("{}: is truncated: it ends within its header of {} bytes; fetch it again", name, 4 * (rank + 1));
    return uint32_t{b[0]} << 24 | uint32_t{b[1]} << 16 | uint32_t{b[2]} << 8 | uint32_t{b[3]};
  };

  if (const uint32_t found = number(); found != magic)
    fail_user("{}: is not an IDX file of {}: its magic number is {:#010x}, not {:#010x}", name,
              magic == images_magic ? "images" : "labels", found, magic);
  IdxFile file;
  int64_t promised = 1;
  for (int i = 0; i < rank; ++i) {
    const int64_t size = number();
    if (size < 1 || (i > 0 && size > max_side))
      fail_user("{}: its header is wrong: size {} of {} is {}", name, i + 1, rank, size);
    file.sizes.push_back(size);
    promised *= size;
  }

  int64_t have = 0;
  while (have < promised) {
    const int64_t part = std::min(promised - have, chunk_bytes);
    file.bytes.resize(static_cast<size_t>(have + part));
    const int64_t got = reader.read(file.bytes.data() + have, part);
    have += got;
    if (got < part)
      fail_user("{}: is truncated: its header promises {} bytes and {} are there; fetch it again", name, promised,
                have);
  }
  file.bytes.shrink_to_fit();
  if (uint8_t extra = 0; reader.read(&extra, 1) == 1)
    fail_user("{}: has bytes after the {} that its header promises; fetch it again", name, promised);
  return file;
}

class IdxDataset : public Dataset {
 public:
  IdxDataset(const fs::path& images_path, const fs::path& labels_path, int64_t classes, std::vector<std::string> names)
      : classes_(classes), names_(std::move(names)) {
    IdxFile images = read_idx(images_path, images_magic, 3);
    IdxFile labels = read_idx(labels_path, labels_magic, 1);
    if (images.sizes[0] != labels.sizes[0])
      fail_user("{}: has {} labels for the {} images of {}", labels_path.string(), labels.sizes[0], images.sizes[0],
                images_path.string());
    for (size_t i = 0; i < labels.bytes.size(); ++i)
      if (labels.bytes[i] >= classes)
        fail_user("{}: label {} of sample {} is not below the number of classes, {}", labels_path.string(),
                  labels.bytes[i], i, classes);
    shape_ = {1, images.sizes[1], images.sizes[2]};
    images_ = std::move(images.bytes);
    labels_ = std::move(labels.bytes);
  }

  int64_t size() const override { return static_cast<int64_t>(labels_.size()); }
  SampleShape shape() const override { return shape_; }
  int64_t classes() const override { return classes_; }
  std::vector<std::string> class_names() const override { return names_.empty() ? Dataset::class_names() : names_; }

  void get(int64_t index, Sample& sample) const override {
    check(index >= 0 && index < size(), "sample {} was asked for, but the data set has {}", index, size());
    const int64_t count = shape_.count();
    std::copy_n(images_.begin() + index * count, count, sample.resize<uint8_t>(count).begin());
    sample.label = labels_[static_cast<size_t>(index)];
  }

 private:
  SampleShape shape_;
  int64_t classes_;
  std::vector<std::string> names_;
  std::vector<uint8_t> images_, labels_;
};

}  // namespace

std::unique_ptr<DataSource> open_idx(const IdxOptions& options, const std::string& remedy,
                                     std::vector<std::string> names) {
  const auto find = [&](const std::string& name) {
    fs::path path = plain_or_gz(fs::path(options.root) / name);
    std::error_code ignored;
    if (!fs::exists(path, ignored)) fail_user("{}: no such file, neither plain nor .gz; {}", path.string(), remedy);
    return path;
  };
  const fs::path train_images = find(options.train_images), train_labels = find(options.train_labels);
  const fs::path test_images = find(options.test_images), test_labels = find(options.test_labels);

  auto source = std::make_unique<DataSource>();
  source->train = std::make_unique<IdxDataset>(train_images, train_labels, options.classes, names);
  source->test = std::make_unique<IdxDataset>(test_images, test_labels, options.classes, names);
  if (source->test->shape() != source->train->shape())
    fail_user("{}: its images are {}, but those of {} are {}", test_images.string(), source->test->shape().str(),
              train_images.string(), source->train->shape().str());
  source->normalization = {{options.mean}, {options.deviation}};
  options.limits.apply(*source);
  return source;
}

void register_idx(DataRegistry& registry) {
  registry.add<IdxOptions>("idx", "grey images in MNIST's file format, plain or .gz",
                           [](const IdxOptions& options, const DataContext&) {
                             return open_idx(options, "set data.root and the names of the four files");
                           });
}

}  // namespace mgic
