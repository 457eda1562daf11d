// Images and label images, for segmentation: cityscapes, camvid, and folders of one's own.
//
//   cityscapes            ROOT/leftImg8bit/{train,val}/CITY/X_leftImg8bit.png with ROOT/gtFine/{train,val}/CITY/
//                         X_gtFine_labelIds.png, whose 34 ids become the 19 classes that are evaluated (Cordts et al.,
//                         "The Cityscapes dataset for semantic urban scene understanding", 2016)
//   camvid                ROOT/train/X.png with ROOT/train_labels/X_L.png in the palette of 32 colours, grouped into
//   the
//                         11 classes that are evaluated (Brostow et al., "Semantic object classes in video", 2009)
//   segmentation_folder   ROOT/train/images/X.jpg with ROOT/train/labels/X.png: grey PNG of class ids, or the colours
//   of
//                         PASCAL VOC's palette
//
// Whole images are resized to image_size, for evaluation too; class ids take the nearest pixel. Training yields
// crop_size, to which random_scale_crop cuts; what is not cut is resized so that its middle fills it.
#pragma once

#include <string>
#include <vector>

#include "data/corrupt.h"
#include "data/dataset.h"

namespace mgic {

// The keys that the three have in common.
struct SegmentationOptions {
  std::string root;
  std::vector<int64_t> image_size, crop_size;
  CorruptOptions corrupt;
  LimitOptions limits;

  void fields(Fields& f) {
    f("root", root, "folder of the files; empty: MGIC_DATA");
    f("image_size", image_size, "height and width that whole images are resized to", between(1, 8192));
    f.check(image_size.size() == 2, "image_size", "expects two sizes [height, width], not {}", image_size.size());
    f("crop_size", crop_size, "height and width of the training crops; default: image_size", between(1, 8192));
    f.check(crop_size.empty() || crop_size.size() == 2, "crop_size", "expects two sizes [height, width], not {}",
            crop_size.size());
    corrupt.fields(f);
    limits.fields(f);
  }
  SampleShape image_shape() const { return {3, image_size.at(0), image_size.at(1)}; }
  SampleShape crop_shape() const {
    return crop_size.empty() ? image_shape() : SampleShape{3, crop_size.at(0), crop_size.at(1)};
  }
};

struct CityscapesOptions {
  std::string train = "train", test = "val";
  SegmentationOptions common{.image_size = {1024, 2048}, .crop_size = {}, .corrupt = {}, .limits = {}};

  void fields(Fields& f) {
    f("train", train, "folder in leftImg8bit and gtFine");
    f("test", test, "folder in leftImg8bit and gtFine");
    common.fields(f);
  }
};

// Folders of images and of labels, and which files of them belong to a part.
struct LabelledFolders {
  std::string images, labels, list;

  void fields(Fields& f, const char* images_key, const char* labels_key, const char* list_key) {
    f(images_key, images, "folder in root");
    f(labels_key, labels, "folder in root");
    f(list_key, list, "text file in root, one image a line, that picks this part's images; empty: all");
  }
};

struct CamVidOptions {
  int64_t classes = 11;
  LabelledFolders train{"train", "train_labels", ""}, test{"test", "test_labels", ""};
  SegmentationOptions common{.image_size = {360, 480}, .crop_size = {}, .corrupt = {}, .limits = {}};

  void fields(Fields& f) {
    f("classes", classes, "11 groups of the 32 colours, or all 32, of which Void is never counted", between(11, 32));
    f.check(classes == 11 || classes == 32, "classes", "must be 11 or 32, not {}", classes);
    train.fields(f, "train_images", "train_labels", "train_list");
    test.fields(f, "test_images", "test_labels", "test_list");
    common.fields(f);
  }
};

struct SegmentationFolderOptions {
  int64_t classes = 21;
  std::string labels = "ids", label_suffix;
  LabelledFolders train{"train/images", "train/labels", ""}, test{"val/images", "val/labels", ""};
  SegmentationOptions common{.image_size = {256, 256}, .crop_size = {}, .corrupt = {}, .limits = {}};

  void fields(Fields& f) {
    f("classes", classes, "ids are 0 to classes - 1; 255 is without a class", between(1, 255));
    f("labels", labels, "grey PNG of ids, or colours of PASCAL VOC's palette", one_of({"ids", "voc"}));
    f("label_suffix", label_suffix, "X.jpg has the label image X + this + .png");
    train.fields(f, "train_images", "train_labels", "train_list");
    test.fields(f, "test_images", "test_labels", "test_list");
    common.fields(f);
  }
};

void register_segmentation_folders(DataRegistry& registry);

}  // namespace mgic
