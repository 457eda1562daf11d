// Transforms: what happens to an image or to a cloud of points between the data set and the batch.
//
// Crops and flips only note down which source pixel each output pixel shows; one pass at the end reads the raw image
// through that note and normalises it into the batch. A transform that changes pixel values calls Image::settle()
// first and then works on `sample.pixels`. What moves pixels moves the mask of a segmentation with them: class ids are
// never interpolated, and what comes from outside of the image is ignored_label.
//
// In front: random_crop, random_flip. Others: data/image_transforms.h, data/color_transforms.h,
// data/point_transforms.h.
#pragma once

#include <array>
#include <memory>
#include <vector>

#include "core/registry.h"
#include "core/rng.h"
#include "data/dataset.h"
#include "data/resample.h"

namespace mgic {

// Output pixel (y, x) shows source pixel (y + dy, (mirrored ? width - 1 - x : x) + dx), raw zeros outside of it.
struct Placement {
  int64_t dy = 0, dx = 0;
  bool mirrored = false;
  bool operator==(const Placement&) const = default;
};

// (y, x) ↦ (m[0] y + m[1] x + m[2], m[3] y + m[4] x + m[5]).
using Affine = std::array<double, 6>;

struct Image {
  SampleShape shape;  // of the pixels as they are now
  Sample sample;
  Placement placement;

  void shift(int64_t y, int64_t x);                          // then output pixel (0, 0) shows what (y, x) showed before
  void flip() { placement.mirrored = !placement.mirrored; }  // left and right change places
  void settle();                                             // carries the placement out

  // Each settles first. A box is scaled to height x width.
  void cut(const Box& box, int64_t height, int64_t width);
  // A canvas of raw zeros, height x width, on which the image lies with its corner at (top, left); it must fit.
  void pad(int64_t height, int64_t width, int64_t top, int64_t left);
  // Output pixel centre p shows the source at map(p), in pixels from the middle of the image; bilinear, raw zeros
  // outside.
  void warp(const Affine& map);
  // To the size of `target` if it has another: the largest box of its proportions around the middle, of which the share
  // sample.centre is kept a side.
  void fit(const SampleShape& target);

  void write_mask(int64_t* out) const;  // (H, W), read through the placement
  // The bytes that a transform of colours works on, settled; an error where the pixels are no bytes.
  std::vector<uint8_t>& bytes(const char* transform);
};

class Transform {
 public:
  virtual ~Transform() = default;
  virtual void apply(Image& image, Rng& rng) const = 0;  // called by several threads at once
};

struct TransformContext {
  SampleShape shape;  // that the batch is to have
};

using TransformRegistry = Registry<Transform, TransformContext>;
using TransformSpec = TransformRegistry::SpecType;

// The transforms of docs/data.md; a plugin adds its own.
TransformRegistry& transform_registry();

// Throws UserError where a transform of images meets clouds of points, or the other way round.
void require_images(const TransformContext& context, const char* transform);
void require_points(const TransformContext& context, const char* transform);

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
