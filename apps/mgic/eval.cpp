#include <algorithm>

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
  CLI::App* command = app.add_subcommand("eval", "accuracy of saved weights on the test part, class by class");
  o->common.add_to(*command, "RUN_OR_CONFIG", "a run folder, or a configuration together with --checkpoint");
  command->add_option("--checkpoint", o->checkpoint, "a safetensors file or a checkpoint's folder; default: the best");
  command->add_flag("--json", o->json, "prints one JSON object");
  command->callback([o, &run] {
    run = [o] {
      const OpenRun opened = open_run(o->common.config, o->checkpoint, o->common.overrides());
      const int64_t classes = opened.data->test->classes();
      Evaluation result{{},
                        std::vector<std::vector<int64_t>>(classes, std::vector<int64_t>(classes, 0)),
                        opened.data->test->class_names(),
                        opened.weights.string()};
      DataLoader loader(*opened.data->test, evaluation_loader(opened.experiment.options.data),
                        opened.data->normalization);
      const auto count = [&](const Tensor& logits, const Tensor& labels) {
        const Tensor scores = logits.to(Device::cpu).to(DType::f32), truth = labels.to(Device::cpu);
        for (int64_t n = 0; n < truth.count(); ++n) {
          const float* row = scores.data<float>() + n * classes;
          ++result.confusion[truth.data<int64_t>()[n]][std::max_element(row, row + classes) - row];
        }
      };
      result.metrics = evaluate(*opened.model, loader, opened.device, opened.experiment.options.train.dtype(), count);
      fmt::print("{}", o->json ? evaluation_json(result) + "\n" : evaluation_text(result));
      return success;
    };
  });
}

}  // namespace mgic::cli
