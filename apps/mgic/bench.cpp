#include "train/bench.h"

#include "apps/mgic/commands.h"
#include "train/reports.h"

namespace mgic::cli {

void add_bench(CLI::App& app, Run& run) {
  struct Options {
    Common common;
    std::string input;
    int64_t batch = 0, runs = 10;
    bool json = false;
  };
  auto o = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("bench", "times of a training step and of inference, layer by layer");
  o->common.add_to(*command);
  command->add_option("--batch", o->batch, "images a step; default: data.batch_size, else 32")
      ->check(CLI::Range(1, 65536));
  command->add_option("--input", o->input, "C,H,W of one image");
  command->add_option("--runs", o->runs, "timed repetitions; medians are shown")->check(CLI::Range(1, 10000));
  command->add_flag("--json", o->json, "prints one JSON object");
  command->callback([o, &run] {
    run = [o] {
      const Experiment experiment = o->common.read({});
      const Shape input = o->input.empty() ? sample_shape(experiment) : parse_input(o->input);
      const int64_t fallback = experiment.options.has_data() ? experiment.options.data.batch_size : 32;
      const BenchResult result = bench(experiment, o->batch > 0 ? o->batch : fallback, input,
                                       choose_device(experiment.options.device), o->runs);
      fmt::print("{}", o->json ? bench_json(result) + "\n" : bench_text(result));
      return success;
    };
  });
}

}  // namespace mgic::cli
