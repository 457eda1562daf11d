// Data sets: what a sample is, what a set of them offers, and the registry of the named ones.
//
// A sample is a raw image (H, W, C), u8 or f32, and its class, or, for segmentation, a class for each pixel (H, W); or
// a cloud of P points (P, C), f32, and its class. Nothing here is shuffled, augmented or normalised: that is the work
// of data/transforms.h and data/loader.h.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "core/fields.h"
#include "core/registry.h"

namespace mgic {

constexpr uint8_t ignored_label = 255;  // of a pixel that belongs to no class: no loss, no metric counts it

struct SampleShape {
  int64_t channels = 1, height = 1, width = 1;
  bool points = false;  // a cloud: `height` is the number of points, `width` is 1, `channels` the values of a point
  int64_t count() const { return channels * height * width; }
  bool operator==(const SampleShape&) const = default;
  std::string str() const;  // "1x28x28", in the order C, H, W; of a cloud "1024 points of 3 values"
};

// Reused from one image to the next, so that a worker allocates once.
struct Sample {
  std::variant<std::vector<uint8_t>, std::vector<float>> pixels;  // (H, W, C)
  int64_t label = 0;
  std::vector<uint8_t> mask;  // (H, W) class of each pixel or ignored_label; empty unless for segmentation

  // Its own size where that is another than the set's; 0: the set's. What augmentation leaves at another size is cut
  // out of the middle and resized, and `centre` is the share of the shorter side that is kept (data/transforms.h, fit).
  int64_t height = 0, width = 0;
  double centre = 1;

  // The pixels as `count` values of T, contents undefined: what get() writes to.
  template <class T>
  std::vector<T>& resize(int64_t count) {
    if (!std::holds_alternative<std::vector<T>>(pixels)) pixels = std::vector<T>();
    auto& values = std::get<std::vector<T>>(pixels);
    values.resize(static_cast<size_t>(count));
    return values;
  }
};

class CorruptFiles;

class Dataset {
 public:
  virtual ~Dataset() = default;

  virtual int64_t size() const = 0;
  virtual SampleShape shape() const = 0;
  virtual int64_t classes() const = 0;
  virtual std::vector<std::string> class_names() const;  // numbers, unless the set knows better
  virtual bool segmentation() const { return false; }    // samples have masks

  // Sample `index` of 0 … size()-1; a label lies in 0 … classes()-1. Called by several threads at once. Throws
  // CorruptSample where the sample's file is damaged and may be skipped (data/corrupt.h).
  virtual void get(int64_t index, Sample& sample) const = 0;
};

// x ← (x - mean_c) / deviation_c for channel c, where x is the raw value, of u8 images divided by 255.
struct Normalization {
  std::vector<double> mean, deviation;  // one a channel
};

// One subject's parts. All have the same channels and classes, and the same shape, save that segmentation may train on
// crops that are smaller than the images it is evaluated on.
struct DataSource {
  std::unique_ptr<Dataset> train, test;
  std::unique_ptr<Dataset> validation;  // null, unless a share of train was split off (data/subset.h)
  Normalization normalization;
  std::shared_ptr<const CorruptFiles> corrupt;  // null where there are no files that could be skipped
};

// What an experiment tells its data.
struct DataContext {
  uint64_t seed = 0;
};

using DataRegistry = Registry<DataSource, DataContext>;
using DataSpec = DataRegistry::SpecType;

// The data sets of docs/data.md; a plugin adds its own.
DataRegistry& data_registry();

// What a data set's options alone say of its samples, before any file is opened; nothing where only the files know.
struct DeclaredData {
  SampleShape shape;
  int64_t classes = 0;
};
std::optional<DeclaredData> declared_data(const DataSpec& spec);

// The keys that every data set takes.
struct LimitOptions {
  std::optional<int64_t> train_limit, test_limit;
  void fields(Fields& f) {
    f("train_limit", train_limit, "use only the first so many training samples", at_least(1));
    f("test_limit", test_limit, "use only the first so many test samples", at_least(1));
  }
  void apply(DataSource& source) const;  // a limit above the size changes nothing
};

}  // namespace mgic
