// An experiment is one JSON file (DESIGN section 7): its reading, inheritance, overrides and all of its faults at once.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "core/fields.h"
#include "data/options.h"
#include "models/model.h"
#include "train/loss.h"
#include "train/optimizer.h"
#include "train/schedule.h"
#include "train/sliding.h"

namespace mgic {

// One of the three; {"epochs": 1} where none is given.
struct CheckpointEvery {
  std::optional<int64_t> epochs, steps;
  double minutes = 0;

  void fields(Fields& f);
};

struct TrainOptions {
  int64_t epochs = 1;
  std::string precision = "f32";
  CheckpointEvery checkpoint_every;
  double log_seconds = 10;  // between two progress lines where there is no terminal

  void fields(Fields& f);
  DType dtype() const { return parse_dtype(precision); }  // of activations; weights and statistics are f32
};

struct ExperimentOptions {
  std::string name;
  int64_t seed = 1;
  std::string device = "auto";
  ModelSpec model;
  LayerSpec layer;  // a bare layer instead of a model, for traces
  int64_t layer_channels = 0;
  DataOptions data;
  LossSpec loss;  // default: that of the model's task
  OptimizerSpec optimizer;
  ScheduleSpec schedule;
  TrainOptions train;
  EvaluationOptions evaluation;

  void fields(Fields& f);
  bool has_data() const { return data.source.make != nullptr; }
};

// What a command cannot do without.
struct Needs {
  bool model = true, data = false, optimizer = false;
};

struct Experiment {
  std::string file;  // as the user named it: errors begin with it
  ExperimentOptions options;
  std::shared_ptr<const Json> resolved;  // all defaults filled in
};

// "optimizer.lr=0.05", "data.augment[0].padding=1": a path with list indices and a JSON value; what is no JSON is a
// string.
using Overrides = std::vector<std::string>;

// Reads FILE, its "_base_" files and the overrides, in this order; throws UserError with every fault.
Experiment read_experiment(const std::filesystem::path& file, const Overrides& overrides, const Needs& needs);
// The same for JSON text whose origin is called `file`.
Experiment parse_experiment(const std::string& text, const std::string& file, const Overrides& overrides,
                            const Needs& needs);

// Builds the model for the images of the data, of `input` where given, or of its default size.
std::unique_ptr<Module> build_model(const Experiment& experiment, const Shape& input);
// The shape of one sample as the model takes it, (1, H, W, C) or for point clouds (1, H points, C): the data's where
// they declare it, else the model's default.
Shape sample_shape(const Experiment& experiment);
Shape sample_shape(const ModelSpec& model, const SampleShape& sample);

// That model and data fit each other; faults of both, with their paths.
void check_against_data(const Experiment& experiment, const SampleShape& shape, int64_t classes, Faults& faults);

}  // namespace mgic
