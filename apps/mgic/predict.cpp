#include <algorithm>
#include <cmath>
#include <numeric>

#include "apps/mgic/commands.h"
#include "data/image_file.h"
#include "train/evaluate.h"
#include "train/reports.h"
#include "train/run.h"

namespace mgic::cli {
namespace {

constexpr int64_t shown = 5;

std::vector<double> softmax(const float* logits, int64_t n) {
  const double largest = *std::max_element(logits, logits + n);
  std::vector<double> p(static_cast<size_t>(n));
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += p[i] = std::exp(logits[i] - largest);
  for (double& v : p) v /= sum;
  return p;
}

}  // namespace

void add_predict(CLI::App& app, Run& run) {
  struct Options {
    Common common;
    std::string checkpoint;
    std::vector<std::string> images;
    bool json = false;
  };
  auto o = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("predict", "the most probable classes of image files");
  o->common.add_to(*command, "RUN", "a run folder, or a configuration together with --checkpoint");
  command->add_option("IMAGE", o->images, "image files; other sizes are resized")->required()->expected(1, -1);
  command->add_option("--checkpoint", o->checkpoint, "a safetensors file or a checkpoint's folder; default: the best");
  command->add_flag("--json", o->json, "prints one JSON object");
  command->callback([o, &run] {
    run = [o] {
      const OpenRun opened = open_run(o->common.config, o->checkpoint, o->common.overrides());
      const SampleShape shape = opened.data->test->shape();
      const int64_t classes = opened.data->test->classes();
      const std::vector<std::string> names = opened.data->test->class_names();
      const Normalizer normalizer(opened.data->normalization, shape.channels);
      NoGrad no_grad;
      std::vector<Prediction> predictions;
      for (const std::string& file : o->images) {
        Tensor input = Tensor::empty({1, shape.height, shape.width, shape.channels}, DType::f32, Device::cpu);
        normalizer.write({shape, read_image(file, shape), {}}, input.data<float>());
        input = in_precision(input, {opened.device, opened.experiment.options.train.dtype()});
        const Tensor logits = (*opened.model)(Variable(input)).value().to(Device::cpu).to(DType::f32);
        const std::vector<double> p = softmax(logits.data<float>(), classes);
        std::vector<int64_t> order(static_cast<size_t>(classes));
        std::iota(order.begin(), order.end(), int64_t{0});
        std::ranges::stable_sort(order, std::greater(), [&](int64_t c) { return p[c]; });
        Prediction prediction{file, {}};
        for (int64_t i = 0; i < std::min(shown, classes); ++i)
          prediction.best.push_back({names[order[i]], p[order[i]]});
        predictions.push_back(std::move(prediction));
      }
      fmt::print("{}", o->json ? predictions_json(predictions) + "\n" : predictions_text(predictions));
      return success;
    };
  });
}

}  // namespace mgic::cli
