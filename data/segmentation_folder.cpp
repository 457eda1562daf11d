#include "data/segmentation_folder.h"

#include <algorithm>
#include <array>
#include <set>
#include <sstream>
#include <unordered_map>

#include "core/file.h"
#include "data/folder.h"
#include "data/image_file.h"
#include "data/palette.h"
#include "data/resample.h"

namespace mgic {
namespace fs = std::filesystem;
namespace {

struct Pair {
  fs::path image, label;
};

// What the values of a label image mean: a class for each id, or for each colour.
class LabelMap {
 public:
  // -1 marks ids that must not occur.
  static LabelMap of_ids(const std::array<int, 256>& classes) {
    LabelMap map;
    map.ids_ = classes;
    return map;
  }
  static LabelMap of_colors(const std::vector<std::pair<Color, uint8_t>>& classes) {
    LabelMap map;
    for (const auto& [color, id] : classes) map.colors_[key(color.data())] = id;
    return map;
  }

  ImageFile read(const fs::path& file) const {
    if (colors_.empty()) {
      ImageFile image = read_label_image(file);
      for (size_t i = 0; i < image.pixels.size(); ++i) {
        const int id = ids_[image.pixels[i]];
        if (id < 0) fail_user("{}: {} is no class's id, at {}", file.string(), image.pixels[i], place(image, i));
        image.pixels[i] = static_cast<uint8_t>(id);
      }
      return image;
    }
    const ImageFile image = read_image(file, 3);
    ImageFile classes{image.height, image.width, 1, {}};
    classes.pixels.reserve(image.pixels.size() / 3);
    uint32_t last = ~uint32_t{0};
    uint8_t id = 0;
    for (size_t i = 0; i < image.pixels.size(); i += 3) {
      const uint8_t* rgb = image.pixels.data() + i;
      if (const uint32_t k = key(rgb); k != last) {  // neighbours mostly have one colour
        const auto it = colors_.find(k);
        if (it == colors_.end())
          fail_user("{}: ({}, {}, {}) is no class's colour, at {}", file.string(), rgb[0], rgb[1], rgb[2],
                    place(image, i / 3));
        last = k;
        id = it->second;
      }
      classes.pixels.push_back(id);
    }
    return classes;
  }

 private:
  static uint32_t key(const uint8_t* rgb) { return uint32_t{rgb[0]} << 16 | uint32_t{rgb[1]} << 8 | rgb[2]; }
  static std::string place(const ImageFile& image, size_t i) {
    return fmt::format("row {}, column {}", static_cast<int64_t>(i) / image.width,
                       static_cast<int64_t>(i) % image.width);
  }

  std::array<int, 256> ids_{};
  std::unordered_map<uint32_t, uint8_t> colors_;
};

struct Classes {
  std::vector<std::string> names;
  LabelMap map;
};

class SegmentationFolder : public Dataset {
 public:
  SegmentationFolder(std::vector<Pair> pairs, std::shared_ptr<const Classes> classes, const SampleShape& whole,
                     const SampleShape& batch, std::shared_ptr<const CorruptFiles> corrupt)
      : pairs_(std::move(pairs)),
        classes_(std::move(classes)),
        whole_(whole),
        batch_(batch),
        corrupt_(std::move(corrupt)) {}

  int64_t size() const override { return static_cast<int64_t>(pairs_.size()); }
  SampleShape shape() const override { return batch_; }
  int64_t classes() const override { return static_cast<int64_t>(classes_->names.size()); }
  std::vector<std::string> class_names() const override { return classes_->names; }
  bool segmentation() const override { return true; }

  void get(int64_t index, Sample& sample) const override {
    check(index >= 0 && index < size(), "sample {} was asked for, but the data set has {}", index, size());
    const Pair& pair = pairs_[static_cast<size_t>(index)];
    corrupt_->guard([&] {
      ImageFile image = read_image(pair.image, 3), label = classes_->map.read(pair.label);
      if (image.height != label.height || image.width != label.width)
        fail_user("{}: has {}x{} pixels, but its image {} has {}x{}", pair.label.string(), label.height, label.width,
                  pair.image.string(), image.height, image.width);
      const int64_t height = whole_.height, width = whole_.width;
      if (image.height != height || image.width != width) {
        const Box all{0, 0, static_cast<double>(image.height), static_cast<double>(image.width)};
        image.pixels = resample(image.pixels, image.height, image.width, 3, all, height, width);
        label.pixels = resample_nearest(label.pixels, label.height, label.width, all, height, width);
      }
      sample.pixels = std::move(image.pixels);
      sample.mask = std::move(label.pixels);
    });
    sample.height = whole_.height;
    sample.width = whole_.width;
    sample.label = 0;
  }

 private:
  std::vector<Pair> pairs_;
  std::shared_ptr<const Classes> classes_;
  SampleShape whole_, batch_;
  std::shared_ptr<const CorruptFiles> corrupt_;
};

std::unique_ptr<DataSource> make_source(std::vector<Pair> train, std::vector<Pair> test, Classes classes,
                                        const SegmentationOptions& options) {
  auto source = std::make_unique<DataSource>();
  const auto shared = std::make_shared<const Classes>(std::move(classes));
  const auto corrupt = std::make_shared<const CorruptFiles>(options.corrupt.max_corrupt);
  const SampleShape whole = options.image_shape();
  source->train = std::make_unique<SegmentationFolder>(std::move(train), shared, whole, options.crop_shape(), corrupt);
  source->test = std::make_unique<SegmentationFolder>(std::move(test), shared, whole, whole, corrupt);
  source->corrupt = corrupt;
  source->normalization = {{0.485, 0.456, 0.406}, {0.229, 0.224, 0.225}};  // ImageNet's
  options.limits.apply(*source);
  return source;
}

// The images of a folder, each with the first label file that is there, or else with the first name that it could have.
std::vector<Pair> find_pairs(const fs::path& root, const LabelledFolders& part,
                             const std::vector<std::string>& suffixes) {
  std::set<std::string> wanted;
  if (!part.list.empty()) {
    std::istringstream lines(read_file(root / part.list));
    for (std::string line, word; std::getline(lines, line);)
      if (std::istringstream(line) >> word) wanted.insert(fs::path(word).stem().string());
  }
  const fs::path images = root / part.images, labels = root / part.labels;
  std::vector<Pair> pairs;
  for (const std::string& name : files_in(images)) {
    const std::string ending = ending_of(name), stem = fs::path(name).stem().string();
    if (ending != ".png" && ending != ".jpg" && ending != ".jpeg" && ending != ".bmp") continue;
    if (!part.list.empty() && wanted.erase(stem) == 0) continue;
    fs::path label = labels / (stem + suffixes[0] + ".png");
    std::error_code ignored;
    for (const std::string& suffix : suffixes)
      if (const fs::path other = labels / (stem + suffix + ".png"); !fs::exists(label, ignored)) label = other;
    pairs.push_back({images / name, label});
  }
  if (!wanted.empty())
    fail_user("{}: names {} images that {} has not; the first is {}", (root / part.list).string(), wanted.size(),
              images.string(), *wanted.begin());
  if (pairs.empty()) fail_user("{}: has no PNG, JPEG or BMP file", images.string());
  return pairs;
}

// ---- Cityscapes ----

// The ids of labelIds that are evaluated, in the order of their classes.
struct CityscapesClass {
  int id;
  const char* name;
};
constexpr CityscapesClass cityscapes_classes[] = {
    {7, "road"},  {8, "sidewalk"},       {11, "building"},     {12, "wall"},       {13, "fence"},
    {17, "pole"}, {19, "traffic light"}, {20, "traffic sign"}, {21, "vegetation"}, {22, "terrain"},
    {23, "sky"},  {24, "person"},        {25, "rider"},        {26, "car"},        {27, "truck"},
    {28, "bus"},  {31, "train"},         {32, "motorcycle"},   {33, "bicycle"}};
constexpr int cityscapes_ids = 34;

std::vector<Pair> cityscapes_pairs(const fs::path& root, const std::string& part) {
  const std::string image_ending = "_leftImg8bit.png", label_ending = "_gtFine_labelIds.png";
  const fs::path images = root / "leftImg8bit" / part, labels = root / "gtFine" / part;
  std::vector<Pair> pairs;
  for (const std::string& city : folders_in(images))
    for (const std::string& name : files_in(images / city))
      if (name.ends_with(image_ending))
        pairs.push_back(
            {images / city / name, labels / city / (name.substr(0, name.size() - image_ending.size()) + label_ending)});
  if (pairs.empty()) fail_user("{}: has no folder with files CITY_…{}", images.string(), image_ending);
  return pairs;
}

std::unique_ptr<DataSource> open_cityscapes(const CityscapesOptions& options, const DataContext&) {
  const fs::path root = data_folder(options.common.root, {"cityscapes"});
  std::array<int, 256> ids;
  ids.fill(-1);
  std::fill_n(ids.begin(), cityscapes_ids, ignored_label);
  ids[255] = ignored_label;  // the licence plate's id, -1, as a byte
  Classes classes;
  for (const CityscapesClass& c : cityscapes_classes) {
    ids[c.id] = static_cast<int>(classes.names.size());
    classes.names.emplace_back(c.name);
  }
  classes.map = LabelMap::of_ids(ids);
  return make_source(cityscapes_pairs(root, options.train), cityscapes_pairs(root, options.test), std::move(classes),
                     options.common);
}

// ---- CamVid ----

constexpr const char* camvid_groups[] = {"Sky",        "Building", "Pole", "Road",       "Pavement", "Tree",
                                         "SignSymbol", "Fence",    "Car",  "Pedestrian", "Bicyclist"};
struct CamVidColor {
  Color color;
  const char* name;
  int group;  // of camvid_groups; -1: ignored
};
// label_colors.txt, and the usual grouping.
constexpr CamVidColor camvid_colors[] = {{{64, 128, 64}, "Animal", 9},
                                         {{192, 0, 128}, "Archway", 1},
                                         {{0, 128, 192}, "Bicyclist", 10},
                                         {{0, 128, 64}, "Bridge", 1},
                                         {{128, 0, 0}, "Building", 1},
                                         {{64, 0, 128}, "Car", 8},
                                         {{64, 0, 192}, "CartLuggagePram", 9},
                                         {{192, 128, 64}, "Child", 9},
                                         {{192, 192, 128}, "Column_Pole", 2},
                                         {{64, 64, 128}, "Fence", 7},
                                         {{128, 0, 192}, "LaneMkgsDriv", 3},
                                         {{192, 0, 64}, "LaneMkgsNonDriv", 3},
                                         {{128, 128, 64}, "Misc_Text", 6},
                                         {{192, 0, 192}, "MotorcycleScooter", 10},
                                         {{128, 64, 64}, "OtherMoving", 8},
                                         {{64, 192, 128}, "ParkingBlock", 4},
                                         {{64, 64, 0}, "Pedestrian", 9},
                                         {{128, 64, 128}, "Road", 3},
                                         {{128, 128, 192}, "RoadShoulder", 4},
                                         {{0, 0, 192}, "Sidewalk", 4},
                                         {{192, 128, 128}, "SignSymbol", 6},
                                         {{128, 128, 128}, "Sky", 0},
                                         {{64, 128, 192}, "SUVPickupTruck", 8},
                                         {{0, 0, 64}, "TrafficCone", 2},
                                         {{0, 64, 64}, "TrafficLight", 6},
                                         {{192, 64, 128}, "Train", 8},
                                         {{128, 128, 0}, "Tree", 5},
                                         {{192, 128, 192}, "Truck_Bus", 8},
                                         {{64, 0, 64}, "Tunnel", 1},
                                         {{192, 192, 0}, "VegetationMisc", 5},
                                         {{0, 0, 0}, "Void", -1},
                                         {{64, 192, 0}, "Wall", 1}};

std::unique_ptr<DataSource> open_camvid(const CamVidOptions& options, const DataContext&) {
  const fs::path root = data_folder(options.common.root, {"CamVid", "camvid"});
  Classes classes;
  std::vector<std::pair<Color, uint8_t>> colors;
  if (options.classes == 11) classes.names.assign(std::begin(camvid_groups), std::end(camvid_groups));
  for (const CamVidColor& c : camvid_colors) {
    const auto own = static_cast<int>(colors.size());
    const int id = c.group < 0 ? ignored_label : options.classes == 11 ? c.group : own;
    colors.push_back({c.color, static_cast<uint8_t>(id)});
    if (options.classes != 11) classes.names.emplace_back(c.name);
  }
  classes.map = LabelMap::of_colors(colors);
  const std::vector<std::string> suffixes{"_L", ""};
  return make_source(find_pairs(root, options.train, suffixes), find_pairs(root, options.test, suffixes),
                     std::move(classes), options.common);
}

// ---- one's own ----

std::unique_ptr<DataSource> open_folder(const SegmentationFolderOptions& options, const DataContext&) {
  const fs::path root = data_folder(options.common.root, {});
  Classes classes;
  std::array<int, 256> ids;
  ids.fill(-1);
  ids[ignored_label] = ignored_label;
  std::vector<std::pair<Color, uint8_t>> colors{{class_color(ignored_label), ignored_label}};
  for (int64_t c = 0; c < options.classes; ++c) {
    ids[c] = static_cast<int>(c);
    colors.push_back({class_color(c), static_cast<uint8_t>(c)});
    classes.names.push_back(std::to_string(c));
  }
  classes.map = options.labels == "ids" ? LabelMap::of_ids(ids) : LabelMap::of_colors(colors);
  const std::vector<std::string> suffixes{options.label_suffix};
  return make_source(find_pairs(root, options.train, suffixes), find_pairs(root, options.test, suffixes),
                     std::move(classes), options.common);
}

}  // namespace

void register_segmentation_folders(DataRegistry& registry) {
  registry.add<CityscapesOptions>("cityscapes", "street scenes of 1024x2048 with 19 classes: for segmentation",
                                  open_cityscapes);
  registry.add<CamVidOptions>("camvid", "video frames of streets with 11 or 32 classes: for segmentation", open_camvid);
  registry.add<SegmentationFolderOptions>("segmentation_folder", "images and label images: for segmentation",
                                          open_folder);
}

}  // namespace mgic
