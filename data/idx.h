// idx: the format of MNIST and its relatives, plain or gzip-compressed.
//
// Numbers are big-endian. Images: magic 0x00000803, count N, height H, width W (u32 each), then N·H·W bytes. Labels:
// magic 0x00000801, count N, then N bytes. (Y. LeCun, C. Cortes, C. J. C. Burges, "The MNIST database".)
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "data/dataset.h"

namespace mgic {

struct IdxOptions {
  std::string root;
  std::string train_images = "train-images-idx3-ubyte", train_labels = "train-labels-idx1-ubyte";
  std::string test_images = "t10k-images-idx3-ubyte", test_labels = "t10k-labels-idx1-ubyte";
  int64_t classes = 10;
  double mean = 0, deviation = 1;
  LimitOptions limits;

  void fields(Fields& f) {
    f("root", root, "folder of the four files");
    f("train_images", train_images, "file in root; plain or .gz is found by itself");
    f("train_labels", train_labels, "file in root");
    f("test_images", test_images, "file in root");
    f("test_labels", test_labels, "file in root");
    f("classes", classes, "labels are 0 to classes - 1", between(1, 256));
    f("mean", mean, "subtracted from value / 255");
    f("deviation", deviation, "then divided by", above(0));
    limits.fields(f);
  }
};

// `remedy` ends the message about a missing file; `names` are the classes' names, or none.
std::unique_ptr<DataSource> open_idx(const IdxOptions& options, const std::string& remedy,
                                     std::vector<std::string> names = {});

void register_idx(DataRegistry& registry);

}  // namespace mgic
