// Transforms: what happens to an image between the data set and the batch.
//
// Crops and flips only note down which source pixel each output pixel shows; one pass at the end reads the raw image
// through that note and normalises it into the batch. A transform that changes pixel values calls Image::settle()
// first and then works on `sample.pixels`.
#pragma once

#include <memory>
#include <vector>

#include "core/registry.h"
#include "core/rng.h"
#include "data/dataset.h"

namespace mgic {

// Output pixel (y, x) shows source pixel (y + dy, (mirrored ? width - 1 - x : x) + dx), raw zeros outside of it.
struct Placement {
  int64_t dy = 0, dx = 0;
  bool mirrored = false;
  bool operator==(const Placement&) const = default;
};

struct Image {
  SampleShape shape;
  Sample sample;
  Placement placement;

  void shift(int64_t y, int64_t x);                          // then output pixel (0, 0) shows what (y, x) showed before
  void flip() { placement.mirrored = !placement.mirrored; }  // left and right change places
  void settle();                                             // carries the placement out
};

class Transform {
 public:
  virtual ~Transform() = default;
  virtual void apply(Image& image, Rng& rng) const = 0;  // called by several threads at once
};

struct TransformContext {
  SampleShape shape;
};

using TransformRegistry = Registry<Transform, TransformContext>;
using TransformSpec = TransformRegistry::SpecType;

// random_crop, random_flip.
TransformRegistry& transform_registry();

// Pads all sides with raw zeros and cuts the original size out at a random place.
struct RandomCropOptions {
  int64_t padding = 4;
  void fields(Fields& f) {
    f("padding", padding, "pixels of zeros on each side, before normalising", between(0, 4096));
  }
};

struct RandomFlipOptions {
  double probability = 0.5;
  void fields(Fields& f) { f("probability", probability, "of exchanging left and right", between(0, 1)); }
};

// The last step of every image: out (H, W, C) ← (x - mean_c) / deviation_c, read through the placement.
class Normalizer {
 public:
  Normalizer(const Normalization& normalization, int64_t channels);
  void write(const Image& image, float* out) const;

 private:
  std::vector<float> mean_, inverse_;
  std::vector<float> table_;  // (256, C): the result for every byte
};

}  // namespace mgic
