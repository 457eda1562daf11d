#include "apps/mgic/commands.h"
#include "train/evaluate.h"
#include "train/reports.h"
#include "train/run.h"

namespace mgic::cli {

void add_eval(CLI::App& app, Run& run) {
  struct Options {
    Common common;
    std::string checkpoint;
    bool json = false;
  };
  auto o = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("eval", "what saved weights achieve on the test part, class by class");
  o->common.add_to(*command, "RUN_OR_CONFIG", "a run folder, or a configuration together with --checkpoint");
  command->add_option("--checkpoint", o->checkpoint, "a safetensors file or a checkpoint's folder; default: the best");
  command->add_flag("--json", o->json, "prints one JSON object");
  command->callback([o, &run] {
    run = [o] {
      const OpenRun opened = open_run(o->common.config, o->checkpoint, o->common.overrides());
      const ExperimentOptions& options = opened.experiment.options;
      DataLoader loader(*opened.data->test, evaluation_loader(options.data), opened.data->normalization);
      const auto loss = make_loss(options.loss, options.model, opened.data->normalization.deviation);
      const Evaluation result{task_of(options.model),
                              evaluate(*opened.model, *loss, loader, {opened.device, options.train.dtype()},
                                       static_cast<uint64_t>(options.seed), true, options.evaluation),
                              opened.data->test->class_names(), opened.weights.string()};
      fmt::print("{}", o->json ? evaluation_json(result) + "\n" : evaluation_text(result));
      return success;
    };
  });
}

}  // namespace mgic::cli
