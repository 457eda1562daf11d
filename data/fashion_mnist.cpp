#include "data/fashion_mnist.h"

#include <cstdlib>
#include <filesystem>

#include "data/idx.h"

namespace mgic {
namespace fs = std::filesystem;
namespace {

constexpr const char* subfolder = "fashion-mnist";

std::string folder_of(const FashionMnistOptions& options) {
  fs::path folder = options.root;
  if (const char* variable = std::getenv("MGIC_DATA"); folder.empty() && variable != nullptr) folder = variable;
  if (folder.empty()) return fs::path("/usr/share/datasets") / subfolder;
  std::error_code ignored;
  return fs::is_directory(folder / subfolder, ignored) ? folder / subfolder : folder;
}

}  // namespace

std::unique_ptr<DataSource> open_fashion_mnist(const FashionMnistOptions& options) {
  const IdxOptions idx{.root = folder_of(options),
                       .classes = fashion_mnist_classes,
                       .mean = 0.2860,
                       .deviation = 0.3530,
                       .limits = options.limits};
  auto source = open_idx(
      idx, "install the package dataset-fashion-mnist, or set data.root or MGIC_DATA to the files' folder",
      {"T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"});
  if (source->train->shape() != fashion_mnist_shape)
    fail_user("{}: its images are {}, those of Fashion-MNIST {}; read other data as \"type\": \"idx\"", idx.root,
              source->train->shape().str(), fashion_mnist_shape.str());
  return source;
}

void register_fashion_mnist(DataRegistry& registry) {
  registry.add<FashionMnistOptions>(
      "fashion_mnist", "grey images of clothes, 60,000 + 10,000 of 28x28 in ten classes",
      +[](const FashionMnistOptions& options, const DataContext&) { return open_fashion_mnist(options); });
}

}  // namespace mgic
