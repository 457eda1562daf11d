#include "data/image_folder.h"

#include <algorithm>

#include "core/log.h"
#include "data/folder.h"
#include "data/image_file.h"

namespace mgic {
namespace fs = std::filesystem;
namespace {

class ImageFolder : public Dataset {
 public:
  ImageFolder(const fs::path& folder, const ImageFolderOptions& options, std::vector<std::string> names,
              std::shared_ptr<const CorruptFiles> corrupt)
      : folder_(folder),
        size_(options.image_size),
        keep_(options.keep),
        names_(std::move(names)),
        corrupt_(std::move(corrupt)) {
    std::vector<std::string> others;
    for (size_t c = 0; c < names_.size(); ++c) {
      const size_t before = files_.size();
      for (const std::string& file : files_in(folder / names_[c])) {
        const std::string ending = ending_of(file);
        if (ending == ".jpg" || ending == ".jpeg" || ending == ".png" || ending == ".bmp")
          files_.push_back({file, static_cast<int64_t>(c)});
        else
          others.push_back(names_[c] + "/" + file);
      }
      if (files_.size() == before) fail_user("{}: has no JPEG, PNG or BMP file", (folder / names_[c]).string());
    }
    if (!others.empty())
      log(LogLevel::warning, "{}: {} files are left out, since their names are no images'; the first is {}",
          folder.string(), others.size(), others[0]);
  }

  int64_t size() const override { return static_cast<int64_t>(files_.size()); }
  SampleShape shape() const override { return {3, size_, size_}; }
  int64_t classes() const override { return static_cast<int64_t>(names_.size()); }
  std::vector<std::string> class_names() const override { return names_; }

  void get(int64_t index, Sample& sample) const override {
    check(index >= 0 && index < size(), "sample {} was asked for, but the data set has {}", index, size());
    const File& file = files_[static_cast<size_t>(index)];
    corrupt_->guard([&] {
      ImageFile image = read_image(folder_ / names_[static_cast<size_t>(file.label)] / file.name, 3);
      sample.pixels = std::move(image.pixels);
      sample.height = image.height;
      sample.width = image.width;
    });
    sample.centre = keep_;
    sample.label = file.label;
  }

 private:
  fs::path folder_;
  int64_t size_;
  double keep_;
  std::vector<std::string> names_;
  std::shared_ptr<const CorruptFiles> corrupt_;
  struct File {
    std::string name;
    int64_t label = 0;
  };
  std::vector<File> files_;
};

std::unique_ptr<DataSource> open(const ImageFolderOptions& options, const DataContext&) {
  const fs::path root = data_folder(options.root, {}), train = root / options.train, test = root / options.test;
  const std::vector<std::string> names = folders_in(train), test_names = folders_in(test);
  if (names.empty()) fail_user("{}: has no folders; each class is a folder of images", train.string());
  if (options.classes && *options.classes != static_cast<int64_t>(names.size()))
    fail_user("{}: has {} folders, but data.classes is {}", train.string(), names.size(), *options.classes);
  for (const std::string& name : test_names)
    if (std::find(names.begin(), names.end(), name) == names.end())
      fail_user("{}: has the class {}, which {} has not", test.string(), name, train.string());
  if (test_names.size() != names.size())
    fail_user("{}: has {} classes, but {} has {}", test.string(), test_names.size(), train.string(), names.size());
  auto source = std::make_unique<DataSource>();
  const auto corrupt = std::make_shared<const CorruptFiles>(options.corrupt.max_corrupt);
  source->train = std::make_unique<ImageFolder>(train, options, names, corrupt);
  source->test = std::make_unique<ImageFolder>(test, options, names, corrupt);
  source->corrupt = corrupt;
  source->normalization = {{0.485, 0.456, 0.406}, {0.229, 0.224, 0.225}};  // ImageNet's
  options.limits.apply(*source);
  return source;
}

}  // namespace

void register_image_folder(DataRegistry& registry) {
  registry.add<ImageFolderOptions>("image_folder", "image files, one folder a class, as ImageNet's train and val",
                                   open);
}

}  // namespace mgic
