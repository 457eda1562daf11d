// The subcommands of `mgic`. Each adds its options to the command line and leaves its work in `run`.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <string>
#include <vector>

#include "train/config.h"

namespace mgic::cli {

constexpr int success = 0, internal_failure = 1, wrong_input = 2, interrupted = 130;

// What every command that runs a network takes.
struct Common {
  std::string config;
  Overrides set;
  std::string device;

  void add_to(CLI::App& command, const std::string& name = "CONFIG",
              const std::string& what = "the experiment, a JSON file");
  Overrides overrides() const;  // --set and --device
  // The configuration with --set and --device applied.
  Experiment read(const Needs& needs) const;
};

using Run = std::function<int()>;
void add_train(CLI::App& app, Run& run);
void add_summary(CLI::App& app, Run& run);
void add_trace(CLI::App& app, Run& run);
void add_bench(CLI::App& app, Run& run);
void add_eval(CLI::App& app, Run& run);
void add_predict(CLI::App& app, Run& run);
void add_list(CLI::App& app, Run& run);
void add_describe(CLI::App& app, Run& run);
void add_data(CLI::App& app, Run& run);

// "3,32,32" → (1, 32, 32, 3).
Shape parse_input(const std::string& text);

}  // namespace mgic::cli
