// modelnet10, modelnet40: clouds of points (P, 3) of furniture and other things (Wu et al., "3D ShapeNets: a deep
// representation for volumetric shapes", 2015), in one of two forms.
//
//   OFF     ROOT/CLASS/{train,test}/*.off, z upwards: `points` places are drawn from each mesh's surface by area, moved
//           and scaled to the unit sphere. The draw depends on the file's name alone, so that it can be kept: the
//           clouds are written to a safetensors file beside the classes and read from there the next time; only files
//           that are not in it, by name and size, are parsed.
//   HDF5    ROOT/{train,test}_files.txt naming files with `data` (N, 2048, 3), y upwards, already in the unit sphere,
//   and
//           `label` (N, 1): the first `points` are taken, as is usual. ModelNet40 only; needs libhdf5.
//
// Classes are numbered in alphabetical order, as the HDF5 files have them.
#pragma once

#include <string>

#include "data/corrupt.h"
#include "data/dataset.h"

namespace mgic {

struct ModelNetOptions {
  std::string root, format = "auto", cache;
  int64_t points = 1024;
  CorruptOptions corrupt;
  LimitOptions limits;

  void fields(Fields& f) {
    f("root", root, "folder of the classes or of train_files.txt, or the one above it; empty: MGIC_DATA");
    f("format", format, "meshes, HDF5, or what is there", one_of({"auto", "off", "hdf5"}));
    f("cache", cache, "folder for the clouds drawn from the meshes; empty: root");
    f("points", points, "points of a cloud", between(8, 65536));
    corrupt.fields(f);
    limits.fields(f);
  }
};

void register_modelnet(DataRegistry& registry);

}  // namespace mgic
