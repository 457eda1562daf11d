// A contact sheet: augmented samples as the network gets them, in one picture.
//
// Images are shown with their normalisation undone, masks beside them in the classes' colours, clouds of points in a
// slanting view in which near points are bright. Captions are class names, of a mixed sample both with their weights.
#pragma once

#include <cstdint>
#include <vector>

#include "data/loader.h"

namespace mgic {

struct Picture {
  int64_t height = 0, width = 0;
  std::vector<uint8_t> rgb;  // (H, W, 3)
};

// The next `samples` of the loader, which has been started, or as many as there are.
Picture contact_sheet(DataLoader& loader, const Normalization& normalization, int64_t samples);

}  // namespace mgic
