// mgic data: what a data set holds, how its augmented samples look, and how fast they come beside what a network takes.
#include <nlohmann/json.hpp>

#include "apps/mgic/commands.h"
#include "core/log.h"
#include "data/corrupt.h"
#include "data/image_file.h"
#include "data/preview.h"
#include "data/statistics.h"
#include "train/bench.h"

namespace mgic::cli {
namespace {

struct Options {
  Common common;
  std::string out, part = "train";
  int64_t samples = 32, epoch = 0, keep = 0;
  double seconds = 2;
  bool json = false;
};

// The experiment's data, opened and checked.
struct Opened {
  Experiment experiment;
  std::unique_ptr<DataSource> source;
};

Opened open(const Common& common) {
  Opened o{common.read({.model = false, .data = true}), nullptr};
  const DataOptions& options = o.experiment.options.data;
  o.source = open_data(options, static_cast<uint64_t>(o.experiment.options.seed));
  Faults faults;
  check_data(options, *o.source, faults);
  faults.raise(o.experiment.file);
  return o;
}

// The loader that training or evaluation uses.
DataLoader loader_of(const Opened& o, const std::string& part) {
  const DataOptions& options = o.experiment.options.data;
  const bool train = part == "train";
  return {
      train ? *o.source->train : *o.source->test,
      train ? training_loader(options, static_cast<uint64_t>(o.experiment.options.seed)) : evaluation_loader(options),
      o.source->normalization};
}

int preview(const Options& o) {
  const Opened opened = open(o.common);
  DataLoader loader = loader_of(opened, o.part);
  loader.start(o.epoch);
  const Picture sheet = contact_sheet(loader, opened.source->normalization, o.samples);
  const std::string file = o.out.empty() ? opened.experiment.options.name + "_" + o.part + ".png" : o.out;
  write_png(file, {sheet.height, sheet.width, 3, sheet.rgb});
  fmt::print("{}\n", file);
  return success;
}

Json json_of(const Sample& sample, const SampleShape& shape) {
  Json j;
  j["label"] = sample.label;
  j["height"] = sample.height > 0 ? sample.height : shape.height;
  j["width"] = sample.height > 0 ? sample.width : shape.width;
  std::visit([&](const auto& pixels) { j["pixels"] = pixels; }, sample.pixels);
  if (!sample.mask.empty()) j["mask"] = sample.mask;
  return j;
}

int statistics(const Options& o) {
  const Opened opened = open(o.common);
  const DataSource& source = *opened.source;
  Json all;
  all["type"] = opened.experiment.options.data.source.type;
  all["classes"] = source.train->class_names();
  all["segmentation"] = source.train->segmentation();
  for (const bool train : {true, false}) {
    const Dataset& data = train ? *source.train : *source.test;
    const Statistics s = measure(data, o.keep);
    Json& j = all[train ? "train" : "test"];
    j["samples"] = s.samples;
    j["damaged"] = s.damaged;
    j["shape"] = s.shape.points ? std::vector<int64_t>{s.shape.height, s.shape.channels}
                                : std::vector<int64_t>{s.shape.channels, s.shape.height, s.shape.width};
    j["per_class"] = s.per_class;
    if (data.segmentation()) j["ignored"] = s.ignored;
    j["mean"] = s.mean;
    j["deviation"] = s.deviation;
    j["checksum"] = fmt::format("{:08x}", s.checksum);
    for (const Sample& sample : s.first) j["first"].push_back(json_of(sample, s.shape));
    if (o.json) continue;
    fmt::print("{}: {} samples, {}{}\n  mean {:.4f}, deviation {:.4f}, checksum {:08x}\n", train ? "train" : "test",
               s.samples, s.shape, s.damaged > 0 ? fmt::format(", {} damaged", s.damaged) : "", fmt::join(s.mean, " "),
               fmt::join(s.deviation, " "), s.checksum);
    const char* unit = data.segmentation() ? "pixels" : "samples";
    for (size_t c = 0; c < s.per_class.size(); ++c)
      fmt::print("  {:<24} {:>12} {}\n", all["classes"][c].get<std::string>(), s.per_class[c], unit);
    if (data.segmentation()) fmt::print("  {:<24} {:>12} {}\n", "without a class", s.ignored, unit);
  }
  if (o.json) fmt::print("{}\n", all.dump());
  return success;
}

// A loader that delivers this many times what a network consumes is never waited for.
constexpr double ample = 1.5;
constexpr int64_t bench_runs = 3;

int bench_loader(const Options& o) {
  const Opened opened = open(o.common);
  const ExperimentOptions& experiment = opened.experiment.options;
  const DataOptions& options = experiment.data;
  DataLoader loader = loader_of(opened, o.part);
  const LoaderSpeed speed = measure_speed(loader, o.seconds);
  Json j;
  j["images_per_second"] = speed.samples_per_second();
  j["samples"] = speed.samples;
  j["seconds"] = speed.seconds;
  j["batch_size"] = options.batch_size;
  j["threads"] = options.threads;
  std::string text =
      fmt::format("{:.0f} samples/s: {} in {:.2f} s, batches of {}, {} threads\n", speed.samples_per_second(),
                  speed.samples, speed.seconds, options.batch_size, options.threads);
  if (experiment.model.make != nullptr) {
    const BenchResult network =
        bench(opened.experiment, options.batch_size, sample_shape(experiment.model, opened.source->train->shape()),
              choose_device(experiment.device), bench_runs);
    const double ratio = speed.samples_per_second() / network.images_per_second;
    j["network_images_per_second"] = network.images_per_second;
    j["ratio"] = ratio;
    text += fmt::format("{:.0f} samples/s are what the network trains on: the loader is {:.1f} times as fast{}\n",
                        network.images_per_second, ratio,
                        ratio < ample ? fmt::format(", which is less than {}; more data.threads may help", ample) : "");
  }
  fmt::print("{}", o.json ? j.dump() + "\n" : text);
  return success;
}

}  // namespace

void add_data(CLI::App& app, Run& run) {
  CLI::App* data = app.add_subcommand("data", "looks at a data set: preview, stats, bench");
  data->require_subcommand(1);
  const auto add = [&](const char* name, const char* what, int (*work)(const Options&)) {
    auto o = std::make_shared<Options>();
    CLI::App* command = data->add_subcommand(name, what);
    o->common.add_to(*command);
    command->callback([o, work, &run] { run = [o, work] { return work(*o); }; });
    return std::pair{command, o};
  };
  const auto add_part = [](CLI::App& command, Options& o) {
    command.add_option("--part", o.part, "train, as training gets it, or test, as evaluation gets it")
        ->check(CLI::IsMember({"train", "test"}));
  };
  {
    auto [command, o] = add("preview", "a contact sheet of augmented samples, as PNG", preview);
    command->add_option("--out", o->out, "the file; default: NAME_PART.png");
    command->add_option("--samples", o->samples, "how many")->check(CLI::Range(1, 1000));
    command->add_option("--epoch", o->epoch, "of the augmentation")->check(CLI::Range(0, 1000000));
    add_part(*command, *o);
  }
  {
    auto [command, o] = add("stats", "samples, classes, means and a checksum of the raw data", statistics);
    command->add_option("--first", o->keep, "with --json: also the values of the first samples")
        ->check(CLI::Range(0, 1000));
    command->add_flag("--json", o->json, "prints one JSON object");
  }
  {
    auto [command, o] =
        add("bench", "samples a second that the loader delivers, and that the network takes", bench_loader);
    command->add_option("--seconds", o->seconds, "how long")->check(CLI::Range(0.01, 3600.0));
    command->add_flag("--json", o->json, "prints one JSON object");
    add_part(*command, *o);
  }
}

}  // namespace mgic::cli
