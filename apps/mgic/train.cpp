#include "apps/mgic/commands.h"
#include "train/trainer.h"

namespace mgic::cli {

void add_train(CLI::App& app, Run& run) {
  struct Options {
    Common common;
    std::string out;
    bool resume = false;
  };
  auto o = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("train", "trains the network of a configuration");
  o->common.add_to(*command);
  command->add_option("--out", o->out, "the run folder; default: runs/NAME");
  command->add_flag("--resume", o->resume, "goes on where the run in the folder stopped");
  command->callback([o, &run] {
    run = [o] {
      const Experiment experiment = o->common.read({.model = true, .data = true, .optimizer = true});
      const TrainOutcome outcome = train(experiment, {o->out, o->resume});
      const std::string folder = outcome.folder.string();
      if (outcome.was_finished) {
        fmt::print("{}: this run is finished (best accuracy {:.2f} %); nothing was changed\n", folder,
                   100 * outcome.best_accuracy);
        return success;
      }
      if (outcome.interrupted) {
        fmt::print("{}: interrupted; a checkpoint was written, go on with --resume\n", folder);
        return interrupted;
      }
      fmt::print("test accuracy {:.2f} % (best {:.2f} %); everything is in {}\n", 100 * outcome.test_accuracy,
                 100 * outcome.best_accuracy, folder);
      return success;
    };
  });
}

}  // namespace mgic::cli
