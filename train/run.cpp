#include "train/run.h"

#include "core/safetensors.h"
#include "models/torchvision.h"
#include "train/run_folder.h"
#include "train/trainer.h"

namespace mgic {
namespace fs = std::filesystem;

OpenRun open_run(const fs::path& where, const fs::path& checkpoint, const Overrides& overrides) {
  OpenRun run;
  const bool folder = fs::is_directory(where);
  const fs::path config = folder ? where / "config.json" : where;
  if (folder && !fs::exists(config)) fail_user("{}: is no run folder: it holds no config.json", where.string());
  run.experiment = read_experiment(config, overrides, {.model = true, .data = true});
  if (!checkpoint.empty())
    run.weights = fs::is_directory(checkpoint) ? checkpoint / "model.safetensors" : checkpoint;
  else if (folder)
    run.weights = weights_of(where);
  else
    fail_user("{}: is a configuration, which has no weights; name them with --checkpoint", where.string());
  const TensorFile file = read_safetensors(run.weights);

  run.data = open_and_check(run.experiment);
  run.device = choose_device(run.experiment.options.device);
  run.model = build_model(run.experiment, sample_shape(run.experiment.options.model, run.data->train->shape()));
  run.model->to(run.device, DType::f32);
  load_weights(*run.model, run.experiment.options.model, file.tensors, run.weights.string());
  run.model->train(false);
  return run;
}

}  // namespace mgic
