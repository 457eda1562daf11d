// cifar10, cifar100: colour images (3, 32, 32) in the official binary files (A. Krizhevsky, "Learning multiple layers
// of features from tiny images", 2009), plain or .gz.
//
//   cifar10    data_batch_1.bin … data_batch_5.bin, test_batch.bin; a record is its label and 3072 bytes
//   cifar100   train.bin, test.bin; a record is its coarse label (20 classes), its fine label (100) and 3072 bytes
//
// The 3072 bytes are the red, the green and the blue plane, each row by row. Names of classes come from
// batches.meta.txt, or fine_label_names.txt and coarse_label_names.txt, where these are there.
#pragma once

#include <string>

#include "data/dataset.h"

namespace mgic {

struct Cifar10Options {
  std::string root;
  LimitOptions limits;

  void fields(Fields& f) {
    f("root", root, "folder of the files, or above cifar-10-batches-bin; empty: MGIC_DATA");
    limits.fields(f);
  }
};

struct Cifar100Options {
  std::string root;
  bool coarse = false;
  LimitOptions limits;

  void fields(Fields& f) {
    f("root", root, "folder of the files, or above cifar-100-binary; empty: MGIC_DATA");
    f("coarse", coarse, "the 20 coarse classes in place of the 100 fine ones");
    limits.fields(f);
  }
};

void register_cifar(DataRegistry& registry);

}  // namespace mgic
