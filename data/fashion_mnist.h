// fashion_mnist: 60,000 + 10,000 grey images (1, 28, 28) of clothes in ten classes (Xiao, Rasul, Vollgraf,
// "Fashion-MNIST: a novel image dataset for benchmarking machine learning algorithms", 2017).
//
// The files are looked for in `root`, else in the folder that the environment variable MGIC_DATA names (each the
// folder itself or its subfolder fashion-mnist), else where Debian's package dataset-fashion-mnist puts them.
#pragma once

#include <string>

#include "data/dataset.h"

namespace mgic {

constexpr SampleShape fashion_mnist_shape{1, 28, 28};
constexpr int64_t fashion_mnist_classes = 10;

struct FashionMnistOptions {
  std::string root;
  LimitOptions limits;

  void fields(Fields& f) {
    f("root", root, "folder of the four files; empty: MGIC_DATA, else Debian's place");
    limits.fields(f);
  }
};

std::unique_ptr<DataSource> open_fashion_mnist(const FashionMnistOptions& options);

void register_fashion_mnist(DataRegistry& registry);

}  // namespace mgic
