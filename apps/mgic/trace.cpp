#include "train/trace.h"

#include "apps/mgic/commands.h"

namespace mgic::cli {

void add_trace(CLI::App& app, Run& run) {
  struct Options {
    Common common;
    std::string weights, batch, out, dtype = "f32";
    int64_t steps = 1;
    bool activations = false;
  };
  auto o = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("trace", "outputs, gradients and steps on one batch, as safetensors");
  o->common.add_to(*command);
  command->add_option("--weights", o->weights, "safetensors with parameters and buffers by name")->required();
  command->add_option("--batch", o->batch, "safetensors with input and labels (of a bare layer: cotangent)")
      ->required();
  command->add_option("--out", o->out, "the safetensors file to write")->required();
  command->add_option("--steps", o->steps, "training steps on the batch")->check(CLI::Range(1, 1000000));
  command->add_option("--dtype", o->dtype, "f32 or f64")->check(CLI::IsMember({"f32", "f64"}));
  command->add_flag("--activations", o->activations, "writes the output of every module too");
  command->callback([o, &run] {
    run = [o] {
      const Experiment experiment = o->common.read({.model = false});
      if (experiment.options.model.make == nullptr && experiment.options.layer.make == nullptr)
        fail_user("{}: model: is missing; a trace needs a model or a layer", experiment.file);
      TraceRequest request{read_safetensors(o->weights),
                           read_safetensors(o->batch),
                           o->steps,
                           parse_dtype(o->dtype),
                           choose_device(experiment.options.device),
                           o->activations,
                           o->weights,
                           o->batch};
      if (!backend_of(request.device).supports("conv2d", request.dtype))
        fail_user("--dtype {}: the {} device does not take it; use --device reference", o->dtype,
                  name_of(request.device));
      write_safetensors(o->out, trace(experiment, request));
      return success;
    };
  });
}

}  // namespace mgic::cli
