// A finished or running training, opened for use: its experiment, its data and its network with the saved weights.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "data/options.h"
#include "train/config.h"

namespace mgic {

struct OpenRun {
  Experiment experiment;
  std::unique_ptr<DataSource> data;
  std::unique_ptr<Module> model;  // in evaluation mode, on its device
  Device device = Device::cpu;
  std::filesystem::path weights;  // where they came from
};

// `where` is a run folder, or a configuration file, which then needs `checkpoint`. `checkpoint` is a safetensors file,
// or a folder of checkpoints/; default: the best one of the run.
OpenRun open_run(const std::filesystem::path& where, const std::filesystem::path& checkpoint,
                 const Overrides& overrides);

}  // namespace mgic
