#include "models/summary.h"

#include "apps/mgic/commands.h"
#include "train/reports.h"

namespace mgic::cli {

void add_summary(CLI::App& app, Run& run) {
  struct Options {
    Common common;
    std::string input;
    bool json = false;
  };
  auto o = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("summary", "parameters and multiply-accumulates, layer by layer");
  o->common.add_to(*command);
  command->add_option("--input", o->input, "C,H,W of one image; default: the data's, or what the stem is made for");
  command->add_flag("--json", o->json, "prints one JSON object");
  command->callback([o, &run] {
    run = [o] {
      const Experiment experiment = o->common.read({});
      const ModelSpec& model = experiment.options.model;
      Shape input = sample_shape(experiment);
      if (!o->input.empty()) {
        const Shape image = parse_input(o->input);
        input = sample_shape(model, {image[3], image[1], image[2]});
      }
      auto of = [&](const ModelSpec& spec) {
        try {
          return summarize(*spec.make({input[1], input[2]}), input);
        } catch (const Error& e) {
          fail_user("{}: model: with a sample of {}: {}", experiment.file, input, e.what());
        }
      };
      const Summary summary = of(model);
      const Summary dense = of(dense_twin(model));
      fmt::print("{}", o->json ? summary_json(summary, dense) + "\n" : summary_text(summary, dense));
      return success;
    };
  });
}

}  // namespace mgic::cli
