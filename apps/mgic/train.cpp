#include "apps/mgic/commands.h"
#include "train/dry_run.h"
#include "train/reports.h"
#include "train/trainer.h"

namespace mgic::cli {

void add_train(CLI::App& app, Run& run) {
  struct Options {
    Common common;
    std::string out;
    bool resume = false, dry_run = false;
  };
  auto o = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("train", "trains the network of a configuration");
  o->common.add_to(*command);
  command->add_option("--out", o->out, "the run folder; default: runs/NAME");
  command->add_flag("--resume", o->resume, "goes on where the run in the folder stopped");
  command->add_flag("--dry-run", o->dry_run, "makes one step on a synthetic batch, without data, and reports its cost");
  command->callback([o, &run] {
    run = [o] {
      const Experiment experiment = o->common.read({.model = true, .data = !o->dry_run, .optimizer = true});
      if (o->dry_run) {
        fmt::print("{}", dry_run_text(dry_run(experiment, choose_device(experiment.options.device))));
        return success;
      }
      const TrainOutcome outcome = train(experiment, {o->out, o->resume});
      const std::string folder = outcome.folder.string();
      if (outcome.was_finished) {
        fmt::print("{}: this run is finished (best {} {}); nothing was changed\n", folder, measure_of(outcome.task),
                   score_text(outcome.task, outcome.best_score));
        return success;
      }
      if (outcome.interrupted) {
        fmt::print("{}: interrupted; a checkpoint was written, go on with --resume\n", folder);
        return interrupted;
      }
      fmt::print("test {} {} (best {}); everything is in {}\n", measure_of(outcome.task),
                 score_text(outcome.task, outcome.test_score), score_text(outcome.task, outcome.best_score), folder);
      return success;
    };
  });
}

}  // namespace mgic::cli
