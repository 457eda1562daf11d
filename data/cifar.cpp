#include "data/cifar.h"

#include <algorithm>
#include <array>
#include <sstream>

#include "core/file.h"
#include "core/log.h"
#include "data/byte_reader.h"
#include "data/folder.h"

namespace mgic {
namespace fs = std::filesystem;
namespace {

constexpr int64_t side = 32, plane = side * side, image_bytes = 3 * plane;

// How a record begins.
struct Format {
  int64_t labels = 1;    // bytes before the image
  int64_t label_at = 0;  // which of them is the class
  int64_t classes = 10;
};

class Cifar : public Dataset {
 public:
  Cifar(const fs::path& folder, const std::vector<std::string>& files, const Format& format,
        std::vector<std::string> names, int64_t official)
      : classes_(format.classes), names_(std::move(names)) {
    for (const std::string& name : files) read(plain_or_gz(folder / name), format);
    if (size() != official)
      log(LogLevel::warning, "{}: the files {} hold {} images, the official ones {}", folder.string(),
          files.size() == 1 ? files[0] : files.front() + " … " + files.back(), size(), official);
  }

  int64_t size() const override { return static_cast<int64_t>(labels_.size()); }
  SampleShape shape() const override { return {3, side, side}; }
  int64_t classes() const override { return classes_; }
  std::vector<std::string> class_names() const override { return names_.empty() ? Dataset::class_names() : names_; }
  void get(int64_t index, Sample& sample) const override {
    check(index >= 0 && index < size(), "sample {} was asked for, but the data set has {}", index, size());
    std::copy_n(pixels_.begin() + index * image_bytes, image_bytes, sample.resize<uint8_t>(image_bytes).begin());
    sample.label = labels_[static_cast<size_t>(index)];
  }

 private:
  void read(const fs::path& path, const Format& format) {
    std::error_code ignored;
    if (!fs::exists(path, ignored))
      fail_user("{}: no such file, neither plain nor .gz; data.root is the folder of CIFAR's binary files",
                path.string());
    ByteReader reader(path);
    std::array<uint8_t, 2 + image_bytes> record;
    const int64_t bytes = format.labels + image_bytes;
    for (int64_t i = 0;; ++i) {
      const int64_t got = reader.read(record.data(), bytes);
      if (got == 0 && i > 0) return;
      if (got < bytes)
        fail_user("{}: is {}: record {} has {} of {} bytes; fetch it again", path.string(),
                  got == 0 ? "empty" : "truncated", i, got, bytes);
      const uint8_t label = record[static_cast<size_t>(format.label_at)];
      if (label >= format.classes)
        fail_user("{}: label {} of record {} is not below the number of classes, {}; is it the right file?",
                  path.string(), label, i, format.classes);
      labels_.push_back(label);
      const uint8_t* planes = record.data() + format.labels;
      for (int64_t p = 0; p < plane; ++p)
        for (int64_t c = 0; c < 3; ++c) pixels_.push_back(planes[c * plane + p]);
    }
  }

  int64_t classes_;
  std::vector<std::string> names_;
  std::vector<uint8_t> pixels_, labels_;  // (N, 32, 32, 3), (N)
};

// One name a line; `otherwise` where the file is not there or has another number of them.
std::vector<std::string> names_from(const fs::path& file, int64_t classes, std::vector<std::string> otherwise) {
  std::error_code ignored;
  if (!fs::exists(file, ignored)) return otherwise;
  std::vector<std::string> names;
  std::istringstream lines(read_file(file));
  for (std::string name; std::getline(lines, name);) {
    if (name.ends_with('\r')) name.pop_back();
    if (!name.empty()) names.push_back(name);
  }
  if (static_cast<int64_t>(names.size()) == classes) return names;
  log(LogLevel::warning, "{}: has {} names for {} classes; it is not used", file.string(), names.size(), classes);
  return otherwise;
}

std::unique_ptr<DataSource> open_cifar10(const Cifar10Options& options, const DataContext&) {
  const fs::path folder = data_folder(options.root, {"cifar-10-batches-bin"});
  const std::vector<std::string> names =
      names_from(folder / "batches.meta.txt", 10,
                 {"airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"});
  const Format format{1, 0, 10};
  auto source = std::make_unique<DataSource>();
  source->train =
      std::make_unique<Cifar>(folder,
                              std::vector<std::string>{"data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin",
                                                       "data_batch_4.bin", "data_batch_5.bin"},
                              format, names, 50000);
  source->test = std::make_unique<Cifar>(folder, std::vector<std::string>{"test_batch.bin"}, format, names, 10000);
  source->normalization = {{0.4914, 0.4822, 0.4465}, {0.2470, 0.2435, 0.2616}};
  options.limits.apply(*source);
  return source;
}

std::unique_ptr<DataSource> open_cifar100(const Cifar100Options& options, const DataContext&) {
  const fs::path folder = data_folder(options.root, {"cifar-100-binary"});
  const Format format{2, options.coarse ? 0 : 1, options.coarse ? 20 : 100};
  const auto names =
      names_from(folder / (options.coarse ? "coarse_label_names.txt" : "fine_label_names.txt"), format.classes, {});
  auto source = std::make_unique<DataSource>();
  source->train = std::make_unique<Cifar>(folder, std::vector<std::string>{"train.bin"}, format, names, 50000);
  source->test = std::make_unique<Cifar>(folder, std::vector<std::string>{"test.bin"}, format, names, 10000);
  source->normalization = {{0.5071, 0.4865, 0.4409}, {0.2673, 0.2564, 0.2762}};
  options.limits.apply(*source);
  return source;
}

}  // namespace

void register_cifar(DataRegistry& registry) {
  registry.add<Cifar10Options>("cifar10", "colour images of 32x32 in ten classes, 50,000 + 10,000", open_cifar10);
  registry.add<Cifar100Options>("cifar100", "colour images of 32x32 in 100 classes, or 20, 50,000 + 10,000",
                                open_cifar100);
}

}  // namespace mgic
