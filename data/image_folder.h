// image_folder: JPEG, PNG or BMP files, one folder a class, as ImageNet's train and val are laid out:
//
//   ROOT/train/CLASS/*.jpg     ROOT/val/CLASS/*.jpg
//
// Classes are numbered by their folders' names, sorted. Images come in their own sizes: training cuts them by
// random_resized_crop or another transform; what is not cut is resized so that its middle, of which the share `keep` of
// the shorter side is kept, fills image_size (224 and 0.875: ImageNet's resize to 256 and centre crop to 224).
#pragma once

#include <optional>
#include <string>

#include "data/corrupt.h"
#include "data/dataset.h"

namespace mgic {

struct ImageFolderOptions {
  std::string root, train = "train", test = "val";
  int64_t image_size = 224;
  double keep = 0.875;
  std::optional<int64_t> classes;
  CorruptOptions corrupt;
  LimitOptions limits;

  void fields(Fields& f) {
    f("root", root, "folder of the two parts; empty: MGIC_DATA");
    f("train", train, "folder in root");
    f("test", test, "folder in root");
    f("image_size", image_size, "pixels a side of what the network gets", between(8, 4096));
    f("keep", keep, "share of the shorter side that evaluation sees", between(0.01, 1));
    f("classes", classes, "number of classes, checked against the folders; makes it known before they are read",
      between(1, max_count));
    corrupt.fields(f);
    limits.fields(f);
  }
};

void register_image_folder(DataRegistry& registry);

}  // namespace mgic
